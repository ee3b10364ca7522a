"""How much of several task vectors is shared, and how alike two groups of them are."""

import numpy as np
import torch
from numpy.typing import NDArray

from r2m.merge import gram
from r2m.merge.stream import MemorySource, TensorStream
from r2m.merge.tensors import TaskVectors, dot


def eigenvalue_shares(task_vectors: TaskVectors) -> NDArray[np.float64]:
    """Return the eigenvalues (K,) of the Gram matrix A Aᵀ of K task vectors over their sum, greatest first.

    The first is the share of ‖A‖² that one shared direction holds; K ≥ 2 equal task vectors give 1, 0, ….
    With a single one a zero is added, so that there is a second.
    """
    stream = TensorStream(MemorySource(task_vectors))
    whole = gram.total(gram.grams(stream), len(stream.names))
    values = torch.linalg.eigvalsh(whole).flip(0).clamp(min=0).numpy()
    total = values.sum()
    shares = values / total if total > 0 else np.zeros_like(values)
    return np.pad(shares, (0, max(0, 2 - len(shares))))


def mean_cosine(one: TaskVectors, other: TaskVectors) -> float:
    """Return the cosine between the sums of two groups' task vectors, over all tensors; NaN for a zero."""
    inner, squares = 0.0, [0.0, 0.0]
    for key in sorted({key for group in (one, other) for tensors in group.values() for key in tensors}):
        held = [[tensors[key] for tensors in group.values() if key in tensors] for group in (one, other)]
        sums = [torch.stack(tensors).sum(0) if tensors else None for tensors in held]
        for place, tensor in enumerate(sums):
            squares[place] += 0.0 if tensor is None else dot(tensor, tensor)
        if sums[0] is not None and sums[1] is not None:
            inner += dot(sums[0], sums[1])
    return inner / (squares[0] * squares[1]) ** 0.5 if all(squares) else float("nan")
