"""Subspace boosting: the sum of the task vectors with its small singular values raised."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pydantic import Field

from r2m.merge.method import Method
from r2m.merge.options import Share
from r2m.options import Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece

# Queries, keys and values in one matrix, one below the other.
_JOINED = re.compile(r"(?:^|\.)(?:qkv\.weight|in_proj_weight)$")


class Options(Section):
    """The sum, against the collapse of its rank."""

    beta: Share = Field(
        default=0.01,
        description="share of the sum of singular values; later ones are raised to the one that reaches it",
    )
    scaling: float = 1.0


def merge(piece: Piece, options: Options, state: None) -> Tensor:
    """Return scaling · U max(Σ, σ_c) Vᵀ of a matrix (m, n): T = Σ τ_k = U Σ Vᵀ.

    c is the first index at which σ_1 + … + σ_c ≥ beta · Σ σ_i (arXiv 2506.16506, subspace boosting of task
    arithmetic). Queries, keys and values that are joined in one matrix (3n, n) are taken one by one.
    Directions in which T is zero up to rounding errors stay zero; the authors' code raises arbitrary ones.
    """
    import torch

    total = piece.total(torch.float64)
    m, n = total.shape
    parts = total.split(n) if _JOINED.search(piece.key) and m == 3 * n else (total,)
    return (options.scaling * torch.cat([boosted(part, options.beta) for part in parts])).float()


def boosted(matrix: Tensor, beta: float) -> Tensor:
    """Return a matrix (m, n) of float64 with its singular values raised to the one that reaches `beta`."""
    from r2m.merge.linalg import leading_triplets, matmul

    left, values, right = leading_triplets(matrix, min(matrix.shape))
    if len(values) == 0:
        return matrix
    reached = values.cumsum(0) >= beta * values.sum() * (1 - 1e-12)
    return matmul(left * values.clamp(min=values[reached][0]), right.T)


METHOD = Method(
    title="Subspace Boosting",
    citation="Skorobogat et al., Subspace-boosted model merging, 2025, arXiv 2506.16506",
    options=Options,
    merge=merge,
    others="scaled_mean",
    is_proportional=True,
)
