"""Five-point similarity alignment of a face to a canonical template."""

import cv2
import numpy as np
from numpy.typing import NDArray

from r2m.data.images import Image

Landmarks = NDArray[np.float32]

# Right eye, left eye, nose tip, right and left mouth corner, centred, as fractions of the crop's side at
# margin 1: the template of ArcFace (arXiv 1801.07698), which DeepfakeBench also aligns to.
TEMPLATE = (
    np.array(
        [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
        dtype=np.float64,
    )
    / 112.0
    - 0.5
)

# Margins that are tried for a face near the edge, and the share of the crop that the photograph has to cover.
MARGINS, COVERED = 7, 0.96


def template(size: int, margin: float) -> Landmarks:
    """Return the landmarks (5, 2) of an aligned crop of `size` pixels; a larger `margin` shows more."""
    return ((TEMPLATE / margin + 0.5) * size).astype(np.float32)


def similarity(source: Landmarks, target: Landmarks) -> NDArray[np.float64]:
    """Return the 2×3 similarity transform that maps `source` (N, 2) onto `target` (N, 2) in least squares.

    Umeyama, IEEE TPAMI 13(4), 1991, eqs. 40–42, without reflections.
    """
    source64, target64 = source.astype(np.float64), target.astype(np.float64)
    mean_source, mean_target = source64.mean(axis=0), target64.mean(axis=0)
    centred_source, centred_target = source64 - mean_source, target64 - mean_target
    u, s, vt = np.linalg.svd(centred_target.T @ centred_source)
    signs = np.array([1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * signs) @ vt
    scale = (s * signs).sum() / max(float((centred_source**2).sum()), 1e-12)
    linear = scale * rotation
    return np.column_stack([linear, mean_target - linear @ mean_source])


def transform(points: Landmarks, matrix: NDArray[np.float64]) -> Landmarks:
    """Return `points` (N, 2) under the affine `matrix` (2, 3)."""
    return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def align(image: Image, landmarks: Landmarks, size: int, margin: float) -> tuple[Image, Landmarks]:
    """Return the aligned crop (size, size, 3) and the landmarks (5, 2) in its pixels.

    `margin` is the largest to be used: see `fitting`. What is still missing at the edge is mirrored. A face
    that has to shrink to less than half is shrunk by area first, so that nothing aliases.
    """
    matrix = fitting(image.shape[:2], landmarks, size, margin)
    source, placed = _shrunk(image, matrix)
    crop = cv2.warpAffine(
        source, placed, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
    return crop.astype(np.uint8, copy=False), transform(landmarks, matrix)


def _shrunk(image: Image, matrix: NDArray[np.float64]) -> tuple[Image, NDArray[np.float64]]:
    """Return the image, made so small that `matrix` (2, 3) shrinks it by half at most, and its transform."""
    factor = 2.0 * float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if factor >= 1:
        return image, matrix
    height, width = image.shape[:2]
    shape = max(1, round(width * factor)), max(1, round(height * factor))
    smaller = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
    # Pixel centres lie at whole numbers: x' = (x + ½) r − ½.
    ratio = np.array(shape) / (width, height)
    linear = matrix[:, :2] / ratio
    move = matrix[:, 2] + linear @ (0.5 - 0.5 * ratio)
    return smaller.astype(np.uint8, copy=False), np.column_stack([linear, move])


def fitting(shape: tuple[int, ...], landmarks: Landmarks, size: int, margin: float) -> NDArray[np.float64]:
    """Return the transform (2, 3) of the largest margin in [1, margin] whose crop the image covers.

    A photograph cut close around the face would otherwise be mirrored into half-faces beside the face.
    """
    for candidate in np.linspace(margin, 1.0, MARGINS):
        matrix = similarity(landmarks, template(size, float(candidate)))
        if coverage(shape, matrix, size) >= COVERED:
            break
    return matrix


def coverage(shape: tuple[int, ...], matrix: NDArray[np.float64], size: int) -> float:
    """Return the share of the crop that lies on an image of `shape` (H, W), on a grid of 24 × 24 points."""
    ticks = (np.arange(24) + 0.5) * size / 24
    points = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    x, y = np.linalg.solve(matrix[:, :2], (points - matrix[:, 2]).T)
    return float(((x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])).mean())
