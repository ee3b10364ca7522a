"""Named tensors of a model: which take part in a merge, their check and norms, and task vectors."""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from r2m.errors import R2MError

Tensors = Mapping[str, Tensor]
TaskVectors = Mapping[str, Tensors]

# So many entries taken to float64 at once stay in a core's cache, which is several times faster.
CHUNK = 2**14


def takes_part(tensor: Tensor) -> bool:
    """Tell whether a tensor is merged: parameters and floating buffers are, integer buffers are not."""
    return tensor.is_floating_point()


def merged_shapes(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of a model that take part in a merge, empty ones left out."""
    return {
        key: tuple(tensor.shape) for key, tensor in tensors.items() if takes_part(tensor) and tensor.numel()
    }


def as_matrix(tensor: Tensor) -> Tensor:
    """View a matrix as (out, in), a convolution as (out, in·kh·kw)."""
    return tensor.flatten(1)


def norm(tensors: Iterable[Tensor]) -> float:
    """Return the Frobenius norm over all tensors together, accumulated in float64."""
    return sum(map(square, tensors)) ** 0.5


def square(tensor: Tensor) -> float:
    """Return the squared Frobenius norm, accumulated in float64."""
    return dot(tensor, tensor)


def dot(one: Tensor, other: Tensor) -> float:
    """Return the Frobenius inner product of two tensors of one shape, accumulated in float64."""
    total = torch.zeros((), dtype=torch.float64, device=one.device)
    for left, right in zip(one.reshape(-1).split(CHUNK), other.reshape(-1).split(CHUNK), strict=True):
        total += torch.dot(left.double(), right.double())
    return total.item()


def check(task_vectors: TaskVectors) -> dict[str, Tensor]:
    """Check that task vectors belong together; return zeros shaped as every tensor that any of them has.

    A tensor that a task vector lacks did not change in that specialist. The zeros take no memory.

    Raises:
        R2MError: no task vector, a tensor of two shapes, or one that is not finite.
    """
    if not task_vectors:
        raise R2MError("expected at least one task vector, got none")
    zeros: dict[str, Tensor] = {}
    first: dict[str, str] = {}
    for name, tensors in task_vectors.items():
        for key, tensor in tensors.items():
            if key not in zeros:
                zeros[key] = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
                first[key] = name
            elif zeros[key].shape != tensor.shape:
                raise R2MError(
                    f"{key}: shape {tuple(tensor.shape)} of {name!r},"
                    f" but {tuple(zeros[key].shape)} of {first[key]!r}"
                )
            if not torch.isfinite(tensor).all():
                raise R2MError(f"{key}: {name!r} holds NaN or infinite values")
    return dict(sorted(zeros.items()))


def task_vector(base: Tensors, specialist: Tensors) -> dict[str, Tensor]:
    """Return τ = θ − θ₀ in float32, of the floating tensors that changed.

    `specialist` may hold only the tensors that were trained.

    Raises:
        R2MError: a tensor that the base lacks, has in another shape, or that is not finite.
    """
    changes: dict[str, Tensor] = {}
    for key, tensor in sorted(specialist.items()):
        _check_fit(base, key, tensor, "specialist")
        if not takes_part(base[key]):
            continue
        change = tensor.float() - base[key].float()
        if not torch.isfinite(change).all():
            raise R2MError(f"{key}: the specialist or the base holds NaN or infinite values")
        if change.any():
            changes[key] = change
    return changes


def apply(base: Tensors, update: Tensors) -> dict[str, Tensor]:
    """Return θ₀ + update: every tensor of the base, in its own dtype.

    Raises:
        R2MError: a tensor that the base lacks or has in another shape.
    """
    for key, change in sorted(update.items()):
        _check_fit(base, key, change, "update")
    return {
        key: (tensor.float() + update[key]).to(tensor.dtype) if key in update else tensor
        for key, tensor in sorted(base.items())
    }


def _check_fit(base: Tensors, key: str, tensor: Tensor, what: str) -> None:
    if key not in base:
        raise R2MError(f"{key}: the {what} has this tensor, the base has not")
    if base[key].shape != tensor.shape:
        raise R2MError(
            f"{key}: shape {tuple(tensor.shape)} in the {what}, but {tuple(base[key].shape)} in the base"
        )


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


def buffer_warnings(changed: Mapping[str, list[str]]) -> list[str]:
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
