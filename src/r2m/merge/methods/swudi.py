"""SWUDI: what WUDI-Merging looks for, in closed form, in directions that are well determined."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from r2m.merge.method import Method
from r2m.options import Positive, Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece

# The exponential filter is for this share of the directions, the leading ones.
LEADING = 0.65

# Eigenvalues below it divide by it: a task vector of norm 1 has the eigenvalues' sum 1.
LEAST_VALUE = 1e-8


class Options(Section):
    """How far every direction goes from the sum of the task vectors to the solution."""

    filter: Literal["auto", "exponential"] = Field(
        default="auto",
        description="auto: all the way in as many directions as the effective rank;"
        " exponential: 1 − exp(−tλ) of it in the leading 65 %",
    )
    t: Positive = Field(default=300.0, description="time of the gradient flow that `exponential` follows")


def merge(piece: Piece, options: Options, state: None) -> Tensor:
    """Return τ = T − T V f Vᵀ + D V (f/λ) Vᵀ of a matrix (m, n), with T = Σ τ_k and filter factors f.

    C = Σ τ_kᵀ τ_k / ‖τ_k‖² = V diag(λ) Vᵀ, D = Σ τ_k τ_kᵀ τ_k / ‖τ_k‖² (arXiv 2606.07289, SWUDI and
    SWUDI-A). Where f = 1 that is the minimum D C⁻¹ of Σ ‖(τ − τ_k) τ_kᵀ‖² / ‖τ_k‖², and with f = 1 − exp(−tλ)
    what gradient flow from T comes to by the time t/2. λ counts as 1e-8 at least; task vectors that are zero
    have no term.
    """
    import torch

    from r2m.merge.linalg import column_gram, eigen, matmul

    total = piece.task_vector(0).double().zero_()
    curvature = total.new_zeros(total.shape[1], total.shape[1])
    target = torch.zeros_like(total)
    for task_vector in piece.each_task_vector():
        own = task_vector.double()
        squared_norm = own.square().sum()
        if squared_norm > 0:
            gram = column_gram(own).div_(squared_norm)
            curvature += gram
            target += matmul(own, gram)
            total += own
    values, vectors = eigen(curvature)
    factors = filter_factors(values.clamp(min=0), options)
    vectors, values = vectors[:, : len(factors)].contiguous(), values[: len(factors)]
    change = matmul(target, vectors) / values.clamp(min=LEAST_VALUE) - matmul(total, vectors)
    return total.add_(matmul(change * factors, vectors.T)).float()


def filter_factors(values: Tensor, options: Options) -> Tensor:
    """Return the factors f (r,) of the leading directions, r ≤ n; those of the others are zero.

    `values` (n,) are the eigenvalues λ ≥ 0, descending. The effective rank is ⌈(Σ √λ)² / Σ λ⌉.
    """
    if options.filter == "exponential":
        leading = values[: max(1, int(LEADING * len(values)))].clamp(min=LEAST_VALUE)
        return -(-options.t * leading).expm1()
    total = values.sum().item()
    if total == 0:
        return values[:0]
    # Rounding errors must not raise an integer to the next one.
    rank = math.ceil(values.sqrt().sum().item() ** 2 / total * (1 - 1e-9))
    return values.new_ones(min(rank, len(values)))


METHOD = Method(
    title="SWUDI",
    citation="Wei et al., Closed-form spectral regularization for multi-task model merging, 2026,"
    " arXiv 2606.07289",
    options=Options,
    merge=merge,
    others="mean",
)
