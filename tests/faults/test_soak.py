"""Twenty kills at random moments, of random victims; a submit that ended is submitted again. The artifacts are the same.

WSSS_RAY_SOAK_SEED and WSSS_RAY_SOAK_KILLS change the seed and the number.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.cluster import Cluster
from tests.faults.jobs import Undisturbed, leftovers, write_job
from tests.faults.processes import kill, wait_for
from tests.faults.test_faults import SETTLE, one_error
from wsss_ray.storage.store import RunStore

pytestmark = pytest.mark.faults
GAP = (4.0, 30.0)  # seconds between two kills
STILL = 240  # seconds without a new file after which a run counts as hanging


class Soak:
    """Rounds of the whole job, each in a store of its own; when one is done and compared, the next begins."""

    def __init__(self, cluster: Cluster, undisturbed: Undisturbed, folder: Path) -> None:
        self.cluster, self.undisturbed, self.folder = cluster, undisturbed, folder
        self.job = folder / "job.yaml"
        write_job(self.job, sweep=False)
        self.rounds, self.submits, self.since = 0, 0, 0.0
        self.said: list[str] = []
        self.driver: subprocess.Popen[bytes] | None = None
        self.store = self._new_store()

    def supervise(self) -> bool:
        """Submit if nothing runs. Returns whether a round has just been done, with the same bytes."""
        if self.driver is None:
            self.submits += 1
            self.log = self.folder / f"said-{self.submits}.txt"
            self.cluster.wait_ready()
            self.driver = self.cluster.submit([str(self.job), "--store", self.store.uri], self.log)
        if self.driver.poll() is None:
            return False
        code, self.driver = self.driver.returncode, None
        if code == -9:
            return False
        if code != 0:
            self.said.append(one_error(self.log.read_text()))
            assert code == 2
            return False
        problems = [*self.undisturbed.differences(self.store, sweep=False), *leftovers(self.store)]
        assert not problems, "\n".join(problems)
        self.store = self._new_store()
        return True

    def kill_one(self, rng: random.Random) -> str:
        """kill -9 of something that is there. Returns the kind."""
        cluster = self.cluster
        victims = {
            "train worker": [one.pid for one in cluster.processes("TrainWorker")],
            "data actor": [one.pid for one in cluster.processes("ray::MapWorker")],
            "raylet": [one.pid for one in cluster.processes("/raylet/raylet ") if one.owner != cluster.hosts[0].name],
            "driver": [self.driver.pid] if self.driver is not None and self.driver.poll() is None else [],
            "head": [0],
        }
        there = [kind for kind, pids in victims.items() if pids]
        kind = rng.choices(there, [1 if kind == "head" else 3 for kind in there])[0]  # a head takes all the rest with it
        if kind == "head":
            cluster.kill_node(cluster.hosts[0])
        else:
            kill(rng.choice(victims[kind]))
        return kind

    def newest(self) -> float:
        """When the store was last written to."""
        with suppress(FileNotFoundError):
            return max((path.stat().st_mtime for path in Path(self.store.uri).rglob("*")), default=self.since)
        return time.time()  # a file went while it was looked at

    def _new_store(self) -> RunStore:
        self.rounds, self.since = self.rounds + 1, time.time()
        return RunStore(str(self.folder / f"store-{self.rounds}"))


def test_twenty_kills_change_no_byte(cluster: Cluster, undisturbed: Undisturbed, tmp_path: Path) -> None:
    seed, kills = (int(os.environ.get(f"WSSS_RAY_SOAK_{name}", default)) for name, default in (("SEED", 0), ("KILLS", 20)))
    rng, soak, done = random.Random(seed), Soak(cluster, undisturbed, tmp_path), Counter[str]()
    began = time.time()
    due = began + rng.uniform(*GAP)

    def over() -> bool:
        nonlocal due
        if done.total() < kills and time.time() >= due:
            done[soak.kill_one(rng)] += 1
            due = time.time() + rng.uniform(*GAP)
        finished = soak.supervise()
        assert time.time() - max(soak.newest(), began) < STILL, f"it hangs: {soak.log.read_text()}"
        return finished and done.total() >= kills

    try:
        wait_for(over, seconds=1500, what="the last round", every=0.2)
    finally:
        if soak.driver is not None and soak.driver.poll() is None:
            kill(soak.driver.pid)
        killed = ", ".join(f"{count} x {kind}" for kind, count in sorted(done.items()))
        print(f"\nsoak, seed {seed}: {killed}; {soak.submits} submits, {soak.rounds - 1} rounds, {time.time() - began:.0f} s")
        print("\n".join(f"  {count} x {what}" for what, count in Counter(soak.said).items()))
    with suppress(TimeoutError):
        wait_for(lambda: not cluster.strays(), seconds=SETTLE, what="the end of what the job ran")
    assert cluster.strays() == []
