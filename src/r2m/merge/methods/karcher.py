"""Karcher mean: the mean direction on the sphere, with the mean norm, tensor by tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from r2m.merge.method import Method
from r2m.options import Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece, TensorStream

ITERATIONS = 100
TOLERANCE = 1e-7


class Options(Section):
    """The Karcher mean has no options."""


def prepare(stream: TensorStream, options: Options) -> dict[str, Tensor]:
    """Return the weights (K,) of every tensor."""
    from r2m.merge.gram import sphere_weights

    return sphere_weights(stream, weigh)


def merge(piece: Piece, options: Options, state: dict[str, Tensor]) -> Tensor:
    """Return Σ w_k θ_k - θ₀."""
    from r2m.merge.gram import weighted_update

    return weighted_update(piece, state[piece.key])


def weigh(norms: Tensor, versines: Tensor) -> Tensor:
    """Return the weights w (K,) of the θ_k in their Karcher mean, from `norms` (K,) and 1 - cos (K, K).

    The mean m stays in the span of the directions u_k, so that only its coefficients are iterated: from the
    normalised Σ u_k along the mean tangent Σ (Ω_k / sin Ω_k) (u_k - cos Ω_k m) / K, to a tangent of 1e-7
    (mergekit stops at 1e-5 or after 10 steps). Its length is the mean of all norms. Zero tensors have no
    direction; where directions cancel, or there is none, it is the plain mean, 1 / K each.
    """
    import torch

    present = norms > 0
    mean = present.to(norms.dtype)
    cosines = torch.where(present[:, None] & present, 1 - versines, 0.0)
    if mean @ cosines @ mean <= TOLERANCE**2 * len(norms) ** 2:
        return torch.full_like(norms, 1 / len(norms))
    mean /= (mean @ cosines @ mean).sqrt()
    for _ in range(ITERATIONS):
        tangent = tangent_at(mean, cosines, present)
        length = (tangent @ cosines @ tangent).clamp(min=0).sqrt()
        if length < TOLERANCE:
            break
        mean = length.cos() * mean + length.sin() / length * tangent
        mean /= (mean @ cosines @ mean).sqrt()
    return torch.where(present, mean * norms.mean() / torch.where(present, norms, 1.0), 0.0)


def tangent_at(mean: Tensor, cosines: Tensor, present: Tensor) -> Tensor:
    """Return the coefficients (K,) of the mean tangent at `mean` (K,) towards the directions present."""
    import torch

    dots = (cosines @ mean).clamp(-1, 1)
    angles = dots.acos()
    stretch = torch.where(present, 1 / torch.sinc(angles / torch.pi), 0.0) / present.sum()
    return stretch - (stretch @ dots) * mean


METHOD = Method(
    title="Karcher mean",
    citation="Karcher, Riemannian center of mass and mollifier smoothing, CPAM 30(5), 1977; as in mergekit",
    options=Options,
    merge=merge,
    prepare=prepare,
    grain="elements",
    unweighted="it is a mean of directions of the weights, not of task vectors",
)
