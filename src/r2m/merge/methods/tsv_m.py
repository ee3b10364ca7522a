"""TSV-M: the leading singular triplets of all task vectors, with their vectors made orthogonal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from r2m.merge.method import Method
from r2m.options import Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece


class Options(Section):
    """Task singular vectors, merged."""

    scaling: float = 1.0


def merge(piece: Piece, options: Options, state: None) -> Tensor:
    """Return scaling · U S Vᵀ of a matrix (m, n): r = int(min(m, n) / K) triplets of each τ_k, whitened.

    U (m, rK) and V (n, rK) join the singular vectors of all specialists and are replaced by their orthogonal
    polar factors. With more specialists than min(m, n), r = 0: no change. Where a task vector has less than r
    singular values above rounding errors, the authors' code lets arbitrary vectors take part in the
    orthogonalisation. Here they are left out, as are directions in which the joined vectors, like those of
    identical specialists, depend on each other up to rounding errors.
    """
    import torch

    from r2m.merge.linalg import leading_triplets, whitened_product

    rank = min(piece.shape) // len(piece.names)
    if rank == 0:
        return piece.task_vector(0).zero_()
    triplets = [leading_triplets(task_vector, rank) for task_vector in piece.each_task_vector()]
    left, values, right = (torch.cat(parts, dim=-1) for parts in zip(*triplets, strict=True))
    return options.scaling * whitened_product(left, values, right).float()


METHOD = Method(
    title="TSV-M",
    citation="Gargiulo et al., Task singular vectors, CVPR 2025, arXiv 2412.00081",
    options=Options,
    merge=merge,
    others="scaled_mean",
    is_proportional=True,
)
