"""Tensors of integers and truths: buffers stay as in the base, quantized weights are refused."""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from r2m.errors import R2MError

# How integers that stand for weights are called, and what quantization keeps beside a tensor of any name.
_WEIGHT = re.compile(r"(?:^|[._])q?weight(?:_packed|_quantized|_int8)?$")
_COMPANION = re.compile(
    r"[._](?:nested_)?(?:absmax|quant_\w+|q?scales?|scb|q?zeros?|zero_points?)(?:\.|$)", re.I
)
_PACKED = (torch.int8, torch.uint8, torch.int16, torch.int32)

# It counts batches, and differs wherever batch normalisation was trained.
_COUNTER = re.compile(r"(?:^|\.)num_batches_tracked$")


class Described(Protocol):
    """Type and shape of a tensor."""

    @property
    def dtype(self) -> torch.dtype:
        """Type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape."""


class Model(Protocol):
    """Named tensors, in a file or in memory."""

    @property
    def path(self) -> Path | str:
        """What an error calls it."""

    @property
    def entries(self) -> Mapping[str, Described]:
        """Tensors, or what stands for them, by name."""

    def tensor(self, name: str) -> Tensor:
        """Return one tensor."""


def refuse_quantized(model: Model, keys: Iterable[str]) -> None:
    """Raise R2MError where an integer tensor's name, or what stands beside it, tells a quantized weight."""
    for key in keys:
        if key not in model.entries or model.entries[key].dtype.is_floating_point:
            continue
        if _WEIGHT.search(key) or _has_companion(key, model.entries):
            raise _quantized(model, key)


def changed_buffers(
    base: Model, specialists: Mapping[str, Model], keys: Iterable[str]
) -> dict[str, list[str]]:
    """Return the integer tensors among `keys` that differ from the base, and in which specialists.

    Counters of batches are left out. A tensor that a specialist lacks did not change in it.

    Raises:
        R2MError: a quantized weight, which is also what differs in more dimensions than one.
    """
    changed: dict[str, list[str]] = {}
    for key in keys:
        entry = base.entries[key]
        if entry.dtype.is_floating_point:
            continue
        for model in (base, *specialists.values()):
            refuse_quantized(model, [key])
        own = base.tensor(key).long()
        for name, model in specialists.items():
            if key in model.entries and not torch.equal(own, model.tensor(key).long()):
                if entry.dtype in _PACKED and len(entry.shape) > 1:
                    raise _quantized(model, key)
                if not _COUNTER.search(key):
                    changed.setdefault(key, []).append(name)
    return changed


def describe(changed: Mapping[str, list[str]]) -> list[str]:
    """Return a warning for every buffer that `changed_buffers` returned."""
    return [
        f"{key}: holds integers, which are not merged: those of {', '.join(names)} differ from the base's,"
        " which are kept"
        for key, names in changed.items()
    ]


def _has_companion(key: str, names: Collection[str]) -> bool:
    return any(name.startswith(key) and _COMPANION.match(name, len(key)) for name in names)


def _quantized(model: Model, key: str) -> R2MError:
    dtype = str(model.entries[key].dtype).removeprefix("torch.")
    return R2MError(
        f"{model.path}: {key} is a quantized weight ({dtype}), which cannot be merged; dequantize the models"
        " first, or leave it as in the base by --exclude"
    )
