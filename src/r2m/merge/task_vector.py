"""Task vectors: what fine-tuning changed (Ilharco et al., "Editing models with task arithmetic", 2023)."""

import torch
from torch import Tensor

from r2m.errors import R2MError
from r2m.merge.tensors import Tensors, takes_part


def task_vector(base: Tensors, specialist: Tensors) -> dict[str, Tensor]:
    """Return τ = θ − θ₀ in float32, of the floating tensors that changed.

    `specialist` may hold only the tensors that were trained.

    Raises:
        R2MError: a tensor that the base lacks, has in another shape, or that is not finite.
    """
    changes: dict[str, Tensor] = {}
    for key, tensor in sorted(specialist.items()):
        _check(base, key, tensor, "specialist")
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
        _check(base, key, change, "update")
    return {
        key: (tensor.float() + update[key]).to(tensor.dtype) if key in update else tensor
        for key, tensor in sorted(base.items())
    }


def _check(base: Tensors, key: str, tensor: Tensor, what: str) -> None:
    if key not in base:
        raise R2MError(f"{key}: the {what} has this tensor, the base has not")
    if base[key].shape != tensor.shape:
        raise R2MError(
            f"{key}: shape {tuple(tensor.shape)} in the {what}, but {tuple(base[key].shape)} in the base"
        )
