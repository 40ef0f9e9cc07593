"""Find trained segmenters in a run store, or in a folder that `wsss-ray export --format safetensors` wrote.

The records of the stages hold everything that prediction needs: the segmenter, the classes, and how scores become labels. So the
images are not needed. Reading runs no code from the store: kinds are looked up among imported classes, and weights are
safetensors. No torch, no Ray.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wsss_ray.config.job import register
from wsss_ray.core.component import Component
from wsss_ray.core.contracts import Learner, Segmenter
from wsss_ray.core.errors import DamagedFile
from wsss_ray.core.method import Method
from wsss_ray.core.rules import Metric
from wsss_ray.data.source import MAX_PIXELS
from wsss_ray.inference.attempts import attempt_of_stage, job_of, known_attempt, known_attempts
from wsss_ray.methods.common.segmentation import MultiScale
from wsss_ray.reporting.history import Attempt
from wsss_ray.storage.finished import StageId, compare
from wsss_ray.storage.shards import digests_of
from wsss_ray.storage.store import STAGE_ID, RunStore

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT = 1
"""The version of config.json."""


@dataclass(frozen=True)
class Trained:
    """A trained segmenter, and how to make labels with it.

    Attributes:
        run: The name of the run.
        stage: The name of the train stage.
        id: The id of the train stage.
        segmenter: The segmenter.
        metric: Makes labels from the network's scores.
        classes: The names of the labels 1, 2, ...
        max_pixels: The most pixels of an image.
        max_side: The side that larger images are shrunk to, or None.
        place: The URI of the store, or the exported folder.
        file: The path of the weights below `place`.
        scored: The record of the evaluate stage that `metric` comes from, if there is one.
        attempt: The attempt at the run that the model is of; None for an exported folder.
    """

    run: str
    stage: str
    id: str
    segmenter: Segmenter
    metric: Metric
    classes: tuple[str, ...]
    max_pixels: int
    max_side: int | None
    place: str
    file: str
    scored: Mapping[str, Any] | None = None
    attempt: Attempt | None = None

    def weights(self) -> bytes:
        """Read the weights, as safetensors. Raises ValueError if they are missing or damaged."""
        store = RunStore(self.place)
        path, mend = store.path(self.file), "restore the file, or give a folder of export --format safetensors"
        try:
            data = store.read(path)
            if self.file != WEIGHTS:  # an exported folder has no record
                compare(digests_of(store, StageId(self.id)).get(WEIGHTS), data, path)
        except FileNotFoundError as error:
            raise ValueError(f"{self.title}: its weights are not there ({path}); {mend}") from error
        except DamagedFile as error:
            raise ValueError(f"{self.title}: {error}") from error
        return data

    @property
    def title(self) -> str:
        """Return the name of the model in messages."""
        run = f"run {self.run!r}" if self.attempt is None else self.attempt.title
        return f"{run}: model {self.stage!r} ({self.id})"

    def with_crf(self, crf: bool | None) -> Trained:
        """Switch the dense CRF of the metric on or off.

        Args:
            crf: True applies a CRF to the scores, False applies none, None leaves the metric as it is.

        Raises:
            ValueError: if the metric has no CRF to switch.
        """
        if crf is None:
            return self
        try:
            metric = self.metric.with_crf(crf)
        except ValueError as error:
            raise ValueError(f"--crf, --no-crf: {self.title}: {error}") from error
        return self if metric == self.metric else replace(self, metric=metric, scored=None)


def find_trained(run: str, store: str = "runs", model: str | None = None, *, attempt: int | None = None) -> Trained:
    """Find a trained segmenter.

    Of the attempts at a run, the one that was submitted last and has a whole model is taken: one whose last training is done. If
    there is none, the last one that has any trained segmenter is taken.

    Args:
        run: The name of a run, the id of a train stage, or an exported folder (a path with a slash).
        store: Folder or URI of the run store.
        model: The name of one of the run's segmenters. None takes the last one in the plan that is trained.
        attempt: The number of an attempt at the run. None chooses one as above.

    Raises:
        ValueError: if there is no such run, stage, folder, model or attempt.
    """
    register()
    if "/" in run or run in (".", ".."):
        if model is not None:
            raise ValueError(f"--model {model}: {run} is an exported folder, which has one model; leave it out")
        return _of_folder(Path(run))
    found = RunStore(store)
    if STAGE_ID.fullmatch(run):
        return _of_attempt(found, attempt_of_stage(found, run), run)
    several = known_attempts(found, run) if attempt is None else [known_attempt(found, run, attempt)]
    whole = [one for one in several if _is_whole(found, one, model)]
    if model is not None:
        return _of_attempt(found, (whole or several)[0], model)
    some = [one for one in several if _segmenters(found, one)[0]]
    return _of_attempt(found, (whole or some or several)[0], None)


def _is_whole(store: RunStore, attempt: Attempt, model: str | None) -> bool:
    """Return True if the segmenter called `model`, or the last training of the plan, is trained and is a segmenter."""
    trainings = [stage for stage in attempt.stages if stage["kind"] == "train" and model in (None, stage["name"], stage["id"])]
    return bool(trainings) and trainings[-1]["id"] in _segmenters(store, attempt)[0]


def _segmenters(store: RunStore, attempt: Attempt) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
    """Return the trained segmenters of an attempt by id, and the names of the trainings that are not done."""
    others = Learner.kinds().keys() - Segmenter.kinds().keys()
    found, missing = {}, []
    for one in (one for one in attempt.stages if one["kind"] == "train"):
        record = store.record_by_id(one["id"])
        if record is None:
            missing.append(one["name"])
        elif record["identity"]["component"]["kind"] not in others:
            found[one["id"]] = one
    return found, missing


def _of_attempt(store: RunStore, attempt: Attempt, model: str | None) -> Trained:
    run = attempt.title
    found, missing = _segmenters(store, attempt)
    by_name = {one["name"]: stage_id for stage_id, one in found.items()}
    stage_id = next(reversed(found), None) if model is None else by_name.get(model, model)
    if stage_id is None or stage_id not in found:
        there = f"trained segmenters: {', '.join(by_name) or 'none yet'}"
        why = f"--model {model}: is not one of the " if model is not None else ""
        not_yet = f"; not trained yet: {', '.join(missing)}" if missing else ""
        raise ValueError(f"{run}: {why}{there}{not_yet}; `wsss-ray show {attempt.run}` shows its stages")
    one, record = found[stage_id], store.record_by_id(stage_id)
    data = store.record_by_id(dict(record["inputs"])["data"]) if record else None
    if record is None or data is None:
        raise ValueError(f"{run}: the store has no record of {one['name']}'s data, with the classes; submit the job again")
    split = data["identity"]["component"]
    metric, scored = _metric(store, attempt, stage_id)
    return Trained(
        run=attempt.run,
        stage=one["name"],
        id=stage_id,
        segmenter=_component(Segmenter, record, f"{run}: model {one['name']!r}"),
        metric=metric,
        classes=tuple(split["classes"]),
        max_pixels=split["source"].get("max_pixels", MAX_PIXELS),
        max_side=split["source"].get("max_side"),
        place=store.uri,
        file=f"stages/{stage_id}/{WEIGHTS}",
        scored=scored,
        attempt=attempt,
    )


def _metric(store: RunStore, attempt: Attempt, stage_id: str) -> tuple[Metric, Mapping[str, Any] | None]:
    """Return the metric that scored a model, and its record. If none did, return the metric of the attempt's job, and None."""
    for one in attempt.stages:
        record = store.record_by_id(one["id"]) if one["kind"] == "evaluate" else None
        if record is not None and ["model", stage_id] in record["inputs"]:
            return _component(Metric, record, f"{attempt.title}: score {one['name']!r}"), record | {"name": one["name"]}
    path = store.run_path(attempt.run, "job.yaml")
    if attempt.job is None and store.exists(path):
        raise ValueError(f"{path}: is not the job that was submitted, so its metric is not known. Submit the job's own file.")
    method = job_of(store, attempt, filled=True).get("method") if attempt.job is not None else None
    if method is None:
        return MultiScale(), None
    metric = getattr(_validated(Method, method, store.run_path(attempt.run, "job.yaml")), "metric", None)
    return metric if isinstance(metric, Metric) else MultiScale(), None


def config_of(trained: Trained) -> dict[str, Any]:
    """Return the content of `config.json`: everything except the weights."""
    return {
        "format": FORMAT,
        "run": trained.run,
        "stage": trained.stage,
        "id": trained.id,
        "classes": list(trained.classes),
        "segmenter": trained.segmenter.identity(),
        "metric": trained.metric.identity(),
        "max_pixels": trained.max_pixels,
        "max_side": trained.max_side,
    }


def _of_folder(folder: Path) -> Trained:
    path = folder / CONFIG
    try:
        config = json.loads(path.read_bytes())
        if config["format"] != FORMAT:
            raise ValueError(f"{path}: has format {config['format']}, this wsss-ray reads {FORMAT}; export the model again")
        return Trained(
            run=config["run"],
            stage=config["stage"],
            id=config["id"],
            segmenter=component_of(Segmenter, config["segmenter"], str(path)),
            metric=component_of(Metric, config["metric"], str(path)),
            classes=tuple(config["classes"]),
            max_pixels=config["max_pixels"],
            max_side=config["max_side"],
            place=str(folder.absolute()),
            file=WEIGHTS,
        )
    except OSError as error:
        mend = "give a run, or a folder of export --format safetensors"
        raise ValueError(f"{path}: cannot be read: {error.strerror}; {mend}") from error
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        mend = "give a folder of export --format safetensors"
        raise ValueError(f"{path}: is no config.json of wsss-ray ({type(error).__name__}: {error}); {mend}") from error


def _component(role: type[Any], record: Mapping[str, Any], where: str) -> Any:
    by = record.get("versions", {}).get("wsss-ray", "an older one")
    return component_of(role, record["identity"]["component"], f"{where}, made by wsss-ray {by}")


def component_of(role: type[Any], identity: Any, where: str) -> Any:
    """Make a component from its identity, without the pretrained weights, which a trained network does not need.

    Args:
        role: The base class of the component.
        identity: The identity, as records and `config.json` hold it.
        where: The source of the identity. Messages begin with it.

    Raises:
        ValueError: if the kind or a field is unknown, or if the revision differs, so that the numbers would too.
    """
    return _validated(role, _spec(identity, where), where)


def _validated(role: type[Any], spec: Any, where: str) -> Any:
    try:
        return role.model_validate(spec)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        hint = "; install its plug-in, or name its module in WSSS_RAY_PLUGINS" if message.startswith("kind is ") else ""
        raise ValueError(f"{where}: {field}{': ' if field else ''}{message}{hint}") from error


def _spec(identity: Any, where: str) -> Any:
    if isinstance(identity, list):
        return [_spec(part, where) for part in identity]
    if not isinstance(identity, dict):
        return identity
    kind = identity.get("kind")
    if kind == "weights":
        return {"kind": kind, "source": "none", "sha256": None}  # all fields, as missing ones would take the field's default
    known = [one.revision for one in Component.by_kind().get(kind, ())] if isinstance(kind, str) else []
    if known and identity.get("revision", known[0]) not in known:
        raise ValueError(
            f"{where}: {kind} has revision {identity['revision']}, here it is {known[0]}, which gives other numbers; "
            "use the version that trained it"
        )
    return {name: _spec(part, where) for name, part in identity.items() if name != "revision"}
