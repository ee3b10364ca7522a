"""Named tensors of a model: which take part in a merge, which count as matrices, and their norms."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from r2m.errors import R2MError

Tensors = Mapping[str, Tensor]
TaskVectors = Mapping[str, Tensors]


def takes_part(tensor: Tensor) -> bool:
    """Tell whether a tensor is merged: parameters and floating buffers are, integer buffers are not."""
    return tensor.is_floating_point()


def is_matrix(tensor: Tensor) -> bool:
    """Tell whether a tensor is a matrix: 2-D, or the 4-D weight of a convolution.

    Norm scales, biases, and the class token and position embedding with their leading 1, are vectors.
    """
    return tensor.ndim in (2, 4)


def as_matrix(tensor: Tensor) -> Tensor:
    """View a matrix as (out, in), a convolution as (out, in·kh·kw)."""
    return tensor.reshape(tensor.shape[0], -1)


def norm(tensors: Iterable[Tensor]) -> float:
    """Return the Frobenius norm over all tensors together, accumulated in float64."""
    squares = (torch.linalg.vector_norm(tensor, dtype=torch.float64).item() ** 2 for tensor in tensors)
    return sum(squares) ** 0.5


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
                    f"{key}: shape {tuple(tensor.shape)} in task vector {name!r},"
                    f" but {tuple(zeros[key].shape)} in {first[key]!r}"
                )
            if not torch.isfinite(tensor).all():
                raise R2MError(f"{key}: task vector {name!r} holds NaN or infinite values")
    return dict(sorted(zeros.items()))


def rows(task_vectors: TaskVectors, key: str, zero: Tensor) -> list[Tensor]:
    """Return one tensor of every task vector, in their order; `zero` where it is absent."""
    return [tensors.get(key, zero) for tensors in task_vectors.values()]
