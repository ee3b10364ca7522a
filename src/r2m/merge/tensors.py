"""Named tensors of a model: which take part in a merge, their check, and their norms."""

from collections.abc import Iterable, Mapping

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
