"""Rules for the classifier head, which is no part of a task vector."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from r2m.errors import R2MError
from r2m.merge.tensors import Tensors, check

Average = Callable[[Sequence[Tensors]], dict[str, Tensor]]


def mean_head(heads: Sequence[Tensors]) -> dict[str, Tensor]:
    """Return the mean of the tensors of one name, in float32, computed in float64."""
    return {key: torch.stack([head[key].double() for head in heads]).mean(0).float() for key in heads[0]}


def merge_heads(
    heads: Mapping[str, Tensors],
    rule: str,
    initial: Tensors | None = None,
    average: Average = mean_head,
) -> dict[str, Tensor]:
    """Return one head from those of the specialists.

    The rule `average` takes what `average` makes of them, `specialist:NAME` one of them, and `base` the
    shared `initial` head.

    Raises:
        R2MError: heads of different shapes or not finite, an unknown rule or specialist, or no initial head.
    """
    kind, _, name = rule.partition(":")
    if kind == "base":
        if initial is None:
            raise R2MError("head `base`: expected the initial head that the specialists started from")
        return dict(sorted(initial.items()))
    if kind == "specialist":
        if name not in heads:
            raise R2MError(f"head {rule!r}: expected one of the specialists {', '.join(sorted(heads))}")
        return dict(sorted(heads[name].items()))
    if kind != "average":
        raise R2MError(f"head {rule!r}: expected average, base or specialist:NAME")
    try:
        keys = check(heads)
    except R2MError as error:
        raise R2MError(f"heads of different shapes or not finite: {error}") from error
    for one, tensors in heads.items():
        if tensors.keys() != keys.keys():
            raise R2MError(f"head of {one!r}: expected the tensors {sorted(keys)}, got {sorted(tensors)}")
    return dict(sorted(average(list(heads.values())).items()))
