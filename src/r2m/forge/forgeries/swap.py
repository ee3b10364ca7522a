"""Face swapping (FS): another person's inner face, or the same face again, blended in."""

import cv2
import numpy as np
from numpy.random import Generator

from r2m.data.images import Image
from r2m.forge.geometry import blend, face_mask, resample, to_uint8
from r2m.forge.paste import given, match_colour, moved_onto
from r2m.forge.registry import Face, Opacity, Strength, forgery


@forgery("swap", "FS", needs_donor=True)
def swap(face: Face, donor: Face | None, rng: Generator, *, strength: Opacity = 1.0) -> Image:
    """Paste the donor's face, aligned, colour-matched and feathered; `strength` is its opacity at most."""
    image, landmarks = face.image, face.landmarks
    size = image.shape[0]
    mask = face_mask(landmarks, size, rng.uniform(2.0, 5.0), rng.uniform(0.86, 1.0), rng.uniform(1.1, 1.25))
    moved = match_colour(moved_onto(given(donor), landmarks, size), image, mask)
    return blend(image, moved, mask * min(1.0, strength * rng.uniform(0.9, 1.0)))


@forgery("poisson", "FS", needs_donor=True)
def poisson(face: Face, donor: Face | None, rng: Generator, *, strength: Opacity = 1.0) -> Image:
    """Clone the donor's face by its gradients (Pérez et al., 2003); `strength` is its opacity at most."""
    image, landmarks = face.image, face.landmarks
    size = image.shape[0]
    moved = moved_onto(given(donor), landmarks, size)
    mask = (face_mask(landmarks, size, 0.0, rng.uniform(0.82, 0.96), rng.uniform(1.05, 1.2)) > 0.5).astype(
        np.uint8
    )
    mask[[0, 1, -2, -1], :] = 0
    mask[:, [0, 1, -2, -1]] = 0
    x, y, width, height = cv2.boundingRect(mask)
    cloned = cv2.seamlessClone(moved, image, mask * 255, (x + width // 2, y + height // 2), cv2.NORMAL_CLONE)
    return blend(image, cloned, min(1.0, strength * rng.uniform(0.9, 1.0)))


@forgery("sbi", "FS")
def sbi(face: Face, donor: Face | None, rng: Generator, *, strength: Strength = 1.0) -> Image:
    """Blend the face with an altered copy of itself (self-blended images, arXiv 2204.08376).

    `strength` scales the copy's colour shift and its opacity.
    """
    image, landmarks = face.image, face.landmarks
    size = image.shape[0]
    copy = recolour(image, strength, rng)
    copy = (
        resample(copy, rng.uniform(0.5, 0.75)) if rng.random() < 0.5 else sharpen(copy, rng.uniform(0.8, 1.6))
    )
    copy = shift(copy, rng)
    mask = face_mask(landmarks, size, rng.uniform(1.5, 4.5), rng.uniform(0.7, 1.1), rng.uniform(0.9, 1.3))
    return blend(image, copy, mask * min(1.0, strength * rng.uniform(0.6, 1.0)))


def recolour(image: Image, strength: float, rng: Generator) -> Image:
    """Return the image with hue, saturation and brightness shifted a little; grey stays grey."""
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV).astype(np.float32)
    hsv[:, :, 0] = (hsv[:, :, 0] + strength * rng.uniform(-4, 4)) % 180
    hsv[:, :, 1] *= 1 + strength * rng.uniform(-0.25, 0.25)
    hsv[:, :, 2] *= 1 + strength * rng.uniform(-0.15, 0.15)
    return cv2.cvtColor(to_uint8(hsv), cv2.COLOR_HSV2BGR).astype(np.uint8, copy=False)


def sharpen(image: Image, amount: float) -> Image:
    """Return the image with its detail of about one pixel raised by `amount`."""
    soft = cv2.GaussianBlur(image, (0, 0), 1.2).astype(np.float32)
    return to_uint8(image + amount * (image - soft))


def shift(image: Image, rng: Generator) -> Image:
    """Return the image scaled and moved by up to 4 %."""
    size = image.shape[0]
    scale = rng.uniform(0.96, 1.04)
    move = rng.uniform(-0.02, 0.02, size=2) * size + (1 - scale) * size / 2
    matrix = np.array([[scale, 0, move[0]], [0, scale, move[1]]])
    moved = cv2.warpAffine(image, matrix, (size, size), borderMode=cv2.BORDER_REFLECT_101)
    return moved.astype(np.uint8, copy=False)
