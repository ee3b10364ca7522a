"""Face editing (FE): one attribute or one part of the face is changed."""

import cv2
import numpy as np
from numpy.random import Generator

from r2m.data.align import Landmarks
from r2m.data.images import Image
from r2m.forge.geometry import axes, blend, face_mask, resample, spot_mask, to_uint8
from r2m.forge.registry import Face, Strength, forgery


@forgery("attr", "FE")
def attr(face: Face, donor: Face | None, rng: Generator, *, strength: Strength = 1.0) -> Image:
    """Recolour the skin or the hair after a pass at ¾ resolution; `strength` scales the change of colour."""
    image, landmarks = face.image, face.landmarks
    size = image.shape[0]
    skin = face_mask(landmarks, size, rng.uniform(3.0, 6.0), 1.0, 1.3)
    mask = skin if rng.random() < 0.5 else hair_mask(landmarks, size, rng) * (1 - skin)
    hsv = cv2.cvtColor(resample(image, 0.75), cv2.COLOR_BGR2HSV).astype(np.float32)
    hsv[:, :, 0] = (hsv[:, :, 0] + strength * rng.uniform(2.5, 6) * rng.choice([-1.0, 1.0])) % 180
    hsv[:, :, 1] *= 1 + strength * rng.uniform(0.1, 0.3) * rng.choice([-1.0, 1.0])
    hsv[:, :, 2] *= 1 + strength * rng.uniform(0.04, 0.12) * rng.choice([-1.0, 1.0])
    edited = cv2.cvtColor(to_uint8(hsv), cv2.COLOR_HSV2BGR)
    return blend(image, edited, mask)


def hair_mask(landmarks: Landmarks, size: int, rng: Generator) -> np.ndarray:
    """Return the soft mask (S, S) of the region around and above the upper face."""
    eyes, mouth, unit = axes(landmarks)
    centre = eyes - 0.35 * (mouth - eyes)
    return spot_mask([centre], (1.45 * unit, 1.35 * unit), size, rng.uniform(3.0, 6.0))


@forgery("inp", "FE")
def inp(face: Face, donor: Face | None, rng: Generator, *, strength: Strength = 1.0) -> Image:
    """Fill eyes, nose or mouth in from around them (Telea, 2004); `strength` scales the size of the hole."""
    image, landmarks = face.image, face.landmarks
    size = image.shape[0]
    _, mouth, unit = axes(landmarks)
    below = np.array([0, 0.28 * unit], dtype=np.float32)
    places: list[tuple[list[Landmarks], tuple[float, float]]] = [
        ([landmarks[0] + below, landmarks[1] + below], (0.28, 0.15)),
        ([landmarks[2]], (0.24, 0.24)),
        ([mouth + 0.2 * below], (0.42, 0.16)),
    ]
    centres, radii = places[rng.integers(len(places))]
    scale = strength * unit * rng.uniform(0.85, 1.15)
    hole = spot_mask(centres, (radii[0] * scale, radii[1] * scale), size, 0.0)
    filled = cv2.inpaint(image, (hole > 0.5).astype(np.uint8), 3.0, cv2.INPAINT_TELEA)
    return blend(image, filled, hole)
