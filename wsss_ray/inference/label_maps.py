"""Find the label maps of a run, and read them in the size of the photographs. No Ray, no torch.

Every stage with label maps can be read: seeds, labels that a segmenter made, predictions of an evaluate stage. Shards are read
one after the other, so memory does not grow with the number of images. The content of the store is not trusted: a label map
larger than the data allows is neither decoded nor enlarged.

Stages work on packed images, which ingest may have shrunk (`data.max_side`). Their label maps are enlarged to the size of the
image file, upright, by the nearest label. A label map holds no scores, so nothing finer is known, and `wsss-ray predict` does the
same: the exported prediction of a validation image is what `predict` writes for its file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from wsss_ray.core.errors import DamagedFile
from wsss_ray.core.values import IGNORE
from wsss_ray.data.codecs import decode_gray
from wsss_ray.data.label_files import enlarged
from wsss_ray.data.source import MAX_PIXELS
from wsss_ray.storage.finished import StageId, missing_files
from wsss_ray.storage.parquet import damage_named
from wsss_ray.storage.shards import digests_of, list_shards, open_shard, read_table, shard_path
from wsss_ray.storage.store import RunStore

if TYPE_CHECKING:
    from wsss_ray.core.values import LabelArray

Part = Literal["train", "val"]
_FILE = ["image_id", "tags", "height", "width", "file", "file_height", "file_width"]


@dataclass(frozen=True)
class LabelMaps:
    """The label maps of one stage.

    Attributes:
        stage: The name of the stage.
        id: The id of the stage.
        schema: The schema of its shards.
        column: The column that holds the label maps.
        classes: The names of the labels 1, 2, ...
        max_pixels: The largest size of a label map that is decoded.
        max_side: The longer side that ingest shrank larger images to, or None.
        data: The ingest stage of the images.
        part: The images: those of the training or those of the validation.
        others: The names of other stages of the run with label maps.
    """

    stage: str
    id: str
    schema: str
    column: str
    classes: tuple[str, ...]
    max_pixels: int
    max_side: int | None
    data: StageId
    part: Part
    others: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        """Say in words what the label maps are."""
        made = "pseudo-labels" if self.schema == "seeds" else "predictions"
        return f"{made} of the {'training' if self.part == 'train' else 'validation'} images"


@dataclass(frozen=True)
class Labelled:
    """An image with its label map.

    Attributes:
        image_id: The id of the image.
        file: The path of its file below the folder of the images, with its ending; None if the store does not know it.
        tags: Its classes, counted from 0.
        label_HW: The label map in the size of its file; None if the stage has none.
        known_size: False if the image may have been shrunk and the store does not know the size of its file. The label map has
            the size of the packed image then.
    """

    image_id: str
    file: str | None
    tags: tuple[int, ...]
    label_HW: LabelArray | None
    known_size: bool = True


def find_labels(
    store: RunStore,
    run: Mapping[str, Any],
    stage: str | None = None,
    part: Part | None = None,
    *,
    kinds: Collection[str] = ("seed", "evaluate"),
) -> LabelMaps:
    """Find the label maps of a run.

    Args:
        store: The store.
        run: The content of the run's run.json.
        stage: The name of a stage. None takes the last one that is done, of those that `part` allows.
        part: `train` for pseudo-labels of the training images, `val` for predictions of the validation images. None takes
            the training images, unless the run makes no pseudo-labels at all.
        kinds: The kinds of stages to look among.

    Raises:
        DamagedFile: if a shard of the stage is lost.
        ValueError: if the run has no such stage, or the stage is not done or has no label maps. The message names those that
            have.
    """
    planned = [one for one in run["stages"] if one["kind"] in kinds]
    records = {one["name"]: store.record_by_id(one["id"]) for one in planned}
    found = {
        name: _label_maps(store, name, record, tuple(other for other in records if other != name and _has_labels(records[other])))
        for name, record in records.items()
        if record is not None and _has_labels(record)
    }
    there = "; ".join(f"{name} ({maps.what})" for name, maps in found.items()) or "none yet"
    if stage is not None:
        if stage not in found:
            known = stage in [one["name"] for one in run["stages"]]
            undone = records.get(stage, {}) is None
            why = "the run has no such stage" if not known else "it is not done" if undone else "it has no label maps"
            raise ValueError(f"stage {stage!r}: {why}; stages with label maps: {there}")
        return _checked(store, records, found[stage])
    if part is None:
        part = "train" if any(one["kind"] == "seed" for one in planned) else "val"
    name = next((name for name, maps in reversed(found.items()) if maps.part == part), None)
    if name is None:
        what = "no pseudo-labels of its training images" if part == "train" else "no predictions of validation images"
        mend = "choose by --stage, or wait for a stage" if found else "wait for a seed stage or a scored model"
        raise ValueError(f"run {run['name']!r} has {what} yet; stages with label maps: {there}; {mend}")
    return _checked(store, records, found[name])


def _checked(store: RunStore, records: Mapping[str, Any], maps: LabelMaps) -> LabelMaps:
    """Return the label maps. Raises DamagedFile if a shard is lost."""
    damage = missing_files(store, maps.id, records[maps.stage], below="shards/")
    if damage is not None:
        raise DamagedFile(f"stage {maps.stage!r}: {damage}")
    return maps


def read_labels(store: RunStore, maps: LabelMaps) -> Iterator[Labelled]:
    """Yield every image with its label map, in the order of the data.

    Raises:
        DamagedFile: if a shard is damaged.
        ValueError: if a label map cannot be read, does not fit its image, or holds other labels than those of the classes.
    """
    digests = digests_of(store, maps)
    for shard in list_shards(store, maps):
        images = {row["image_id"]: row for row in read_table(store, maps.data, shard, "images", _FILE).to_pylist()}
        file = open_shard(store, maps, shard, maps.schema, digests=digests)
        try:
            for group in range(file.num_row_groups):
                with damage_named(shard_path(store, maps, shard)):
                    rows = file.read_row_group(group, columns=["image_id", maps.column]).to_pylist()
                for row in rows:
                    image = images.get(row["image_id"])
                    if image is None:
                        raise ValueError(f"{_where(maps, row['image_id'])} is not in its data; was the store edited by hand?")
                    yield _labelled(maps, image, row[maps.column])
        finally:
            file.close()


def _label_maps(store: RunStore, name: str, record: Mapping[str, Any], others: tuple[str, ...]) -> LabelMaps:
    data = store.record_by_id(dict(record["inputs"])["data"])
    if data is None:
        raise ValueError(f"stage {name!r}: the store has no record of the data that it was made from; submit the job again")
    split = data["identity"]["component"]
    schema, column = ("seeds", "seed") if record["kind"] == "seed" else ("scores", "prediction")
    return LabelMaps(
        name,
        record["id"],
        schema,
        column,
        tuple(split["classes"]),
        max_pixels=split["source"].get("max_pixels", MAX_PIXELS),
        max_side=split["source"].get("max_side"),
        data=StageId(data["id"]),
        part="val" if split.get("split") == "val" else "train",
        others=others,
    )


def _has_labels(record: Mapping[str, Any] | None) -> bool:
    """Return True if a stage is done and has label maps. An evaluate stage that scores seeds has none of its own."""
    return record is not None and (record["kind"] == "seed" or "model" in dict(record["inputs"]))


def _labelled(maps: LabelMaps, image: Mapping[str, Any], data: bytes | None) -> Labelled:
    """Decode the label map of an image, and enlarge it to the size of the file."""
    image_id, tags = image["image_id"], tuple(image["tags"])
    size, known = (image["height"], image["width"]), image.get("file_height") is not None
    file = image.get("file") or None
    if data is None:
        return Labelled(image_id, file, tags, None)
    label_HW = decode_label(data, maps, image_id)
    if label_HW.shape != size:
        sizes = f"its label map has {label_HW.shape[1]}x{label_HW.shape[0]} pixels, the image {size[1]}x{size[0]}"
        raise ValueError(f"{_where(maps, image_id)}: {sizes}; was the store edited by hand?")
    if not known:
        return Labelled(image_id, file, tags, label_HW, known_size=maps.max_side is None or max(size) < maps.max_side)
    height, width = image["file_height"], image["file_width"]
    if not (height >= size[0] and width >= size[1] and height * width <= maps.max_pixels):
        raise ValueError(f"{_where(maps, image_id)}: its file cannot have {width}x{height} pixels; was the store edited by hand?")
    return Labelled(image_id, file, tags, enlarged(label_HW, height, width))


def decode_label(data: bytes, maps: LabelMaps, image_id: str) -> LabelArray:
    """Decode one label map (H, W), in the size of the packed image.

    Args:
        data: Its PNG.
        maps: The label maps that it belongs to.
        image_id: The id of its image, for messages.

    Raises:
        ValueError: if it cannot be read, or holds other labels than those of the classes.
    """
    try:
        label_HW = decode_gray(data, max_pixels=maps.max_pixels)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{_where(maps, image_id)}: its label map cannot be read: {error}") from error
    wrong = label_HW[(label_HW > len(maps.classes)) & (label_HW != IGNORE)]
    if label_HW.ndim != 2 or wrong.size:
        wanted = f"labels 0 to {len(maps.classes)} and {IGNORE}"
        raise ValueError(f"{_where(maps, image_id)}: not a map of {wanted}; was the store edited by hand?")
    return label_HW


def _where(maps: LabelMaps, image_id: str) -> str:
    return f"stage {maps.stage!r}: image {image_id!r}"
