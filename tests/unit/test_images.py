"""Decoding of images, masks and saliency maps, whole and damaged."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsss_ray.data import images
from wsss_ray.data.codecs import decode_gray, decode_rgb, encode_labels
from wsss_ray.data.images import normalise_image, normalise_mask, normalise_saliency
from wsss_ray.data.palette import voc_colours, voc_palette

LIMIT = 10_000


def picture(height=9, width=14, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def smooth(height=9, width=14):
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 20, columns * 12, rows * 5 + columns * 5], axis=2).astype(np.uint8)


def encode(image, fmt, **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, format=fmt, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("fmt", ["JPEG", "PNG"])
def test_rgb_files_pass_as_they_are(fmt):
    data = encode(picture(), fmt)
    found = normalise_image(data, max_pixels=LIMIT)
    assert (found.image, found.height, found.width) == (data, 9, 14)


@pytest.mark.parametrize(("fmt", "options"), [("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("GIF", {})])
def test_other_formats_become_png_with_the_same_pixels(fmt, options):
    rgb = picture() if fmt != "GIF" else np.repeat(picture()[:, :, :1] // 64 * 85, 3, axis=2)
    found = normalise_image(encode(rgb, fmt, **options), max_pixels=LIMIT)
    assert found.image.startswith(b"\x89PNG")
    np.testing.assert_array_equal(decode_rgb(found.image), rgb)


def test_first_frame_of_an_animation():
    first, second = Image.new("P", (4, 4), 0), Image.new("P", (4, 4), 1)
    for frame in (first, second):
        frame.putpalette([250, 0, 0, 0, 0, 250])
    data = encode(first, "GIF", save_all=True, append_images=[second])
    assert decode_rgb(normalise_image(data, max_pixels=LIMIT).image)[0, 0].tolist() == [250, 0, 0]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (3, 2), 77), (77, 77, 77)),
        (Image.new("1", (3, 2), 1), (255, 255, 255)),
        (Image.new("RGBA", (3, 2), (10, 20, 30, 255)), (10, 20, 30)),
        (Image.new("RGBA", (3, 2), (10, 20, 30, 0)), (255, 255, 255)),
        (Image.new("LA", (3, 2), (0, 51)), (204, 204, 204)),
        (Image.fromarray(np.full((2, 3), 65535, np.uint16)), (255, 255, 255)),
        (Image.fromarray(np.full((2, 3), 257 * 9, np.uint16)), (9, 9, 9)),
    ],
)
def test_modes_of_png(image, expected):
    found = normalise_image(encode(image, "PNG"), max_pixels=LIMIT)
    rgb = decode_rgb(found.image)
    assert rgb.shape == (2, 3, 3)
    assert (rgb == expected).all()


def test_palette_with_a_transparent_index():
    image = Image.new("P", (2, 1), 0)
    image.putpixel((1, 0), 1)
    image.putpalette([9, 8, 7, 1, 2, 3])
    rgb = decode_rgb(normalise_image(encode(image, "PNG", transparency=1), max_pixels=LIMIT).image)
    assert rgb[0].tolist() == [[9, 8, 7], [255, 255, 255]]


def test_cmyk_jpeg():
    rgb = np.full((8, 8, 3), (200, 40, 90), np.uint8)
    found = normalise_image(encode(Image.fromarray(rgb).convert("CMYK"), "JPEG", quality=95), max_pixels=LIMIT)
    assert found.image.startswith(b"\x89PNG")
    assert np.abs(decode_rgb(found.image).astype(int) - rgb).max() <= 3


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (6, lambda a: np.rot90(a, -1)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
def test_exif_orientation_is_applied(orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    rgb = smooth()
    data = encode(rgb, "JPEG", exif=exif, quality=95)
    expected = turn(decode_rgb(data))
    found = normalise_image(data, max_pixels=LIMIT)
    np.testing.assert_array_equal(decode_rgb(found.image), expected)
    assert (found.height, found.width) == expected.shape[:2]
    assert Image.open(io.BytesIO(found.image)).getexif().get(0x0112, 1) == 1


def test_orientation_one_and_nonsense_pass():
    for value in (1, 0, 99):
        exif = Image.Exif()
        exif[0x0112] = value
        data = encode(picture(), "JPEG", exif=exif)
        assert normalise_image(data, max_pixels=LIMIT).image == data


def test_the_same_bytes_every_time():
    data = encode(Image.fromarray(picture()).convert("RGBA"), "PNG")
    assert normalise_image(data, max_pixels=LIMIT) == normalise_image(data, max_pixels=LIMIT)


def test_large_images_are_refused_from_the_header(monkeypatch):
    header = encode(Image.new("L", (1, 1)), "PNG")
    width = (20_000).to_bytes(4, "big")
    ihdr = b"IHDR" + width + width + header[24:29]
    huge = header[:12] + ihdr + zlib.crc32(ihdr).to_bytes(4, "big") + header[33:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"20000x20000 is more than 10000 pixels; raise data\.max_pixels"):
            normalise_image(huge, max_pixels=LIMIT)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow's own limit plays no part
        assert normalise_image(encode(picture(), "PNG"), max_pixels=126).height == 9
    with pytest.raises(ValueError, match="more than 125 pixels"):
        normalise_image(encode(picture(), "PNG"), max_pixels=125)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_truncated_files_are_refused(fmt):
    data = encode(picture(40, 40), fmt)
    for keep in (len(data) // 2, len(data) * 3 // 4, 12):
        with pytest.raises(ValueError, match=r"truncated or damaged|damaged header"):
            normalise_image(data[:keep], max_pixels=LIMIT)


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "empty"), (b"<html>404</html>", "not an image"), (b"\x00" * 500, "not an image"), (b"BM", "damaged")],
)
def test_what_is_no_image_is_refused(data, message):
    with pytest.raises(ValueError, match=message) as caught:
        normalise_image(data, max_pixels=LIMIT)
    assert "\n" not in str(caught.value)


SAMPLES = [encode(smooth(), fmt) for fmt in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")] + [
    encode(Image.fromarray(smooth()).convert("P"), "PNG"),
    encode(Image.fromarray(smooth()).convert("CMYK"), "JPEG"),
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SAMPLES), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6), st.floats(0, 1))
def test_damage_gives_an_image_or_a_value_error(data, changes, keep):
    broken = bytearray(data)
    for place, value in changes:
        broken[int(place * (len(broken) - 1))] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = normalise_image(bytes(broken[: round(len(broken) * keep)]), max_pixels=LIMIT)
        except ValueError:
            return
        assert decode_rgb(found.image).shape == (found.height, found.width, 3)


def test_voc_palette_known_colours():
    palette = voc_palette()
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    assert {label: tuple(palette[label].tolist()) for label in known} == known
    assert len(voc_colours()) == 256


LABELS = np.array([[0, 1, 2, 20], [255, 15, 0, 7]], np.uint8)


def as_palette(labels):
    image = Image.fromarray(labels).convert("L")
    coloured = Image.new("P", image.size)
    coloured.putpalette(voc_palette().ravel().tolist())
    coloured.putdata(labels.ravel().tolist())
    return coloured


@pytest.mark.parametrize(
    "image",
    [
        as_palette(LABELS),
        Image.fromarray(LABELS),
        Image.fromarray(LABELS.astype(np.uint16)),
        Image.fromarray(voc_palette()[LABELS]),
        Image.fromarray(voc_palette()[LABELS]).convert("RGBA"),
    ],
    ids=["palette", "gray", "gray16", "rgb", "rgba"],
)
def test_mask_encodings_agree(image):
    found = normalise_mask(encode(image, "PNG"), height=2, width=4, num_labels=21)
    np.testing.assert_array_equal(decode_gray(found), LABELS)
    assert Image.open(io.BytesIO(found)).mode == "L"


def test_one_bit_mask_is_zero_and_one():
    bits = np.array([[True, False, True]])
    found = normalise_mask(encode(Image.fromarray(bits), "PNG"), height=1, width=3, num_labels=2)
    assert decode_gray(found).tolist() == [[1, 0, 1]]


def test_own_palette():
    data = encode(np.array([[[1, 2, 3], [9, 9, 9]]], np.uint8), "PNG")
    found = normalise_mask(data, height=1, width=2, num_labels=3, palette={(9, 9, 9): 2, (1, 2, 3): 255})
    assert decode_gray(found).tolist() == [[255, 2]]


def four_bit_gray():
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 2, 1, 4, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\x00\x12")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "size", "message"),
    [
        (encode(LABELS, "PNG"), (2, 5), "mask is 4x2, its image 5x2"),
        (encode(LABELS + np.uint8(1), "PNG"), (2, 4), r"label 21 \(1 pixels\); allowed: 0 to 20"),
        (encode(np.full((2, 4), 300, np.uint16), "PNG"), (2, 4), "label 300"),
        (encode(picture(2, 4), "PNG"), (2, 4), "colour .* not in its palette; save it as an image of labels"),
        (encode(LABELS, "JPEG"), (2, 4), "JPEG"),
        (encode(Image.new("LA", (4, 2)), "PNG"), (2, 4), "mode LA"),
        (encode(Image.new("RGBA", (4, 2)), "PNG"), (2, 4), "mode RGBA"),
        (four_bit_gray(), (1, 2), "4 bits a pixel"),
        (b"", (2, 4), "empty"),
        (encode(picture(30, 30), "PNG")[:900], (30, 30), "truncated"),
    ],
)
def test_unfit_masks_are_refused(data, size, message):
    with pytest.raises(ValueError, match=message):
        normalise_mask(data, height=size[0], width=size[1], num_labels=21)


def test_saliency():
    gray = picture()[:, :, 0]
    for array in (gray, np.stack([gray] * 3, axis=2), gray.astype(np.uint16) * 257):
        np.testing.assert_array_equal(decode_gray(normalise_saliency(encode(array, "PNG"), height=9, width=14)), gray)
    with pytest.raises(ValueError, match=r"saliency map is 14x9, its image 9x14 \(width x height\); save it in the size of"):
        normalise_saliency(encode(gray, "PNG"), height=14, width=9)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((400, 300), (100, 75)), ((30, 400), (8, 100)), ((100, 80), (100, 80)), ((1, 1000), (1, 100))],
)
def test_large_images_are_shrunk_with_their_masks(size, expected):
    height, width = size
    shade = (np.arange(width) // -(-width // 2) * 200).astype(np.uint8)
    image = np.broadcast_to(shade[None, :, None], (height, width, 3))
    mask = encode_labels(np.broadcast_to((shade > 0).astype(np.uint8), size))
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="PNG")
    plain = images.normalise_image(buffer.getvalue(), max_pixels=10**9)
    small, small_mask = images.shrink(plain, mask, 100)
    assert (small.height, small.width) == expected == images.fitted(*size, 100)
    pixels, labels = decode_rgb(small.image), decode_gray(small_mask)
    assert pixels.shape[:2] == labels.shape == expected
    assert ((pixels[..., 0] > 100) == labels).mean() > 0.97
    assert images.shrink(plain, mask, None) == (plain, mask)
    saliency = images.normalise_saliency(buffer.getvalue(), height=expected[0], width=expected[1], max_side=100)
    assert decode_gray(saliency).shape == expected


def test_a_saliency_map_of_another_shape_is_refused_when_shrunk_too():
    buffer = io.BytesIO()
    Image.new("L", (50, 400)).save(buffer, format="PNG")
    with pytest.raises(ValueError, match="the saliency map is 50x400, its image when shrunk 100x75; save it"):
        images.normalise_saliency(buffer.getvalue(), height=75, width=100, max_side=100)
