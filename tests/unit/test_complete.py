"""Completion in shells: what is offered, in which shells it works, and that a tab imports nothing heavy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.imports import HEAVY, TABLES
from tests.terminal import OnTerminal

ROOT = Path(__file__).parents[2]
STAGES = [
    {"id": "ingest-1", "name": "images-weak", "kind": "ingest"},
    {"id": "train-1", "name": "classifier", "kind": "train"},
    {"id": "seed-1", "name": "seeds", "kind": "seed"},
    {"id": "train-2", "name": "segmenter", "kind": "train"},
    {"id": "evaluate-1", "name": "miou", "kind": "evaluate"},
]
LATER = """
import atexit, json, sys
from wsss_ray.cli import main
atexit.register(lambda: print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules}))))
sys.argv[0] = "wsss-ray"
main()
"""


@pytest.fixture
def home(tmp_path):
    """A home folder with a command, a store, and a job file."""
    command = tmp_path / "bin" / "wsss-ray"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom wsss_ray.cli import main\nmain()\n")
    command.chmod(0o755)
    for store, run in (("runs", "photos"), ("runs", "phone"), ("runs", "stamps"), ("elsewhere", "other")):
        about = tmp_path / store / "runs" / run / "run.json"
        about.parent.mkdir(parents=True)
        about.write_text(json.dumps({"stages": STAGES}))
    (tmp_path / "runs/runs/stamps/run.json").write_text("torn")
    (tmp_path / "own.yaml").touch()
    return tmp_path


def environment(home):
    keep = {name: os.environ[name] for name in ("LANG", "LD_LIBRARY_PATH") if name in os.environ}
    return keep | {
        "HOME": str(home), "PATH": f"{home}/bin:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "TERM": "dumb", "PS1": "> "
    }  # fmt: skip


def offered(home, *words):
    """What completes the last word, by the protocol of bash."""
    there = environment(home) | {"_WSSS_RAY_COMPLETE": "complete_bash", "COMP_CWORD": str(len(words))}
    there["COMP_WORDS"] = "\n".join(("wsss-ray", *words))
    done = subprocess.run([home / "bin/wsss-ray"], env=there, cwd=home, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["stat"], ["status"]),
        (["show", ""], ["phone", "photos", "stamps"]),
        (["status", "pho"], ["phone", "photos"]),
        (["resume", "--store", "elsewhere", ""], ["other"]),
        (["show", "--store", "s3://bucket/runs", ""], []),
        (["show", "--store", "nowhere", ""], []),
        (["predict", "ph", "album"], []),
        (["predict", "photos", "--model", ""], ["classifier", "segmenter"]),
        (["export", "photos", "--stage", "s"], ["seeds"]),
        (["export", "other", "--store", "elsewhere", "--stage", ""], ["seeds", "miou"]),
        (["export", "photos", "--format", "c"], ["coco"]),
        (["export", "stamps", "--stage", ""], []),
        (["export", "--stage", ""], []),
        (["submit", "own.yaml", "--until", ""], ["localize", "seed", "train"]),
        (["submit", "own"], []),
    ],
    ids=" ".join,
)
def test_what_is_offered(home, words, expected):
    assert offered(home, *words) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_tab_imports_nothing_heavy(home, shell):
    there = environment(home) | {"_WSSS_RAY_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "wsss-ray show phot"}
    there |= {"COMP_WORDS": "wsss-ray\nshow\nphot", "COMP_CWORD": "2"}
    done = subprocess.run([sys.executable, "-c", LATER], env=there, cwd=home, capture_output=True, text=True, check=True)
    *answer, modules = done.stdout.splitlines()
    assert "photos" in "".join(answer)
    assert not set(json.loads(modules)) & (HEAVY | TABLES | {"yaml", "rich"})


@pytest.mark.parametrize(("shell", "once"), [("bash", ""), ("zsh", "\t")], ids=["bash", "zsh"])
def test_it_is_installed_and_works_on_a_terminal(home, shell, once, monkeypatch):
    """`once`: zsh reads the file of a command at its first tab, and completes at the second."""
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"there is no {shell} here")
    monkeypatch.chdir(home)
    install = [found, "-c", "wsss-ray --install-completion; true"]  # not exec'ed: it looks for the shell that called it
    done = subprocess.run(install, env=environment(home), capture_output=True, text=True, check=True)
    assert f"{shell} completion installed" in done.stdout, done.stderr
    terminal = OnTerminal([found, "-i"], environment(home))
    terminal.read_until("[>#$%] ")
    kill_line = "\x15"
    for typed, shown in ((f"wsss-ray stat{once}\t", "us "), ("phot\t", "os "), (f"{kill_line}wsss-ray plan ow\t", "own.yaml")):
        terminal.type(typed)
        terminal.read_until(shown, seconds=30)
    terminal.type(f"{kill_line}exit\n")
    assert terminal.end() == 0
