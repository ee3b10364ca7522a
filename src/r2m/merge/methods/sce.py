"""SCE: of every tensor the entries in which the specialists differ most, weighted by their squares."""

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
    """Select, calculate, erase."""

    keep: Share = Field(
        default=0.1,
        description="share that is selected of the entries in which the specialists differ; 1: all entries",
    )


def merge(piece: Piece, options: Options, state: None) -> Tensor:
    """Return Σ w_k τ̂_k / Σ w_k over the specialists whose τ̂_k has the sign of Σ τ̂_k, entry by entry.

    Select: τ̂_k is τ_k at the int(keep · n) entries of the tensor with the greatest variance over the
    specialists, n those where it is not zero, and zero elsewhere. Calculate: w_k = Σ τ̂_k². Erase: the entries
    of the other sign. These are the steps of Wan et al., arXiv 2408.07990. Specialists that agree in all
    entries, as a single one does, leave nothing to select unless keep is 1, in mergekit as well.

    Of equal variances the first count as greater. Where Σ τ̂_k is zero, nothing agrees; mergekit's `sce` takes
    the positive entries there. It also weighs all specialists alike where the mean squares of a tensor sum up
    to less than 1e-6, and takes denominators for 1e-6 that are less: thresholds that task vectors of
    fine-tuning do fall below.
    """
    import torch

    from r2m.merge.rows import row_parts

    parts = list(row_parts(piece))
    chosen = selected(torch.cat([_deviations(part) for part in parts]), options.keep).split(
        [part.stop - part.start for part in parts]
    )
    squares = sum((_flat(part) * mask).square_().sum(1) for part, mask in zip(parts, chosen, strict=True))
    weights = torch.as_tensor(squares)
    weights = weights / weights.max().clamp(min=torch.finfo(torch.float64).tiny)
    merged = [_merged(part, mask, weights) for part, mask in zip(parts, chosen, strict=True)]
    return torch.cat(merged).reshape(piece.shape)


def selected(deviations: Tensor, keep: float) -> Tensor:
    """Return the mask (n,) of the int(keep · m) greatest of `deviations` (n,), m of which are not zero."""
    import torch

    from r2m.merge.selection import kth_of

    if keep == 1:
        return torch.ones_like(deviations, dtype=torch.bool)
    count = int(keep * int(deviations.count_nonzero()))
    if count == 0:
        return torch.zeros_like(deviations, dtype=torch.bool)
    (least,) = kth_of(deviations, [len(deviations) - count])
    mask = deviations > least
    mask[(deviations == least).nonzero()[: count - int(mask.sum())]] = True
    return mask


def _deviations(part: Piece) -> Tensor:
    """Return the standard deviations (n,) over the specialists, in float32; zero where all are equal."""
    rows = _flat(part)
    return rows.sub_(rows.mean(0)).square_().mean(0).sqrt_().float()


def _merged(part: Piece, mask: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean (n,) of agreeing entries among those of `mask` (n,), in float32."""
    rows = _flat(part).mul_(mask)
    agreeing = (rows * rows.sum(0)).gt_(0).mul_(weights[:, None])
    total = agreeing.sum(0)
    return rows.mul_(agreeing).sum(0).div_(total.masked_fill_(total == 0, 1.0)).float()


def _flat(part: Piece) -> Tensor:
    """Return the task vectors (K, n) in float64, in memory of their own."""
    return part.task_vectors().reshape(len(part.names), -1).double()


METHOD = Method(
    title="SCE",
    citation="Wan et al., FuseChat, 2024, arXiv 2408.07990",
    options=Options,
    merge=merge,
    unweighted="it weighs the specialists by the squares of their task vectors",
)
