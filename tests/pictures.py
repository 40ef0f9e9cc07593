"""Image files as they come: those that a run has packed, and forms that cameras and scanners write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.local import stage_named
from wsss_ray.storage.shards import list_shards, read_shard


def unpack(store, plan, folder: Path, *, split: str = "images-val", most: int | None = None) -> dict[str, Path]:
    """Write the images of a split as PNG files; their paths by image id."""
    stage = stage_named(plan, split)
    rows = [row for shard in list_shards(store, stage) for row in read_shard(store, stage, shard, "images")][:most]
    found = {}
    for row in rows:
        path = found[row["image_id"]] = folder / f"{row['image_id']}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(row["image"])
    return found


def odd_pictures(folder: Path) -> dict[str, tuple[int, int]]:
    """Write images of many forms, 40 x 28 as they are stored; names and the size (height, width) in which they are seen."""
    rgb = Image.fromarray(np.random.default_rng(5).integers(0, 255, (28, 40, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    gray16 = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    rgb.save(folder / "turned.jpg", exif=turned)
    rgb.convert("L").save(folder / "gray.png")
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.convert("RGBA").save(folder / "alpha.webp", lossless=True)
    rgb.quantize(16).save(folder / "palette.gif")
    gray16.save(folder / "sixteen.tiff")
    return dict.fromkeys(("gray", "cmyk", "alpha", "palette", "sixteen"), (28, 40)) | {"turned": (40, 28)}
