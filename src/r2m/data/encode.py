"""The last step of every image, real or fake: resize, then JPEG of a random quality."""

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def encode(image: Image, size: int, quality_range: tuple[int, int], rng: np.random.Generator) -> bytes:
    """Return the JPEG bytes of a BGR `image` (H, W, 3) resized to (size, size).

    The quality is drawn from `quality_range`, both ends included. Reals and fakes go through here alike, so
    that a detector cannot tell them by the encoder.
    """
    quality = int(rng.integers(quality_range[0], quality_range[1] + 1))
    _, buffer = cv2.imencode(".jpg", resized(image, size), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return buffer.tobytes()


def resized(image: Image, size: int) -> Image:
    """Return an `image` (H, W, 3) as (size, size, 3): by area where it shrinks, else by cubic splines."""
    shrinks = image.shape[0] > size
    result = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return result.astype(np.uint8, copy=False)
