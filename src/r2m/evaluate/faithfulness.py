"""How faithful an order of pixels is to a detector: deletion and insertion."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

# Pixels are replaced a fifth at a time.
STEPS = 5
# A random map has so many patches each way, about as many as a relevance map: single pixels are other noise.
CELLS = 7
# Standard deviation of the Gaussian as a share of the side; with any other, pixels have the same order.
SPREAD = 0.25

Scores = NDArray[np.float64]


def deletion_and_insertion(
    probabilities: Callable[[Tensor], Scores],
    images: Tensor,
    others: Tensor,
    maps: Tensor,
    ends: tuple[Scores, Scores],
    steps: int = STEPS,
) -> tuple[Scores, Scores]:
    """Return the deletion and the insertion score (n,) of maps (n, S, S) of normalized images (n, 3, S, S).

    `others` are as many photographs, and `ends` the probabilities (n,) of the images and of these.

    Petsiuk, Das and Saenko, "RISE", BMVC 2018 (arXiv 1806.07421). Deletion is the area under the curve of the
    probability while pixels become those of the photograph, the ones of the greatest value first: the lower,
    the more it depended on them. Insertion is the area while they appear on the photograph: the higher, the
    better. RISE takes grey and blurred images, which look forged to these detectors themselves: the
    probability rises there, whichever pixels go.
    """
    first, last = ends
    order = ranks(maps)
    return (
        area([first, *map(probabilities, between(images, others, order, steps)), last]),
        area([last, *map(probabilities, between(others, images, order, steps)), first]),
    )


def ranks(maps: Tensor) -> Tensor:
    """Return the place (n, S, S) of every pixel in its image, 0 for the greatest value; ties by position."""
    places = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    return places.argsort(dim=1).view_as(maps)


def between(start: Tensor, end: Tensor, order: Tensor, steps: int) -> Iterator[Tensor]:
    """Yield what lies between two batches of images: pixels of `end` take the place of those of `start`."""
    count = order[0].numel()
    for step in range(1, steps):
        yield torch.where((order < count * step / steps)[:, None], end, start)


def area(curve: list[Scores]) -> Scores:
    """Return the area (n,) under curves with equal steps on [0, 1], given by their points."""
    return np.trapezoid(np.stack(curve), dx=1 / (len(curve) - 1), axis=0)


def random_map(size: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Return a map (size, size) of random patches, as smooth as relevance maps are."""
    cells = torch.from_numpy(random.random((1, 1, CELLS, CELLS), np.float32))
    return F.interpolate(cells, (size, size), mode="bilinear", align_corners=False)[0, 0].numpy()


def centred_map(size: int) -> NDArray[np.float32]:
    """Return a Gaussian (size, size) in the middle, where a face is."""
    distance = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    return np.exp(-(distance[:, None] ** 2 + distance**2) / (2 * SPREAD**2))
