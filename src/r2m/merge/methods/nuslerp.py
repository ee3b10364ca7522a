"""NuSLERP: along the great circle from one task vector to the other, tensor by tensor or row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from r2m.merge.method import Method
from r2m.merge.methods.slerp import OPPOSITE
from r2m.options import Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece


class Options(Section):
    """Where between the two, and what has an angle of its own."""

    t: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="0: the first by name, 1: the second"
    )
    vectors: Literal["tensor", "rows", "columns"] = Field(
        default="tensor", description="what is turned by one angle: a tensor, each of its rows, or columns"
    )


def merge(piece: Piece, options: Options, state: None) -> Tensor:
    """Return (sin((1-t) Ω) τ_1 + sin(t Ω) τ_2) / sin Ω, Ω the angle between τ_1 and τ_2.

    `slerp` of the task vectors rather than of the weights, whose angles are small: Shoemake, SIGGRAPH 1985.
    (1-t) τ_1 + t τ_2 where they are parallel, opposite or zero, as in `slerp`. A tensor (out, …) has `out`
    rows; one of one dimension is one row, and one column.

    As mergekit's `nuslerp` with a base and its options nuslerp_flatten (tensor), neither (rows), or
    nuslerp_row_wise alone (columns), and t its second weight as a share of both. There only cosines within
    1e-16 of ±1 take the straight line, so that nearly opposite vectors turn through rounding errors; a zero
    vector counts as orthogonal; and rows of more than two dimensions are vectors along the last one.
    """
    import torch

    from r2m.merge.rows import row_parts

    parts = list(row_parts(piece))
    if options.vectors == "rows":
        weights = [
            angles_to_weights(_squares(part, options).sum(-1, keepdim=True), options.t) for part in parts
        ]
    else:
        summed = sum(_squares(part, options).sum(1, keepdim=True) for part in parts)
        if options.vectors == "tensor":
            summed = torch.as_tensor(summed).sum(-1, keepdim=True)
        weights = [angles_to_weights(torch.as_tensor(summed), options.t)] * len(parts)
    turned = [
        (both * _pair(part, options)).sum(0).float().reshape(-1)
        for part, both in zip(parts, weights, strict=True)
    ]
    return torch.cat(turned).reshape(piece.shape)


def angles_to_weights(squares: Tensor, t: float) -> Tensor:
    """Return the two weights, (2, …), from ‖τ_1‖², ‖τ_2‖² and ‖τ_1 - τ_2‖², (3, …), in float64.

    1 - cos Ω is made of small differences, 2 n_1 n_2 (1 - cos Ω) = ‖τ_1 - τ_2‖² - (n_1 - n_2)², so that small
    angles are exact.
    """
    import torch

    first, second, apart = squares
    norms, product = first.sqrt() + second.sqrt(), 2 * (first * second).sqrt()
    longer = (first - second) / torch.where(norms > 0, norms, 1.0)
    versine = (apart - longer.square()).clamp(min=0) / torch.where(product > 0, product, 1.0)
    is_straight = (product == 0) | (versine == 0) | (versine > 1 - OPPOSITE)
    angle = 2 * torch.where(is_straight, 0.5, versine / 2).sqrt().asin()
    weights = torch.stack([((1 - t) * angle).sin(), (t * angle).sin()]) / angle.sin()
    straight = torch.stack([torch.full_like(angle, 1 - t), torch.full_like(angle, t)])
    return torch.where(is_straight, straight, weights)


def _pair(part: Piece, options: Options) -> Tensor:
    """Return both task vectors as matrices (2, rows, columns) in float64."""
    from r2m.merge.rows import row_length

    is_column = options.vectors == "columns" and len(part.tensor_shape) < 2
    length = 1 if is_column else row_length(part.tensor_shape)
    return part.task_vectors().reshape(2, -1, length).double()


def _squares(part: Piece, options: Options) -> Tensor:
    """Return the squares (3, rows, columns) of τ_1, τ_2 and τ_1 - τ_2."""
    import torch

    first, second = _pair(part, options)
    return torch.stack([first, second, first - second]).square_()


METHOD = Method(
    title="NuSLERP",
    citation="Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985, doi 10.1145/325334.325242;"
    " of task vectors, as in mergekit",
    options=Options,
    merge=merge,
    least_specialists=2,
    most_specialists=2,
    unweighted="its option t is the second one's share",
)
