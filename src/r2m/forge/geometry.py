"""Soft masks and warps that the forgeries share, all placed by the five landmarks."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from r2m.data.align import Landmarks
from r2m.data.images import Image

Mask = NDArray[np.float32]
Field = NDArray[np.float32]
Ellipse = tuple[tuple[float, float], tuple[float, float], float]

GRID = 19


def axes(landmarks: Landmarks) -> tuple[Landmarks, Landmarks, float]:
    """Return the middle of the eyes, the middle of the mouth and the face's unit length.

    The unit is the larger of the distances between the eyes and from eyes to mouth, which a turned head
    changes least.
    """
    eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
    across, down = np.linalg.norm(landmarks[1] - landmarks[0]), np.linalg.norm(mouth - eyes)
    return eyes, mouth, max(float(across), float(down), 1.0)


def outline(landmarks: Landmarks, width: float = 1.0, height: float = 1.2) -> Ellipse:
    """Return centre, full axes and angle (in degrees) of the ellipse of the inner face."""
    eyes, mouth, unit = axes(landmarks)
    centre = eyes + 0.58 * (mouth - eyes)
    down = mouth - eyes
    angle = float(np.degrees(np.arctan2(-down[0], down[1])))
    return (float(centre[0]), float(centre[1])), (2 * width * unit, 2 * height * unit), angle


def face_mask(
    landmarks: Landmarks, size: int, feather: float, width: float = 1.0, height: float = 1.2
) -> Mask:
    """Return the soft mask (S, S) in [0, 1] of the inner face, its edge blurred by `feather` pixels."""
    ellipse = outline(landmarks, width, height)
    mask = np.zeros((size, size), dtype=np.float32)
    cv2.ellipse(mask, ellipse, 1.0, thickness=-1)
    return soften(mask, feather)


def spot_mask(centres: Sequence[Landmarks], radii: tuple[float, float], size: int, feather: float) -> Mask:
    """Return the soft mask (S, S) of upright ellipses of `radii` (x, y) around `centres`."""
    mask = np.zeros((size, size), dtype=np.float32)
    for centre in centres:
        box = ((float(centre[0]), float(centre[1])), (2 * radii[0], 2 * radii[1]), 0.0)
        cv2.ellipse(mask, box, 1.0, thickness=-1)
    return soften(mask, feather)


def soften(mask: Mask, feather: float) -> Mask:
    """Blur a mask by a Gaussian of `feather` pixels."""
    return cv2.GaussianBlur(mask, (0, 0), feather).astype(np.float32, copy=False) if feather > 0 else mask


def blend(image: Image, overlay: NDArray[np.generic], mask: Mask | float) -> Image:
    """Return image + mask · (other − image), rounded and clipped to uint8."""
    weight = mask[:, :, None] if isinstance(mask, np.ndarray) else np.float32(mask)
    base = image.astype(np.float32)
    return to_uint8(base + weight * (overlay.astype(np.float32) - base))


def to_uint8(values: NDArray[np.floating]) -> Image:
    """Round and clip to uint8."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def resample(image: Image, factor: float) -> Image:
    """Return `image` shrunk by `factor` and enlarged to its size again."""
    height, width = image.shape[:2]
    shape = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def warp(image: Image, displacement: Field) -> Image:
    """Return image(x + displacement(x)), bilinear; `displacement` is (S, S, 2) in pixels, x first."""
    size = image.shape[0]
    y, x = np.mgrid[:size, :size].astype(np.float32)
    warped = cv2.remap(
        image,
        x + displacement[:, :, 0],
        y + displacement[:, :, 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return warped.astype(np.uint8, copy=False)


def thin_plate_spline(points: Landmarks, shifts: Landmarks, pinned: Landmarks, size: int) -> Field:
    """Return the field (S, S, 2) that is `shifts` (N, 2) at `points` (N, 2) and zero at `pinned` (M, 2).

    Bookstein, IEEE TPAMI 11(6), 1989; evaluated on a coarse grid and enlarged.
    """
    knots = np.concatenate([points, pinned]).astype(np.float64)
    values = np.concatenate([shifts, np.zeros_like(pinned)]).astype(np.float64)
    ticks = (np.arange(GRID) + 0.5) * size / GRID - 0.5
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    # Imported here, since params.yaml is checked against all forgeries, and scipy takes its time.
    from scipy.interpolate import RBFInterpolator

    coarse = RBFInterpolator(knots, values, kernel="thin_plate_spline")(grid).reshape(GRID, GRID, 2)
    field = cv2.resize(coarse.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    return field.astype(np.float32, copy=False)


def ring(landmarks: Landmarks, count: int, width: float, height: float) -> Landmarks:
    """Return `count` points (count, 2) on the outline of the face."""
    (cx, cy), (full_x, full_y), angle = outline(landmarks, width, height)
    turn, angles = np.radians(angle), 2 * np.pi * np.arange(count) / count
    x, y = full_x / 2 * np.cos(angles), full_y / 2 * np.sin(angles)
    return np.stack(
        [cx + x * np.cos(turn) - y * np.sin(turn), cy + x * np.sin(turn) + y * np.cos(turn)], axis=1
    ).astype(np.float32)
