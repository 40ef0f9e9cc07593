"""A whole look at a folder: how it is laid out, its files, its masks, and what is held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from wsss_ray.data.source import Source
from wsss_ray.ops.spacing import evenly_spaced
from wsss_ray.preflight.survey.files import SAMPLE, Look, Progress, decode, look_at, same_content
from wsss_ray.preflight.survey.layouts import understand
from wsss_ray.preflight.survey.listing import FolderListing
from wsss_ray.preflight.survey.masks import MaskLook, look_at_masks
from wsss_ray.preflight.survey.sizes import JobSizes, Machine, sizes_for
from wsss_ray.preflight.survey.split import held_out

_TOLERATED = 0.025  # half of the max_bad_fraction of the job: fewer bad files than that need no table that leaves them out

Watch = Callable[[str, int], Progress]
"""Called with what begins and how many files it has; what it returns, with how many more are done."""


def _unwatched(_what: str, _total: int) -> Progress:
    return lambda _done: None


@dataclass
class Survey:
    """What was found: the listing, headers by path, broken files with the reason, groups of equal files, masks, what is held out.

    `decoded` images were read in full, all others by their headers. `no_masks` says why masks that are there are not used.
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
        """Images with tags that are trained on."""
        return sum(picture.split == "weak" for picture in self.listing.pictures)

    def sizes(self) -> JobSizes:
        """What suits the images and the machine."""
        sides = [max(look.width, look.height) for look in self.looks.values() if look.width]
        return sizes_for(self.machine, sides, self.num_train)


def survey(
    folder: Path, *, tags: Path | None = None, masks: Path | None = None, machine: Machine, watch: Watch = _unwatched
) -> Survey:
    """Look at a folder. Raises ValueError on what cannot be understood, or does not fit what was given."""
    listing = understand(folder, tags=tags, masks=masks)
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
    """Leave broken files out where there is a table of our own anyway, or too many of them for the run to bear."""
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
        pictures = [replace(picture, mask=picture.path) for picture in pictures]  # every one has what its mask is drawn from
    if not listing.has_masks or not (ids := held_out(pictures, twins)):
        return
    chosen = {picture.path for picture in pictures if picture.image_id in ids}
    beside = {picture.path for picture in pictures if twins.get(picture.path) in chosen}
    if beside:
        listing.left_out["the same as an image that is held out"] += sorted(beside)
    listing.own.append("about every fifth image with a mask is held out to score on")
    listing.pictures = [
        replace(picture, split="val") if picture.image_id in ids else picture
        for picture in listing.pictures
        if picture.path not in beside
    ]
    found.held_out = ids
