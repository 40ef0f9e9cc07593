"""A data set that is only a list: counted names and no files, to plan any number of images. A source as a plug-in writes it."""

from __future__ import annotations

from collections.abc import Iterator

from wsss_ray.data.source import Item, Raw, Source, Split


class Drawn(Source):
    """`count` images with one or two tags out of three."""

    count: int

    def class_names(self) -> tuple[str, ...]:
        """See `Source.class_names`."""
        return ("bar", "disc", "square")

    def splits(self) -> tuple[Split, ...]:
        """See `Source.splits`."""
        return ("weak",)

    def has_masks(self, split: Split) -> bool:
        """See `Source.has_masks`."""
        return True

    def items(self, split: Split) -> Iterator[Item]:
        """See `Source.items`."""
        tags = ((0,), (1,), (2,), (0, 2))
        for place in range(self.count):
            yield Item(f"drawn/{place:08d}", tags[place % 4])

    def load(self, item: Item) -> Raw:
        """Refuse: there are no images."""
        raise ValueError(f"image {item.image_id} is only listed; plan this data, and do not submit it")
