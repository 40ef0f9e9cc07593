"""Inspect a folder: its layout, files, masks, and the validation set to hold out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from wsss_ray.data.source import Source
from wsss_ray.ops.spacing import evenly_spaced
from wsss_ray.preflight.survey.files import SAMPLE, Look, Progress, decode, look_at, same_content
from wsss_ray.preflight.survey.layouts import recognise_layout
from wsss_ray.preflight.survey.listing import FolderListing
from wsss_ray.preflight.survey.masks import MaskLook, look_at_masks
from wsss_ray.preflight.survey.sizes import JobSizes, Machine, sizes_for
from wsss_ray.preflight.survey.split import held_out

_TOLERATED = 0.025  # half of the job's max_bad_fraction: a smaller share of broken files needs no table without them

Watch = Callable[[str, int], Progress]
"""A callback that gets the name of a pass and its number of files, and returns the progress callback of that pass."""


def _unwatched(_what: str, _total: int) -> Progress:
    return lambda _done: None


@dataclass
class Survey:
    """The results of an inspection.

    Attributes:
        folder: The folder.
        listing: Its images, and how a job names them.
        machine: The machine that the job is for.
        looks: Headers by path.
        decoded: The number of images that were decoded in full.
        broken: Reasons by path, for files that cannot be read.
        same: Groups of files with the same bytes.
        masks: The content of a sample of masks, if masks are files.
        no_masks: Why the masks are not used, if there are some that are not.
        held_out: Ids of the images that were moved to the validation set.
    """

    folder: Path
    listing: FolderListing
    machine: Machine
    looks: dict[str, Look]
    decoded: int
    broken: dict[str, str]
    same: list[list[str]]
    masks: MaskLook | None = None
    no_masks: str | None = None
    held_out: set[str] = field(default_factory=set)

    @property
    def num_train(self) -> int:
        """Count the images of the training set."""
        return sum(picture.split == "weak" for picture in self.listing.pictures)

    def sizes(self) -> JobSizes:
        """Choose the sizes that suit the images and the machine."""
        sides = [max(look.width, look.height) for look in self.looks.values() if look.width]
        return sizes_for(self.machine, sides, self.num_train)


def survey(
    folder: Path, *, tags: Path | None = None, masks: Path | None = None, machine: Machine, watch: Watch = _unwatched
) -> Survey:
    """Inspect a folder of images.

    Args:
        folder: The folder.
        tags: A table of tags. None looks for one in the folder and beside it.
        masks: A folder of masks. None looks for one in the folder.
        machine: The machine that the job is for.
        watch: Called at the start of each pass over the files.

    Returns:
        The results.

    Raises:
        ValueError: if the folder has none of the layouts, or `tags` or `masks` do not fit it.
    """
    listing = recognise_layout(folder, tags=tags, masks=masks)
    limit = int(Source.model_fields["max_pixels"].default)
    paths = [picture.path for picture in listing.pictures]
    looks = look_at(paths, max_pixels=limit, progress=watch("headers", len(paths)))
    broken = {path: look.broken for path, look in looks.items() if look.broken is not None}
    some = evenly_spaced([path for path in paths if path not in broken], SAMPLE)
    broken |= decode(some, max_pixels=limit, progress=watch("decoding a sample", len(some)))
    sizes = {path: look.num_bytes for path, look in looks.items()}
    same = same_content(sizes, progress=watch("looking for copies", len(paths)))
    found = Survey(folder, listing, machine, looks, len(some), broken, same)
    if listing.has_masks and not listing.drawn:
        _check_masks(found, asked=masks is not None)
    _drop_broken(found)
    if not any(picture.split == "val" for picture in listing.pictures):
        _hold_out(found)
    return found


def _check_masks(found: Survey, *, asked: bool) -> None:
    listing = found.listing
    found.masks = look_at_masks(listing.pictures, listing.classes)
    if found.masks.usable:
        return
    why = found.masks.why_not(listing.classes)
    if asked:
        raise ValueError(f"--masks {listing.fields['masks']}: {why}")
    found.no_masks, listing.has_masks = why, False
    listing.fields["masks"] = None
    if listing.kind == "voc":
        listing.fields["val"] = None
        listing.pictures = [picture for picture in listing.pictures if picture.split == "weak"]
    listing.pictures = [replace(picture, mask=None) for picture in listing.pictures]


def _drop_broken(found: Survey) -> None:
    """Leave broken files out if the job has a table of its own anyway, or if there are too many of them for the run."""
    listing = found.listing
    if not found.broken or listing.kind != "folder":
        return
    if len(found.broken) > _TOLERATED * len(listing.pictures):
        listing.own.append("some images cannot be read")
    if listing.own:
        kept = [picture for picture in listing.pictures if picture.path not in found.broken]
        if not any(picture.split == "weak" for picture in kept):
            path, reason = next(iter(found.broken.items()))
            raise ValueError(f"{found.folder}: none of the {len(listing.pictures)} images can be read; {path}: {reason}")
        listing.pictures = kept


def _hold_out(found: Survey) -> None:
    listing = found.listing
    twins = {path: group[0] for group in found.same for path in group[1:]}
    pictures = listing.pictures
    if listing.drawn:
        pictures = [replace(picture, mask=picture.path) for picture in pictures]  # annotations give each image a mask
    if not listing.has_masks or not (ids := held_out(pictures, twins)):
        return
    chosen = {picture.path for picture in pictures if picture.image_id in ids}
    beside = {picture.path for picture in pictures if twins.get(picture.path) in chosen}
    if beside:
        listing.left_out["the same as an image that is held out"] += sorted(beside)
    listing.own.append("about every fifth image with a mask is held out for validation")
    listing.pictures = [
        replace(picture, split="val") if picture.image_id in ids else picture
        for picture in listing.pictures
        if picture.path not in beside
    ]
    found.held_out = ids
