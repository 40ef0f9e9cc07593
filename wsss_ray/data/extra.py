"""List and read the extra inputs of the training images: a folder of PNG files beside any source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from wsss_ray.core.errors import shown
from wsss_ray.data.finder import beside
from wsss_ray.data.image_files import read_files
from wsss_ray.data.lookup import expand
from wsss_ray.data.source import Extra, Item, Raw, Source, Split


class ExtraInput(Source):
    """The extra inputs of the images of a source, as a source with the one split `extra`. Not for job files."""

    in_job_files: ClassVar[bool] = False
    inner: Source
    input: Extra

    @classmethod
    def of(cls, source: Source, extra: Extra) -> ExtraInput:
        """Read the extra inputs of a source's training images, in shards of the same size."""
        shared = {name: getattr(source, name) for name in Source.model_fields}
        return cls.model_construct(inner=source, input=extra, **shared)

    def class_names(self) -> tuple[str, ...]:
        """See `Source.class_names`."""
        return self.inner.class_names()

    def splits(self) -> tuple[Split, ...]:
        """See `Source.splits`."""
        return ("extra",)

    def has_masks(self, split: Split) -> bool:
        """See `Source.has_masks`."""
        return False

    def items(self, split: Split) -> list[Item]:
        """List a PNG file for each training image."""
        return list(self.listed(split))

    def listed(self, split: Split) -> Iterator[Item]:
        """Yield the items of `items` one by one."""
        field, folder = f"data.extra: {self.input.name}", expand(self.input.folder)
        if not folder.is_dir():
            raise ValueError(f"{field}: {shown(str(folder), 1000)} is not a folder; give the folder of the PNG files")
        for item in self.inner.taken("weak"):
            path, state = beside(str(folder), item.image_id)
            if state is None:
                raise ValueError(f"{field}: {shown(path, 1000)} is missing; every training image needs one")
            yield replace(item, path=path, mask=None, size=state[0], changed=state[1], annotation=None)

    def load(self, item: Item) -> Raw:
        """Read the PNG file of an image."""
        return read_files(item)
