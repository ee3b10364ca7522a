"""TIES: trim, elect signs, merge."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field

from r2m.merge.method import Method
from r2m.merge.options import Share
from r2m.options import Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece, TensorStream


class Options(Section):
    """Trim, elect signs, merge the entries that agree."""

    keep: Share = Field(
        default=0.2,
        description="share of each task vector's entries, unchanged ones included, that survives the trim",
    )
    scaling: float = 1.0


class Election(NamedTuple):
    """What the whole model decides: the least magnitudes that stay, (K, 1), and the sum of elected signs."""

    thresholds: Tensor
    majority: float


def prepare(stream: TensorStream, options: Options) -> Election:
    """Find every task vector's threshold among all P entries, and the sign that prevails.

    int(keep · P) + 1 entries stay, and more where magnitudes tie. The majority needs a pass of its own: it
    cannot be had before the thresholds are known, and it is seldom to be spared, for among millions of
    differences of float32 weights some cancel exactly.
    """

    from r2m.merge.selection import kth_values

    size = stream.total_size
    rank = max(0, size - int(options.keep * size) - 1)
    thresholds = kth_values(stream, lambda piece: piece.task_vectors().abs(), [rank], label="trimming")

    def signs(piece: Piece) -> float:
        return exact_sum(trim(piece, thresholds)).sign_().sum().item()

    majority = sum(sum(part) for _, part in stream.map(signs, "elements", label="electing"))
    return Election(thresholds, majority)


def merge(piece: Piece, options: Options, state: Election) -> Tensor:
    """Return scaling · (mean of the trimmed entries with the elected sign).

    Sums are in float64, where float32 numbers cancel exactly, whatever their order. Entries whose sum is zero
    take the sign of the majority; the negative one if there is none, as in the authors' code.
    """

    trimmed = trim(piece, state.thresholds)
    total = exact_sum(trimmed)
    positive = total >= 0 if state.majority > 0 else total > 0
    sign = positive.to(trimmed.dtype).mul_(2).sub_(1)
    agreeing = trimmed.mul_(sign).clamp_(min=0)
    update = agreeing.sum(0).mul_(sign)
    number = agreeing.sign_().sum(0).clamp_(min=1)
    return update.div_(number).mul_(options.scaling)


def trim(piece: Piece, thresholds: Tensor) -> Tensor:
    """Return the task vectors (K, …) with the entries below `thresholds` (K, 1) set to zero."""
    task_vectors = piece.task_vectors()
    least = thresholds.to(task_vectors.device).reshape(-1, *[1] * (task_vectors.ndim - 1))
    # A mask of floats, made in place, is ten times faster than one of booleans.
    return task_vectors.abs().ge_(least).mul_(task_vectors)


def exact_sum(rows: Tensor) -> Tensor:
    """Return Σ rows in float64; torch's own sum would convert all rows (K, …) before it adds them."""
    import torch

    total = torch.zeros(rows.shape[1:], dtype=torch.float64, device=rows.device)
    for row in rows:
        total += row
    return total


METHOD = Method(
    title="TIES",
    citation="Yadav et al., TIES-Merging, NeurIPS 2023, arXiv 2306.01708",
    options=Options,
    merge=merge,
    prepare=prepare,
    grain="elements",
    is_proportional=True,
)
