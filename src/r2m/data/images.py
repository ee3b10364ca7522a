"""Images: photographs read, crops written and read, and the last encoding of every image."""

import math
import struct
import threading
import warnings
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from blake3 import blake3
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from r2m.errors import R2MError

Image = NDArray[np.uint8]

# Fewer pixels show no face that a detector or a person could tell.
LEAST_SIDE = 16
# A crop that is aligned already is about square: its longer side is at most so many times the shorter.
MOST_OBLONG = 3
# How the content of a JPEG begins.
JPEG = b"\xff\xd8\xff"
# How the reason begins for an image that shows nothing.
BLANK = "blank or a mask"
# Nobody sees what lies under transparent pixels.
MOST_TRANSPARENT = 0.01
# A photograph of more pixels is read at half its size, or less.
MOST_PIXELS = 2**26
# 16-bit level → 8-bit level.
_EIGHT_BITS = np.rint(np.arange(2**16) / 257).astype(np.uint8)
# What Pillow's decoders raise on damaged files.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    KeyError,
    IndexError,
    OverflowError,
    MemoryError,
    struct.error,
    Pillow.DecompressionBombError,
)
# The list of warnings to ignore is that of the whole process.
_OPENING = threading.Lock()
# Whatever the number of threads, large photographs take the memory of one.
_LARGE = threading.Lock()


class _Unfit(ValueError):
    """A whole image, but none that can be taken in."""


def read_image(path: Path) -> tuple[Image, str]:
    """Return a photograph as BGR (H, W, 3), turned upright by its EXIF tag, and the digest of the file.

    16-bit levels are scaled to 8 bits, and of an animation the first picture is taken. A photograph of more
    than `MOST_PIXELS` pixels is reduced to fewer by a whole factor.

    Raises:
        ValueError: the file is missing, truncated, no image, or none that can show a face; the message is a
            short reason.
    """
    content = _content(path)
    image = _decoded(content)
    _check(image)
    return image, blake3(content).hexdigest()


def read_square(path: Path, size: int) -> Image:
    """Return a photograph as BGR (size, size, 3): of another size, it is read like `read_image` and resized.

    One of 8 bits and exactly this size has the bits that OpenCV decodes. Whether it shows anything is not
    asked.

    Raises:
        ValueError: the file is missing, truncated, no image, too small, or far from square; the message is a
            short reason.
    """
    image = _decoded(_content(path), exact=size)
    height, width = image.shape[:2]
    if (width, height) == (size, size):
        return image
    _check_size(image)
    if max(height, width) > MOST_OBLONG * min(height, width):
        raise _Unfit(f"no aligned crop: {width}×{height} pixels, expected about a square")
    return resized(image, size)


def is_jpeg(path: Path, size: int) -> bool:
    """Tell whether a file that can be read is a JPEG of `size` by `size` pixels, by its content."""
    with path.open("rb") as file:
        if file.read(len(JPEG)) != JPEG:
            return False
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
        with Pillow.open(path) as image:
            return image.size == (size, size)


def bgr_of(image: Pillow.Image) -> Image:
    """Return an open image as `read_image` does; raises ValueError like it."""
    bgr = _bgr(image)
    _check(bgr)
    return bgr


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from error


def _decoded(content: bytes, exact: int | None = None) -> Image:
    """Return the content of a file as BGR (H, W, 3); OpenCV decodes 8 bits of the size `exact`."""
    try:
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
            opened = Pillow.open(BytesIO(content))
        with opened as file:
            # OpenCV clips other levels than those of 8 bits.
            if file.size == (exact, exact) and not file.mode.startswith(("I", "F")):
                image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
                if image is not None:
                    return image.astype(np.uint8, copy=False)
            if (factor := _reduction(file)) == 1:
                return _bgr(file, in_place=True)
            with _LARGE:
                # A JPEG can be decoded at half its size; of other formats this does nothing.
                file.draft(None, (file.width // factor, file.height // factor))
                return _bgr(file, in_place=True)
    except _Unfit:
        raise
    except _DAMAGE as error:
        if isinstance(error, UnidentifiedImageError) and content.startswith((b"II*\0", b"MM\0*")):
            return _tiff(content)
        raise ValueError(f"cannot be read: {_why(content, error)}") from error


def _tiff(content: bytes) -> Image:
    """Return a TIFF whose pixels Pillow does not know as BGR (H, W, 3)."""
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:  # too large for OpenCV
        image = None
    if image is None:
        raise _Unfit("cannot be read: a TIFF of a kind that Pillow and OpenCV do not know")
    if image.dtype == np.uint16:
        return _EIGHT_BITS[image]
    if image.dtype != np.uint8:
        raise _Unfit(f"pixels of {image.dtype}, expected 8 or 16 bits")
    return image.astype(np.uint8, copy=False)


def _bgr(image: Pillow.Image, in_place: bool = False) -> Image:
    """Return an open image as BGR (H, W, 3), upright; a large one is reduced. `in_place` saves a copy."""
    if (factor := _reduction(image)) > 1:
        image, in_place = _reduced(image, factor), True
    if in_place:
        ImageOps.exif_transpose(image, in_place=True)
    rgb = _rgb(image if in_place else ImageOps.exif_transpose(image))
    return np.ascontiguousarray(rgb[:, :, ::-1])


def _reduction(image: Pillow.Image) -> int:
    """Return the least whole factor by which an image is reduced to `MOST_PIXELS`."""
    return max(1, math.ceil(math.sqrt(image.width * image.height / MOST_PIXELS)))


def _reduced(image: Pillow.Image, factor: int) -> Pillow.Image:
    """Return an image reduced by a whole factor each way: the means of its pixels, with its EXIF tags."""
    if image.mode.startswith("I"):
        levels = Pillow.fromarray(_eight_bits(image))
        levels.info = image.info.copy()
        image = levels
    elif image.mode in ("1", "P", "PA"):  # these have no means
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image.reduce(factor)


def _rgb(image: Pillow.Image) -> Image:
    """Return RGB (H, W, 3) in 8 bits; raises _Unfit for pixels of unknown range or transparent ones."""
    if image.mode.startswith("I"):
        return np.repeat(_eight_bits(image)[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise _Unfit("grey levels in floating point, expected 8 or 16 bits")
    if image.has_transparency_data:
        share = float((np.asarray(image.convert("RGBA"))[:, :, 3] < 128).mean())
        if share > MOST_TRANSPARENT:
            raise _Unfit(f"transparent: {share:.0%} of its pixels; lay it on a background")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _eight_bits(image: Pillow.Image) -> Image:
    """Return grey levels of 16 bits (H, W) scaled to 8 bits."""
    levels = np.asarray(image)
    if levels.min() < 0 or levels.max() > 65535:
        raise _Unfit("grey levels of 32 bits, expected 8 or 16 bits")
    return _EIGHT_BITS[levels.astype(np.uint16, copy=False)]


def _why(content: bytes, error: Exception) -> str:
    """Return in a few words why a file of this content could not be decoded."""
    if content.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the image (git lfs pull)"
    if content.lstrip()[:1] == b"<":
        return "a page of HTML or XML, not an image"
    if isinstance(error, UnidentifiedImageError):
        return "no image that Pillow knows" if content else "empty"
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error)


def _check_size(image: Image) -> None:
    height, width = image.shape[:2]
    if min(height, width) < LEAST_SIDE:
        raise _Unfit(f"too small: {width}×{height} pixels, expected {LEAST_SIDE} or more each way")


def _check(image: Image) -> None:
    """Raise _Unfit for what cannot show a face: too few pixels, or no more than two grey levels."""
    _check_size(image)
    height, width = image.shape[:2]
    step = max(1, min(height, width) // 64)
    sample = image[::step, ::step].astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    if len(np.unique(sample)) <= 2:
        raise _Unfit(f"{BLANK}: no more than two colours")


def write_png(path: Path, image: Image) -> None:
    """Write `image` losslessly, making the folder it stands in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, buffer = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    path.write_bytes(buffer.tobytes())


def read_crop(path: Path) -> Image:
    """Return a crop that a manifest or landmarks list, of whatever size, BGR (H, W, 3).

    Raises:
        R2MError: the file is gone or damaged.
    """
    # OpenCV warns on its own of a file that is not there.
    crop = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if crop is not None:
        return crop.astype(np.uint8, copy=False)
    try:
        return _decoded(_content(path))
    except ValueError as error:
        raise R2MError(f"{path}: {error}, though it is listed as a crop") from error


def encode(image: Image, size: int, quality_range: tuple[int, int], rng: np.random.Generator) -> bytes:
    """Return the JPEG bytes of a BGR `image` (H, W, 3) resized to (size, size).

    It is the last step of every image, real or fake, so that a detector cannot tell them by the encoder. The
    quality is drawn from `quality_range`, both ends included.
    """
    quality = int(rng.integers(quality_range[0], quality_range[1] + 1))
    _, buffer = cv2.imencode(".jpg", resized(image, size), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return buffer.tobytes()


def resized(image: Image, size: int) -> Image:
    """Return an `image` (H, W, 3) as (size, size, 3): by area where it shrinks, else by cubic splines."""
    shrinks = image.shape[0] > size
    result = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return result.astype(np.uint8, copy=False)
