"""Model stock: the mean of the specialists, drawn to the base as far as their task vectors disagree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from r2m.merge.method import Method
from r2m.options import Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece


class Options(Section):
    """Model stock has no options."""


def merge(piece: Piece, options: Options, state: None) -> Tensor:
    """Return t · (mean τ) with t = K · c / (1 + (K - 1) · c), c the mean cosine of two task vectors.

    c comes from the sum of the unit vectors, ‖Σ u_k‖² = m + K (K - 1) c for m vectors that are not zero (a
    zero one has cosine 0 with all others). As in the paper, t is negative where the task vectors point away
    from each other.
    """
    from r2m.merge.tensors import norm

    count = len(piece.names)
    total = piece.task_vector(0)
    size = norm([total])
    units, nonzero = total / (size or 1.0), int(size > 0)
    for index in range(1, count):
        task_vector = piece.task_vector(index)
        total += task_vector
        size = norm([task_vector])
        units += task_vector.div_(size or 1.0)
        nonzero += size > 0
    return total.mul_(interpolation(norm([units]) ** 2 - nonzero, count) / count)


def interpolation(cosines: float, count: int) -> float:
    """Return t from the sum of the `cosines` of all pairs of task vectors, each taken twice.

    1 for a single one; 0 where the denominator vanishes: unit vectors that cancel leave no estimate.
    """
    if count == 1:
        return 1.0
    cosine = cosines / (count * (count - 1))
    denominator = 1 + (count - 1) * cosine
    return count * cosine / denominator if denominator > 1e-6 else 0.0


METHOD = Method(
    title="Model stock",
    citation="Jang et al., Model Stock, ECCV 2024, arXiv 2403.19522",
    options=Options,
    merge=merge,
    grain="tensor",
)
