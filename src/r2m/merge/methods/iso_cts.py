"""Iso-CTS: isotropic merging in a common subspace and one of each specialist."""

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
    """Isotropic merging in common and task-specific subspaces."""

    common_ratio: Share = Field(default=0.8, description="share of min(m, n) directions that are common")
    scaling: float = 1.0


def merge(piece: Piece, options: Options, state: None) -> Tensor:
    """Return scaling · s̄ U Vᵀ of a matrix (m, n), s̄ the mean of the min(m, n) values joined.

    U and V are the orthogonal polar factors of the joined singular vectors: the leading ones U_c of T = Σ τ_k
    and those of every τ_k − U_c U_cᵀ τ_k. Triplets whose value is a rounding error count as zero in the mean
    and are left out else, where the authors' code takes arbitrary vectors.
    """
    import torch

    from r2m.merge.linalg import leading_triplets, whitened_product

    common, own = sizes(min(piece.shape), len(piece.names), options.common_ratio)
    total = piece.task_vector(0).double()
    for index in range(1, len(piece.names)):
        total += piece.task_vector(index)
    triplets = [leading_triplets(total, common)]
    frame = triplets[0][0]
    for task_vector in piece.each_task_vector() if own else ():
        outside = task_vector.double()
        scale = torch.linalg.vector_norm(outside).item()
        outside -= frame @ (frame.T @ outside)
        triplets.append(leading_triplets(outside, own, scale))
    left, values, right = (torch.cat(parts, dim=-1) for parts in zip(*triplets, strict=True))
    mean = values.sum() / min(piece.shape)
    return (options.scaling * whitened_product(left, mean.expand(len(values)), right)).float()


def sizes(short: int, count: int, common_ratio: float) -> tuple[int, int]:
    """Return the number of common directions and of those of each of `count` specialists, `short` in all.

    As in the authors' code the part of a specialist is rounded, and what is left is common; but it is never
    rounded up to more than there is, which gives that code a negative size (3 directions, 2 specialists, none
    common).
    """
    own = min(round((short - int(short * common_ratio)) / count), short // count)
    return short - own * count, own


METHOD = Method(
    title="Iso-CTS",
    citation="Marczak et al., No task left behind, ICML 2025, arXiv 2502.04959",
    options=Options,
    merge=merge,
    others="scaled_mean",
    is_proportional=True,
)
