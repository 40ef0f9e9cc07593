"""Read the lines of lists of images as sets like Pascal VOC have them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from wsss_ray.core.errors import shown
from wsss_ray.data.finder import Finder, clean
from wsss_ray.data.image_files import bare
from wsss_ray.data.lookup import file_state

_TAGS = re.compile(r"\d{1,6}(\s+\d{1,6})*")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_LONGEST = 5000  # characters of a line, which may be cut at every space


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a list: the image id, its place for messages, and the files and tags that the line gives."""

    image_id: str
    where: str
    image: str | None = None
    mask: str | None = None
    tags: tuple[int, ...] | None = None


class Lines:
    """Parse lines of three forms: `id`, `id 0 14` with numbers of classes, and `/folder/image.jpg /folder/mask.png`.

    Names may hold spaces, so a line may fit several forms. The form counts whose image exists. A line of one word has one form,
    so that no file is looked up for it.

    Args:
        root: The folder of the set, in which paths start.
        images: The folder of the images that ids name.
    """

    def __init__(self, root: str, images: Finder) -> None:
        self._root, self._images = root, images

    def entry(self, line: str, where: str) -> Entry:
        """Parse a line.

        Args:
            line: The line without spaces at its ends.
            where: Its place for messages.

        Raises:
            ValueError: if the line has none of the forms, or if two of them name images that exist.
        """
        if _CONTROL.search(line):
            raise ValueError(f"{where}: {shown(repr(line))} holds a control character; save the list as text")
        if len(line) > _LONGEST:
            raise ValueError(f"{where}: a line of {len(line)} characters; put each image on a line of its own")
        forms = list(_forms(line, where))
        if line.split() == [line]:
            return forms[0]
        there = [form for form in forms if self._is_there(form)]
        if len(there) > 1:
            named = shown(" or ".join(repr(form.image or form.image_id) for form in there), 500)
            meant = f"{shown(repr(line), 300)} may mean the image {named}"
            raise ValueError(f"{where}: {meant}; write it as /FOLDER/NAME.jpg, or rename a file")
        plain = [form for form in forms if form.image is not None or form.tags is not None]
        if not there and not plain:
            what = "`id`, `id 0 14` or `/folder/image.jpg /folder/mask.png`"
            raise ValueError(f"{where}: {shown(repr(line))} is not understood, and is not the name of an image; expected {what}")
        return (there or plain)[0]

    def _is_there(self, form: Entry) -> bool:
        if form.image is not None:
            return file_state(f"{self._root}/{form.image}") is not None
        return bool(self._images.files.named(form.image_id))


def _forms(line: str, where: str) -> Iterator[Entry]:
    """Yield every way to read a line: cut into a name and what follows at each space, or not at all."""
    for cut in (*(found.start() for found in re.finditer(r"\s+", line)), len(line)):
        head, rest = clean(line[:cut]), line[cut:].strip()
        image_id = bare(head.rpartition("/")[2])
        is_path = image_id != head.rpartition("/")[2]
        image = head.lstrip("/") if is_path else None
        if not rest:
            yield Entry(image_id, where, image) if is_path else Entry(head, where)
        elif _TAGS.fullmatch(rest):
            yield Entry(image_id if is_path else head, where, image, tags=tuple(sorted({int(word) for word in rest.split()})))
        elif is_path and rest.lower().endswith(".png"):
            yield Entry(image_id, where, image, clean(rest).lstrip("/"))
