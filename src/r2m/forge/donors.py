"""The donor of a face swap: the nearest other person by the position of the landmarks."""

import numpy as np
from numpy.typing import NDArray

CHUNK = 1024


def nearest_donors(landmarks: NDArray[np.float32], identities: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return, for each of N faces, the index of the nearest face of another identity, or −1 if there is none.

    `landmarks` is (N, 5, 2), `identities` (N,). Equal distances go to the lower index.
    """
    points = landmarks.reshape(len(landmarks), -1).astype(np.float64)
    norms = (points**2).sum(axis=1)
    donors = np.full(len(points), -1, dtype=np.int64)
    for start in range(0, len(points), CHUNK):
        rows = slice(start, start + CHUNK)
        distances = norms[None, :] - 2 * points[rows] @ points.T
        distances[identities[rows, None] == identities[None, :]] = np.inf
        best = distances.argmin(axis=1)
        possible = np.isfinite(distances[np.arange(len(best)), best])
        donors[rows] = np.where(possible, best, -1)
    return donors
