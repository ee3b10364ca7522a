"""Merging from Python: the same methods and options as `r2m merge`, on mappings of tensors."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from r2m.errors import R2MError
from r2m.merge import merging
from r2m.merge.diagnostics import NO_RESIDUAL, NO_UPDATE, compare, is_finite, running_warning, survey, total
from r2m.merge.gram import grams
from r2m.merge.gram import total as gram_total
from r2m.merge.kinds import is_running_statistic
from r2m.merge.recipe import resolve
from r2m.merge.stream import MemorySource, TensorStream, trained
from r2m.merge.tensors import (
    TaskVectors,
    Tensors,
    apply,
    buffer_warnings,
    changed_buffers,
    merged_shapes,
    norm,
    task_vector,
)

logger = logging.getLogger(__name__)

_FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def merge(
    method: str,
    base: Tensors,
    specialists: Mapping[str, Tensors],
    options: Mapping[str, Any] | None = None,
    *,
    statistics: TaskVectors | None = None,
    allow_nonfinite: bool = False,
    threads: int = 1,
) -> dict[str, Tensor]:
    """Return the merged weights: every tensor of `base`, in its dtype.

    `options` are the method's, nested or dotted: `{"residual.rank.ratio": 0.05}`. All tensors are merged
    alike; leave out a head that is to be treated apart. With `allow_nonfinite`, tensors that hold NaN or
    infinite values are averaged, and results may hold some. What looks wrong is logged as a warning.
    `r2m.merge.registry.names()` lists the methods.

    Raises:
        R2MError: unknown method or option, tensors that do not fit together, quantized weights, or values
            that are not finite, among the inputs or in the result's dtype.
    """
    chosen, complete = resolve(method, options or {})
    merging.check_count(chosen, complete, len(specialists))
    model = _Model("base", _tensors("base", base))
    models = {
        f"{name}": _Model(f"specialist {name!r}", _tensors(f"specialist {name!r}", tensors))
        for name, tensors in sorted(specialists.items(), key=lambda item: f"{item[0]}")
    }
    _check(model, models)
    shapes = merged_shapes(model.tensors)
    averaged = {key for key in shapes if is_running_statistic(key)}
    if allow_nonfinite:
        averaged |= {key for key in shapes if not _all_finite(key, model, *models.values())}
    base = {key: tensor for key, tensor in model.tensors.items() if key not in averaged}
    task_vectors = {
        name: task_vector(base, {key: one.tensors[key] for key in base}) for name, one in models.items()
    }
    _warn(base, task_vectors, models, threads)
    update, described = (
        merging.merge(chosen, task_vectors, complete, base=base, statistics=statistics, threads=threads)
        if merged_shapes(base)
        else ({}, {})
    )
    if described.get("lambda") == 0:
        logger.warning("%s", NO_RESIDUAL)
    if any(task_vectors.values()) and not any(change.any() for change in update.values()):
        logger.warning("%s", NO_UPDATE)
    if any(map(is_running_statistic, averaged)):
        logger.warning("%s", running_warning(sorted(filter(is_running_statistic, averaged))))
    merged = apply(base, update)
    for key in averaged:
        mean = sum(one.tensors[key].double() for one in models.values()) / len(models)
        merged[key] = torch.as_tensor(mean).to(model.tensors[key].dtype)
    for key in shapes:
        if not (allow_nonfinite or is_finite(merged[key])):
            raise R2MError(
                f"{key}: merging gives NaN or values beyond {merged[key].dtype} from finite inputs;"
                " allow_nonfinite returns them all the same"
            )
    return {key: merged[key] for key in sorted(merged)}


@dataclass(frozen=True)
class _Model:
    """Tensors, and what errors call them."""

    path: str
    tensors: dict[str, Tensor]

    @property
    def entries(self) -> dict[str, Tensor]:
        """The tensors, which tell their types and shapes."""
        return self.tensors

    def tensor(self, name: str) -> Tensor:
        """Return one tensor."""
        return self.tensors[name]


def _check(base: _Model, specialists: Mapping[str, _Model]) -> None:
    """Check names, shapes and types of all models, and log which integers differ."""
    for model in specialists.values():
        missing, extra = (
            base.tensors.keys() - model.tensors.keys(),
            model.tensors.keys() - base.tensors.keys(),
        )
        if missing:
            raise R2MError(f"{model.path} lacks {min(missing)}, which the base has")
        if extra:
            raise R2MError(f"{model.path} has {min(extra)}, which the base lacks; leave it out")
        for key, tensor in base.tensors.items():
            other = model.tensors[key]
            if other.shape != tensor.shape:
                raise R2MError(
                    f"{key}: shape {tuple(other.shape)} in the {model.path}, but {tuple(tensor.shape)} in the"
                    " base"
                )
            if other.is_floating_point() != tensor.is_floating_point():
                raise R2MError(
                    f"{key}: {other.dtype} in the {model.path}, but {tensor.dtype} in the base; quantized"
                    " weights have to be dequantized before"
                )
    if not merged_shapes(base.tensors):
        raise R2MError("base: no floating-point tensor is left to merge")
    integers = [key for key, tensor in base.tensors.items() if not tensor.is_floating_point()]
    for text in buffer_warnings(changed_buffers(base, specialists, integers)):
        logger.warning("%s", text)


def _warn(base: Tensors, task_vectors: TaskVectors, models: Mapping[str, _Model], threads: int) -> None:
    """Log what looks wrong with specialists."""
    names = tuple(task_vectors)
    stream = trained(TensorStream(MemorySource(task_vectors, base), threads))
    found = [part for _, parts in stream.map(survey, "elements") for part in parts]
    length = norm(base[key] for key in (*stream.keys, *stream.unchanged))
    whole = replace(total(found, len(names)), base=length**2)

    def are_equal(one: int, other: int) -> bool:
        left, right = (models[names[index]].tensors for index in (one, other))
        return all(torch.equal(left[key], right[key]) for key in stream.keys)

    for text in compare(names, whole, are_equal, lambda: gram_total(grams(stream), len(names))).warnings():
        logger.warning("%s", text)


def _all_finite(key: str, *models: _Model) -> bool:
    return all(is_finite(model.tensors[key]) for model in models)


def _tensors(what: str, mapping: Tensors) -> dict[str, Tensor]:
    """Return the tensors without their gradients.

    Raises:
        R2MError: anything else than named tensors, or tensors of a type that is not merged.
    """
    if not isinstance(mapping, Mapping):
        raise R2MError(f"{what}: expected a mapping of names to tensors, got {type(mapping).__name__}")
    for key, tensor in mapping.items():
        if not isinstance(tensor, Tensor):
            raise R2MError(f"{what}: {key}: expected a tensor, got {type(tensor).__name__}")
        is_number = tensor.dtype in _FLOATING or not (tensor.is_floating_point() or tensor.is_complex())
        if tensor.is_quantized or not is_number:
            raise R2MError(f"{what}: {key}: tensors of {tensor.dtype} cannot be merged; convert them before")
    return {key: tensor.detach() for key, tensor in mapping.items()}
