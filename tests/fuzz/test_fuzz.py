"""Readers of bytes end with a value or with one line: valid files, hostile files, and mutations of the valid ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.limits import outcome
from tests.fuzz.mutations import recipes
from tests.fuzz.readers import chosen

SHORT = settings(
    max_examples=40,
    derandomize=True,  # the same inputs everywhere and always
    deadline=None,  # tests/fuzz/limits.py has one
    database=None,
    suppress_health_check=list(HealthCheck),
)
LONG = settings(SHORT, max_examples=2500)

READERS = chosen()

pytestmark = pytest.mark.filterwarnings("ignore")  # of Pillow and torch, about what the files are


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def of_reader(folder: Path, name: str) -> Path:
    """The folder of one reader."""
    own = folder / name.replace(" ", "-")
    own.mkdir(exist_ok=True)
    return own


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield
    assert not Path("executed").exists(), "something was unpickled"


@pytest.mark.parametrize("name", READERS)
def test_valid_files_are_read(name, folder):
    ends = [outcome(READERS[name].read, data, of_reader(folder, name)) for data in READERS[name].valid()]
    assert "value" in ends
    if READERS[name].all_valid:
        assert set(ends) == {"value"}


@pytest.mark.parametrize("name", [name for name, reader in READERS.items() if reader.attacks is not tuple])
def test_hostile_files_end_within_limits(name, folder):
    for data in READERS[name].attacks():
        outcome(READERS[name].read, data, of_reader(folder, name))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, reader in READERS.items() if reader.large is not tuple])
def test_files_as_large_as_they_may_be_end_within_limits(name, folder):
    for data in READERS[name].large():
        outcome(READERS[name].read, data, of_reader(folder, name))


def search(name: str, folder: Path, how: settings) -> None:
    reader, folder = READERS[name], of_reader(folder, name)

    @how
    @given(recipes(len(reader.corpus)))
    def run(recipe):
        outcome(reader.read, reader.input(recipe), folder)

    run()


@pytest.mark.parametrize("name", READERS)
def test_some_mutations_end_in_a_value_or_one_line(name, folder):
    search(name, folder, SHORT)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_mutations_end_in_a_value_or_one_line(name, folder):
    search(name, folder, LONG)
