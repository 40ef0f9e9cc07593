"""Read the images of a run with their pseudo-labels as a torch data set, to train one's own segmenter on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from wsss_ray.data.codecs import decode_rgb
from wsss_ray.inference.label_maps import LabelMaps, decode_label
from wsss_ray.storage.open_shards import OpenShards
from wsss_ray.storage.shards import list_shards, read_shard
from wsss_ray.storage.store import RunStore

if TYPE_CHECKING:
    from wsss_ray.core.values import ImageArray, LabelArray

Transform = Callable[[Tensor, Tensor], Any]


class LabelledImages(Dataset[Any]):
    """The training images of a run with their pseudo-labels.

    An item is (image_CHW, label_HW): the image as uint8 RGB, and its labels as int64: 0 is background, 1 is the first class, 255
    is undecided (`ignore_index=255` of torch's losses). Images have the
    size in which the run packed them; `transform` crops them or brings them to one
    size. Images without labels are left out. It can be pickled to the workers of a `DataLoader`, which open the files themselves.

    Args:
        store: The store of the run.
        maps: The label maps.
        transform: Changes an image and its labels, as `transform(image_CHW, label_HW)`.

    Example:
        >>> data = wsss_ray.open_run("photos").dataset()
        >>> image_CHW, label_HW = data[0]
    """

    def __init__(self, store: RunStore, maps: LabelMaps, transform: Transform | None = None) -> None:
        self.maps, self.transform = maps, transform
        self._images, self._labels = OpenShards(store, "images"), OpenShards(store, maps.schema)
        self.ids: list[str] = []
        self._places: list[tuple[int, int]] = []
        failed = {
            row["image_id"]
            for shard in list_shards(store, maps, "errors")
            for row in read_shard(store, maps, shard, "errors", ["image_id"], folder="errors")
        }
        for shard in list_shards(store, maps):
            for place, row in enumerate(read_shard(store, maps, shard, maps.schema, ["image_id"])):
                if row["image_id"] not in failed:
                    self.ids.append(row["image_id"])
                    self._places.append((shard, place))

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the labels 0, 1, ..., background first."""
        return ("background", *self.maps.classes)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Any:
        image_HWC, label_HW = self.arrays(index)
        image_CHW, label = torch.from_numpy(image_HWC).permute(2, 0, 1), torch.from_numpy(label_HW).long()
        return (image_CHW, label) if self.transform is None else self.transform(image_CHW, label)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def arrays(self, index: int) -> tuple[ImageArray, LabelArray]:
        """Return an image (H, W, 3) and its labels (H, W) as arrays of uint8, without the transform.

        Raises:
            ValueError: if a file of the store is damaged.
        """
        shard, place = self._places[index]
        row = self._labels.row(self.maps, shard, place, ["image_id", self.maps.column])
        image = self._images.row(self.maps.data, shard, place, ["image_id", "image"])
        if row["image_id"] != image["image_id"]:
            what = f"shard {shard} has labels of {row['image_id']!r} where its data has {image['image_id']!r}"
            raise ValueError(f"stage {self.maps.stage!r}: {what}; delete the stage's folder and submit again")
        return decode_rgb(image["image"]), decode_label(row[self.maps.column], self.maps, row["image_id"])
