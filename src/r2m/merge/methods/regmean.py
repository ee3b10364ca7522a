"""RegMean: every linear layer is the least-squares fit to the specialists' outputs on their own inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt

from r2m.errors import R2MError
from r2m.merge.method import Method
from r2m.options import Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece, TensorStream


class Options(Section):
    """How the Gram matrices of the inputs are taken and softened."""

    off_diagonal: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.95, description="factor of the Gram matrices' entries off the diagonal"
    )
    images: PositiveInt = Field(
        default=256, description="training images (half of them fakes) of the workflow's statistics"
    )


def prepare(stream: TensorStream, options: Options) -> None:
    """Raise R2MError if there are no statistics at all."""
    from r2m.merge.stream import require_any

    require_any(stream, "regmean")


def merge(piece: Piece, options: Options, state: None) -> Tensor:
    """Return the update (out, in) of a linear layer's weight: (Σ τ_k G_k) (Σ G_k)⁻¹, in float64.

    That is the paper's (Σ G_k)⁻¹ Σ G_k W_k, transposed since torch keeps weights as (out, in), without θ₀.
    G_k (in, in) is Σ x xᵀ of the layer's inputs, entries off the diagonal times `off_diagonal`. Inputs that
    are always zero, and tensors of which nobody has statistics, take the mean τ.

    Raises:
        R2MError: statistics of some specialists only, of another shape, or a sum of them that is singular.
    """
    import torch

    from r2m.merge.stream import statistics

    mean = piece.mean()
    inputs = mean.shape[1]
    input_grams = statistics(piece, (inputs, inputs))
    if input_grams is None:
        return mean
    weighted = torch.zeros_like(mean, dtype=torch.float64)
    total = weighted.new_zeros(inputs, inputs)
    for task_vector, gram in zip(piece.each_task_vector(), input_grams, strict=True):
        softened = gram * options.off_diagonal
        softened.diagonal().copy_(gram.diagonal())
        total += softened
        weighted.addmm_(task_vector.double(), softened)
    dead = total.diagonal() == 0
    total.diagonal()[dead] = 1.0
    factor, failed = torch.linalg.cholesky_ex(total)
    if failed:
        raise R2MError(
            f"{piece.key}: the sum of the input Grams is singular; expected a smaller off_diagonal"
        )
    update = torch.cholesky_solve(weighted.T, factor).T
    return torch.where(dead, mean.double(), update).float()


METHOD = Method(
    title="RegMean",
    citation="Jin et al., Dataless knowledge fusion by merging weights, ICLR 2023, arXiv 2212.09849",
    options=Options,
    merge=merge,
    prepare=prepare,
    others="mean",
    statistics="a .safetensors file of input Grams (in, in), under the names of their linear layers' weights",
    unweighted="its statistics weigh the specialists; multiply them instead",
)
