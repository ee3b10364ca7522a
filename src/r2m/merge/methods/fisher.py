"""Fisher merging: every entry is averaged by the specialists' mean squared gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, PositiveInt

from r2m.errors import R2MError
from r2m.merge.method import Method
from r2m.options import Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece, TensorStream


class Options(Section):
    """Where the mean squared gradients come from; the merge itself has no options."""

    images: PositiveInt = Field(
        default=256, description="training images (half of them fakes) of the workflow's statistics"
    )


def prepare(stream: TensorStream, options: Options) -> None:
    """Raise R2MError if there are no statistics at all."""
    from r2m.merge.stream import require_any

    require_any(stream, "fisher")


def merge(piece: Piece, options: Options, state: None) -> Tensor:
    """Return Σ F_k τ_k / Σ F_k entry by entry, which is the paper's Σ F_k θ_k / Σ F_k without θ₀.

    With equal weights of the specialists and no floor under F: where Σ F_k = 0, and for tensors of which
    nobody has statistics, it is the mean τ.

    Raises:
        R2MError: statistics of some specialists only, of another shape, negative, or not finite.
    """
    import torch

    from r2m.merge.stream import statistics

    task_vectors = piece.task_vectors()
    mean = task_vectors.sum(0) / len(piece.names)
    weights = statistics(piece, piece.shape)
    if weights is None:
        return mean
    weighted = torch.zeros_like(mean, dtype=torch.float64)
    total = torch.zeros_like(weighted)
    for name, task_vector, weight in zip(piece.names, task_vectors, weights, strict=True):
        if (weight < 0).any():
            raise R2MError(f"{piece.key}: statistics of {name!r}: a mean squared gradient is negative")
        weighted.addcmul_(weight, task_vector.double())
        total += weight
    return torch.where(total > 0, weighted / total, mean.double()).float()


METHOD = Method(
    title="Fisher merging",
    citation="Matena and Raffel, Merging models with Fisher-weighted averaging, NeurIPS 2022,"
    " arXiv 2111.09832",
    options=Options,
    merge=merge,
    prepare=prepare,
    grain="elements",
    statistics="a .safetensors file of mean squared gradients, each of its tensor's name and shape",
    unweighted="its statistics weigh the specialists; multiply them instead",
)
