"""Image files: read one photograph, write one PNG."""

import struct
import warnings
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from blake3 import blake3
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from r2m.data.encode import Image
from r2m.errors import R2MError

# Fewer pixels show no face that a detector or a person could tell.
LEAST_SIDE = 16
# What lies under transparent pixels is not what anybody sees.
MOST_TRANSPARENT = 0.01
# What Pillow's decoders meet damaged files with.
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


class _Unfit(ValueError):
    """A whole image, but none that can be taken in."""


def read_image(path: Path) -> tuple[Image, str]:
    """Return a photograph as BGR (H, W, 3), turned upright by its EXIF tag, and the digest of the file.

    16-bit grey levels are scaled to 8 bits, and of an animation the first picture is taken.

    Raises:
        ValueError: the file is missing, truncated, no image, or none that can show a face; the message is a
            short reason.
    """
    content = b""
    try:
        content = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
            with Pillow.open(BytesIO(content)) as file:
                return bgr_of(file), blake3(content).hexdigest()
    except _Unfit as error:
        raise ValueError(str(error)) from error
    except _DAMAGE as error:
        raise ValueError(f"cannot be read: {_why(content, error)}") from error


def bgr_of(image: Pillow.Image) -> Image:
    """Return an open image as `read_image` does; raises ValueError like it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
        rgb = _rgb(ImageOps.exif_transpose(image))
    _check(rgb)
    return np.ascontiguousarray(rgb[:, :, ::-1])


def _rgb(image: Pillow.Image) -> Image:
    """Return RGB (H, W, 3) in 8 bits; raises _Unfit for pixels of unknown range or transparent ones."""
    if image.mode.startswith("I;16") or image.mode == "I":
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise _Unfit("grey levels of 32 bits, expected 8 or 16 bits")
        grey = np.rint(levels / 257).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise _Unfit("grey levels in floating point, expected 8 or 16 bits")
    if image.has_transparency_data:
        share = float((np.asarray(image.convert("RGBA"))[:, :, 3] < 128).mean())
        if share > MOST_TRANSPARENT:
            raise _Unfit(f"transparent: {share:.0%} of its pixels; lay it on a background")
    return np.asarray(image.convert("RGB"))


def _why(content: bytes, error: Exception) -> str:
    """Return in a few words why a file of this content could not be decoded."""
    if content.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the image (git lfs pull)"
    if content.lstrip()[:1] == b"<":
        return "a page of HTML or XML, not an image"
    if isinstance(error, UnidentifiedImageError):
        return "no image that Pillow knows" if content else "empty"
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error)


def _check(image: Image) -> None:
    """Raise _Unfit for what cannot show a face: too few pixels, or no more than two grey levels."""
    height, width = image.shape[:2]
    if min(height, width) < LEAST_SIDE:
        raise _Unfit(f"too small: {width}×{height} pixels, expected {LEAST_SIDE} or more each way")
    step = max(1, min(height, width) // 64)
    sample = image[::step, ::step].astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    if len(np.unique(sample)) <= 2:
        raise _Unfit("blank or a mask: no more than two colours")


def write_png(path: Path, image: Image) -> None:
    """Write `image` losslessly, making the folder it stands in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, buffer = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    path.write_bytes(buffer.tobytes())


def read_crop(path: Path) -> Image:
    """Return a crop that an earlier stage wrote, BGR (H, W, 3).

    Raises:
        R2MError: the file is gone or damaged.
    """
    # OpenCV warns on its own of a file that is not there.
    crop = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if crop is None:
        raise R2MError(f"{path}: cannot read the aligned crop; run the stage `faces` again")
    return crop.astype(np.uint8, copy=False)
