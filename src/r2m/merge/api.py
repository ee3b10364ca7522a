"""Merging from Python: the same methods and options as `r2m merge`, on mappings of tensors."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from r2m.errors import R2MError
from r2m.merge.calibration import calibrated
from r2m.merge.merging import check_statistics, merge_weights
from r2m.merge.recipe import resolve, resolve_rules
from r2m.merge.rules import assigned, ruled
from r2m.merge.stream import MemorySource, TensorStream
from r2m.merge.tensors import TaskVectors, Tensors, buffer_warnings, changed_buffers, merged_shapes
from r2m.merge.weights import factors

logger = logging.getLogger(__name__)

_FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def merge(
    method: str,
    base: Tensors,
    specialists: Mapping[str, Tensors],
    options: Mapping[str, Any] | None = None,
    *,
    rules: Sequence[Mapping[str, Any]] = (),
    weights: Mapping[str, float] | None = None,
    statistics: TaskVectors | None = None,
    allow_nonfinite: bool = False,
    threads: int = 1,
) -> dict[str, Tensor]:
    """Return the merged weights: every tensor of `base`, in its dtype.

    `options` are the method's, nested or dotted: `{"residual.rank.ratio": 0.05}`. `rules` give some tensors
    other ones: `[{"match": "blocks.1?.*", "options": {"scaling": 0.5}}]`. Of the rules whose pattern fits a
    name the first counts, and the tensor is what a merge with its options makes of it. `weights` of
    specialists are relative: task vectors are multiplied by what these are once divided by their mean. All
    tensors are merged alike; leave out a head that is to be treated apart. With `allow_nonfinite`, tensors
    that hold NaN or infinite values are averaged, and results may hold some. What looks wrong is logged as a
    warning. `r2m.merge.registry.names()` lists the methods.

    Raises:
        R2MError: unknown method or option, a rule that fits no tensor, weights that the method does not take
            or that are of nobody, tensors that do not fit together, quantized weights, or values that are not
            finite, among the inputs or in the result's dtype.
    """
    chosen, complete = resolve(method, options or {})
    if not isinstance(specialists, Mapping):
        raise R2MError(
            f"specialists: expected a mapping of names to tensors by name, got {type(specialists).__name__}"
        )
    resolved = resolve_rules(method, options or {}, rules)
    for given in (complete, *(rule.options for rule in resolved)):
        chosen.check_count(given, len(specialists))
    model = _Model("base", _tensors("base", base))
    models = {
        f"{name}": _Model(f"specialist {name!r}", _tensors(f"specialist {name!r}", tensors))
        for name, tensors in sorted(specialists.items(), key=lambda item: f"{item[0]}")
    }
    _check(model, models)
    check_statistics(models, statistics)
    merging, _ = calibrated(chosen, complete)
    multiplied = factors(merging, weights or {}, tuple(models))
    source = _Weights(model, models, statistics)
    stream = TensorStream(source, threads)
    applied = chosen
    if resolved:
        applied = ruled(chosen, complete, resolved, assigned(resolved, source.shapes), stream)
    merged = _Tensors({key: model.tensors[key] for key in source.shapes})
    merge_weights(
        *(applied, complete, stream, source, merged),
        permitting=None if allow_nonfinite else "allow_nonfinite returns them all the same",
        factors=multiplied,
    )
    return {key: merged.tensors.get(key, tensor) for key, tensor in sorted(model.tensors.items())}


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
            counterpart = model.tensors[key]
            if counterpart.shape != tensor.shape:
                raise R2MError(
                    f"{key}: shape {tuple(counterpart.shape)} in the {model.path},"
                    f" but {tuple(tensor.shape)} in the base"
                )
            if counterpart.is_floating_point() != tensor.is_floating_point():
                raise R2MError(
                    f"{key}: {counterpart.dtype} in the {model.path}, but {tensor.dtype} in the base;"
                    " quantized weights have to be dequantized before"
                )
    if not merged_shapes(base.tensors):
        raise R2MError("base: no floating-point tensor is left to merge")
    integers = [key for key, tensor in base.tensors.items() if not tensor.is_floating_point()]
    for text in buffer_warnings(changed_buffers(base, specialists, integers)):
        logger.warning("%s", text)


class _Weights(MemorySource):
    """Base and specialists in memory; task vectors are their differences, made when they are asked for."""

    is_first_reading = False

    def __init__(
        self, base: _Model, specialists: Mapping[str, _Model], statistics: TaskVectors | None
    ) -> None:
        self.names = tuple(specialists)
        self.shapes = dict(sorted(merged_shapes(base.tensors).items()))
        self.unchanged: frozenset[str] = frozenset()
        self._models = (base, *specialists.values())
        self._base = base.tensors
        self._statistics = statistics

    def task_vector(self, index: int, key: str, start: int, stop: int) -> Tensor:
        """Return entries of one τ_k."""
        weights = self._models[index + 1].tensors[key].reshape(-1)[start:stop].float()
        return weights - self.base(key, start, stop)

    def original(self, key: str, start: int, stop: int) -> Tensor:
        """Return entries of θ₀ in their type."""
        return self._models[0].tensors[key].reshape(-1)[start:stop]

    def average(self, key: str, start: int, stop: int) -> Tensor:
        """Return entries of the mean θ_k."""
        rows = (model.tensors[key].reshape(-1)[start:stop].double() for model in self._models[1:])
        return (torch.as_tensor(sum(rows)) / len(self.names)).float()

    def are_equal(self, first: int, second: int, keys: Collection[str]) -> bool:
        """Tell whether two specialists have equal tensors `keys`."""
        left, right = (self._models[index + 1].tensors for index in (first, second))
        return all(torch.equal(left[key], right[key]) for key in keys)

    def not_finite(self, key: str) -> R2MError:
        """Return the error for a tensor with NaN or infinite values."""
        return R2MError(f"{key}: the specialist or the base holds NaN or infinite values")

    def _are_equal(self, key: str, other_key: str) -> bool:
        return all(torch.equal(model.tensors[key], model.tensors[other_key]) for model in self._models)


class _Tensors:
    """Merged tensors in memory, of the types and shapes of others."""

    def __init__(self, templates: Tensors) -> None:
        self.tensors = {key: torch.empty(like.shape, dtype=like.dtype) for key, like in templates.items()}

    def dtype(self, key: str) -> torch.dtype:
        """Return the type of a tensor."""
        return self.tensors[key].dtype

    def write(self, key: str, start: int, tensor: Tensor) -> None:
        """Copy entries from `start` on."""
        self.tensors[key].view(-1)[start : start + len(tensor)] = tensor


def _tensors(owner: str, mapping: Tensors) -> dict[str, Tensor]:
    """Return the tensors without their gradients.

    Raises:
        R2MError: anything else than named tensors, or tensors of a type that is not merged.
    """
    if not isinstance(mapping, Mapping):
        raise R2MError(f"{owner}: expected a mapping of names to tensors, got {type(mapping).__name__}")
    for key, tensor in mapping.items():
        if not isinstance(tensor, Tensor):
            raise R2MError(f"{owner}: {key}: expected a tensor, got {type(tensor).__name__}")
        is_number = tensor.dtype in _FLOATING or not (tensor.is_floating_point() or tensor.is_complex())
        if tensor.is_quantized or not is_number:
            raise R2MError(f"{owner}: {key}: tensors of {tensor.dtype} cannot be merged; convert them before")
    return {key: tensor.detach() for key, tensor in mapping.items()}
