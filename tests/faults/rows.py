"""The fault table: which fault strikes which stage, what a fault does, and what came of it."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.faults.cluster import Cluster
from tests.faults.processes import Process, kill, wait_for

CUT_SECONDS = 20
WORK = ("ray::MapWorker", "TrainWorker")  # what the title of a process that does a stage's work contains


@dataclass(frozen=True)
class Target:
    """A stage to strike: the run has only `missing` to make and is struck when the first of them has written a file."""

    missing: tuple[str, ...]
    sweep: bool = False


TARGETS = {
    "ingest": Target(("images-weak",)),
    "train": Target(("retrain",)),
    "localize": Target(("maps", "seeds")),
    "seed": Target(("relabel",)),
    "evaluate": Target(("miou",)),
    "sweep": Target(("retrain", "miou"), sweep=True),
    "sweep of labels": Target(("relabel",), sweep=True),
}
EVERYWHERE = ("ingest", "train", "localize", "seed", "evaluate", "sweep")
FAULTS = {  # fault -> the stages it strikes
    "train worker killed": ("train", "sweep"),
    "data actor killed": ("ingest", "localize", "seed", "evaluate", "sweep of labels"),
    "raylet killed": EVERYWHERE,
    "driver killed": EVERYWHERE,
    "head killed": EVERYWHERE,
    "link cut for 20 s": EVERYWHERE,
    "disk full": EVERYWHERE,
    "store read-only": ("train", "localize"),
}
ROWS = [(fault, stage) for fault, stages in FAULTS.items() for stage in stages]


@dataclass(frozen=True)
class Scene:
    """What a fault may strike."""

    cluster: Cluster
    driver: subprocess.Popen[bytes]
    volume: Volume | None = None


class Volume:
    """A file system of its own for a store, in memory. A context manager; what may fill up or turn read-only."""

    def __init__(self, folder: Path, megabytes: int = 96) -> None:
        self.folder, self.megabytes = folder, megabytes
        self.filler = folder / "filler"

    def __enter__(self) -> Volume:
        self.folder.mkdir(parents=True)
        size = f"size={self.megabytes}m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(self.folder)], check=True, capture_output=True)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def fill(self) -> None:
        """Leave no byte free."""
        with self.filler.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    def freeze(self) -> None:
        """Refuse all writing from now on."""

        def frozen() -> bool:  # the mount is busy while a file is open for writing
            return subprocess.run(self._remount("ro"), check=False, capture_output=True).returncode == 0

        wait_for(frozen, seconds=30, what="the mount to be read-only", every=0.001)

    def heal(self) -> None:
        """Undo `fill` and `freeze`."""
        subprocess.run(self._remount("rw"), check=True)
        self.filler.unlink(missing_ok=True)

    def _remount(self, how: str) -> list[str]:
        return ["mount", "-o", f"remount,{how}", str(self.folder)]


def strike(fault: str, scene: Scene) -> Callable[[], object]:
    """Do the fault. Returns what waits for its end."""
    return _STRIKES[fault](scene)


def at_work(scene: Scene, *titles: str) -> Process:
    """A process that does a stage's work, on a worker's host."""
    found = wait_for(lambda: scene.cluster.processes(*(titles or WORK)), seconds=30, what="a process at work", every=0.01)
    return found[0]


def _nothing() -> None:
    """The fault is over as soon as it is done."""


def _kill_worker(scene: Scene) -> Callable[[], object]:
    kill(at_work(scene, "TrainWorker").pid)
    return _nothing


def _kill_actor(scene: Scene) -> Callable[[], object]:
    kill(at_work(scene, "ray::MapWorker").pid)
    return _nothing


def _kill_raylet(scene: Scene) -> Callable[[], object]:
    host = scene.cluster.host_of(at_work(scene))
    for process in scene.cluster.processes("/raylet/raylet "):
        if process.owner == host.name:
            kill(process.pid)
    return _nothing


def _kill_driver(scene: Scene) -> Callable[[], object]:
    kill(scene.driver.pid)
    return _nothing


def _kill_head(scene: Scene) -> Callable[[], object]:
    scene.cluster.kill_node(scene.cluster.hosts[0])
    return _nothing


def _cut_link(scene: Scene) -> Callable[[], object]:
    host, network = scene.cluster.host_of(at_work(scene)), scene.cluster.network
    network.cut(host)
    timer = threading.Timer(CUT_SECONDS, network.mend, [host])
    timer.start()
    return timer.join


def _fill_disk(scene: Scene) -> Callable[[], object]:
    assert scene.volume is not None
    scene.volume.fill()
    return _nothing


def _freeze_store(scene: Scene) -> Callable[[], object]:
    assert scene.volume is not None
    scene.volume.freeze()
    return _nothing


_STRIKES = {
    "train worker killed": _kill_worker,
    "data actor killed": _kill_actor,
    "raylet killed": _kill_raylet,
    "driver killed": _kill_driver,
    "head killed": _kill_head,
    "link cut for 20 s": _cut_link,
    "disk full": _fill_disk,
    "store read-only": _freeze_store,
}


@dataclass
class Outcome:
    """A row of the table as it came out; times in seconds since the fault."""

    fault: str
    stage: str
    result: str = "not reached"
    first: float | None = None
    total: float | None = None
    note: str = ""
    green: bool = False

    def cells(self) -> list[str]:
        times = ["-" if value is None else f"{value:.0f}" for value in (self.first, self.total)]
        return [self.fault, self.stage, self.result if self.green else f"FAILED: {self.result}", *times, self.note]


HEADER = ["fault", "stage", "outcome", "s to the next file", "s to the end", "said"]


def as_markdown(outcomes: Sequence[Outcome]) -> str:
    """The table."""
    lines = [HEADER, ["---"] * len(HEADER), *(outcome.cells() for outcome in outcomes)]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


class FirstFile:
    """Watches stages for the first file that appears after `since`, looked for from a second later on."""

    def __init__(self, folders: Sequence[Path], since: float) -> None:
        self.folders, self.since = folders, since
        self.seconds: float | None = None

    def look(self) -> None:
        """Note the first file if there is one now."""
        if self.seconds is not None:
            return
        for folder in self.folders:
            for path in folder.rglob("*"):
                with suppress(FileNotFoundError):
                    after = path.stat().st_mtime - self.since
                    if after > 1 and path.is_file():
                        self.seconds = after
                        return

    def __float__(self) -> float:
        return time.time() - self.since if self.seconds is None else self.seconds
