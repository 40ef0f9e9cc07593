"""Run a plan: skip stages that are done, run stages of one pipeline together, and write the report at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from wsss_ray.config.document import to_yaml
from wsss_ray.config.job import JobConfig
from wsss_ray.config.resources import Resources
from wsss_ray.core.contracts import Learner
from wsss_ray.core.graph import Plan, one_pipeline
from wsss_ray.core.plan import Stage
from wsss_ray.engine.failures import Failures
from wsss_ray.engine.records import StageError, git_commit, versions
from wsss_ray.engine.shard_worker import data_split
from wsss_ray.engine.unchanged import check_unchanged
from wsss_ray.reporting.history import begin_attempt
from wsss_ray.reporting.progress import Display
from wsss_ray.reporting.remaining import Remaining, expected_of
from wsss_ray.reporting.report import build, kept
from wsss_ray.reporting.words import roughly, work_done
from wsss_ray.runners.admission import admit
from wsss_ray.runners.causes import Cause, cause
from wsss_ray.runners.cluster import keep_logs, logs_of, ray_session, resources
from wsss_ray.runners.follow import logged
from wsss_ray.storage.claims import Claims, attempt
from wsss_ray.storage.finished import Finished
from wsss_ray.storage.store import RunStore
from wsss_ray.storage.wholeness import reopen


def execute(
    job: JobConfig,
    plan: Plan,
    store: RunStore,
    display: Display,
    *,
    have: Resources | None = None,
    logs: str | None = None,
    failures: Failures | None = None,
) -> str:
    """Run every missing stage of a plan, and wait for stages that another submit or trial is running.

    Args:
        job: Job of the plan.
        plan: Stages to complete.
        store: Run store.
        display: Shows progress.
        have: Share of a Ray that runs already, for a trial of a sweep. By default, start or join Ray.
        logs: Folder of the workers' logs, for a trial. By default, keep them with the run.
        failures: Stages that are known to fail, which are not tried again.

    Returns:
        Path of the report.

    Raises:
        StageError: if a stage failed, or cannot run here.
    """
    begin_run(job, plan, store)
    with logged(job, plan, store, display):
        for stage in plan:
            if stage.kind == "ingest":
                try:
                    check_unchanged(store, stage)
                except ValueError as error:
                    raise StageError(f"stage {stage.name}: {error}", [stage.id]) from error
        if missing := missing_of(plan, store):
            needs = job.run.worker_range[1] * (job.run.cpus_per_worker or 1)
            found = nullcontext(have) if have is not None else ray_session(needs_cpus=needs)
            with ExitStack() as stack:
                with nullcontext() if have is not None else display.doing("starting Ray"):
                    there = stack.enter_context(found)
                claims = stack.enter_context(Claims(store, attempt()))
                stack.enter_context(display.meters())
                enough = admit(store, missing, job.run, there, probe=store.run_path(job.name, "run.json"))
                failures = failures or Failures(store, f"{attempt()} {time.time_ns()}")  # unique, although process ids repeat
                rest = Remaining(expected_of(store, job.name))
                here = _Here(job, plan, store, display, enough, claims, logs or logs_of(store, job.name), failures, rest)
                claims.remove_stale()
                try:
                    while groups := pending(plan, store):  # anew, as an input that is made again may be as it was
                        here.say_rest(groups)
                        here.make_claimed(groups[0])
                finally:
                    if store.is_local and have is None:
                        keep_logs(Path(store.guarded(here.logs)))
        with display.doing("writing the report"):
            damage = write_report(job, plan, store)
        for line in damage:
            display.say(f"warning: {line}")
    return store.run_path(job.name, "report.html")


def begin_run(job: JobConfig, plan: Plan, store: RunStore) -> None:
    """Write `job.yaml` and `run.json` of a run before it starts. What another job left under its name stays in its history."""
    text = to_yaml(job.spec())
    stages = [{"id": stage.id, "name": stage.name, "kind": stage.kind, "work": _work(stage)} for stage in plan]
    about = {
        "name": job.name,
        "job": sha256(text.encode()).hexdigest(),
        "stages": stages,
        "submitted": time.time(),
        "attempt": attempt(),
        "until": plan.until,
        "versions": versions(),
        "git": git_commit(),
    }
    begin_attempt(store, job.name, about, text)


def _work(stage: Stage) -> int:
    """Return the amount of work: steps of a training (as far as the plan knows), or shards of any other stage."""
    if stage.kind != "train":
        return data_split(stage).num_shards
    assert isinstance(stage.component, Learner)
    return stage.component.total_steps(data_split(stage).num_images)


def write_report(job: JobConfig, plan: Plan, store: RunStore) -> list[str]:
    """Write the report of the stages that are done so far, unless the one that is there is the same.

    Returns:
        A line for everything in the store that is damaged.
    """
    text = store.read(store.run_path(job.name, "job.yaml")).decode()
    path = store.run_path(job.name, "report.html")
    made_from = kept.basis(store, job.name, plan, text)
    if made_from is not None and store.exists(path) and kept.is_current(store.read(path), made_from):
        return []
    damage: list[str] = []
    page = build(store, job.name, plan, text, damage=damage)
    store.write(path, page if made_from is None or damage else kept.stamped(page, made_from))
    return damage


def missing_of(plan: Plan, store: RunStore) -> list[Stage]:
    """Return the stages of a plan that are not done and that something needs, in order."""
    finished = Finished(store)
    finished.look_at(plan)
    return plan.missing(finished.is_done)


def pending(plan: Plan, store: RunStore) -> list[list[Stage]]:
    """Group the stages that are not done: each training alone, neighbouring per-image stages of the same data together.

    A stage that waits for a damaged input is left out: when that is made again with the same bytes, the stage is done.
    """
    groups: list[list[Stage]] = []
    finished = Finished(store)
    finished.look_at(plan)
    ready = plan.missing(lambda stage: finished.is_done(stage) or finished.state(stage.id).waits is not None)
    for stage in ready or plan.missing(finished.is_done):  # a record may name inputs that no plan makes
        last = groups[-1] if groups else []
        if last and one_pipeline(last[-1], stage):
            last.append(stage)
        else:
            groups.append([stage])
    return groups


@dataclass(frozen=True)
class _Here:
    """A job that runs, with its resources, store and display."""

    job: JobConfig
    plan: Plan
    store: RunStore
    display: Display
    have: Resources
    claims: Claims
    logs: str
    failures: Failures
    rest: Remaining

    def say_rest(self, groups: Sequence[Sequence[Stage]]) -> None:
        """Say how long the stages that are not done take, if that is known."""
        left = self.rest.of(stage for group in groups for stage in group)
        self.display.later_s = self.rest.of(stage for group in groups[1:] for stage in group)
        if left:
            self.display.say(f"{'whole job':<16} about {roughly(left)} left")

    def make_claimed(self, group: Sequence[Stage]) -> None:
        """Run the stages of a group that no other process is running. If there are none, wait until the first is free or done."""
        mine: list[Stage] = []
        holder = None
        for stage in group:
            holder = self.claims.take(stage.id)
            if holder is not None:
                break
            mine.append(stage)
        try:
            missing = [stage for stage in mine if not self.store.is_done(stage)]  # another process may just have finished it
            if missing:
                self._refuse_known(missing)
                self._try(missing)
        finally:
            for stage in mine:
                self.claims.free(stage.id)
        if not mine and holder is not None:
            self._wait_for(group[0], holder["attempt"])

    def _refuse_known(self, group: Sequence[Stage]) -> None:
        for stage in group:
            known = self.failures.of(stage.id)
            if known is not None:
                raise StageError(f"the stage already failed in this attempt: {known}", [stage.id])

    def _try(self, group: Sequence[Stage]) -> None:
        self.failures.forget(group)
        for stage in group:
            self._reopen(stage)
        try:
            self.make(group)
        except StageError as error:
            if not self.display.stopped:
                self.failures.note(error)
            raise

    def _reopen(self, stage: Stage) -> None:
        """Remove what is damaged of a stage that has a record, and say so."""
        for line in reopen(self.store, stage, Finished(self.store).state(stage.id)):
            self.display.say(f"{stage.name:<16} {line}")

    def _wait_for(self, stage: Stage, who: str) -> None:
        self.display.say(f"{stage.name:<16} {stage.id}  waiting: {who} is making it")
        self.claims.wait(stage.id, lambda: self.store.is_done(stage))
        self.claims.free(stage.id)

    def make(self, group: Sequence[Stage]) -> None:
        """Run one training, or per-image stages of the same data together. Raises StageError."""
        from wsss_ray.engine.validation import validation_of
        from wsss_ray.runners.shards import run_shards
        from wsss_ray.runners.train import run_train

        began = time.monotonic()
        have = replace(resources(), at_once=self.have.at_once) if self.have.grows else self.have  # machines come and go
        run = self.job.run
        try:
            if group[0].kind == "train":
                validation = validation_of(self.plan, group[0], every=run.validate_every, images=run.validate_images)
                run_train(self.store, group[0], run, have, self.display, validation=validation)
            else:
                run_shards(self.store, group, run, have, self.display)
        except Exception as error:
            found = Cause(error.what, error.logs, located=True) if isinstance(error, StageError) else cause(error)
            what = found.line if found.located else f"stage {', '.join(stage.name for stage in group)}: {found.line}"
            logs = f"{self.logs}; worker log: {found.log}" if found.log else self.logs
            raise StageError(what, self._blamed(group, what), logs) from error
        self.rest.ended(group, seconds=time.monotonic() - began)
        for stage in group:
            record = self.store.record(stage)
            assert record is not None
            errors = record["counts"]["errors"]
            note = f", {errors} failed (see errors/)" if errors else ""
            if without := record["counts"].get("without_mask"):
                note += f", {without} without a mask, as theirs cannot be used (see notes/)"
            unit = work_done(record["counts"])
            self.display.say(f"{stage.name:<16} {stage.id}  {unit}, {record['seconds']:.1f} s{note}")

    def _blamed(self, group: Sequence[Stage], what: str) -> list[str]:
        """Return the id of the stage that a failure names, or of the first that is not done."""
        missing = [stage for stage in group if not self.store.is_done(stage)]
        named = [stage for stage in missing if what.startswith((f"stage {stage.name}, ", f"stage {stage.name}: "))]
        return [stage.id for stage in (named or missing)[:1]]
