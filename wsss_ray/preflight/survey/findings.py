"""Compose the lines that `init` prints: what a folder holds, and what looks wrong."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from statistics import median

from wsss_ray.core.counted import counted
from wsss_ray.core.values import IGNORE
from wsss_ray.preflight.survey.files import SAMPLE
from wsss_ray.preflight.survey.masks import MaskLook
from wsss_ray.preflight.survey.survey import Survey
from wsss_ray.reporting.doubts import FEW

_NAMED = 3  # names in a line
_MANY_TIMES = 10  # warn of a class with so many times fewer images than the largest
_WITHOUT = "these images are trained on by their tags, and are not scored"
_ALWAYS = 0.95  # warn of a tag on a larger share of the images

Line = tuple[str, str]
"""A heading and a text. The heading `warning` marks what the user should look at."""


def findings(found: Survey) -> Iterator[Line]:
    """Yield the lines, in reading order."""
    listing = found.listing
    yield "layout", listing.what
    yield "images", _images(found)
    yield "classes", _classes(found)
    if found.masks is not None:
        yield from _masks(found)
        yield from _turned(found)
    shapeless = sum(one.item is not None and one.item.annotation is not None and not one.drawn for one in listing.pictures)
    if shapeless and found.no_masks is None:
        only = "they are trained on by their tags, and cannot be scored"
        yield "note", f"{counted(shapeless, 'image', 'have')} objects without a shape that can be drawn, such as boxes: {only}"
    for text in listing.notes:
        yield "note", text
    for reason, names in listing.left_out.items():
        if names:
            yield "left out", f"{len(names)} {reason}: {_some(_names(found, names))}"
    yield from _odd(found)
    yield from _same(found)
    yield from _balance(found)


def _images(found: Survey) -> str:
    sides = [(look.width, look.height) for look in found.looks.values() if look.width]
    size = f"{sum(look.num_bytes for look in found.looks.values()) / 1e6:.1f} MB"
    pixels = "no size is known"
    if sides:
        width, height = (round(median(side[axis] for side in sides)) for axis in (0, 1))
        largest = max(sides, key=lambda side: side[0] * side[1])
        pixels = f"median {width} x {height}, largest {largest[0]} x {largest[1]} pixels"
    seen = f"; all headers read, {found.decoded} decoded in full" if found.decoded < len(found.looks) else ""
    return f"{len(found.listing.pictures)}, {pixels}, {size}{seen}"


def _classes(found: Survey) -> str:
    counts, pictures = found.listing.tagged(), found.listing.pictures
    each = ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda one: (-one[1], one[0])))
    mean = sum(counts.values()) / max(1, len(pictures))
    untagged = sum(not picture.tags for picture in pictures)
    bare = f", {counted(untagged, 'image')} without tags" if untagged else ""
    return f"{len(counts)}: {each}; {mean:.1f} tags an image{bare}"


def _masks(found: Survey) -> Iterator[Line]:
    listing, look = found.listing, found.masks
    assert look is not None
    if found.no_masks is not None:
        yield "warning", f"masks are not used: {found.no_masks}"
        return
    drawn = ", drawn from the annotations" if listing.drawn else ""
    yield "masks", f"{look.found}{drawn}; labels in {look.looked} of them: {_labels(look, listing.classes)}"
    yield from _mask_warnings(look, listing.classes)
    val = sum(picture.split == "val" for picture in listing.pictures)
    if found.held_out:
        text = f"{found.num_train} for training, {val} held out for validation (about every fifth image with a mask)"
    elif val:
        text = f"{found.num_train} for training, {val} for validation, as given"
    else:
        text = f"all {found.num_train} for training: too few masks to hold images out, so only the seeds are scored"
    yield "split", text
    if found.strong:
        few = f"{len(found.strong)} of the {found.num_train} training images have a mask"
        yield "strong", f"{few}: the segmenters are trained on these masks too (data.strong); null trains on tags alone"


def _turned(found: Survey) -> Iterator[Line]:
    turned = found.turned
    if not turned.count or found.no_masks is not None:
        return
    what = f"EXIF turns {counted(turned.count, 'image')} with a mask"
    if turned.upright and turned.stored:
        mixed = (
            f"{counted(turned.upright, 'mask', 'have')} the size of the upright image, {turned.stored} that of the stored pixels"
        )
        yield "warning", f"{what}: {mixed}; save all in one way, and set data.masks_on"
    elif turned.upright or turned.stored:
        size = "stored pixels" if turned.stored else "upright image"
        yield "note", f"{what}: by their sizes, the masks are drawn on the {size} (data.masks_on: {turned.masks_on})"
    else:
        known = "the sizes do not tell whether masks are drawn on the upright image or on the stored pixels"
        yield "warning", f"{what}: {known}; they are taken as upright. If not, set data.masks_on to stored"


def _labels(look: MaskLook, classes: tuple[str, ...]) -> str:
    names = {0: "background", IGNORE: "(ignored)"} | dict(enumerate(classes, start=1))
    return ", ".join(f"{label} {names.get(label, '(no class)')} in {look.labels[label]}" for label in sorted(look.labels))


def _mask_warnings(look: MaskLook, classes: tuple[str, ...]) -> Iterator[Line]:
    if look.unusable:
        path, reason = next(iter(look.unusable.items()))
        yield (
            "warning",
            f"{len(look.unusable)} of {counted(look.looked, 'mask')} cannot be used, such as {path}: {reason}; {_WITHOUT}",
        )
    for ids, what in ((look.beyond_tags, "show classes that their images are not tagged with"),
                      (look.absent_tags, "lack a class that their images are tagged with")):  # fmt: skip
        if 5 * len(ids) > look.looked:
            order = f"label 1 has to be {classes[0]}, and so on; name the classes in the order of the labels in data.classes"
            yield "warning", f"{len(ids)} of {counted(look.looked, 'mask')} {what} ({_some(ids)}); {order}"


def _odd(found: Survey) -> Iterator[Line]:
    reasons: dict[str, list[str]] = defaultdict(list)
    for path, reason in found.broken.items():
        reasons[reason].append(path)
    kept = {picture.path for picture in found.listing.pictures}
    for reason, paths in reasons.items():
        end = "left out" if not set(paths) & kept else "recorded and skipped when the job runs"
        yield "warning", f"{len(paths)} cannot be read, {end}: {_some(_names(found, paths))}: {reason}"
    if found.decoded >= SAMPLE and any(path in found.broken and not found.looks[path].broken for path in found.looks):
        tried = counted(found.decoded, "image", "were")
        yield "note", f"{tried} decoded to find damage behind the header; others may have such damage too"
    odd = Counter(mark for look in found.looks.values() for mark in look.odd)
    if odd:
        yield "odd", ", ".join(f"{count} {mark}" for mark, count in sorted(odd.items())) + ": ingest converts them"
    by_case: dict[str, list[str]] = defaultdict(list)
    for picture in found.listing.pictures:
        by_case[picture.image_id.lower()].append(picture.image_id)
    alike = [group for group in by_case.values() if len(group) > 1]
    if alike:
        pairs = "; ".join(" and ".join(group) for group in alike[:_NAMED])
        yield (
            "odd",
            f"names that differ only in case, and are the same file on Windows and macOS: {pairs}",
        )


def _same(found: Survey) -> Iterator[Line]:
    tags = {picture.path: frozenset(picture.tags) for picture in found.listing.pictures}
    groups = [[path for path in group if path in tags] for group in found.same]
    groups = [group for group in groups if len(group) > 1]
    if groups:
        copies = counted(sum(map(len, groups)), "file")
        pairs = "; ".join(" = ".join(_names(found, group[:_NAMED])) for group in groups[:_NAMED])
        yield "odd", f"{counted(len(groups), 'image', 'are')} there more than once, in {copies}: {pairs}"
    torn = [group for group in groups if len({tags[path] for path in group}) > 1]
    if torn:
        told = "; ".join(
            " and ".join(f"{name} ({_tags(tags[path])})" for path, name in zip(group, _names(found, group), strict=True))
            for group in torn[:_NAMED]
        )
        yield "warning", f"{counted(len(torn), 'image', 'are')} there more than once, with different tags: {told}"


def _balance(found: Survey) -> Iterator[Line]:
    pictures = [picture for picture in found.listing.pictures if picture.split == "weak"]
    counts = Counter(tag for picture in pictures for tag in picture.tags)
    most = max(counts.values(), default=0)
    none = [name for name in found.listing.classes if not counts[name]]
    few = [name for name in found.listing.classes if 0 < counts[name] < FEW]
    rare = [name for name in found.listing.classes if 0 < counts[name] * _MANY_TIMES < most and name not in few]
    always = [name for name, count in counts.items() if count > _ALWAYS * len(pictures)]
    if none:
        yield "warning", f"no training image is tagged {_some(none)}: the networks cannot learn it"
    if few:
        named = _some([f"{name} ({counts[name]})" for name in few])
        yield "warning", f"fewer than {FEW} images of {named}: hardly enough to learn from"
    if rare:
        yield "warning", f"imbalance: {_some(rare)} are {_MANY_TIMES} times rarer than the most frequent class"
    for name in always:
        yield "warning", f"nearly every image is tagged {name}: a network cannot tell it from background; add images without it"


def _tags(tags: Iterable[str]) -> str:
    return ", ".join(sorted(tags)) or "none"


def _names(found: Survey, paths: Iterable[str]) -> list[str]:
    """Name files by their paths relative to the folder."""
    root = str(found.folder.absolute())
    return [os.path.relpath(path, root) if path.startswith(root) else path for path in paths]


def _some(names: Iterable[str]) -> str:
    """Join the first few names, without characters that would break the line."""
    shown = list(names)
    text = ", ".join("".join(letter if letter.isprintable() else "?" for letter in name) for name in shown[:_NAMED])
    return f"{text}, ..." if len(shown) > _NAMED else text
