"""Inspect a folder: its layout, files, masks, and the validation set to hold out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from wsss_ray.data.source import Source
from wsss_ray.nets.u2net import packaged
from wsss_ray.ops.spacing import evenly_spaced
from wsss_ray.preflight.survey.files import SAMPLE, Look, Progress, decode, look_at, same_content
from wsss_ray.preflight.survey.layouts import recognise_layout
from wsss_ray.preflight.survey.listing import FolderListing
from wsss_ray.preflight.survey.masks import MaskLook, TurnedMasks, look_at_masks, turned_masks
from wsss_ray.preflight.survey.networks import Networks
from wsss_ray.preflight.survey.sizes import SALIENCY_SIDE, JobSizes, Machine, sizes_for
from wsss_ray.preflight.survey.split import held_out
from wsss_ray.preflight.survey.tree import account

_FEW = 0.5  # share of the training images with a mask: below it, their masks are used for training
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
        turned: The images that EXIF turns and that have masks, and what their masks are drawn on.
        held_out: Ids of the images that were moved to the validation set.
        strong: Ids of the training images whose masks are used for training, because only a few have one.
        networks: Networks with given weights for the job.
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
    turned: TurnedMasks = field(default_factory=TurnedMasks)
    held_out: set[str] = field(default_factory=set)
    strong: list[str] = field(default_factory=list)
    networks: Networks = field(default_factory=Networks)

    @property
    def num_train(self) -> int:
        """Count the images of the training set."""
        return sum(picture.split == "weak" for picture in self.listing.pictures)

    def sizes(self) -> JobSizes:
        """Choose the sizes that suit the images and the machine."""
        sides = [max(look.width, look.height) for look in self.looks.values() if look.width]
        salient = packaged() is not None and self.networks.clip is None
        found = sizes_for(self.machine, sides, self.num_train)
        return replace(found, saliency=SALIENCY_SIDE if salient else None, networks=self.networks)


def survey(
    folder: Path, *, tags: Path | None = None, masks: Path | None = None, machine: Machine, watch: Watch = _unwatched
) -> Survey:
    """Inspect a folder of images.

    Args:
        folder: The folder.
        tags: A table of tags. None looks for one in the folder and beside it.
        masks: A folder of masks. None looks for one in the folder and beside it.
        machine: The machine that the job is for.
        watch: Called at the start of each pass over the files.

    Returns:
        The results.

    Raises:
        ValueError: if the folder has none of the layouts, or `tags` or `masks` do not fit it.
    """
    listing, tree = recognise_layout(folder, tags=tags, masks=masks)
    limit = int(Source.model_fields["max_pixels"].default)
    paths = [picture.path for picture in listing.pictures]
    looks = look_at(paths, max_pixels=limit, progress=watch("headers", len(paths)))
    broken = {path: look.broken for path, look in looks.items() if look.broken is not None}
    some = evenly_spaced([path for path in paths if path not in broken], SAMPLE)
    broken |= decode(some, max_pixels=limit, progress=watch("decoding a sample", len(some)))
    sizes = {path: look.num_bytes for path, look in looks.items()}
    same = same_content(sizes, progress=watch("looking for copies", len(paths)))
    found = Survey(folder, listing, machine, looks, len(some), broken, same)
    if listing.has_masks:
        _check_masks(found, asked=masks is not None)
    _drop_broken(found)
    _without_scores(listing)
    if not any(picture.split == "val" for picture in listing.pictures):
        _hold_out(found)
    _offer_strong(found)
    account(tree, listing, found.broken)
    return found


def _check_masks(found: Survey, *, asked: bool) -> None:
    listing = found.listing
    found.turned = turned_masks(listing, found.looks)
    if found.turned.masks_on == "stored":
        listing.fields["masks_on"] = "stored"
    found.masks = look_at_masks(listing)
    if found.masks.usable:
        return
    why = found.masks.why_not(listing.classes)
    if asked:
        raise ValueError(f"--masks {listing.fields['masks']}: {why}")
    found.no_masks = why
    listing.fields.pop("masks_on", None)
    if listing.kind == "coco":
        listing.fields |= {"train_masks": "none", "val_annotations": None}
    else:
        listing.fields["masks"] = None
    if listing.kind != "folder":
        listing.fields["val"] = None
        listing.leave_out("for validation, without masks that can be used", lambda picture: picture.split == "val")
    listing.pictures = [replace(picture, mask=None, drawn=False) for picture in listing.pictures]


def _without_scores(listing: FolderListing) -> None:
    """Leave out the validation images of a folder that have no mask, because they can be neither scored nor trained on."""
    if listing.kind != "folder":
        return
    reason = "for validation, without masks to score with (move them to the training images to train on them)"
    if listing.leave_out(reason, lambda picture: picture.split == "val" and not picture.masked):
        listing.own.append("some validation images have no mask")


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
    ids = held_out(listing.pictures, twins)
    if listing.drawn:
        ids = _drawable(listing, ids)
    if not ids:
        return
    chosen = {picture.path for picture in listing.pictures if picture.image_id in ids}
    beside = {picture.path for picture in listing.pictures if twins.get(picture.path) in chosen}
    listing.leave_out("the same as an image that is held out", lambda picture: picture.path in beside)
    listing.own.append("about every fifth image with a mask is held out for validation")
    listing.pictures = [replace(picture, split="val") if picture.image_id in ids else picture for picture in listing.pictures]
    found.held_out = ids


def _drawable(listing: FolderListing, ids: set[str]) -> set[str]:
    """Return the ids of the images whose masks can be drawn and fit the image: a validation image needs one."""
    chosen = [picture for picture in listing.pictures if picture.image_id in ids]
    look = look_at_masks(replace(listing, pictures=chosen), most=len(chosen))
    return {picture.image_id for picture in chosen if picture.path not in look.unusable}


def _offer_strong(found: Survey) -> None:
    """Use the masks of training images for training, if only a few of these images have one."""
    listing = found.listing
    masked = [picture.image_id for picture in listing.pictures if picture.split == "weak" and picture.masked]
    if not 0 < len(masked) < _FEW * found.num_train:
        return
    found.strong = masked
    if listing.kind == "folder":
        listing.fields["strong"] = "masks"
    else:
        listing.own.append("only some training images have a mask")
