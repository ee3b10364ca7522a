"""Iso-C: the sum of the task vectors with all singular values made equal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from r2m.merge.method import Method
from r2m.options import Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece


class Options(Section):
    """Isotropic merging in the common subspace."""

    scaling: float = 1.0


def merge(piece: Piece, options: Options, state: None) -> Tensor:
    """Return scaling · σ̄ U Vᵀ of a matrix (m, n): T = Σ τ_k = U Σ Vᵀ, σ̄ the mean of its min(m, n) values.

    Directions in which T is zero up to rounding errors count in the mean and stay zero; the authors' code
    gives them arbitrary vectors of length σ̄.
    """
    from r2m.merge.linalg import polar

    total = piece.task_vector(0).double()
    for index in range(1, len(piece.names)):
        total += piece.task_vector(index)
    factor, values = polar(total)
    return (options.scaling * values.mean() * factor).float()


METHOD = Method(
    title="Iso-C",
    citation="Marczak et al., No task left behind, ICML 2025, arXiv 2502.04959",
    options=Options,
    merge=merge,
    others="scaled_mean",
    is_proportional=True,
)
