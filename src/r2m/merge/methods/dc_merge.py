"""DC-Merge: signs elected in a shared basis, of each specialist's own block there."""

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
    """Directionally consistent merging."""

    keep: Share = Field(
        default=0.001, description="share of each task vector's entries in the shared basis, at least one"
    )
    scaling: float = 1.0


def merge(piece: Piece, options: Options, state: None) -> Tensor:
    """Return scaling · U* M V*ᵀ of a matrix (m, n): M (R, R) is elected from M_k = U*ᵀ U_k S_k V_kᵀ V*.

    U*, V* and the leading triplets U_k S_k V_kᵀ of τ_k are those of `joint_basis` (arXiv 2603.06242; as in
    the authors' code for full fine-tuning, singular values are not smoothed). Of each M_k the int(keep · R²)
    greatest magnitudes stay, and what equals the least of them. Every entry takes the sign of its sum over k
    and the mean of what agrees with it. Then all is zero but K blocks on the diagonal, whose rows and columns
    are of one specialist. What is within rounding errors counts as zero.
    """
    from itertools import accumulate

    import torch

    from r2m.merge.joint_basis import joint_basis
    from r2m.merge.linalg import matmul

    basis = joint_basis(piece)
    if basis is None:
        return piece.task_vector(0).zero_()
    lefts = (matmul(basis.left_frame.T, basis.left) * basis.values).split(basis.sizes, dim=1)
    rights = matmul(basis.right_frame.T, basis.right).split(basis.sizes, dim=1)
    ends = accumulate(basis.sizes)
    spans = [slice(end - size, end) for end, size in zip(ends, basis.sizes, strict=True)]
    # Only the blocks wait for the election: no more entries than the matrix has.
    blocks: list[list[Tensor]] = [[] for _ in spans]
    for left, right in zip(lefts, rights, strict=True):
        kept = greatest(left @ right.T, options.keep)
        for block, span in zip(blocks, spans, strict=True):
            block.append(kept[span, span].clone())
    core = torch.block_diag(*(elected(torch.stack(block)) for block in blocks))
    return (options.scaling * matmul(matmul(basis.left_frame, core), basis.right_frame.T)).float()


def greatest(matrix: Tensor, keep: float) -> Tensor:
    """Return a matrix with all but a share of its entries, the greatest magnitudes, set to zero.

    Entries that equal the least one that is kept, up to rounding errors, are kept as well.
    """
    from r2m.merge.linalg import ROUNDING

    magnitudes = matrix.abs()
    size = matrix.numel()
    least = magnitudes.reshape(-1).kthvalue(size + 1 - max(1, int(keep * size))).values
    limit = (least * (1 - ROUNDING)).clamp(min=ROUNDING * magnitudes.max())
    return matrix * (magnitudes >= limit)


def elected(rows: Tensor) -> Tensor:
    """Return the mean of what agrees in sign with the sum of `rows` (K, …); zero where the sum is zero."""
    from r2m.merge.linalg import ROUNDING

    total = rows.sum(0)
    sign = total.sign() * (total.abs() > ROUNDING * rows.abs().sum(0))
    agreeing = (rows * sign).clamp(min=0)
    return sign * agreeing.sum(0) / (agreeing > 0).sum(0).clamp(min=1)


METHOD = Method(
    title="DC-Merge",
    citation="Zhang et al., DC-Merge: improving model merging with directional consistency, CVPR 2026,"
    " arXiv 2603.06242",
    options=Options,
    merge=merge,
    others="scaled_mean",
    is_proportional=True,
)
