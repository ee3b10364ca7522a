"""The basis that several task vectors share: their leading singular vectors, joined and made orthogonal."""

from typing import NamedTuple

import torch
from torch import Tensor

from r2m.merge.linalg import leading_triplets, polar
from r2m.merge.stream import Piece


class JointBasis(NamedTuple):
    """Leading triplets of every task vector, joined, and the orthogonal polar factors of their vectors.

    `left` (m, R) and `right` (n, R) join the singular vectors of all K task vectors in their order, R of them
    in all, and `values` (R,) the singular values; `sizes` tell how many are whose. `left_frame` and
    `right_frame` are the polar factors U* and V*. All in float64.
    """

    left: Tensor
    values: Tensor
    right: Tensor
    sizes: list[int]
    left_frame: Tensor
    right_frame: Tensor


def joint_basis(piece: Piece) -> JointBasis | None:
    """Return the joint basis of a matrix (m, n): int(min(m, n) / K) triplets of each τ_k; None of no triplet.

    As in TSV-M (arXiv 2412.00081), except that the singular vectors of each τ_k are exact in float64, and
    their signs fixed. Triplets within rounding errors are left out, and so are directions in which the joined
    vectors depend on each other: there U* and V* map to zero.
    """
    rank = min(piece.shape) // len(piece.names)
    if rank == 0:
        return None
    triplets = [_signed(*leading_triplets(one.double(), rank)) for one in piece.each_task_vector()]
    left, values, right = (torch.cat(parts, dim=-1) for parts in zip(*triplets, strict=True))
    if len(values) == 0:
        return None
    sizes = [len(own) for _, own, _ in triplets]
    return JointBasis(left, values, right, sizes, polar(left)[0], polar(right)[0])


def _signed(left: Tensor, values: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the triplets with the greatest entry of every left vector positive."""
    signs = left.gather(0, left.abs().argmax(0, keepdim=True)).sign()
    return left * signs, values, right * signs
