"""Convert image, mask and saliency files of any origin to the formats of the store. The bytes are not trusted.

All functions are pure functions of bytes. A file that cannot be read raises ValueError with one line that says why; ingest
records it for that image and goes on. The first bytes of a file tell its format (`formats.py`).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from wsss_ray.core.values import IGNORE
from wsss_ray.data.codecs import DAMAGED, decode_gray, decode_rgb, encode_gray, encode_labels
from wsss_ray.data.formats import START, reader_of
from wsss_ray.data.palette import voc_colours
from wsss_ray.data.strips import strips, turned

_ORIENTATION = 0x0112
_EXIF = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")  # of a PNG; without one, Pillow decodes it to look further
MOST_PIXELS = 1 << 31  # the size of masks and saliency maps is compared with their image instead
GRAY_16 = ("I;16", "I;16L", "I;16B", "I;16N", "I")


@dataclass(frozen=True)
class Decoded:
    """An image in the form that the store holds: a JPEG or PNG that decodes to upright 8-bit RGB of this size."""

    image: bytes
    height: int
    width: int


@dataclass(frozen=True)
class Header:
    """The header of an image file.

    Attributes:
        kind: The format, such as "JPEG".
        width: Pixels as they are stored.
        height: Pixels as they are stored.
        mode: The mode of Pillow, such as "RGB".
        depth: Bits per channel.
        animated: True if there are several frames.
        orientation: The orientation in EXIF: 1 is upright, 2 to 4 are mirrored or upside down, 5 to 8 swap height and width.
    """

    kind: str
    width: int
    height: int
    mode: str
    depth: int
    animated: bool
    orientation: int

    @property
    def turned(self) -> bool:
        """Return True if EXIF rotates or flips the image."""
        return self.orientation != 1

    @property
    def upright(self) -> tuple[int, int]:
        """Return (height, width) after turning the image upright."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def read_header(file: BinaryIO) -> Header:
    """Read the header of an image file, not its pixels. Raises ValueError as `normalise_image` does, or OSError."""
    start = file.read(START)
    file.seek(0)
    kind, reader = reader_of(start)
    try:
        image = reader(file)
        animated = bool(getattr(image, "is_animated", False))
    except DAMAGED as err:
        raise ValueError(f"{kind} file with a damaged header: {_line(err)}") from err
    deep = (kind == "PNG" and start[24] == 16) or image.mode in GRAY_16
    depth = 32 if image.mode == "F" else 16 if deep else 8
    orientation = _orientation(image) if kind != "PNG" or any(name in image.info for name in _EXIF) else 1
    return Header(kind, image.width, image.height, image.mode, depth, animated, orientation)


def normalise_image(data: bytes, *, max_pixels: int) -> Decoded:
    """Convert an image file to a PNG, unless it is an upright 8-bit RGB JPEG or PNG: then its bytes are kept.

    The image is decoded in full, so truncated files are found here. EXIF orientation is applied, transparency is put on white,
    16-bit gray is scaled to 8 bits, the first frame of an animation is taken, colour profiles are ignored. Equal bytes give equal
    bytes (for one version of Pillow).

    Raises:
        ValueError: if the file is damaged, has more than `max_pixels` pixels, or is in no format that is read.
    """
    kind, image = open_whole(data, max_pixels)
    plain = kind in ("JPEG", "PNG") and image.mode == "RGB" and not image.has_transparency_data
    if plain and _orientation(image) == 1:
        return Decoded(data, image.height, image.width)
    rgb_HWC = _rgb(image)
    image.close()  # frees its pixels
    buffer = io.BytesIO()
    Image.fromarray(rgb_HWC).save(buffer, format="PNG", compress_level=3)
    return Decoded(buffer.getvalue(), *rgb_HWC.shape[:2])


def pixels(image: Image.Image, *, max_pixels: int) -> NDArray[np.uint8]:
    """Return the upright RGB pixels (H, W, 3) of an image opened by Pillow. Raises ValueError if it is damaged or too large."""
    if image.width * image.height > max_pixels:
        raise ValueError(f"{image.width}x{image.height} is more than {max_pixels} pixels; shrink it first")
    return _rgb(image)


def normalise_mask(
    data: bytes, *, height: int, width: int, num_labels: int, palette: Mapping[tuple[int, int, int], int] | None = None
) -> bytes:
    """Convert a mask file to an 8-bit PNG of labels, in which 255 is the ignore label.

    A palette image gives its indices, a gray or integer image its values, a 1-bit image 0 and 1. The colours of an RGB image are
    looked up in `palette`.

    Args:
        data: The bytes of the mask file.
        height: Height of the image.
        width: Width of the image.
        num_labels: Number of labels, background included.
        palette: Colour -> label; None for the palette of Pascal VOC.

    Raises:
        ValueError: if the file cannot be read or does not fit. The message names the sizes, the label or the colour.
    """
    kind, image = open_whole(data, MOST_PIXELS, size=(width, height), what="mask")
    if kind == "JPEG":
        raise ValueError("the mask is a JPEG, whose compression changes labels; save masks as PNG")
    if kind == "PNG" and image.mode == "L" and data[24] < 8:
        raise ValueError(f"the mask is a gray PNG with {data[24]} bits a pixel, whose values are ambiguous; save it with 8 bits")
    label_HW, first, count = np.empty((height, width), np.uint8), None, 0
    for rows, strip in strips(image):
        found_HW = _mask_values(strip, palette)
        wrong = found_HW[(found_HW != IGNORE) & ((found_HW < 0) | (found_HW >= num_labels))]
        if wrong.size:
            first, count = int(wrong[0]) if first is None else first, count + wrong.size
        label_HW[rows] = found_HW.astype(np.uint8)
    if first is not None:
        found = f"the mask holds the label {first} ({count} pixels)"
        raise ValueError(f"{found}; allowed: 0 to {num_labels - 1}, and {IGNORE} for ignore")
    return encode_labels(label_HW)


def normalise_saliency(
    data: bytes, *, height: int, width: int, max_side: int | None = None, max_pixels: int = MOST_PIXELS
) -> bytes:
    """Convert a saliency map, gray or colour, to an 8-bit gray PNG of the size of its image (`height`, `width`).

    Raises:
        ValueError: if the file cannot be read, or has another size than its image, also when it is shrunk to `max_side` like it.
    """
    size = (width, height) if max_side is None else None
    _, image = open_whole(data, max_pixels, size=size, what="saliency map")
    gray = Image.fromarray(_upright(image, lambda strip: np.array(Image.fromarray(_convert(strip)).convert("L"))))
    if fitted(gray.height, gray.width, max_side) != (height, width):
        sizes = f"the saliency map is {image.width}x{image.height}, its image when shrunk {width}x{height}"
        raise ValueError(f"{sizes}; save it in the size of its image")
    return encode_gray(np.asarray(gray.resize((width, height), Image.Resampling.BILINEAR)))


def fitted(height: int, width: int, max_side: int | None) -> tuple[int, int]:
    """Return the size (height, width) of an image after its longer side is limited to `max_side` pixels."""
    if max_side is None or max(height, width) <= max_side:
        return height, width
    return tuple(max(1, round(side * max_side / max(height, width))) for side in (height, width))  # type: ignore[return-value]


def shrink(image: Decoded, mask: bytes | None, max_side: int | None) -> tuple[Decoded, bytes | None]:
    """Shrink a normalised image and its mask until the longer side has at most `max_side` pixels. If they fit, return them as is.

    A shrunk image is stored as a JPEG of quality 95 without chroma subsampling. A mask takes the nearest label.
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


def open_whole(
    data: bytes, max_pixels: int, size: tuple[int, int] | None = None, what: str = "image"
) -> tuple[str, ImageFile.ImageFile]:
    """Decode an image; return its format and the image. Check its size first, if given also against `size` (width, height)."""
    kind, reader = reader_of(data[:START])
    try:
        image = reader(io.BytesIO(data))  # not Image.open: the limit is ours, and warnings of a second limit would only confuse
    except DAMAGED as err:
        raise ValueError(f"{kind} file with a damaged header: {_line(err)}") from err
    if size is not None and image.size != size:
        sizes = f"the {what} is {image.width}x{image.height}, its image {size[0]}x{size[1]} (width x height)"
        raise ValueError(f"{sizes}; save it in the size of its image")
    if image.width * image.height > max_pixels:
        raise ValueError(f"{image.width}x{image.height} is more than {max_pixels} pixels; raise data.max_pixels to take it")
    try:
        image.load()
    except DAMAGED as err:
        raise ValueError(f"truncated or damaged {kind} file: {_line(err)}") from err
    return kind, image


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation; 1 (upright) if there is none or it is invalid."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except DAMAGED:
        return 1  # a damaged EXIF block says nothing about the pixels
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Convert an image of any mode to an upright RGB array (H, W, 3)."""
    return _upright(image, _convert)


def _upright(image: Image.Image, convert: Callable[[Image.Image], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Convert an image strip by strip, and turn it as its EXIF block says."""
    try:
        orientation, whole = _orientation(image), None
        for rows, strip in strips(image):
            part = convert(strip)
            if whole is None:
                whole = np.empty((image.height, *part.shape[1:]), np.uint8)
            whole[rows] = part
        assert whole is not None
        return turned(whole, orientation)
    except DAMAGED as err:
        raise ValueError(f"an image of mode {image.mode} cannot be turned into RGB: {_line(err)}") from err


def _convert(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode in GRAY_16:
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
    if image.mode in ("P", "L", "1", *GRAY_16):
        return np.asarray(image).astype(np.int64)
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert("RGB")
    if image.mode != "RGB":
        raise ValueError(f"a mask of mode {image.mode} is not supported; save it as a palette, gray or RGB PNG")
    colours = voc_colours() if palette is None else palette
    codes_P, labels_P = np.array(sorted((r << 16 | g << 8 | b, label) for (r, g, b), label in colours.items())).T
    code_HW = np.asarray(image).astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    place_HW = np.searchsorted(codes_P, code_HW).clip(max=len(codes_P) - 1)
    unknown = code_HW[codes_P[place_HW] != code_HW]
    if unknown.size:
        colour = tuple(int(unknown[0]) >> shift & 255 for shift in (16, 8, 0))
        found = f"the mask holds the colour {colour} ({unknown.size} pixels), which is not in its palette"
        raise ValueError(f"{found}; save it as an image of labels")
    label_HW: NDArray[np.int64] = labels_P[place_HW].astype(np.int64)
    return label_HW


def _line(err: BaseException) -> str:
    return " ".join(str(err).split())[:200] or type(err).__name__
