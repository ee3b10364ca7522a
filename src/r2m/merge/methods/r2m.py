"""Real-aware residual merging, R²M (arXiv 2509.24367)."""

from typing import Literal

from torch import Tensor

from r2m.merge import r2m
from r2m.merge.options import R2M, RealOptions, ResidualOptions, ScaleOptions
from r2m.merge.tensors import TaskVectors

sweep = r2m.sweep


def merge(
    task_vectors: TaskVectors,
    *,
    real: RealOptions,
    residual: ResidualOptions,
    norm_match: Literal["model", "layer", "none"],
    scale: ScaleOptions,
) -> dict[str, Tensor]:
    """Return the update τ_core + λ F̃."""
    options = R2M(real=real, residual=residual, norm_match=norm_match, scale=scale)
    return r2m.merge(task_vectors, options)[0]
