"""Render the section on logs: the files in the run's folder `logs`, by the stage that wrote them, the newest first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from wsss_ray.core.graph import Plan
from wsss_ray.reporting.report.page import Section, render
from wsss_ray.reporting.words import stage_words
from wsss_ray.storage.store import FileInfo, RunStore

_HEAD = 16_384  # bytes at the beginning of a file that are searched for the ids of stages
_READ = 400  # files that are read, at most: the newest
_SHOWN = 40  # files of one stage, at most
_STAGE = re.compile(r"(?<![a-z0-9_])[a-z_]+-[0-9a-f]{16}(?![0-9a-f])")
_WORKER = re.compile(r"worker-([0-9a-f]+)-[0-9a-f]+-(\d+)\.(out|err)")
_TRAIN = re.compile(r"ray-train-(app|sys)-(controller|worker)-([0-9a-f]+)\.log")
_PLAIN = re.compile(r"^:(job_id|actor_name|task_name):.*$|^\s*$")  # what Ray writes at the top of every file
_OF_ALL = "ray-data.log"  # names every pipeline
_NAMES = {"out": "output", "err": "messages and errors", "controller": "scheduler", "app": "", "sys": ", internal"}


@dataclass(frozen=True)
class Log:
    """A log file.

    Attributes:
        name: its name in the folder.
        words: what wrote it.
        when: when it was last written, in UTC.
        size: bytes.
    """

    name: str
    words: str
    when: str
    size: int


@dataclass(frozen=True)
class LogGroup:
    """The log files of a stage, the newest first.

    Attributes:
        title: the stage in words.
        stage: name of the stage; empty for files that belong to no stage.
        logs: those that are shown.
        total: number of all files.
    """

    title: str
    stage: str
    logs: Sequence[Log]
    total: int


def logs(store: RunStore, plan: Plan, run: str) -> Section:
    """Link the log files, which are beside the report. Files in which nobody wrote anything are left out.

    Args:
        store: store of the run.
        plan: plan of the run.
        run: name of the run.

    Example:
        >>> logs(store, plan, "pets").title
        'Logs'
    """
    return Section("logs", "Logs", render("logs.html", groups=log_groups(store, plan, run)))


def log_groups(store: RunStore, plan: Plan, run: str) -> list[LogGroup]:
    """Group the log files by stage, in the order of the plan. Those of no stage come last.

    A file belongs to the stages whose ids stand in its name or its first 16 KiB, where workers write them. Files of the same
    process belong to the same stages.

    Example:
        >>> [(group.title, group.logs[0].words) for group in log_groups(store, plan, "pets")]
        [('Classifier', 'worker 4711: messages and errors')]
    """
    folder = store.run_path(run, "logs")
    files = [file for file in store.files(folder) if "\n" not in file.name]
    files.sort(key=lambda file: (-file.written, file.name))
    named = {stage.id: stage for stage in plan}
    written: list[FileInfo] = []
    stages: dict[str, set[str]] = {}  # by process, or by name of a file of no process
    for place, file in enumerate(files):
        head = _head(store, f"{folder}/{file.name}") if place < _READ else ""
        if place >= _READ or not all(_PLAIN.match(line) for line in head.splitlines()) or _WORKER.fullmatch(file.name) is None:
            written.append(file)
        if file.name == _OF_ALL:
            head = ""
        stages.setdefault(_process(file.name), set()).update(set(_STAGE.findall(f"{file.name}\n{head}")) & set(named))
    groups = [
        _group(stage_words(stage.name), stage.name, [file for file in written if stage.id in stages[_process(file.name)]])
        for stage in plan
    ]
    groups.append(
        _group("Ray, and workers of no single stage", "", [file for file in written if not stages[_process(file.name)]])
    )
    return [group for group in groups if group.logs]


def _head(store: RunStore, path: str) -> str:
    with store.open(path) as file:
        data: bytes = file.read(_HEAD)
    return data.decode(errors="replace")


def _process(name: str) -> str:
    """Return the id of the process that wrote a file; the file's name if it does not say."""
    found = _WORKER.fullmatch(name), _TRAIN.fullmatch(name)
    return found[0][1] if found[0] else found[1][3] if found[1] else name


def _group(title: str, stage: str, files: Sequence[FileInfo]) -> LogGroup:
    shown = [Log(file.name, _words(file.name), _when(file.written), file.size) for file in files[:_SHOWN]]
    return LogGroup(title, stage, shown, len(files))


def _words(name: str) -> str:
    """Say what wrote a file, from its name."""
    return next(_known(name), name)


def _known(name: str) -> Iterator[str]:
    if found := _WORKER.fullmatch(name):
        yield f"worker {found[2]}: {_NAMES[found[3]]}"
    if found := _TRAIN.fullmatch(name):
        yield f"Ray Train's {_NAMES.get(found[2], found[2])}{_NAMES[found[1]]}"
    if name.startswith("ray-data"):
        yield "Ray Data" if name == _OF_ALL else "Ray Data's pipeline"


def _when(written: float) -> str:
    return datetime.fromtimestamp(written, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
