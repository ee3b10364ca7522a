"""CART: weight averaging, with low-rank deviations from the mean added."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from r2m.merge.method import Method
from r2m.merge.options import Share
from r2m.options import Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece


class Options(Section):
    """The mean, and truncated deviations from it."""

    rank_ratio: Share = Field(
        default=0.08,
        description="singular triplets kept, as a share of min(m, n), rounded down, at least one",
    )
    scaling: float = 1.0


def merge(piece: Piece, options: Options, state: None) -> Tensor:
    """Return mean τ + scaling · Σ SVD_r(τ_k − mean τ) of a matrix (m, n).

    θ_k − θ_avg equals τ_k − mean τ. The paper gives the rank as a share only. It is rounded down here,
    r = int(rank_ratio · min(m, n)), but not to 0: a small head keeps what sets the specialists apart.
    """
    from r2m.merge.linalg import leading_right_vectors

    mean = piece.mean()
    total = mean.clone()
    rank = max(1, int(options.rank_ratio * min(piece.shape)))
    for task_vector in piece.each_task_vector():
        deviation = task_vector.sub_(mean)
        vectors = leading_right_vectors(deviation, rank).vectors.float()
        if deviation.shape[0] >= deviation.shape[1]:
            total.addmm_(deviation @ vectors, vectors.T, alpha=options.scaling)
        else:
            total.addmm_(vectors, vectors.T @ deviation, alpha=options.scaling)
    return total


METHOD = Method(
    title="CART",
    citation="Choi et al., Revisiting weight averaging for model merging, 2024, arXiv 2412.12153",
    options=Options,
    merge=merge,
    others="mean",
)
