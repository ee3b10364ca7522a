"""Image files: read one photograph, write one PNG."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps

from r2m.data.encode import Image
from r2m.errors import R2MError


def read_image(path: Path) -> Image:
    """Return a photograph as BGR (H, W, 3), turned upright by its EXIF tag.

    Raises:
        ValueError: the file is missing, truncated or not an image; the message is a short reason.
    """
    try:
        with Pillow.open(path) as file:
            upright = ImageOps.exif_transpose(file)
            return np.ascontiguousarray(np.asarray(upright.convert("RGB"))[:, :, ::-1])
    except (OSError, SyntaxError, ValueError, Pillow.DecompressionBombError) as error:
        text = str(error).replace(str(path), path.name)
        raise ValueError(f"cannot be read: {text}") from error


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
