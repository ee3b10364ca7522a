"""Relevance maps laid over the photographs that the faces are on."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from r2m.data.images import Image, write_png
from r2m.files import atomic_path

# Perceptually uniform: equal steps of relevance look equally large.
COLOURS = cv2.COLORMAP_VIRIDIS
# How much of what is seen is the map's colour; the rest is the photograph, in grey.
OPACITY = 0.5


def overlaid(photograph: Image, relevance: NDArray[np.float32], matrix: NDArray[np.float64]) -> Image:
    """Return a BGR photograph (H, W, 3) with a map (S, S) in [0, 1] over the face.

    `matrix` (2, 3) leads from pixels of the photograph to those of the map. Around the crop that the detector
    saw the photograph stays as it is.
    """
    placed, is_seen = placed_map(photograph.shape[:2], relevance, matrix)
    levels = np.rint(255 * placed).astype(np.uint8)
    colours = cv2.applyColorMap(levels, COLOURS)
    grey = cv2.cvtColor(cv2.cvtColor(photograph, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    mixed = cv2.addWeighted(colours, OPACITY, grey, 1 - OPACITY, 0)
    return np.where(is_seen[..., None], mixed, photograph).astype(np.uint8, copy=False)


def placed_map(
    shape: Sequence[int], relevance: NDArray[np.float32], matrix: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return a map (S, S) as it lies on a photograph of `shape` (H, W), 0 outside, and where it lies."""
    height, width = shape[:2]

    def placed(values: NDArray[np.float32]) -> NDArray[np.float32]:
        # The transform leads from the photograph to the map, which is the inverse of what is done.
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(values, matrix, (width, height), flags=flags), np.float32)

    return placed(relevance), placed(np.ones_like(relevance)) >= 0.5


def write_overlay(path: Path, image: Image) -> None:
    """Write an image as PNG, atomically."""
    with atomic_path(path) as temporary:
        write_png(temporary, image)


def overlay_stems(files: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Return file → what the paths of its overlays in `folder` begin with.

    Files of one folder stand side by side; those of several below folders as theirs lie to one another.
    """
    places = {file: Path(os.path.abspath(file)) for file in files}
    root = Path(os.path.commonpath([place.parent for place in places.values()]))
    return {file: folder / place.relative_to(root) for file, place in places.items()}


def overlay_path(stem: Path, number: int) -> Path:
    """Return the path of the overlay of one face, such as `photo.jpg-face0.png`."""
    return stem.with_name(f"{stem.name}-face{number}.png")


def existing(stem: Path) -> Iterator[Path]:
    """Yield the overlays that there are already."""
    yield from sorted(stem.parent.glob(f"{glob.escape(stem.name)}-face[0-9]*.png"))
