"""SCORE: the sum in a shared basis, without the entries off the diagonal that stand out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from r2m.merge.method import Method
from r2m.options import Positive, Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece

# What the authors divide by the number of specialists.
DEVIATIONS = 1.96


class Options(Section):
    """Subspace conflicts, resolved."""

    c: Positive | None = Field(
        default=None,
        description="standard deviations within which entries off the diagonal are kept; null: 1.96 / K",
    )
    scaling: float = 1.0


def merge(piece: Piece, options: Options, state: None) -> Tensor:
    """Return scaling · U* [Σ_k diag(M_k) + kept(M_k)] V*ᵀ of a matrix (m, n), with M_k = U*ᵀ τ_k V* (R, R).

    U* and V* are those of `joint_basis` (arXiv 2603.05768, and variant v1 of the authors' code). Of the
    entries O_k of M_k off the diagonal, those within c standard deviations of their mean are kept: both are
    taken over all R² entries of M_k with zeros on the diagonal, and the deviation divides by R² − 1. From
    c = R on all are kept: that is the plain sum of what the basis spans. The mean depends on the signs of
    singular vectors, which are therefore fixed, where the authors' code takes them as they come.
    """
    from r2m.merge.joint_basis import joint_basis
    from r2m.merge.linalg import matmul

    basis = joint_basis(piece)
    if basis is None:
        return piece.task_vector(0).zero_()
    left, right = basis.left_frame, basis.right_frame
    limit = DEVIATIONS / len(piece.names) if options.c is None else options.c
    core = left.new_zeros(left.shape[1], left.shape[1])
    for task_vector in piece.each_task_vector():
        core += trimmed(matmul(matmul(left.T, task_vector.double()), right), limit)
    return (options.scaling * matmul(matmul(left, core), right.T)).float()


def trimmed(matrix: Tensor, limit: float) -> Tensor:
    """Return a matrix (R, R) without entries off the diagonal that are beyond `limit` standard deviations."""
    if len(matrix) == 1:
        return matrix
    outside = matrix.clone().fill_diagonal_(0)
    kept = (outside - outside.mean()).abs() <= limit * outside.std()
    return (outside * kept).diagonal_scatter(matrix.diagonal())


METHOD = Method(
    title="SCORE",
    citation="Chaves et al., Bridging domains through subspace-aware model merging, CVPR 2026,"
    " arXiv 2603.05768",
    options=Options,
    merge=merge,
    others="scaled_mean",
    is_proportional=True,
)
