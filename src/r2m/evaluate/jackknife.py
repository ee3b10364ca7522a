"""Standard errors by leaving people out one at a time, for statistics that repeated images would distort."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from r2m.evaluate.bootstrap import LEVEL


def leave_one_out(people: Sequence[str]) -> tuple[list[str], NDArray[np.float64]]:
    """Return the P different people behind n images, and weights (n, 1 + P) of the images.

    The first column keeps all images, each other one all but those of one person.
    """
    names, index = np.unique(np.asarray(people, dtype=object), return_inverse=True)
    weights = np.ones((len(index), 1 + len(names)))
    weights[np.arange(len(index)), 1 + index] = 0
    return [str(name) for name in names], weights


def standard_error(replicates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard errors (…) of a statistic from its values (…, P) without each of P people.

    They are NaN where a value is, or with one person.

    Source: the delete-one jackknife over clusters, Efron and Tibshirani, An Introduction to the Bootstrap,
    1993, chapter 11. Unlike the bootstrap it draws no image twice: copies of an image are as similar to each
    other as can be, which pulls similarities of whole sets up.
    """
    count = replicates.shape[-1]
    if count < 2:
        return np.full(replicates.shape[:-1], np.nan)
    deviations = replicates - replicates.mean(axis=-1, keepdims=True)
    return np.sqrt((count - 1) / count * (deviations**2).sum(axis=-1))


def interval(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the limits (…) of normal intervals of level LEVEL.

    `values` (…, 1 + P) are the estimate and, in the order of `leave_one_out`, those without each person.
    """
    margin = norm.ppf((1 + LEVEL) / 2) * standard_error(values[..., 1:])
    return values[..., 0] - margin, values[..., 0] + margin
