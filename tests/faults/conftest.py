"""One cluster for all rows; what a fault broke, its supervisor starts again. The table is printed when all are done."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.cluster import Cluster
from tests.faults.jobs import Undisturbed
from tests.faults.network import Network, why_not
from tests.faults.rows import Outcome, Volume, as_markdown


@pytest.fixture(scope="session", autouse=True)
def heed() -> None:
    """A test run that is told to end takes its cluster with it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed.made(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="session")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Volume]:
    with Volume(tmp_path_factory.mktemp("volume") / "mount") as mounted:
        yield mounted


@pytest.fixture(scope="session")
def cluster(volume: Volume) -> Iterator[Cluster]:
    """Started when the volume is mounted: a namespace sees the mounts of the moment it is entered."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with Network(["head", "left", "right"]) as network, Cluster(network) as started:
        yield started


@pytest.fixture(scope="session")
def outcomes() -> Iterator[list[Outcome]]:
    """Gathers the rows. WSSS_RAY_FAULT_TABLE names a Markdown file for the table."""
    found: list[Outcome] = []
    yield found
    table = as_markdown(found)
    print(f"\n{table}")
    file = os.environ.get("WSSS_RAY_FAULT_TABLE")
    if file:
        Path(file).write_text(table)
