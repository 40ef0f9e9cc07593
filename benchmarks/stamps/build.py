"""Build the stamps benchmark: photographed objects pasted on photographs, in the layout of Pascal VOC. See README.md here.

python benchmarks/stamps/build.py OUT [--stamps DIR] [--backgrounds DIR] [--fetch] [--train N] [--test N] [--size N] [--seed N]
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.stamps.catalogue import CLASSES, Background, Cutout, Stock, hold_out, read_backgrounds, read_cutouts
from benchmarks.stamps.scenes import BORDER, CROP, Scene, compose

STAMPS, PHOTOGRAPHS = "tuxpaint-stamps-default", "gcompris-qt-data"
SPLITS = ("train", "test_seen", "test_unseen")
FOLDERS = ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets")
FILES = ("classes.txt", "LICENCE.txt", "manifest.json")
UNSEEN_CUTOUTS, TEST_PLACES, TWO_OBJECTS = 0.25, 0.3, 0.5  # shares

LICENCE = f"""Made by benchmarks/stamps/build.py from pictures of two Debian packages.

The objects come from {STAMPS}: GPL-2. The photographs behind them come from {PHOTOGRAPHS}: licence and author
differ from file to file, mostly CC-BY-SA and public domain; their notices follow.

Do not pass the built pictures on without checking the licence of each picture they were made from: manifest.json names the
cut-outs and the photograph of every scene.

"""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 after one line on stderr."""
    parser = argparse.ArgumentParser(description="Build the stamps benchmark in VOC layout.")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; an earlier build in it is replaced")
    parser.add_argument("--stamps", type=Path, metavar="DIR", help=f"{STAMPS}, unpacked (default: as installed)")
    parser.add_argument("--backgrounds", type=Path, metavar="DIR", help=f"{PHOTOGRAPHS}, unpacked (default: as installed)")
    parser.add_argument("--fetch", action="store_true", help="get a package without DIR by apt-get, into OUT/.packages")
    parser.add_argument("--train", type=int, default=500, help="training scenes (%(default)s)")
    parser.add_argument("--test", type=int, default=150, help="scenes in each of the two test lists (%(default)s)")
    parser.add_argument("--size", type=int, default=256, help="side of a scene in pixels (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    args = parser.parse_args(argv)
    try:
        if not (1 <= args.train <= 99_999 and 1 <= args.test <= 99_999 and 64 <= args.size <= 4096 and args.seed >= 0):
            raise ValueError("--train and --test must lie in 1..99999, --size in 64..4096, --seed must not be negative")
        check_out(args.out)
        stamps, photographs = args.stamps, args.backgrounds
        if args.fetch:
            stamps = stamps or fetch(STAMPS, args.out / ".packages")
            photographs = photographs or fetch(PHOTOGRAPHS, args.out / ".packages")
        stamps = locate(stamps, "tuxpaint/stamps", probe="animals", package=STAMPS, option="--stamps")
        photographs = locate(
            photographs, "gcompris-qt/rcc", probe="explore_monuments.rcc", package=PHOTOGRAPHS, option="--backgrounds"
        )
        objects, scenery = read_cutouts(stamps), read_backgrounds(photographs, round(args.size / CROP[0]))
        versions = {STAMPS: package_version(stamps, STAMPS), PHOTOGRAPHS: package_version(photographs, PHOTOGRAPHS)}
        clear(args.out)
        counts = {"train": args.train, "test_seen": args.test, "test_unseen": args.test}
        manifest = build(args.out, objects=objects, scenery=scenery, counts=counts, size=args.size, seed=args.seed)
        write_json(args.out / "manifest.json", {**manifest, "packages": versions})
    except (OSError, ValueError) as error:
        print(f"build.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"{args.out}: {args.train} + 2 x {args.test} scenes, sha256 {manifest['sha256']}")
    return 0


def check_out(out: Path) -> None:
    """Raise ValueError if OUT holds anything that a build does not write."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is not a folder")
    ours = {*FOLDERS, *FILES, ".packages"}
    foreign = sorted(path.name for path in out.iterdir() if path.name not in ours) if out.exists() else []
    if foreign:
        raise ValueError(f"{out} holds {foreign[0]!r}, which is not from an earlier build; give a new or empty folder")


def clear(out: Path) -> None:
    """Remove an earlier build, its manifest first, and make the folders."""
    for name in (*reversed(FILES), *FOLDERS):
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for name in (*FOLDERS[:3], "ImageSets/Segmentation"):
        (out / name).mkdir(parents=True)


def fetch(package: str, folder: Path) -> Path:
    """Download and unpack a Debian package below `folder`; one unpacked before is used again. Returns where it lies."""
    target = folder / package
    if target.is_dir():
        return target
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise ValueError(f"--fetch needs {tool}, which is not here; unpack {package} and give its folder")
    folder.mkdir(parents=True, exist_ok=True)
    call("apt-get", "download", package, cwd=folder)
    archives = sorted(folder.glob(f"{package}_*.deb"))
    if not archives:
        raise ValueError(f"apt-get download {package} left no package in {folder}")
    part = folder / f"{package}.part"
    shutil.rmtree(part, ignore_errors=True)
    call("dpkg-deb", "-x", archives[-1].name, part.name, cwd=folder)
    archives[-1].unlink()
    return part.rename(target)


def call(*command: str, cwd: Path) -> None:
    """Run a command. Raises ValueError with the last line that it wrote on stderr."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise ValueError(f"{' '.join(command)} failed: {lines[-1]}")


def locate(given: Path | None, inner: str, *, probe: str, package: str, option: str) -> Path:
    """Find the folder `inner` of a package, whether its root, that folder or one between is given; else as installed."""
    if given is None:
        given = Path("/usr/share") / inner
        if not (given / probe).exists():
            raise ValueError(f"{package} is not installed ({given} has no {probe}); install it, or give {option} DIR or --fetch")
    for path in (given / "usr/share" / inner, given / "share" / inner, given / inner, given / Path(inner).name, given):
        if (path / probe).exists():
            return path
    raise ValueError(f"{option} {given}: no {package} there ({inner}/{probe} not found)")


def package_version(folder: Path, package: str) -> str | None:
    """Read the version of the Debian package that a folder is part of, from its change log; None if there is none."""
    for parent in folder.resolve().parents:
        log = parent / "doc" / package / "changelog.Debian.gz"
        if log.is_file():
            with gzip.open(log, "rt", encoding="utf-8", errors="replace") as lines:
                found = re.match(r"\S+ \(([^)]+)\)", lines.readline())
            return found[1] if found else None
    return None


def build(out: Path, *, objects: Stock, scenery: Stock, counts: dict[str, int], size: int, seed: int) -> dict[str, object]:
    """Write all but the manifest, and return it. `out` has the empty folders. The same arguments give the same bytes."""
    seen: list[list[Cutout]] = []
    unseen: list[list[Cutout]] = []
    for index, name in enumerate(CLASSES):
        mine = [cutout for cutout in objects.cutouts if cutout.class_index == index]
        kept, held_out = hold_out(mine, UNSEEN_CUTOUTS, f"{seed}/cutouts/{name}")
        seen.append(kept)
        unseen.append(held_out)
    places = sorted({background.place for background in scenery.backgrounds})
    train_places, test_places = hold_out(places, TEST_PLACES, f"{seed}/places")
    train_photos = [background for background in scenery.backgrounds if background.place in train_places]
    test_photos = [background for background in scenery.backgrounds if background.place in test_places]
    offer = {"train": (seen, train_photos), "test_seen": (seen, test_photos), "test_unseen": (unseen, test_photos)}
    record: list[dict[str, object]] = []
    for split in SPLITS:
        names = [f"{split}_{index:05d}" for index in range(counts[split])]
        for index, name in enumerate(names):
            scene = draw(random.Random(f"{seed}/{split}/{index}"), *offer[split], first=index % len(CLASSES), size=size)
            write_scene(out, name, scene)
            pasted = [
                {"class": CLASSES[o.class_index], "cutout": o.cutout, "box": o.box, "flipped": o.flipped, "angle": o.angle}
                | {"visible": o.visible}
                for o in scene.objects
            ]
            record.append({"id": name, "split": split, "background": scene.background, "objects": pasted})
        (out / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    (out / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    (out / "LICENCE.txt").write_text(LICENCE + scenery.notices, encoding="utf-8")
    return {
        "sha256": tree_digest(out),
        "args": {**counts, "size": size, "seed": seed},
        "classes": CLASSES,
        "software": {"numpy": np.__version__, "pillow": PIL.__version__},
        "inputs_sha256": {"cutouts": objects.sha256, "backgrounds": scenery.sha256},
        "cutouts": {
            name: {"train": [c.name for c in seen[index]], "unseen": [c.name for c in unseen[index]]}
            for index, name in enumerate(CLASSES)
        },
        "backgrounds": {"train": [b.name for b in train_photos], "test": [b.name for b in test_photos]},
        "left_out": dict(objects.left_out + scenery.left_out),
        "scenes": record,
    }


def draw(rng: random.Random, stock: list[list[Cutout]], photos: list[Background], *, first: int, size: int) -> Scene:
    """One object of class `first`, and every second time one of another class over it or beside it."""
    classes = [first]
    if rng.random() < TWO_OBJECTS:
        classes.append(rng.choice([index for index in range(len(stock)) if index != first]))
    rng.shuffle(classes)
    background = rng.choice(photos)
    return compose(rng, background=background, cutouts=[rng.choice(stock[index]) for index in classes], size=size)


def write_scene(out: Path, name: str, scene: Scene) -> None:
    """Write the image (JPEG, quality 95), the mask (PNG with the VOC palette) and the annotation."""
    height, width = scene.mask.shape
    Image.fromarray(scene.image).save(out / "JPEGImages" / f"{name}.jpg", quality=95)
    mask = Image.fromarray(scene.mask)
    mask.putpalette(voc_palette())
    mask.save(out / "SegmentationClass" / f"{name}.png")
    lines = ["<annotation>", f"  <filename>{name}.jpg</filename>"]
    lines += [f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>", "  <segmented>1</segmented>"]
    for placed in scene.objects:
        left, top, right, bottom = placed.box
        box = f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
        name_of_class = CLASSES[placed.class_index]
        lines.append(f"  <object><name>{name_of_class}</name><difficult>0</difficult><bndbox>{box}</bndbox></object>")
    (out / "Annotations" / f"{name}.xml").write_text("\n".join([*lines, "</annotation>", ""]))


def voc_palette() -> list[int]:
    """256 RGB triples: bit 3j + c of a label is bit 7 - j of its channel c."""
    return [sum((label >> (3 * j + c) & 1) << (7 - j) for j in range(3)) for label in range(BORDER + 1) for c in range(3)]


def tree_digest(out: Path) -> str:
    """SHA-256 over the path and SHA-256 of every file of the build but the manifest, sorted by path."""
    paths = sorted(p.relative_to(out).as_posix() for f in FOLDERS for p in (out / f).rglob("*") if p.is_file())
    paths += ["LICENCE.txt", "classes.txt"]
    lines = (f"{hashlib.sha256((out / path).read_bytes()).hexdigest()}  {path}\n" for path in sorted(paths))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_json(path: Path, value: dict[str, object]) -> None:
    """Indented, except that a scene or a name takes one line."""
    text = json.dumps({k: v for k, v in value.items() if k != "scenes"}, indent=1)
    scenes = ",\n  ".join(json.dumps(scene) for scene in value["scenes"])  # type: ignore[attr-defined]
    path.write_text(f'{text[:-2]},\n "scenes": [\n  {scenes}\n ]\n}}\n')


if __name__ == "__main__":
    sys.exit(main())
