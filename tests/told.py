"""What a command says that ends in a mistake."""

from __future__ import annotations

from collections.abc import Callable

import pytest


def error_line(capsys: pytest.CaptureFixture[str], command: Callable[[], object]) -> str:
    """The one line in which a command ends, with exit code 2."""
    with pytest.raises(SystemExit) as end:
        command()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said
