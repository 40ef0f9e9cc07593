"""What comes to light only when stages are made: the same table, on a running Ray."""

from __future__ import annotations

import shutil

import pytest

from tests.contract.test_mistakes import contents, finished_world, said_of, world  # noqa: F401
from tests.mistakes import RUNNING

pytestmark = pytest.mark.ray


@pytest.mark.parametrize("mistake", RUNNING, ids=lambda mistake: mistake.name)
def test_a_mistake_ends_the_run_and_loses_nothing(ray_session, world, capfd, monkeypatch, mistake):  # noqa: F811
    if mistake.change:
        mistake.change(world)
    shutil.copytree(world / "runs", world / "new")
    before = contents(world / "new/stages")
    said = said_of(mistake.typed, capfd, monkeypatch, mistake.code)
    errors = said[said.index("error: ") :]
    for part in mistake.said:
        assert part in errors
    after = contents(world / "new/stages")
    assert {name: after[name] for name in before} == before, "what was done is kept"
    assert not list((world / "new/claims").glob("*.json"))
