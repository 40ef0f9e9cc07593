"""What SECURITY.md promises of files that are small and unfold to be huge: refused from their header, one line, no memory."""

from __future__ import annotations

import io
import resource
import struct
import zlib

import pytest
from PIL import Image

from tests.local import job_of, run_stage, stage_named
from tests.shapes import tiny_job
from wsss_ray.data.codecs import decode_gray, decode_rgb
from wsss_ray.data.images import normalise_image, normalise_mask, normalise_saliency
from wsss_ray.data.voc_xml import read_annotation
from wsss_ray.storage.shards import read_shard
from wsss_ray.storage.store import RunStore


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, *extra, data=bytes(4096)):
    parts = (chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), *extra, chunk(b"IDAT", zlib.compress(data)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def small(fmt, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.new(mode, (8, 8)).save(buffer, format=fmt, **options)
    return bytearray(buffer.getvalue())


def patched(data, place, size):
    data[place : place + len(size)] = size
    return bytes(data)


def huge_tiff():
    data = small("TIFF", "L")
    (start,) = struct.unpack_from("<I", data, 4)
    for entry in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12):
        if struct.unpack_from("<H", data, entry)[0] in (256, 257):
            struct.pack_into("<HII", data, entry + 2, 4, 1, 60_000)
    return bytes(data)


JPEG, GIF, WEBP = small("JPEG"), small("GIF", "P"), small("WEBP", lossless=True)
ZEROS = zlib.compress(bytes(200_000_000), 9)
HUGE = {
    "PNG": png(60_000, 60_000),
    "JPEG": patched(JPEG, JPEG.index(b"\xff\xc0") + 5, struct.pack(">HH", 65_500, 65_500)),
    "GIF": patched(GIF[:], 6, struct.pack("<HH", 65_535, 65_535)),
    "GIF frame": patched(GIF[:], GIF.index(b",", 13) + 5, struct.pack("<HH", 65_535, 65_535)),
    "WEBP": patched(WEBP, WEBP.index(b"VP8L") + 9, struct.pack("<I", 16_383 | 16_383 << 14)),
    "TIFF": huge_tiff(),
    "BMP": patched(small("BMP"), 18, struct.pack("<ii", 60_000, 60_000)),
}
STUFFED = {
    "iCCP": png(8, 8, chunk(b"iCCP", b"x\0\0" + ZEROS)),
    "zTXt": png(8, 8, chunk(b"zTXt", b"x\0\0" + ZEROS)),
    "iTXt": png(8, 8, chunk(b"iTXt", b"x\0\1\0\0\0" + ZEROS)),
    "many texts": png(8, 8, *[chunk(b"zTXt", b"%d\0\0" % k + zlib.compress(bytes(1_000_000), 9)) for k in range(99)]),
}
READERS = {
    "image": lambda data: normalise_image(data, max_pixels=80_000_000),
    "mask": lambda data: normalise_mask(data, height=8, width=8, num_labels=2),
    "saliency": lambda data: normalise_saliency(data, height=8, width=8),
    "shrunk saliency": lambda data: normalise_saliency(data, height=8, width=8, max_side=16, max_pixels=80_000_000),
}


@pytest.fixture
def frugal():
    """At most 200 MB more than before; each of these files asks for more than that."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize("name", [*HUGE, *STUFFED])
@pytest.mark.parametrize("reader", READERS)
def test_a_decompression_bomb_is_one_line_and_no_memory(frugal, name, reader):
    data = (HUGE | STUFFED)[name]
    assert len(data) < 400_000
    with pytest.raises(ValueError, match=r"more than|the (mask|saliency map) is|too large|limit|MAX_TEXT_MEMORY") as caught:
        READERS[reader](data)
    assert "\n" not in str(caught.value)


def test_pixels_behind_the_last_row_are_not_decompressed(frugal):
    assert decode_gray(normalise_mask(png(8, 8, data=bytes(200_000_000)), height=8, width=8, num_labels=2)).sum() == 0


@pytest.mark.parametrize("decode", [decode_gray, decode_rgb])
def test_a_bomb_in_an_artifact_is_refused(frugal, decode):
    with pytest.raises(ValueError, match="60000x60000 is more than 1073741824 pixels; was the store edited by hand"):
        decode(HUGE["PNG"])
    with pytest.raises(ValueError, match="more than 63 pixels"):
        decode_gray(png(8, 8), max_pixels=63)
    with pytest.raises(ValueError, match="bytes cannot hold 20000x20000 pixels; was the store edited by hand"):
        decode(png(20_000, 20_000))
    assert decode(png(2_000, 2_000, data=bytes(2_001 * 2_000))).shape[:2] == (2_000, 2_000), "the smallest file of so many pixels"


def test_an_ingested_bomb_is_recorded_and_skipped(tmp_path, frugal):
    for name, data in (("good", png(8, 8)), ("fine", png(8, 8)), ("bomb", HUGE["PNG"])):
        (tmp_path / f"{name}.png").write_bytes(data)
    (tmp_path / "tags.csv").write_text("image,tags\ngood,square\nbomb,disc\nfine,bar\n")
    data = {"kind": "folder", "root": str(tmp_path), "tags": str(tmp_path / "tags.csv")}
    store, ingest = RunStore(str(tmp_path / "store")), stage_named(job_of(tiny_job(data=data)).plan(), "images-weak")
    run_stage(store, ingest)
    assert store.record(ingest)["counts"] == {"images": 2, "errors": 1, "shards": 1}
    (error,) = read_shard(store, ingest, 0, "errors", folder="errors")
    assert "60000x60000 is more than 80000000 pixels; raise data.max_pixels" in error["reason"]


LAUGHS = "".join(f'<!ENTITY l{k} "{(f"&l{k - 1};" if k else "ha") * 10}">' for k in range(12))
OBJECT = "<annotation><object><name>{}</name></object></annotation>"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le"])
@pytest.mark.parametrize(
    "text",
    [
        f"<!DOCTYPE annotation [{LAUGHS}]>" + OBJECT.format("&l11;"),
        '<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/hostname">]>' + OBJECT.format("&x;"),
        '<!DOCTYPE annotation SYSTEM "http://127.0.0.1:1/x.dtd">' + OBJECT.format("cat"),
    ],
)
def test_an_annotation_has_no_entities(frugal, encoding, text):
    with pytest.raises(ValueError, match=r"x\.xml: a document type is not expected"):
        read_annotation(text.encode(encoding), "x.xml")


def test_annotations_in_any_encoding_are_read():
    for encoding in ("utf-8", "utf-16"):
        assert read_annotation(OBJECT.format("Kätzchen").encode(encoding), "x.xml") == ("Kätzchen",)
    for data in (
        b"",
        b'<?xml version="1.0" encoding="no-such"?><a/>',
        b'<?xml version="1.0" encoding="utf-7"?><a/>',
        b"<a>" * 9_999,
    ):
        with pytest.raises(ValueError, match=r"x\.xml: not XML"):
            read_annotation(data, "x.xml")
