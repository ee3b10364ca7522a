"""Task arithmetic (Ilharco et al., "Editing models with task arithmetic", ICLR 2023)."""

from torch import Tensor

from r2m.merge.tensors import TaskVectors, check, rows


def merge(task_vectors: TaskVectors, *, scaling: float) -> dict[str, Tensor]:
    """Return the update scaling · Σ τ_k: a sum, not a mean."""
    zeros = check(task_vectors)
    return {key: scaling * sum(rows(task_vectors, key, zero), zero) for key, zero in zeros.items()}
