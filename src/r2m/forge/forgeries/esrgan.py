"""Face editing (FE) by super-resolution: the face is redrawn from a small version of itself."""

import cv2
import numpy as np
from numpy.random import Generator

from r2m.data.images import Image
from r2m.forge.geometry import blend, face_mask
from r2m.forge.networks.esrgan import Upscaler
from r2m.forge.paste import match_spectrum
from r2m.forge.registry import Face, Materials, Opacity, forgery

PACKAGE = "esrgan"


def upscaler(materials: Materials) -> Upscaler:
    """Return the network that enlarges images."""
    return Upscaler(materials.packages[PACKAGE])


@forgery("esrgan", "FE", prepare=upscaler, packages=(PACKAGE,))
def esrgan(
    face: Face,
    donor: Face | None,
    rng: Generator,
    *,
    state: Upscaler,
    strength: Opacity = 1.0,
) -> Image:
    """Restore the face from about half its size by Real-ESRGAN; `strength` is its opacity at most."""
    image, landmarks = face.image, face.landmarks
    size = image.shape[0]
    mask = face_mask(landmarks, size, rng.uniform(2.0, 5.0), rng.uniform(0.9, 1.1), rng.uniform(1.1, 1.3))
    x, y, width, height = cv2.boundingRect((mask > 0).astype(np.uint8))
    inner, factor = image[y : y + height, x : x + width], rng.uniform(0.5, 0.65)
    side = (max(8, round(width * factor)), max(8, round(height * factor)))
    small = cv2.resize(inner, side, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    restored = image.copy()
    restored[y : y + height, x : x + width] = cv2.resize(
        state(small), (width, height), interpolation=cv2.INTER_AREA
    )
    return blend(
        image, match_spectrum(restored, image, mask), mask * min(1.0, strength * rng.uniform(0.85, 1.0))
    )
