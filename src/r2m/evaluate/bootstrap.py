"""Confidence intervals of AUCs by a bootstrap that draws people, with all of their images."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from r2m.evaluate.score_matrix import People, SetRows
from r2m.seeding import rng

LEVEL = 0.95
BLOCK = 100  # resamples in memory at a time


def resample(strata: Sequence[str], resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield how often each of P people was drawn, `(B, P)`, in blocks of resamples.

    As many people as there are in a stratum are drawn from it with replacement. Each stratum has a random
    stream of its own, so that another domain changes nothing in this one.
    """
    members = {name: np.flatnonzero(np.array(strata) == name) for name in sorted(set(strata))}
    streams = {name: rng(seed, "bootstrap", name) for name in members}
    for start in range(0, resamples, BLOCK):
        size = min(BLOCK, resamples - start)
        counts = np.zeros((size, len(strata)), dtype=np.int64)
        for name, places in members.items():
            shares = np.full(len(places), 1 / len(places))
            counts[:, places] = streams[name].multinomial(len(places), shares, size=size)
        yield counts


def weighted_aucs(
    real: NDArray[np.float64],
    fake: NDArray[np.float64],
    real_weights: NDArray[np.int64],
    fake_weights: NDArray[np.int64],
) -> NDArray[np.float64]:
    """AUCs (B,) of scores (R,) and (F,) under B weightings (B, R) and (B, F), ties counted by half.

    A weight says how often its score occurs. Sums are of integers, so that equal weights give the AUC
    without weights. Where all reals or all fakes weigh nothing the AUC is NaN.
    """
    order = np.argsort(real, kind="stable")
    below, up_to = (np.searchsorted(real[order], fake, side=side) for side in ("left", "right"))
    weight = np.zeros((len(real_weights), len(real) + 1), dtype=np.int64)
    np.cumsum(real_weights[:, order], axis=1, out=weight[:, 1:])
    half_wins = ((weight[:, below] + weight[:, up_to]) * fake_weights).sum(axis=1)
    pairs = weight[:, -1] * fake_weights.sum(axis=1)
    return np.where(pairs > 0, half_wins / np.maximum(2 * pairs, 1), np.nan)


def resampled_aucs(
    scores: NDArray[np.float64], sets: Sequence[SetRows], people: People, resamples: int, seed: int
) -> NDArray[np.float64]:
    """AUCs `(B, M, S)` of M models on S test sets in B resamples of people; `scores` is (M, N).

    A resample draws the same people for all models and test sets, so that differences between models and
    means over sets can be taken resample by resample. It is NaN for a set of which it holds no real or no
    fake.
    """
    result = np.empty((resamples, len(scores), len(sets)))
    start = 0
    for counts in resample(people.strata, resamples, seed):
        block = result[start : start + len(counts)]
        for place, test_set in enumerate(sets):
            real_weights, fake_weights = (
                counts[:, people.index[test_set.reals]],
                counts[:, people.index[test_set.fakes]],
            )
            for model, row in enumerate(scores):
                block[:, model, place] = weighted_aucs(
                    row[test_set.reals], row[test_set.fakes], real_weights, fake_weights
                )
        start += len(counts)
    return result


def interval(
    resampled: NDArray[np.float64], estimate: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper limits (…) of percentile intervals of level LEVEL, from `resampled` (B, …).

    NaNs are left out. With very few people the percentiles can miss the estimate (…); then the interval is
    extended to it. With 40 simulated people and an AUC of 0.975, 95 % intervals held the truth in 86 % of
    trials; with 148 people, or an AUC of 0.7, in 94 to 96 %.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3; clusters of correlated
    readings drawn as wholes: Rutter, Academic Radiology 7(6), 2000.
    """
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(resampled, [tail, 1 - tail], axis=0)
    return np.minimum(low, estimate), np.maximum(high, estimate)
