"""A small folder laid out like VOC 2012, the archives it comes from, and jobs thin enough for it."""

from __future__ import annotations

import tarfile

import numpy as np
from PIL import Image
from scipy.io import savemat

from wsss_ray.data.palette import voc_palette

NAMES = [f"2007_{k:06d}" for k in range(6)]


def make_voc(root):
    """Six images of 120 x 160 with XML tags, palette masks with a 255 border, and saliency maps."""
    rng = np.random.default_rng(0)
    lists = ("ImageSets/SegmentationAug", "ImageSets/Segmentation")
    for folder in ("JPEGImages", "Annotations", "SegmentationClassAug", "Saliency", *lists):
        (root / folder).mkdir(parents=True)
    for place, name in enumerate(NAMES):
        image = rng.integers(0, 256, (120, 160, 3)).astype(np.uint8)
        mask = np.zeros((120, 160), np.uint8)
        mask[28:92, 38:102] = 255
        mask[30:90, 40:100] = 12 if place % 2 else 15
        image[mask > 0] = (200, 60, 40) if place % 2 else (40, 60, 200)
        Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg")
        png = Image.fromarray(mask, mode="P")
        png.putpalette(voc_palette().ravel().tolist())
        png.save(root / "SegmentationClassAug" / f"{name}.png")
        Image.fromarray((mask > 0).astype(np.uint8) * 255).save(root / "Saliency" / f"{name}.png")
        tag = "dog" if place % 2 else "person"
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation><object><name>{tag}</name></object></annotation>")
    (root / "ImageSets/SegmentationAug/train_aug.txt").write_text("\n".join(NAMES[:4]))
    (root / "ImageSets/Segmentation/val.txt").write_text("\n".join(NAMES[4:]))
    (root / "ImageSets/Segmentation/strong.txt").write_text("\n".join([NAMES[1], NAMES[5]]))
    return root


def sbd_mask(place, label=None):
    """The mask of an image as SBD would have it, two pixels lower than VOC's and without a border."""
    mask = np.zeros((120, 160), np.uint8)
    mask[32:92, 40:100] = label or (12 if place % 2 else 15)
    return mask


def write_mat(path, mask):
    """A mask in the form of SBD: a MATLAB struct in a struct."""
    savemat(path, {"GTcls": {"Segmentation": mask, "CategoriesPresent": np.unique(mask), "Boundaries": np.zeros((20, 1))}})


def make_raw(folder):
    """VOC as it is unpacked, with two images in train.txt and two in val.txt, and SBD with five, one in each of those."""
    voc, sbd = make_voc(folder / "VOCdevkit/VOC2012"), folder / "benchmark_RELEASE/dataset"
    (voc / "SegmentationClassAug").rename(voc / "SegmentationClass")
    (voc / "ImageSets/SegmentationAug/train_aug.txt").unlink()
    (voc / "ImageSets/Segmentation/train.txt").write_text("\n".join(NAMES[:2]))
    (sbd / "cls").mkdir(parents=True)
    for place in (0, 2, 3, 4):
        write_mat(sbd / "cls" / f"{NAMES[place]}.mat", sbd_mask(place))
    for name in NAMES[2:4]:
        (voc / "SegmentationClass" / f"{name}.png").unlink()
    (sbd / "train.txt").write_text(f"{NAMES[0]}\n{NAMES[2]}\n")
    (sbd / "val.txt").write_text(f"{NAMES[3]}\n{NAMES[4]}\n")
    return voc, sbd.parent


def pack(folder):
    """The archives of `make_raw` as they are downloaded, and nothing beside them."""
    for name, top in (("VOCtrainval_11-May-2012.tar", "VOCdevkit"), ("benchmark.tgz", "benchmark_RELEASE")):
        with tarfile.open(folder / name, "w:gz" if name.endswith("gz") else "w") as archive:
            archive.add(folder / top, top)


def thin(block):
    """The same job with two steps of two images a training, small transformers, and VGG16 and ResNet38 of few channels."""
    if isinstance(block, list):
        return [thin(part) for part in block]
    if not isinstance(block, dict):
        return block
    small = {key: thin(value) for key, value in block.items()}
    if small.get("kind") in ("vgg16", "resnet38"):
        small |= {"weights": "none", "width": 0.125}
    if small.get("kind") == "resnet":
        small |= {"weights": "none"}
    if small.get("kind") == "timm_vit":
        small |= {"weights": "none", "name": "test_vit"}
    if small.get("kind") == "clip_maps":
        small["clip"] = {"weights": "random"}
    if "batch_size" in small:
        small |= {"batch_size": 2, "steps": 2, "epochs": None}
        small["optimizer"] |= {"lr": 1e-6}  # nets that start at random with fixed batch norms bear no more
    if "iterations" in small:
        small |= {"iterations": 2}
    for key, value in (("selections", 10), ("size", 161), ("sizes", [161]), ("hidden", 16)):
        if small.get(key):
            small[key] = value
    return small
