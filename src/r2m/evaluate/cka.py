"""Linear centred kernel alignment: how alike two models place the same images, up to rotation and scale."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Kernel:
    """Inner products of the features of n images, and what W weightings of the images make of them.

    `gram` (n, n) is of features less their mean, `diagonal` (n,) its diagonal, `sums` (n, W) its product with
    the weights. All in float64, whatever the number D of features: n² numbers, not D².
    """

    gram: NDArray[np.float64]
    diagonal: NDArray[np.float64]
    sums: NDArray[np.float64]


def kernel(features: NDArray[np.floating], weights: NDArray[np.float64]) -> Kernel:
    """Return the linear kernel of features (n, D) under weights (n, W) of the images."""
    x = features.astype(np.float64)
    x -= x.mean(axis=0)  # the alignment does not see the mean; without it rounding is least
    gram = x @ x.T
    return Kernel(gram, gram.diagonal().copy(), gram @ weights)


def linear_cka(
    one: Kernel, other: Kernel, weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return linear CKA and its debiased form, each (W,), under weights (n, W) that are 0 or 1.

    The first is ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) of centred features X and Y (Kornblith et al., Similarity of Neural
    Network Representations Revisited, ICML 2019, section 3), here by the equal inner products of n×n Gram
    matrices. With fewer images than features it comes out high whatever the models. The second puts the
    unbiased estimate of HSIC (Song et al., Feature Selection via Dependence Maximization, JMLR 13, 2012,
    theorem 2) into the same quotient; it can fall below 0, and needs four images. Where features do not vary,
    both are NaN.
    """
    cross, unbiased_cross = _hsic(one, other, weights)
    squares, unbiased_squares = zip(_hsic(one, one, weights), _hsic(other, other, weights), strict=True)
    return _quotient(cross, *squares), _quotient(unbiased_cross, *unbiased_squares)


def _hsic(
    one: Kernel, other: Kernel, weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return HSIC (W,), biased and unbiased, up to factors that the quotient cancels."""
    n = weights.sum(axis=0)
    products = one.gram * other.gram
    inner = (weights * (products @ weights)).sum(axis=0)
    totals = (weights * one.sums).sum(axis=0), (weights * other.sums).sum(axis=0)
    rows = (weights * one.sums * other.sums).sum(axis=0)
    biased = inner - 2 / n * rows + totals[0] * totals[1] / n**2
    # The same without the diagonals of both Gram matrices.
    sums = [kernel.sums - kernel.diagonal[:, None] * weights for kernel in (one, other)]
    inner = inner - products.diagonal() @ weights
    totals = (weights * sums[0]).sum(axis=0), (weights * sums[1]).sum(axis=0)
    rows = (weights * sums[0] * sums[1]).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        unbiased = inner + totals[0] * totals[1] / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows
    return biased, np.where(n > 3, unbiased, np.nan)


def _quotient(
    cross: NDArray[np.float64], square: NDArray[np.float64], other_square: NDArray[np.float64]
) -> NDArray[np.float64]:
    positive = (square > 0) & (other_square > 0)
    return np.where(positive, cross / np.sqrt(np.where(positive, square * other_square, 1)), np.nan)
