"""WUDI-Merging: the update whose difference from each task vector is least visible in that one's inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import NonNegativeInt

from r2m.merge.kinds import Kind, depths, place
from r2m.merge.method import Method
from r2m.options import Positive, Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece, TensorStream


class Options(Section):
    """Steps of Adam from the sum of the task vectors."""

    steps: NonNegativeInt = 300
    lr: Positive = 1e-5


def prepare(stream: TensorStream, options: Options) -> None:
    """Raise R2MError where no tensor belongs to a block of the model: the merge would be the mean."""
    depths(stream.source.shapes, "wudi")


def merge(piece: Piece, options: Options, state: None) -> Tensor:
    """Return the matrix τ (m, n) that Adam finds from T = Σ τ_k for Σ ‖(τ − τ_k) τ_kᵀ‖² / ‖τ_k‖².

    So for the matrices of the model's blocks; other tensors are the mean τ. Task vectors that are zero
    have no term. The gradient is 2 (τ M − N) with M = Σ M_k (n, n), M_k = τ_kᵀ τ_k / ‖τ_k‖², N = Σ τ_k M_k,
    so that a step of 2 m n² operations takes as long for any number of specialists.
    """
    import torch

    from r2m.merge.linalg import column_gram

    if piece.kind is not Kind.MATRIX or place(piece.key) is None:
        return piece.mean()
    total = piece.task_vector(0).zero_()
    curvature = total.new_zeros(total.shape[1], total.shape[1])
    target = torch.zeros_like(total)
    for task_vector in piece.each_task_vector():
        total += task_vector
        squared_norm = torch.linalg.vector_norm(task_vector, dtype=torch.float64).item() ** 2
        if squared_norm > 0:
            own = column_gram(task_vector, torch.float32).div_(squared_norm)
            curvature += own
            target += task_vector @ own
    # Steps are as small as the rounding errors of large entries: they are summed up by themselves.
    return total.add_(adam(curvature, (total @ curvature).sub_(target), options))


def adam(curvature: Tensor, slope: Tensor, options: Options) -> Tensor:
    """Return where Adam, with torch's defaults β = (0.9, 0.999) and ε = 1e-8, comes to from x = 0 (m, n).

    The gradient is 2 (x · curvature + slope), of matrices (n, n) and (m, n).
    """
    import torch

    found, first, second, gradient = (torch.zeros_like(slope) for _ in range(4))
    for step in range(1, options.steps + 1):
        torch.mm(found, curvature, out=gradient).add_(slope).mul_(2)
        first.lerp_(gradient, 0.1)
        second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        torch.sqrt(second, out=gradient)
        gradient.div_((1 - 0.999**step) ** 0.5).add_(1e-8)
        found.addcdiv_(first, gradient, value=-options.lr / (1 - 0.9**step))
    return found


METHOD = Method(
    title="WUDI-Merging",
    citation="Cheng et al., Whoever started the interference should end it, ICML 2025, arXiv 2503.08099",
    options=Options,
    merge=merge,
    prepare=prepare,
    others="mean",
)
