"""Slerp: along the great circle from one specialist to the other, tensor by tensor."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from r2m.merge.method import Method
from r2m.options import Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece, TensorStream

# Beyond this cosine two tensors are opposite: no great circle is the shortest, so a straight line is taken.
OPPOSITE = -0.9995


class Options(Section):
    """Where between the two."""

    t: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="0: the first by name, 1: the second"
    )


def prepare(stream: TensorStream, options: Options) -> dict[str, Tensor]:
    """Return the two weights of every tensor."""
    from r2m.merge.gram import sphere_weights

    return sphere_weights(stream, partial(weigh, t=options.t))


def merge(piece: Piece, options: Options, state: dict[str, Tensor]) -> Tensor:
    """Return w_1 θ_1 + w_2 θ_2 - θ₀."""
    from r2m.merge.gram import weighted_update

    return weighted_update(piece, state[piece.key])


def weigh(norms: Tensor, versines: Tensor, t: float) -> Tensor:
    """Return sin((1-t) Ω) / sin Ω and sin(t Ω) / sin Ω, Ω the angle between two tensors.

    Takes their `norms` (2,) and 1 - cos Ω (2, 2). 1-t and t for parallel, opposite and zero tensors. As in
    mergekit, the tensors are not brought to one norm.
    """
    versine = versines[0, 1].item()
    if versine == 0 or versine > 1 - OPPOSITE or norms.min() == 0:
        return norms.new_tensor([1 - t, t])
    angle = 2 * math.asin(math.sqrt(versine / 2))
    return norms.new_tensor([math.sin((1 - t) * angle), math.sin(t * angle)]) / math.sin(angle)


METHOD = Method(
    title="Slerp",
    citation="Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985, doi 10.1145/325334.325242",
    options=Options,
    merge=merge,
    prepare=prepare,
    grain="elements",
    least_specialists=2,
    most_specialists=2,
    unweighted="its option t is the second one's share",
)
