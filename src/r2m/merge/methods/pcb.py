"""PCB: entries weighted by how they compete within a specialist and between specialists."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field

from r2m.merge.method import Method
from r2m.merge.options import Share
from r2m.options import Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece, TensorStream

TAIL = 0.0001


class Options(Section):
    """Competition balancing."""

    ratio: Share = Field(default=0.1, description="share of each task vector's scores that give any weight")
    scaling: float = 1.0


class Bounds(NamedTuple):
    """Every specialist's range of magnitudes, and of scores, each (K, 2)."""

    magnitudes: Tensor
    scores: Tensor


def prepare(stream: TensorStream, options: Options) -> Bounds:
    """Find the bounds among all P entries of each specialist.

    They are order statistics, not interpolated, of the same 0-based ranks as in the authors' code.
    """
    from r2m.merge.selection import kth_values

    size = stream.total_size
    tails = [int(size * TAIL), max(0, int(size * (1 - TAIL) - 1))]
    magnitudes = kth_values(stream, lambda piece: piece.task_vectors().abs(), tails, label="clamping")
    ranks = [min(size - 1, int(size * (1 - options.ratio))), size - 1]

    def scores(piece: Piece) -> Tensor:
        return score(piece.task_vectors(), magnitudes)

    return Bounds(magnitudes, kth_values(stream, scores, ranks, label="scoring"))


def merge(piece: Piece, options: Options, state: Bounds) -> Tensor:
    """Return scaling · (mean of the clamped τ_k, weighted by scores); 0 where no score has any weight."""
    task_vectors = piece.task_vectors()
    weights = min_max(score(task_vectors, state.magnitudes), state.scores)
    total = weights.sum(0).clamp_(min=1e-12)
    clamped = clamp(task_vectors.abs(), state.magnitudes).mul_(task_vectors.sign())
    return weights.mul_(clamped).sum(0).div_(total).mul_(options.scaling)


def score(task_vectors: Tensor, magnitudes: Tensor) -> Tensor:
    """Return exp(K · (minmax(|τ|)² - ½)) · tanh(τ · Σ τ), (K, …), from τ (K, …) and bounds (K, 2) of |τ|.

    The ½ is not in the paper: a factor common to all scores does not change the weights, and without it the
    exponential of 89 specialists would overflow.
    """
    intra = min_max(task_vectors.abs(), magnitudes).square_().sub_(0.5).mul_(len(task_vectors)).exp_()
    return (task_vectors * task_vectors.sum(0)).tanh_().mul_(intra)


def clamp(rows: Tensor, bounds: Tensor) -> Tensor:
    """Clamp `rows` (K, …) to their `bounds` (K, 2)."""
    low, high = bounds.to(rows.device).reshape(len(rows), 2, *[1] * (rows.ndim - 1)).unbind(1)
    return rows.maximum(low).minimum(high)


def min_max(rows: Tensor, bounds: Tensor) -> Tensor:
    """Map `rows` (K, …) to 0 … 1 between their `bounds` (K, 2); to 0 where these are equal."""
    low, high = bounds.to(rows.device).reshape(len(rows), 2, *[1] * (rows.ndim - 1)).unbind(1)
    span = (high - low).masked_fill(high == low, float("inf"))
    return clamp(rows, bounds).sub_(low).div_(span)


METHOD = Method(
    title="PCB",
    citation="Du et al., Parameter competition balancing for model merging, NeurIPS 2024, arXiv 2410.02396",
    options=Options,
    merge=merge,
    prepare=prepare,
    grain="elements",
    is_proportional=True,
)
