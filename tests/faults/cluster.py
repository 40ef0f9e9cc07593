"""A Ray cluster of processes of its own, on hosts of their own, with a supervisor that starts again what has ended.

`ray start --block` on every host, as systemd or KubeRay would have it: a head without CPUs, where the driver runs, and workers.
Every process carries a mark in its environment, so that orphans are found and nobody else's Ray is touched.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.faults.network import Host, Network
from tests.faults.processes import MARK, Process, kill_all, marked, wait_for

ROOT = Path(__file__).parents[2]
PORT = 6379
TIMES = {  # how soon Ray notices: a dead node after 5 s, a head that is gone after 10 s
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
}
# What belongs to a node while no job runs; any other process on it is a job's.
OWN = (
    "ray.scripts.scripts start ", "/gcs_server ", "/raylet ", "monitor.py ", "dashboard.py ", "ray.util.client.server",
    "default_worker.py", "setup_worker.py", "dashboard/agent.py", "runtime_env/agent/main.py", "ip netns exec", "setpriv ",
    "ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray-dashboard-",
    "ray::_AutoscalingCoordinatorActor", "ray::_StatsActor", "ray::ActorLocationTracker",  # Ray Data keeps these for the next job
)  # fmt: skip
ALIVE = """
import sys
from ray._raylet import GcsClient
nodes = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=3).values()
print(*(node.node_manager_address for node in nodes if node.state == 0))
"""


class Cluster:
    """A context manager. `hosts[0]` is the head."""

    def __init__(self, network: Network, *, cpus: int = 2) -> None:
        self.network, self.hosts, self.cpus = network, network.hosts, cpus
        self.run = uuid.uuid4().hex[:12]
        self.folder = Path(tempfile.mkdtemp(prefix="wf", dir="/tmp"))  # short: the paths of sockets below it are limited
        self.started: dict[Host, tuple[int, subprocess.Popen[bytes], Path]] = {}
        self._ending = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)

    @property
    def address(self) -> str:
        return f"{self.hosts[0].address}:{PORT}"

    @property
    def environment(self) -> dict[str, str]:
        """For every process: quick to notice, one thread each, no token in anyone's home, and marks that stay readable."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        own = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "SPT_NOENV": "1"}
        return kept | TIMES | own | {"PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"}

    def __enter__(self) -> Cluster:
        try:
            self._supervisor.start()
            self.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._supervisor.join()
        kill_all(self.run)
        for _, process, _ in self.started.values():
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- nodes -----------------------------------------------------------------------------------------------------------

    def wait_ready(self, seconds: float = 300) -> None:
        """Wait until every host has a node that the head knows to be alive, and only one."""
        try:
            wait_for(self._ready, seconds=seconds, what="the cluster to be whole", every=0.5)
        except TimeoutError as error:
            said = [f"{host.name}: {self.said(host)[-500:]}" for host in self.started]
            raise TimeoutError("\n".join([str(error), *said])) from error

    def kill_node(self, host: Host) -> None:
        """kill -9 of all that `ray start` runs on a host. Processes of jobs have to notice by themselves."""
        with suppress(ProcessLookupError):
            os.killpg(self.started[host][1].pid, signal.SIGKILL)

    def said(self, host: Host) -> str:
        """What the node wrote to its terminal."""
        return self.started[host][2].read_text(errors="replace")

    def _ready(self) -> bool:
        if not all(host in self.started and "Ray runtime started" in self.said(host) for host in self.hosts):
            return False
        if any(process.poll() is not None for _, process, _ in self.started.values()):
            return False
        command = [*self.hosts[0].prefix, sys.executable, "-c", ALIVE, self.address]
        with suppress(subprocess.TimeoutExpired):
            found = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=20, check=False)
            return sorted(found.stdout.split()) == sorted(host.address for host in self.hosts)
        return False

    def _supervise(self) -> None:
        """Start every node, and again whenever it has ended."""
        while not self._ending.wait(0.2):
            for host in self.hosts:
                incarnation, process, _ = self.started.get(host, (0, None, None))
                if process is None or process.poll() is not None:
                    self._start(host, incarnation + 1)

    def _start(self, host: Host, incarnation: int) -> None:
        head = host == self.hosts[0]
        where = ["--head", "--port", str(PORT), "--temp-dir", str(self.folder), "--include-dashboard", "true"]
        command = [
            "setpriv", "--pdeathsig", "KILL",  # a test run that is killed leaves nothing behind
            *host.prefix, sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats",
            "--node-ip-address", host.address, *(where if head else ["--address", self.address]),
            "--num-cpus", str(0 if head else self.cpus), "--object-store-memory", str(100 * 1024**2),
            "--include-log-monitor", "false",
        ]  # fmt: skip
        log = self.folder / f"{host.name}.{incarnation}.log"
        # Ray Train's helpers ask the head what has died, and would find other Rays of this machine otherwise.
        environment = self.environment | {"RAY_ADDRESS": self.address, MARK: f"{self.run}.{host.name}.{incarnation}"}
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, env=environment, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self.started[host] = (incarnation, process, log)

    # -- jobs ------------------------------------------------------------------------------------------------------------

    def submit(self, arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """`wsss-ray submit` on the head's host; what it says goes to `log`."""
        code = "import tests.shapes; from wsss_ray.cli import main; main()"
        command = [*self.hosts[0].prefix, sys.executable, "-c", code, "submit", *arguments]
        environment = self.environment | {"RAY_ADDRESS": self.address, MARK: f"{self.run}.driver.0"}
        with log.open("wb") as file:
            return subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )

    def processes(self, *titles: str) -> list[Process]:
        """Processes of jobs on the workers' hosts whose title contains one of `titles`."""
        return [one for one in marked(self.run) if one.owner != "driver" and any(title in one.title for title in titles)]

    def host_of(self, process: Process) -> Host:
        """The host a process runs on."""
        return next(host for host in self.hosts if host.name == process.owner)

    def strays(self) -> list[Process]:
        """Processes of jobs, and of nodes that are no more: when no job runs there should be none."""
        current = {f"{self.run}.{host.name}.{incarnation}" for host, (incarnation, *_) in self.started.items()}
        found = marked(self.run)
        dashboards = {one.pid for one in found if "/dashboard.py " in one.title}  # it runs its modules in processes
        return [
            one
            for one in found
            if one.mark not in current or not (one.parent in dashboards or any(own in one.title for own in OWN))
        ]
