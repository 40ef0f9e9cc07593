"""Recognise the layout of a folder of images."""

from __future__ import annotations

from pathlib import Path

from wsss_ray.core.counted import counted
from wsss_ray.preflight.survey.coco_sets import read_coco
from wsss_ray.preflight.survey.folders import read_folder
from wsss_ray.preflight.survey.listing import FolderListing
from wsss_ray.preflight.survey.tree import Tree, scan
from wsss_ray.preflight.survey.voc_sets import read_voc

LAYOUTS = """\
  one subfolder per class             FOLDER/cat/1.jpg  FOLDER/dog/2.jpg
  photographs and a table of tags     FOLDER/1.jpg  FOLDER/tags.csv with lines  image,tags  and  1.jpg,cat;dog
                                      (.csv, .json, .jsonl, .parquet; in the folder, beside it, or --tags FILE)
  COCO's JSON beside the images       FOLDER/instances.json  FOLDER/images/1.jpg
  Pascal VOC                          FOLDER/JPEGImages/1.jpg  FOLDER/Annotations/1.xml"""


def recognise_layout(folder: Path, *, tags: Path | None = None, masks: Path | None = None) -> tuple[FolderListing, Tree]:
    """Recognise the layout of a folder, and list its images.

    Args:
        folder: The folder.
        tags: A table of tags. None looks for one in the folder and beside it.
        masks: A folder of masks. None looks for one in the folder and beside it.

    Returns:
        The listing, and everything below the folder.

    Raises:
        ValueError: if the layout has a mistake, or if it is none of the known ones.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "there is no such folder"
        raise ValueError(f"{folder}: {what}; give the folder of the images")
    folder = folder.absolute()
    tags, masks = (None if path is None else path.absolute() for path in (tags, masks))
    tree, listing = scan(folder), None
    if tags is None and masks is None:
        listing = read_voc(folder) or read_coco(tree)
    listing = listing or read_folder(tree, tags=tags, masks=masks)
    if listing is None:
        found = f"{counted(len(tree.names), 'image')}, and nothing that gives them tags" if tree.names else "no images"
        unread = ", ".join(f"{count} {ending}" for ending, count in tree.unread.items())
        others = f" ({unread} cannot be read: save them as JPEG)" if unread else ""
        raise ValueError(f"{folder}: {found}{others}; init reads these layouts\n{LAYOUTS}")
    if not any(picture.split == "weak" for picture in listing.pictures):
        raise ValueError(f"{folder}: {listing.what}: no image is left to train on; put some into the training split")
    return listing, tree
