"""Image, mask and saliency files of any origin to the forms that the store holds. The bytes are not trusted.

Everything here is a pure function of bytes. What cannot be read is a ValueError with one line that says why; ingest records it
for that image and goes on. Formats are told by their first bytes and only those listed in `_READERS` are tried.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from wsss_ray.core.contracts import IGNORE
from wsss_ray.data.codecs import decode_gray, decode_rgb, encode_gray, encode_labels

_READERS: tuple[tuple[str, bytes, type[ImageFile.ImageFile]], ...] = (
    ("JPEG", b"\xff\xd8\xff", JpegImageFile),
    ("PNG", b"\x89PNG\r\n\x1a\n", PngImageFile),
    ("WEBP", b"RIFF", WebPImageFile),
    ("GIF", b"GIF8", GifImageFile),
    ("TIFF", b"II", TiffImageFile),
    ("TIFF", b"MM", TiffImageFile),
    ("BMP", b"BM", BmpImageFile),
)
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's decoders are known to raise on damaged files."""

_ORIENTATION = 0x0112
_MASK_PIXELS = 1 << 31  # masks and saliency maps are checked against the size of their image instead
_GRAY_16 = ("I;16", "I;16L", "I;16B", "I;16N", "I")


@dataclass(frozen=True)
class Decoded:
    """An image as the store holds it: a JPEG or PNG that decodes to upright 8-bit RGB of this size."""

    image: bytes
    height: int
    width: int


@dataclass(frozen=True)
class Header:
    """What the beginning of an image file says. `depth` is in bits a channel, as far as it is known; `turned` by EXIF."""

    kind: str
    width: int
    height: int
    mode: str
    depth: int
    animated: bool
    turned: bool


def read_header(file: BinaryIO) -> Header:
    """Read the header of an image file, no pixels. Raises ValueError as `normalise_image` does, OSError if it is not readable."""
    start = file.read(32)
    file.seek(0)
    kind, reader = _reader(start)
    try:
        image = reader(file)
        animated = bool(getattr(image, "is_animated", False))
    except _BROKEN as err:
        raise ValueError(f"{kind} file with a damaged header: {_line(err)}") from err
    deep = (kind == "PNG" and start[24] == 16) or image.mode in _GRAY_16
    depth = 32 if image.mode == "F" else 16 if deep else 8
    return Header(kind, image.width, image.height, image.mode, depth, animated, _orientation(image) != 1)


def normalise_image(data: bytes, *, max_pixels: int) -> Decoded:
    """Return the bytes themselves if they are an upright 8-bit RGB JPEG or PNG, otherwise the same picture as a PNG.

    The image is decoded in full, so that a truncated file shows here. EXIF orientation is applied, transparency is laid on white,
    16-bit gray is scaled to 8 bits, an animation gives its first frame, colour profiles are ignored. The same bytes always give
    the same bytes (for one version of Pillow). Raises ValueError.
    """
    kind, image = _open(data, max_pixels)
    plain = kind in ("JPEG", "PNG") and image.mode == "RGB" and not image.has_transparency_data
    if plain and _orientation(image) == 1:
        return Decoded(data, image.height, image.width)
    rgb_HWC = _rgb(image)
    buffer = io.BytesIO()
    Image.fromarray(rgb_HWC).save(buffer, format="PNG", compress_level=3)
    return Decoded(buffer.getvalue(), *rgb_HWC.shape[:2])


def pixels(image: Image.Image, *, max_pixels: int) -> NDArray[np.uint8]:
    """The upright pixels of an image that Pillow has opened, (H, W, 3) RGB. Raises ValueError."""
    if image.width * image.height > max_pixels:
        raise ValueError(f"{image.width}x{image.height} is more than {max_pixels} pixels")
    return _rgb(image)


def normalise_mask(
    data: bytes, *, height: int, width: int, num_labels: int, palette: Mapping[tuple[int, int, int], int] | None = None
) -> bytes:
    """Turn a mask file into an 8-bit PNG of labels, 255 where it says ignore.

    Palette images give their indices, gray and integer ones their values, 1-bit ones 0 and 1. Colours are looked up in `palette`
    (colour to label; the VOC palette if not given). Raises ValueError naming the sizes, label or colour that does not fit.
    """
    kind, image = _open(data, _MASK_PIXELS, size=(width, height), what="mask")
    if kind == "JPEG":
        raise ValueError("the mask is a JPEG, whose compression changes labels; save masks as PNG")
    if kind == "PNG" and image.mode == "L" and data[24] < 8:
        raise ValueError(f"the mask is a gray PNG with {data[24]} bits a pixel, whose values are ambiguous; save it with 8 bits")
    label_HW = _mask_values(image, palette)
    wrong = label_HW[(label_HW != IGNORE) & ((label_HW < 0) | (label_HW >= num_labels))]
    if wrong.size:
        found = f"the mask holds the label {int(wrong[0])} ({wrong.size} pixels)"
        raise ValueError(f"{found}; allowed: 0 to {num_labels - 1}, and {IGNORE} for ignore")
    return encode_labels(label_HW.astype(np.uint8))


def normalise_saliency(
    data: bytes, *, height: int, width: int, max_side: int | None = None, max_pixels: int = _MASK_PIXELS
) -> bytes:
    """Turn a saliency map, gray or colour, into an 8-bit gray PNG of its image's size.

    Raises ValueError unless it is as large as its image, or becomes so when it is shrunk to `max_side` as that was.
    """
    size = (width, height) if max_side is None else None
    _, image = _open(data, max_pixels, size=size, what="saliency map")
    gray = Image.fromarray(_rgb(image)).convert("L")
    if fitted(gray.height, gray.width, max_side) != (height, width):
        raise ValueError(f"the saliency map is {image.width}x{image.height}, its image when shrunk {width}x{height}")
    return encode_gray(np.asarray(gray.resize((width, height), Image.Resampling.BILINEAR)))


def fitted(height: int, width: int, max_side: int | None) -> tuple[int, int]:
    """The size (height, width) of an image whose longer side may have `max_side` pixels."""
    if max_side is None or max(height, width) <= max_side:
        return height, width
    return tuple(max(1, round(side * max_side / max(height, width))) for side in (height, width))  # type: ignore[return-value]


def shrink(image: Decoded, mask: bytes | None, max_side: int | None) -> tuple[Decoded, bytes | None]:
    """An image and its mask (as normalised) with a longer side of at most `max_side`; as they are if they fit.

    A shrunk image is stored as a JPEG of quality 95 with full colour; masks take the nearest label.
    """
    height, width = fitted(image.height, image.width, max_side)
    if (height, width) == (image.height, image.width):
        return image, mask
    buffer = io.BytesIO()
    small = Image.fromarray(decode_rgb(image.image)).resize((width, height), Image.Resampling.LANCZOS)
    small.save(buffer, format="JPEG", quality=95, subsampling=0)
    if mask is not None:
        mask = encode_labels(np.asarray(Image.fromarray(decode_gray(mask)).resize((width, height), Image.Resampling.NEAREST)))
    return Decoded(buffer.getvalue(), height, width), mask


def voc_palette() -> NDArray[np.uint8]:
    """Make the (256, 3) colours of Pascal VOC: bit 3j + c of the label is bit 7 - j of channel c (c = 0, 1, 2 for R, G, B)."""
    label_N1, bit_8 = np.arange(256)[:, None], np.arange(8)
    channels = [(((label_N1 >> (3 * bit_8 + c)) & 1) << (7 - bit_8)).sum(axis=1) for c in range(3)]
    return np.stack(channels, axis=1).astype(np.uint8)


def voc_colours() -> dict[tuple[int, int, int], int]:
    """Map colour to label in the VOC palette."""
    return {(int(r), int(g), int(b)): label for label, (r, g, b) in enumerate(voc_palette())}


def _open(
    data: bytes, max_pixels: int, size: tuple[int, int] | None = None, what: str = "image"
) -> tuple[str, ImageFile.ImageFile]:
    """Decode an image and tell its format. The size is checked first, against `size` (width, height) if given."""
    kind, reader = _reader(data)
    try:
        image = reader(io.BytesIO(data))  # not Image.open: the limit is ours, and warnings of a second limit would only confuse
    except _BROKEN as err:
        raise ValueError(f"{kind} file with a damaged header: {_line(err)}") from err
    if size is not None and image.size != size:
        raise ValueError(f"the {what} is {image.width}x{image.height}, its image {size[0]}x{size[1]} (width x height)")
    if image.width * image.height > max_pixels:
        raise ValueError(f"{image.width}x{image.height} is more than {max_pixels} pixels; raise data.max_pixels to take it")
    try:
        image.load()
    except _BROKEN as err:
        raise ValueError(f"truncated or damaged {kind} file: {_line(err)}") from err
    return kind, image


def _reader(start: bytes) -> tuple[str, type[ImageFile.ImageFile]]:
    """Tell the format of an image by its first bytes."""
    if not start:
        raise ValueError("the file is empty (0 bytes)")
    found = next(((name, reader) for name, mark, reader in _READERS if start.startswith(mark)), None)
    if found is None:
        raise ValueError(f"not an image in a format that is read here ({', '.join(dict.fromkeys(n for n, _, _ in _READERS))})")
    return found


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation; 1, upright, where there is none or it makes no sense."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN:
        return 1  # a damaged EXIF block says nothing about the pixels
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Turn an image of any mode into upright (H, W, 3)."""
    try:
        upright = ImageOps.exif_transpose(image) if _orientation(image) != 1 else image
        return _convert(upright)
    except _BROKEN as err:
        raise ValueError(f"an image of mode {image.mode} cannot be turned into RGB: {_line(err)}") from err


def _convert(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode in _GRAY_16:
        gray_HW = np.asarray(image).astype(np.int64)
        if gray_HW.min() < 0 or gray_HW.max() > 0xFFFF:
            raise ValueError("values outside 0 to 65535; save it with 8 or 16 bits")
        scaled_HW = ((gray_HW * 255 + 0x7FFF) // 0xFFFF).astype(np.uint8)
        return np.repeat(scaled_HW[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 or 16 bits")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _mask_values(image: Image.Image, palette: Mapping[tuple[int, int, int], int] | None) -> NDArray[np.int64]:
    if image.mode in ("P", "L", "1", *_GRAY_16):
        return np.asarray(image).astype(np.int64)
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert("RGB")
    if image.mode != "RGB":
        raise ValueError(f"a mask of mode {image.mode} is not understood; save it as a palette, gray or RGB PNG")
    colours = voc_colours() if palette is None else palette
    codes_P, labels_P = np.array(sorted((r << 16 | g << 8 | b, label) for (r, g, b), label in colours.items())).T
    code_HW = np.asarray(image).astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    place_HW = np.searchsorted(codes_P, code_HW).clip(max=len(codes_P) - 1)
    unknown = code_HW[codes_P[place_HW] != code_HW]
    if unknown.size:
        colour = tuple(int(unknown[0]) >> shift & 255 for shift in (16, 8, 0))
        raise ValueError(f"the mask holds the colour {colour} ({unknown.size} pixels), which is not in its palette")
    label_HW: NDArray[np.int64] = labels_P[place_HW].astype(np.int64)
    return label_HW


def _line(err: BaseException) -> str:
    return " ".join(str(err).split())[:200] or type(err).__name__
