"""Heads of the detector, by the name that `backbone.head` gives them.

To add one, write a subclass of `Head` and enter it in `HEADS`.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r2m.errors import R2MError

HEAD = "head."
Tensors = Mapping[str, Tensor]


class Head(nn.Module):
    """From features `(B, D)` to outputs `(B, outputs)`; made as `Head(features, outputs)`.

    Its tensor `weight` has a row an output. What is defined here fits a linear head.
    """

    @classmethod
    def initial(cls, features: int, outputs: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the tensors that training starts from: weights ~ N(0, 0.02²) and biases of 0."""
        weight = torch.empty(outputs, features).normal_(0, 0.02, generator=generator)
        return {"weight": weight, "bias": torch.zeros(outputs)}

    @staticmethod
    def seen(x: Tensor) -> Tensor:
        """Return the features `(n, D)` that the outputs are linear in."""
        return x

    @staticmethod
    def fitted(weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
        """Return the tensors of the head whose outputs are `seen(x) @ weight.T + bias`."""
        return {"weight": weight, "bias": bias}

    @staticmethod
    def average(heads: Sequence[Tensors]) -> dict[str, Tensor]:
        """Return the head between several, in which each counts alike: the mean of every tensor."""
        return mean_tensors(heads)


class LinearHead(nn.Linear, Head):
    """Outputs `x Wᵀ + b`."""


class CosineHead(Head):
    """Outputs `s · cos(x, w) + b`: features are put on the unit sphere, as in GenD (arXiv 2508.06248)."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(outputs, features))
        self.scale = nn.Parameter(torch.ones(outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs `(B, outputs)` of features `(B, D)`."""
        return F.linear(self.seen(x), F.normalize(self.weight)) * self.scale + self.bias

    @classmethod
    def initial(cls, features: int, outputs: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return random directions, biases of 0 and a scale of 10, by which outputs leave [−1, 1]."""
        linear = super().initial(features, outputs, generator)
        return {**linear, "scale": torch.full((outputs,), 10.0)}

    @staticmethod
    def seen(x: Tensor) -> Tensor:
        """Return the features' directions."""
        return F.normalize(x)

    @staticmethod
    def fitted(weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
        """Return the directions of the rows, and their lengths as scales."""
        return {"weight": weight, "scale": weight.norm(dim=1), "bias": bias}

    @staticmethod
    def average(heads: Sequence[Tensors]) -> dict[str, Tensor]:
        """Return the mean of directions, scales and biases, computed in float64."""
        return mean_tensors([{**head, "weight": F.normalize(head["weight"].double())} for head in heads])


HEADS: dict[str, type[Head]] = {"linear": LinearHead, "cosine": CosineHead}


def head_type(name: str) -> type[Head]:
    """Return the class of a head; raises R2MError for an unknown name."""
    if name not in HEADS:
        raise R2MError(f"params.yaml: backbone.head: unknown head {name!r}; expected {' or '.join(HEADS)}")
    return HEADS[name]


def mean_tensors(heads: Sequence[Tensors]) -> dict[str, Tensor]:
    """Return the mean of the tensors of one name, in float32, computed in float64."""
    return {key: torch.stack([head[key].double() for head in heads]).mean(0).float() for key in heads[0]}


def average_head(heads: Sequence[Tensors], head: str = "linear") -> dict[str, Tensor]:
    """Return the average of heads of one type under the names that they have, `head.*` in checkpoints."""
    names = {name.removeprefix(HEAD): name for name in heads[0]}
    average = head_type(head).average(
        [{short: tensors[name] for short, name in names.items()} for tensors in heads]
    )
    return {names[short]: tensor for short, tensor in average.items()}


def initial_head(features: int, seed: int, outputs: int = 1, head: str = "linear") -> dict[str, Tensor]:
    """Return the head that training starts from, as `head.*`: it depends on the seed only."""
    generator = torch.Generator().manual_seed(seed)
    return named(head_type(head).initial(features, outputs, generator))


def named(tensors: Tensors) -> dict[str, Tensor]:
    """Return a head's tensors as checkpoints call them, `head.*`."""
    return {HEAD + name: tensor for name, tensor in tensors.items()}


def fake_logit(outputs: Tensor) -> Tensor:
    """Return the logits `(B,)` of being fake from a head's outputs `(B, 1)` or `(B, classes)`, Real first."""
    if outputs.shape[1] == 1:
        return outputs.squeeze(1)
    return outputs[:, 1:].logsumexp(1) - outputs[:, 0]
