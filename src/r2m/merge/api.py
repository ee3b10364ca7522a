"""Merging from Python: the same methods and options as `r2m merge`, on mappings of tensors."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from r2m.errors import R2MError
from r2m.merge import merging
from r2m.merge.recipe import resolve
from r2m.merge.task_vector import apply, task_vector
from r2m.merge.tensors import TaskVectors, Tensors


def merge(
    method: str,
    base: Tensors,
    specialists: Mapping[str, Tensors],
    options: Mapping[str, Any] | None = None,
    *,
    statistics: TaskVectors | None = None,
    threads: int = 1,
) -> dict[str, Tensor]:
    """Return the merged weights: every tensor of `base`, in its dtype.

    `options` are the method's, nested or dotted: `{"residual.rank.ratio": 0.05}`. All tensors are merged
    alike; leave out a head that is to be treated apart. `r2m.merge.registry.names()` lists the methods.

    Raises:
        R2MError: unknown method or option, or tensors that do not fit together or are not finite.
    """
    chosen, complete = resolve(method, options or {})
    base = _tensors("base", base)
    specialists = {f"{name}": _tensors(f"specialist {name!r}", one) for name, one in specialists.items()}
    for name, tensors in specialists.items():
        missing = base.keys() - tensors.keys()
        if missing:
            raise R2MError(f"specialist {name!r} lacks {min(missing)}, which the base has")
    task_vectors = {name: task_vector(base, tensors) for name, tensors in sorted(specialists.items())}
    update, _ = merging.merge(
        chosen, task_vectors, complete, base=base, statistics=statistics, threads=threads
    )
    return apply(base, update)


def _tensors(what: str, mapping: Tensors) -> dict[str, Tensor]:
    """Return the tensors without their gradients; raises R2MError for anything else than named tensors."""
    if not isinstance(mapping, Mapping):
        raise R2MError(f"{what}: expected a mapping of names to tensors, got {type(mapping).__name__}")
    for key, tensor in mapping.items():
        if not isinstance(tensor, Tensor):
            raise R2MError(f"{what}: {key}: expected a tensor, got {type(tensor).__name__}")
    return {key: tensor.detach() for key, tensor in mapping.items()}
