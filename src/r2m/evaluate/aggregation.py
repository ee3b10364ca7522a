"""What a video's score is made of: functions from the probabilities of its frames to one number."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from r2m.evaluate.options import Aggregation


def mean(values: NDArray[np.float64], video: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean of each video (V,) of the values (N,) of frames, which `video` (N,) numbers from 0."""
    return np.bincount(video, weights=values) / np.bincount(video)


def median(values: NDArray[np.float64], video: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the median of each video (V,), between the two middle values where their number is even."""
    ordered = values[np.lexsort((values, video))]
    count = np.bincount(video)
    first = np.cumsum(count) - count
    return (ordered[first + (count - 1) // 2] + ordered[first + count // 2]) / 2


def greatest(values: NDArray[np.float64], video: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the greatest value of each video (V,): one frame that looks fake makes the video fake."""
    result = np.full(video.max(initial=-1) + 1, -np.inf)
    np.maximum.at(result, video, values)
    return result


# The values of `evaluate.video` in params.yaml.
AGGREGATIONS: dict[Aggregation, Callable[[NDArray[np.float64], NDArray[np.int64]], NDArray[np.float64]]] = {
    "mean": mean,
    "median": median,
    "max": greatest,
}
