"""The rendered batch script on a Slurm of one node, started here: it runs the job, and goes on where it ended after a requeue.

Slurm runs in a process namespace of its own, because `ray symmetric-run` ends with `ray stop`, which stops every Ray it can see.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

ROOT = Path(__file__).parents[2]
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

TINY = {
    "data.train": "64",
    "data.val": "8",
    "method.classifier.epochs": "1",
    "method.localizer.selections": "4",
    "method.segmenter.epochs": "1",
}

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
KillWait=5
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

START = """\
munged --foreground --force --key-file={folder}/munge.key --socket={folder}/munge.socket --pid-file={folder}/munge.pid \
  --log-file={folder}/munge.log --seed-file={folder}/munge.seed &
until test -S {folder}/munge.socket; do sleep 0.1; done
slurmctld -D &
slurmd -D &
wait
"""


@dataclass(frozen=True)
class Slurm:
    folder: Path
    env: dict[str, str]

    def call(self, *command: str) -> str:
        done = subprocess.run(command, env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        return dict(re.findall(r"(\S+?)=(\S*)", self.call("scontrol", "show", "job", number, "-o")))

    def logs(self) -> str:
        files = (self.folder / "slurmctld.log", self.folder / "slurmd.log", *self.folder.glob("demo-*.log"))
        return "\n".join(f"{file}\n{file.read_text()[-3000:]}" for file in files if file.exists())


def poll(ready: Callable[[], object], *, seconds: float, what: str, logs: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"after {seconds:g} s {what}\n{logs()}"
        time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch", "unshare") if not shutil.which(name, path=PATH)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: apt-get install slurmctld slurmd slurm-client munge")
    if os.geteuid() != 0:
        pytest.skip("needs root, to start slurmd")
    namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs a process namespace: `ray stop` would stop every Ray of this machine")
    for name in ("state", "spool", "home"):
        (tmp_path / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    (tmp_path / "slurm.conf").write_text(CONFIG.format(host=host, folder=tmp_path, ports=free_ports(2)))
    (tmp_path / "munge.key").write_bytes(os.urandom(128))
    (tmp_path / "munge.key").chmod(0o600)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
    env = kept | {
        "PATH": PATH,
        "SLURM_CONF": str(tmp_path / "slurm.conf"),
        "HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(ROOT),
        "HEAD_ADDRESS": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
    with open(tmp_path / "daemons.log", "w") as log:
        start = [*namespace, "bash", "-c", START.format(folder=tmp_path)]
        daemons = subprocess.Popen(start, env=env, stdout=log, stderr=log, start_new_session=True)
    found = Slurm(tmp_path, env)
    try:

        def idle() -> bool:
            done = subprocess.run(["sinfo", "-h", "-o", "%T"], env=env, capture_output=True, text=True, timeout=60, check=False)
            return done.stdout.strip() == "idle"

        poll(idle, seconds=60, what="the node is not idle", logs=lambda: (tmp_path / "daemons.log").read_text()[-3000:])
        yield found
    finally:
        daemons.kill()  # takes the namespace with it: Slurm, Ray and all
        daemons.wait()


def listening(port: int) -> set[str]:
    """The local addresses, in hexadecimal, where something listens on a port."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            address, _, number = line.split()[1].rpartition(":")
            if line.split()[3] == "0A" and int(number, 16) == port:
                found.add(address)
    return found


def test_a_requeued_job_resumes(slurm: Slurm) -> None:
    store = slurm.folder / "store"
    render = [sys.executable, "-m", "wsss_ray", "render", "slurm", str(ROOT / "jobs/demo.yaml"), "--until", "seed"]
    render += ["--store", str(store), "--gpus-per-node", "0", "--python", sys.executable, "--out", "job.sbatch"]
    slurm.call(*render, *(part for name, value in TINY.items() for part in ("--set", f"{name}={value}")))
    number = slurm.call("sbatch", "--parsable", "job.sbatch").strip()

    def state(*wanted: str) -> bool:
        now = slurm.job(number)["JobState"]
        assert now not in {"FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL"} - set(wanted), slurm.logs()
        return now in wanted

    def done(kind: str) -> list[Path]:
        state("RUNNING")
        return sorted(store.glob(f"stages/{kind}-*/record.json"))

    poll(lambda: done("ingest"), seconds=180, what="there are no packed images", logs=slurm.logs)
    token = slurm.folder / f"home/.wsss-ray/token-{number}"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert len(token.read_text()) == 64
    assert listening(20001 + int(number) % 6000 * 2) == {"0100007F"}  # the dashboard: 127.0.0.1, and no other address
    (images,) = done("ingest")
    before = images.read_bytes(), images.stat().st_mtime_ns

    assert not done("seed")
    slurm.call("scancel", "--batch", "--signal=USR1", number)  # what Slurm sends two minutes before the time is up
    poll(lambda: slurm.job(number)["Restarts"] == "1", seconds=60, what="the job was not requeued", logs=slurm.logs)
    poll(lambda: state("COMPLETED"), seconds=300, what="the job has not ended", logs=slurm.logs)

    assert done("seed")
    assert (images.read_bytes(), images.stat().st_mtime_ns) == before
    log = (slurm.folder / f"demo-{number}.log").read_text()
    assert re.search(r"demo: \d+ stages, 0 done", log)
    assert re.search(r"demo: \d+ stages, [1-9]\d* done", log)
    assert not token.exists()
