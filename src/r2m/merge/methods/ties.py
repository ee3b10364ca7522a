"""TIES: trim, elect signs, merge (Yadav et al., "TIES-Merging", NeurIPS 2023, algorithm 1)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from r2m.merge.tensors import TaskVectors, Tensors, check, rows


def merge(task_vectors: TaskVectors, *, keep: float, scaling: float) -> dict[str, Tensor]:
    """Return the update scaling · (mean, per entry, of the trimmed values that have the elected sign).

    Each task vector is trimmed over all P entries of the tensors that any of them changed: int(keep · P) + 1
    stay, and more where magnitudes tie. Entries whose trimmed values sum to zero take the sign that prevails
    among the others.
    """
    zeros = check(task_vectors)
    thresholds = {name: threshold(tensors, zeros, keep) for name, tensors in task_vectors.items()}
    majority = sum(
        torch.sign(_trimmed(task_vectors, key, zero, thresholds).sum(0)).sum(dtype=torch.float64).item()
        for key, zero in zeros.items()
    )
    return {
        key: scaling * disjoint_mean(_trimmed(task_vectors, key, zero, thresholds), majority)
        for key, zero in zeros.items()
    }


def threshold(tensors: Tensors, zeros: Mapping[str, Tensor], keep: float) -> float:
    """Return the least magnitude that stays: the one of rank P − int(keep · P) among all P entries."""
    magnitudes = torch.cat([tensors.get(key, zero).reshape(-1).abs() for key, zero in zeros.items()])
    size = magnitudes.numel()
    return magnitudes.kthvalue(max(1, size - int(keep * size))).values.item()


def disjoint_mean(trimmed: Tensor, majority: float) -> Tensor:
    """Return the mean over the rows (K, …) of the non-zero entries that have the elected sign, else 0."""
    total = trimmed.sum(0)
    positive = (total > 0) | ((total == 0) & (majority > 0))
    agrees = torch.where(positive, trimmed > 0, trimmed < 0)
    return torch.where(agrees, trimmed, 0.0).sum(0) / agrees.sum(0).clamp(min=1)


def _trimmed(task_vectors: TaskVectors, key: str, zero: Tensor, thresholds: Mapping[str, float]) -> Tensor:
    """Return the trimmed rows (K, …) of one tensor."""
    stacked = torch.stack(rows(task_vectors, key, zero))
    least = torch.tensor(list(thresholds.values())).reshape(-1, *[1] * zero.ndim)
    return torch.where(stacked.abs() >= least, stacked, 0.0)
