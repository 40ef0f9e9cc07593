"""Large images are converted strip by strip: the same pixels as at once, and turned as Pillow turns them."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.unit.test_bombs import chunk, png
from wsss_ray.data import codecs, strips
from wsss_ray.data.images import normalise_image, normalise_mask, normalise_saliency, read_header

NOISE = np.random.default_rng(5).integers(0, 256, (37, 23, 3)).astype(np.uint8)


def saved(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def pictures():
    palette = Image.fromarray(NOISE).convert("P")
    modes = {mode: saved(Image.fromarray(NOISE).convert(mode)) for mode in ("L", "LA", "RGBA", "P", "1")}
    return modes | {
        "I;16": saved(Image.fromarray(NOISE[:, :, 0].astype(np.uint16) * 250)),
        "tRNS": saved(palette, transparency=3),
        "CMYK": saved(Image.fromarray(NOISE).convert("CMYK"), "JPEG"),
        "TIFF": saved(Image.fromarray(NOISE), "TIFF"),
    }


@pytest.mark.parametrize("name", pictures())
def test_strips_change_no_byte(monkeypatch, name):
    data = pictures()[name]
    whole = normalise_image(data, max_pixels=10**6)
    saliency = normalise_saliency(data, height=37, width=23)
    monkeypatch.setattr(strips, "STRIP", 100)
    assert normalise_image(data, max_pixels=10**6) == whole
    assert normalise_saliency(data, height=37, width=23) == saliency


def test_strips_of_a_stored_image(monkeypatch):
    noise = Image.fromarray(NOISE)
    for data in (saved(noise), saved(noise, "JPEG"), saved(noise.convert("LA"))):
        whole = codecs.decode_rgb(data)
        with monkeypatch.context() as patch:
            patch.setattr(strips, "STRIP", 100)
            patch.setattr(codecs, "STRIP", 100)
            assert (codecs.decode_rgb(data) == whole).all()


def test_strips_of_a_mask(monkeypatch):
    label_HW = np.random.default_rng(0).choice([0, 1, 2, 255], (37, 23)).astype(np.uint8)
    label_HW[20:] = np.where(label_HW[20:] == 2, 7, label_HW[20:])
    wrong = int((label_HW == 7).sum())
    monkeypatch.setattr(strips, "STRIP", 100)
    good = normalise_mask(saved(Image.fromarray(label_HW)), height=37, width=23, num_labels=8)
    assert (codecs.decode_gray(good) == label_HW).all()
    with pytest.raises(ValueError, match=rf"the mask holds the label 7 \({wrong} pixels\)"):
        normalise_mask(saved(Image.fromarray(label_HW)), height=37, width=23, num_labels=3)


@pytest.mark.parametrize("strip", [1 << 22, 100])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_pillow_does(monkeypatch, orientation, strip):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(NOISE), exif=exif)
    monkeypatch.setattr(strips, "STRIP", strip)
    found = normalise_image(data, max_pixels=10**6)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert (codecs.decode_rgb(found.image) == expected).all()
    assert (found.height, found.width) == expected.shape[:2]
    assert read_header(io.BytesIO(data)).turned == (orientation != 1)


def test_a_header_of_a_png_needs_no_pixel():
    damaged = png(50, 40, data=b"")
    cut = damaged[: damaged.index(b"IDAT")] + b"IDATxxxx"
    header = read_header(io.BytesIO(cut))
    assert (header.width, header.height, header.turned) == (50, 40, False)


@pytest.mark.parametrize("data", [b"", b"x", png(3, 3)[:40], png(3, 3).replace(b"IDAT", b"IDAX")])
def test_a_damaged_image_of_the_store_is_one_line(data):
    for decode in (codecs.decode_gray, codecs.decode_rgb):
        with pytest.raises(ValueError, match=r"^an image of the store is damaged \(\w+: .*\); was the store edited by hand\?$"):
            decode(data)


def test_a_label_map_has_eight_bits_and_one_channel():
    deep = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 0, 0, 0, 0))
    deep += chunk(b"IDAT", b"x\x9cc`\x00\x00\x00\x03\x00\x01") + chunk(b"IEND", b"")
    for data in (deep, saved(Image.fromarray(NOISE))):
        with pytest.raises(ValueError, match="a label map of mode"):
            codecs.decode_gray(data)


@pytest.mark.parametrize(
    "changed",
    [{"height": -1}, {"height": 1 << 40}, {"width": 5}, {"classes": [0]}, {"peak": b""}, {"mean": b"x"}, {"grid": [0.1]}],
)
def test_damaged_maps_are_one_line(changed):
    from tests.fuzz.corpus import maps_row

    assert codecs.decode_maps(maps_row()).peak_CHW.shape == (2, 3, 4)
    with pytest.raises(ValueError, match="localization maps of the store are damaged"):
        codecs.decode_maps(maps_row() | changed)
