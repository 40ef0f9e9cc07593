"""benchmarks/stamps: the reader of Qt resource files, the choice of cut-outs, the scenes, whole builds of made-up packages."""

import hashlib
import io
import json
import random
import struct
import zlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, features

from benchmarks.stamps import rcc
from benchmarks.stamps.build import SPLITS, main, voc_palette
from benchmarks.stamps.catalogue import CLASSES, Background, Cutout, hold_out, read_backgrounds, read_cutouts, why_not_photograph
from benchmarks.stamps.scenes import MIN_VISIBLE, compose

STAMPS, PHOTOGRAPHS = Path("/usr/share/tuxpaint/stamps"), Path("/usr/share/gcompris-qt/rcc")


def write_rcc(files: dict[str, tuple[bytes, int]], version: int = 3) -> bytes:
    """A Qt resource file: path -> (content, flags), breadth first as Qt's rcc does it."""
    tree: dict = {}
    for path, content in files.items():
        *folders, name = path.split("/")
        here = tree
        for folder in folders:
            here = here.setdefault(folder, {})
        here[name] = content
    names, data, nodes, queue, used = b"", b"", b"", [("", tree)], 1
    for name, value in queue:
        at, names = len(names), names + struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        if isinstance(value, dict):
            nodes += struct.pack(">IHII", at, rcc.FOLDER, len(value), used)
            queue += value.items()
            used += len(value)
        else:
            content, flags = value
            if flags & rcc.ZLIB:
                content = struct.pack(">I", len(content)) + zlib.compress(content)
            elif flags & rcc.ZSTD:
                content = pa.compress(content, codec="zstd", asbytes=True)
            nodes += struct.pack(">IHHHI", at, flags, 0, 0, len(data))
            data += struct.pack(">I", len(content)) + content
        nodes += bytes(8 if version > 1 else 0)
    start = 24 if version == 3 else 20
    head = struct.pack(">4s4I", b"qres", version, start, start + len(nodes), start + len(nodes) + len(data))
    return head + bytes(start - 20) + nodes + data + names


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("flags", [0, rcc.ZLIB, rcc.ZSTD])
def test_rcc_gives_back_what_was_put_in(version, flags):
    files = {"a/b/one.webp": b"one" * 50, "a/two é.txt": b"", "three": bytes(range(256))}
    blob = write_rcc({path: (content, flags) for path, content in files.items()}, version)
    assert {entry.path: rcc.read(blob, entry) for entry in rcc.entries(blob)} == files


@pytest.mark.parametrize("flags", [0, rcc.ZLIB, rcc.ZSTD])
def test_rcc_cut_short_anywhere_is_a_value_error(flags):
    blob = write_rcc({"folder/a": (b"content of a" * 9, flags), "b": (b"b", flags)})
    for length in range(len(blob)):
        with pytest.raises(ValueError):  # noqa: PT011
            [rcc.read(blob[:length], entry) for entry in rcc.entries(blob[:length])]


def test_rcc_says_what_is_wrong():
    blob = bytearray(write_rcc({"a": (b"content", rcc.ZLIB)}))
    with pytest.raises(ValueError, match="not a Qt resource file"):
        rcc.entries(b"PK\x03\x04" + bytes(40))
    circle = blob.copy()
    circle[24 + 10 : 24 + 14] = struct.pack(">I", 0)  # the root becomes its own child
    with pytest.raises(ValueError, match="outside the tree"):
        rcc.entries(bytes(circle))
    (entry,) = rcc.entries(bytes(blob))
    blob[entry.offset + 4 : entry.offset + 8] = struct.pack(">I", 3)  # 7 bytes, 3 announced
    with pytest.raises(ValueError, match="a: 3 bytes announced"):
        rcc.read(bytes(blob), entry)


def disc(side: int, colour: tuple[int, int, int], *, noise: int = 0, seed: int = 0) -> Image.Image:
    """RGBA: a solid disc that fills its square, smooth at the rim."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    alpha = np.clip((side / 2 - np.hypot(x, y)) * 255, 0, 255)
    rgb = np.array(colour) + np.random.default_rng(seed).integers(-noise, noise + 1, (side, side, 3))
    return Image.fromarray(np.dstack([rgb.clip(0, 255), alpha]).astype(np.uint8))


def flat_background(size: tuple[int, int] = (180, 120)) -> Background:
    return Background("made/up", "up", Image.new("RGB", size, (10, 20, 30)))


COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (250, 0, 250)]


def discs(*classes: int) -> list[Cutout]:
    return [Cutout(f"disc{i}", i, disc(90, COLOURS[i])) for i in classes]


def test_a_scene_depends_on_its_seed_alone():
    def make(seed):
        return compose(random.Random(seed), background=flat_background(), cutouts=discs(0, 3), size=96)

    first, again, other = make("7/train/0"), make("7/train/0"), make("7/train/1")
    assert (first.image.tobytes(), first.mask.tobytes()) == (again.image.tobytes(), again.mask.tobytes())
    assert first.objects == again.objects
    assert first.mask.tobytes() != other.mask.tobytes()


def test_masks_tags_and_pixels_agree_and_nothing_is_hidden():
    hidden = 0
    for seed in range(60):
        scene = compose(random.Random(seed), background=flat_background(), cutouts=discs(seed % 5, (seed + 2) % 5), size=96)
        assert scene.image.shape == (96, 96, 3)
        assert scene.image.dtype == scene.mask.dtype == np.uint8
        labels = set(np.unique(scene.mask).tolist()) - {0, 255}
        assert labels == {1 + placed.class_index for placed in scene.objects}
        rgb = scene.image.astype(int)
        assert abs(rgb[scene.mask == 0] - (10, 20, 30)).max() <= 16  # alpha below 16
        for placed in scene.objects:
            own = scene.mask == 1 + placed.class_index
            assert abs(rgb[own] - COLOURS[placed.class_index]).max() <= 24  # alpha of 240 and more, and a little ringing
            rows, columns = np.nonzero(own)
            left, top, right, bottom = placed.box
            assert left <= columns.min() <= columns.max() < right <= 96
            assert top <= rows.min() <= rows.max() < bottom <= 96
            area = np.pi * (right - left) * (bottom - top) / 4  # the disc touches its box
            assert own.sum() / area >= MIN_VISIBLE - 0.1  # the rim is border
            assert placed.visible >= MIN_VISIBLE
        assert scene.objects[1].visible == 1.0
        hidden += scene.objects[0].visible < 1
    assert hidden > 5  # so the rule was put to work


def test_soft_alpha_is_border():
    square = np.full((80, 80, 4), 200, np.uint8)
    square[:40, :, 3], square[40:, :, 3] = 255, 120
    scene = compose(random.Random(0), background=flat_background(), cutouts=[Cutout("s", 2, Image.fromarray(square))], size=96)
    solid, border = (scene.mask == 3).sum(), (scene.mask == 255).sum()
    assert 0.85 < border / solid < 1.4


def photo_like(side: int = 80, **kwargs) -> Image.Image:
    return disc(side, (120, 140, 90), noise=40, **kwargs)


def test_the_rules_keep_photographs_only():
    def veil(alpha: int) -> Image.Image:
        image = photo_like()
        image.putalpha(image.getchannel("A").point(lambda value: value * alpha // 255))
        return image

    assert why_not_photograph("animals/birds/owl.png", photo_like()) is None
    assert why_not_photograph("animals/birds/cartoon/owl.png", photo_like()) == "folder of drawings or toys"
    assert why_not_photograph("a/owl_mirror.png", photo_like()) == "mirror image of another"
    assert why_not_photograph("a/owl.png", photo_like().convert("LA")) == "no colour"
    assert why_not_photograph("a/owl.png", photo_like(40)) == "less than 48 pixels long"
    assert why_not_photograph("a/owl.png", photo_like().convert("RGB")) == "nothing is transparent"
    assert why_not_photograph("a/owl.png", veil(150)) == "mostly half transparent"
    assert why_not_photograph("a/owl.png", veil(0)) == "less than 48 pixels long"
    assert "drawing" in (why_not_photograph("a/owl.png", disc(80, (200, 0, 0))) or "")


def test_hold_out_takes_its_share_and_both_sides_keep_one():
    names = [f"n{i:02d}" for i in range(34)]
    kept, out = hold_out(names, 0.25, "0/cutouts/bird")
    assert len(out) == 8
    assert sorted(kept + out) == names
    assert (kept, out) == hold_out(names, 0.25, "0/cutouts/bird")
    assert out != hold_out(names, 0.25, "1/cutouts/bird")[1]
    assert [len(part) for part in hold_out("ab", 0.01, "x")] == [1, 1]


needs_webp = pytest.mark.skipif(not features.check("webp"), reason="this Pillow has no WebP")
NAMED = {
    "bird": "animals/birds/b{}.png",
    "hoofed": "animals/mammals/deer/d{}.png",
    "fruit_veg": "food/fruit/f{}.png",
    "flower": "plants/flowers/p{}.png",
    "vehicle": "vehicles/auto/v{}.png",
}


@pytest.fixture
def packages(tmp_path):
    """Two unpacked packages with made-up pictures: 4 cut-outs a class, and 8 photographs of 7 places."""
    stamps, photographs = tmp_path / "stamps", tmp_path / "photographs"
    for index, pattern in enumerate(NAMED.values()):
        for number in range(4):
            path = stamps / "usr/share/tuxpaint/stamps" / pattern.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            photo_like(seed=10 * index + number).save(path)
    folder = photographs / "usr/share/gcompris-qt/rcc"
    folder.mkdir(parents=True)
    for archive, inner in (("explore_monuments", "resource/far"), ("categorization", "resource/images/monuments")):
        inner = f"g/{archive}/{inner}"
        files = {f"{inner}/README": (f"Copyright: {archive}".encode(), rcc.ZLIB), f"{inner}/map.svg": (b"<svg/>", 0)}
        for number in range(4):
            buffer = io.BytesIO()
            noise = np.random.default_rng(number).integers(0, 256, (90, 120, 3)).astype(np.uint8)
            Image.fromarray(noise).save(buffer, "webp", lossless=True)
            name = "Same" if number == 0 else f"{archive}{number}"
            files[f"{inner}/{name}.webp"] = (buffer.getvalue(), 0)
        (folder / f"{archive}.rcc").write_bytes(write_rcc(files))
    return ["--stamps", str(stamps), "--backgrounds", str(photographs), "--size", "64", "--train", "12", "--test", "7"]


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@needs_webp
def test_a_build_is_a_voc_folder_and_the_same_bytes_again(packages, tmp_path, capsys):
    one, two = tmp_path / "one", tmp_path / "two"
    photographs = read_backgrounds(tmp_path / "photographs/usr/share/gcompris-qt/rcc", 100).backgrounds
    assert [photo.place for photo in photographs].count("same") == 2
    assert [main([str(out), *packages]) for out in (one, two)] == [0, 0]
    assert main([str(two), *packages]) == 0  # over itself
    files = tree(one)
    assert files == tree(two)
    manifest = json.loads(files.pop("manifest.json"))
    assert manifest["sha256"] in capsys.readouterr().out
    lines = "".join(f"{hashlib.sha256(content).hexdigest()}  {path}\n" for path, content in sorted(files.items()))
    assert manifest["sha256"] == hashlib.sha256(lines.encode()).hexdigest()
    assert files["classes.txt"].decode().split() == list(CLASSES)
    assert all(word in files["LICENCE.txt"].decode() for word in ("GPL-2", "Copyright: categorization"))
    lists = {split: files[f"ImageSets/Segmentation/{split}.txt"].decode().split() for split in SPLITS}
    assert [len(ids) for ids in lists.values()] == [12, 7, 7]

    used: dict[str, dict[str, set[str]]] = {split: {"cutouts": set(), "places": set()} for split in lists}
    for scene in manifest["scenes"]:
        assert scene["id"] in lists[scene["split"]]
        mask = Image.open(one / "SegmentationClass" / f"{scene['id']}.png")
        assert mask.mode == "P"
        assert mask.getpalette() == voc_palette()
        tags = {CLASSES[label - 1] for label in np.unique(np.asarray(mask)) if label not in (0, 255)}
        annotation = ElementTree.parse(one / "Annotations" / f"{scene['id']}.xml")
        assert tags == {name.text for name in annotation.iterfind("object/name")} == {o["class"] for o in scene["objects"]}
        with Image.open(one / "JPEGImages" / f"{scene['id']}.jpg") as image:
            assert (image.size, image.mode) == (mask.size, "RGB") == ((64, 64), "RGB")
        used[scene["split"]]["cutouts"] |= {o["cutout"] for o in scene["objects"]}
        used[scene["split"]]["places"].add(scene["background"].rsplit("/")[-1])
    assert len(files) == 3 * len(manifest["scenes"]) + 5
    for split in ("test_seen", "test_unseen"):
        assert not used["train"]["places"] & used[split]["places"]
    assert not (used["train"]["cutouts"] | used["test_seen"]["cutouts"]) & used["test_unseen"]["cutouts"]
    assert [[len(part) for part in manifest["cutouts"][name].values()] for name in CLASSES] == [[3, 1]] * 5

    assert main([str(two), *packages, "--seed", "1"]) == 0
    assert json.loads((two / "manifest.json").read_bytes())["sha256"] != manifest["sha256"]


def fails(capsys, *argv: str) -> str:
    """Run the build, which must exit with 2, and return its one line on stderr."""
    assert main(list(argv)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


@needs_webp
def test_what_is_wrong_is_said_in_one_line(packages, tmp_path, capsys, monkeypatch):
    out, stamps = tmp_path / "out", tmp_path / "stamps/usr/share/tuxpaint/stamps"
    assert "no tuxpaint-stamps-default there" in fails(capsys, str(out), *packages, "--stamps", str(tmp_path))
    assert "no gcompris-qt-data there" in fails(capsys, str(out), *packages, "--backgrounds", str(tmp_path / "nowhere"))
    assert "--size in 64..4096" in fails(capsys, str(out), *packages, "--size", "8")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "--fetch needs apt-get" in fails(capsys, str(out), "--fetch")
    (stamps / "animals/birds/bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "bad.png: not a picture" in fails(capsys, str(out), *packages)
    for path in (stamps / "animals/birds").iterdir():
        path.unlink()
    assert "has 0 cut-outs of class bird" in fails(capsys, str(out), *packages)
    assert not out.exists()
    mine = out / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    assert "'thesis.txt', which is not from an earlier build" in fails(capsys, str(out), *packages)
    assert mine.read_text() == "mine"


def test_the_palette_is_that_of_voc():
    palette = np.reshape(voc_palette(), (256, 3)).tolist()
    assert palette[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert palette[255] == [224, 224, 192]


@pytest.mark.skipif(
    not (STAMPS.is_dir() and PHOTOGRAPHS.is_dir()), reason="tuxpaint-stamps-default and gcompris-qt-data are not installed"
)
def test_the_installed_packages_have_enough_of_each_class():
    cutouts = read_cutouts(STAMPS).cutouts
    assert all(sum(cutout.class_index == index for cutout in cutouts) >= 12 for index in range(len(CLASSES)))
    assert len({background.place for background in read_backgrounds(PHOTOGRAPHS, 256).backgrounds}) >= 40
