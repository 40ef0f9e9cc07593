"""Every fault in every stage, on a cluster of three hosts: the run goes on, or ends with one clear error and is submitted again.

Either way no byte differs from the undisturbed run, and nothing is left behind.
"""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.cluster import Cluster
from tests.faults.jobs import Undisturbed, leftovers, write_job
from tests.faults.processes import kill, wait_for
from tests.faults.rows import ROWS, TARGETS, FirstFile, Outcome, Scene, Volume, as_markdown, strike

pytestmark = pytest.mark.faults
BOUND = 240  # seconds in which a run must have ended, whatever happened
SETTLE = 120  # seconds in which all that a run started must have ended; a raylet behind a cut link takes longest to notice
ON_VOLUME = ("disk full", "store read-only")


@pytest.mark.parametrize(("fault", "stage"), ROWS, ids=[f"{fault}-{stage}".replace(" ", "_") for fault, stage in ROWS])
def test_a_fault_changes_no_byte(
    cluster: Cluster, volume: Volume, undisturbed: Undisturbed, outcomes: list[Outcome], tmp_path: Path, fault: str, stage: str
) -> None:
    outcome = Outcome(fault, stage)
    outcomes.append(outcome)
    began = time.time()
    try:
        play(outcome, cluster, volume, undisturbed, tmp_path)
        outcome.green = True
    except BaseException as error:
        print(f"\n{error}")
        raise
    finally:
        print(f"\n{as_markdown([outcome]).splitlines()[-1]} {time.time() - began:.0f} s in all", flush=True)


def play(outcome: Outcome, cluster: Cluster, volume: Volume, undisturbed: Undisturbed, folder: Path) -> None:
    """Let a run begin a stage, strike, see to it that it ends, and compare."""
    target, on_volume = TARGETS[outcome.stage], outcome.fault in ON_VOLUME
    cluster.wait_ready()
    job, log = folder / "job.yaml", folder / "said.txt"
    write_job(job, sweep=target.sweep)
    missing = undisturbed.stages(target.missing, sweep=target.sweep)
    store = undisturbed.copy_without(missing, (volume.folder if on_volume else folder) / "store")
    folders = [Path(store.stage_path(one)) for one in missing]
    driver = cluster.submit([str(job), "--store", store.uri], log)
    wait_for(lambda: any(map(_begun, folders)) or driver.poll() is not None, seconds=180, what="the stage to begin", every=0.005)
    assert driver.poll() is None, log.read_text()
    over = strike(outcome.fault, Scene(cluster, driver, volume))
    first = FirstFile(folders, time.time())
    assert not all(store.record(one) for one in missing), "the fault came too late"
    try:
        code = ended(driver, first)
    except TimeoutError:
        outcome.result = "hangs"
        kill(driver.pid)
        raise
    finally:
        over()
        if on_volume:
            volume.heal()
    outcome.result = "went on"
    if code != 0:
        outcome.result = "submitted again"
        said = log.read_text()
        if code != -9:
            assert code == 2, f"exit code {code}: {said}"
            outcome.note = one_error(said)
        cluster.wait_ready()
        log = folder / "said-again.txt"
        code = ended(cluster.submit([str(job), "--store", store.uri], log), first)
        assert code == 0, f"exit code {code}: {log.read_text()}"
    outcome.first, outcome.total = float(first), time.time() - first.since
    with suppress(TimeoutError):
        wait_for(lambda: not cluster.strays(), seconds=SETTLE, what="the end of what the job ran")
    strays = cluster.strays()
    for stray in strays:  # the next row shall not find them again
        kill(stray.pid)
    problems = [*undisturbed.differences(store, sweep=target.sweep), *leftovers(store), *map(str, strays)]
    assert not problems, "\n".join(problems)


def ended(driver: subprocess.Popen[bytes], first: FirstFile) -> int:
    """The exit code of a run, which must have one in bounded time."""

    def code() -> bool:
        first.look()
        return driver.poll() is not None

    wait_for(code, seconds=BOUND, what="the run to end", every=0.05)
    return driver.returncode


def one_error(said: str) -> str:
    """The error that a run ended with: one, in words and not as a traceback."""
    assert "Traceback" not in said, said
    errors = [line for line in said.splitlines() if line.startswith(("error: ", "stage ", "trial '"))]
    assert len(errors) == 1, said
    return errors[0].removeprefix("error: ")


def _begun(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))
