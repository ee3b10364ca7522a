"""DELLA: drop entries at random, small ones rather than great ones, elect signs, merge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from r2m.merge.method import Method
from r2m.options import Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece


class Options(Section):
    """Drop by magnitude and rescale, elect signs, merge the entries that agree."""

    drop: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.5, description="mean probability that an entry is dropped"
    )
    eps: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.3, description="how much likelier the least entry of a row is dropped than the greatest"
    )
    scaling: float = 1.0
    seed: int = 0

    @model_validator(mode="after")
    def _stay_probabilities(self) -> Options:
        least, greatest = self.drop - self.eps / 2, self.drop + self.eps / 2
        if least < -1e-9 or greatest >= 1:
            raise ValueError(
                "expected drop - eps / 2 of at least 0 and drop + eps / 2 below 1,"
                f" got {self.drop} and {self.eps}"
            )
        return self


def merge(piece: Piece, options: Options, state: None) -> Tensor:
    """Return scaling · (mean of the entries τ̂_k that have the sign of Σ τ̂_k), τ̂_k = m_k ∘ τ_k / (1 - p).

    The mask m_k is zero with probability p, which falls linearly with the rank of the entry's magnitude in
    its row, from drop + eps/2 to drop - eps/2: the steps drop (MagPrune), elect and fuse of Deep et al.,
    arXiv 2406.11617. A row is the weights of one output; a vector is one row. Equal magnitudes count as
    rising with their position. Where Σ τ̂_k is zero, nothing agrees. What is dropped depends on the same as
    in `dare`.

    mergekit's `della` keeps with probability density ± epsilon, so that drop is 1 - density and eps twice its
    epsilon; it rescales each tensor to the L1 norm it had, not each entry by 1 / (1 - p); it ranks the
    entries of a convolution along its input channels; and where Σ τ̂_k is zero, it takes the positive entries.
    """
    import torch

    from r2m.merge.rows import row_length, row_parts

    length = row_length(piece.tensor_shape)
    probabilities = torch.linspace(
        options.drop + options.eps / 2, options.drop - options.eps / 2, length, dtype=torch.float64
    )
    if length == 1:
        probabilities.fill_(options.drop)
    falling = probabilities.clamp_(min=0).float()
    merged = [_merged(part, falling, options) for part in row_parts(piece)]
    return torch.cat(merged).mul_(options.scaling).reshape(piece.shape)


def _merged(part: Piece, falling: Tensor, options: Options) -> Tensor:
    """Return the mean of agreeing entries (n,) of whole rows; `falling` are the probabilities by rank."""
    import torch

    from r2m.merge.methods.dare import uniform
    from r2m.seeding import derive

    rows = part.task_vectors().reshape(len(part.names), -1, len(falling))
    order = rows.abs().argsort(dim=-1, stable=True)
    probabilities = torch.empty_like(rows).scatter_(-1, order, falling.to(rows.device).expand_as(rows))
    draws = (
        uniform(derive(options.seed, name, part.first_name), part.start, part.stop) for name in part.names
    )
    kept = torch.stack([torch.from_numpy(one) for one in draws]).to(rows.device).reshape(rows.shape)
    kept = kept.ge_(probabilities).mul_(rows).div_(probabilities.neg_().add_(1))
    sign = kept.sum(0, dtype=torch.float64).sign_().float()
    agreeing = kept.mul_(sign).clamp_(min=0)
    total = agreeing.sum(0).mul_(sign)
    return total.div_(agreeing.sign_().sum(0).clamp_(min=1)).reshape(-1)


METHOD = Method(
    title="DELLA",
    citation="Deep et al., DELLA-Merging, 2024, arXiv 2406.11617",
    options=Options,
    merge=merge,
    is_proportional=True,
)
