"""Face reenactment (FR): the same face with moved eyes, nose or mouth."""

import numpy as np
from numpy.random import Generator

from r2m.data.align import Landmarks
from r2m.data.images import Image
from r2m.forge.geometry import axes, blend, resample, ring, soften, thin_plate_spline, warp
from r2m.forge.registry import Face, Strength, forgery


@forgery("tps", "FR")
def tps(face: Face, donor: Face | None, rng: Generator, *, strength: Strength = 1.0) -> Image:
    """Move the five landmarks by a thin-plate spline, the outline pinned; `strength` scales the movement."""
    image, landmarks = face.image, face.landmarks
    size = image.shape[0]
    _, _, unit = axes(landmarks)
    angles = rng.uniform(0, 2 * np.pi, size=5)
    lengths = strength * unit * rng.uniform(0.08, 0.16, size=5)
    shifts = (lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)).astype(np.float32)
    corners = np.array([[0, 0], [size, 0], [0, size], [size, size]], dtype=np.float32)
    pinned = np.concatenate([ring(landmarks, 12, 1.15, 1.4), corners])
    return warp(image, thin_plate_spline(landmarks, shifts, pinned, size))


@forgery("lip", "FR")
def lip(face: Face, donor: Face | None, rng: Generator, *, strength: Strength = 1.0) -> Image:
    """Move the mouth and paste the lower face back at half resolution; `strength` scales the movement."""
    image, landmarks = face.image, face.landmarks
    size = image.shape[0]
    _, mouth, unit = axes(landmarks)
    moved = resample(warp(image, mouth_field(mouth, unit, strength, rng, size)), 0.5)
    mask = np.zeros((size, size), dtype=np.float32)
    top, bottom = mouth[1] - rng.uniform(0.3, 0.42) * unit, mouth[1] + rng.uniform(0.5, 0.65) * unit
    half = rng.uniform(0.55, 0.75) * unit
    left, right = max(0, round(mouth[0] - half)), max(0, round(mouth[0] + half))
    mask[max(0, round(top)) : max(0, round(bottom)), left:right] = 1.0
    return blend(image, moved, soften(mask, rng.uniform(0.8, 1.6)))


def mouth_field(mouth: Landmarks, unit: float, strength: float, rng: Generator, size: int) -> np.ndarray:
    """Return the field (S, S, 2) that stretches and moves the mouth, fading around it."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    dx, dy = (x - mouth[0]) / unit, (y - mouth[1]) / unit
    fade = np.exp(-((dx / 0.45) ** 2) - (dy / 0.35) ** 2)
    stretch = strength * rng.uniform(0.15, 0.35) * rng.choice([-1.0, 1.0])
    drift = strength * rng.uniform(0.03, 0.08) * rng.choice([-1.0, 1.0], size=2)
    field = np.stack([fade * drift[0], fade * (drift[1] - stretch * dy)], axis=-1) * unit
    return field.astype(np.float32)
