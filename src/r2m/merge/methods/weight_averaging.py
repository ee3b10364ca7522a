"""Weight averaging: the mean of the specialists (Wortsman et al., "Model soups", ICML 2022)."""

from torch import Tensor

from r2m.merge.tensors import TaskVectors, check, rows


def merge(task_vectors: TaskVectors) -> dict[str, Tensor]:
    """Return the update (1/K) Σ τ_k."""
    zeros = check(task_vectors)
    return {key: sum(rows(task_vectors, key, zero), zero) / len(task_vectors) for key, zero in zeros.items()}
