"""What an R²M merge is the sum of: the Real component, and every specialist's share of the residual."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from r2m.merge import real, residual
from r2m.merge.aggregate import Kept, add_, aggregate, matching_factors
from r2m.merge.blocks import Blocks, MemorySource
from r2m.merge.gram import grams
from r2m.merge.options import R2M
from r2m.merge.residual import block_norm
from r2m.merge.running import averages, trained
from r2m.merge.tensors import TaskVectors


@dataclass(frozen=True)
class Parts:
    """The summands of an update θ* − θ₀ = τ_core + Σ_j λ F̃_j / K.

    `core` is τ_core, and the mean τ of running statistics. `residuals` are the truncated F̂_j by specialist
    and tensor, in two factors where anything was cut off, and `factors` the λ n̄ / (n_j K) by which they enter
    the sum.
    """

    core: dict[str, Tensor]
    residuals: Mapping[str, Kept]
    factors: Mapping[str, Mapping[str, float]]

    def residual(self, name: str) -> dict[str, Tensor]:
        """Return λ F̃_j / K of the specialist `name`, of every tensor of the core."""
        found = {key: torch.zeros_like(tensor) for key, tensor in self.core.items()}
        for key, block in self.residuals[name].items():
            add_(found[key], block, self.factors[name][key])
        return found


def parts(task_vectors: TaskVectors, options: R2M) -> Parts:
    """Return the summands of the merge that `options` ask for; they add up to it but for rounding."""
    everything = Blocks(MemorySource(task_vectors))
    blocks = trained(everything)
    component, _ = real.real_component(blocks, grams(blocks), options.real)
    residuals = {
        name: residual.fake_residual(component, task_vectors, name, options.residual).blocks
        for name in task_vectors
    }
    _, report = aggregate(component.core, residuals, options.norm_match, options.scale)
    norms = {name: {key: block_norm(one) for key, one in kept.items()} for name, kept in residuals.items()}
    share = report["lambda"] / len(residuals)
    factors = {
        name: {key: share * factor for key, factor in found.items()}
        for name, found in matching_factors(norms, options.norm_match).items()
    }
    return Parts(component.core | averages(everything), residuals, factors)
