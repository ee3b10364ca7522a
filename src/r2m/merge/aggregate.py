"""Norm matching of the residuals and their sum with the Real component (arXiv 2509.24367)."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from r2m.errors import R2MError
from r2m.merge.options import ScaleOptions
from r2m.merge.residual import block_norm
from r2m.merge.svd import LowRank
from r2m.merge.tensors import norm

logger = logging.getLogger(__name__)

# A mean residual below this share of a single one is what rounding leaves of residuals that cancel, and a
# relative scale would blow it up to the size of the core.
CANCELLED = 1e-4

Blocks = Mapping[str, Tensor | LowRank]


def aggregate(
    core: Mapping[str, Tensor], residuals: Mapping[str, Blocks], norm_match: str, scale: ScaleOptions
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the update τ_core + λ F̃ and a report of its norms.

    F̃ = (1/K) Σ_j F̃_j over the norm-matched residuals; λ = x · ‖τ_core‖ / ‖F̃‖ (`relative`) or x (`absolute`).
    Where the residuals cancel, nothing of them is added. Those of K = 2 always do in task space with rank 1
    and matched norms: both lie on the one direction that is left, with opposite signs.

    Raises:
        R2MError: no residual.
    """
    if not residuals:
        raise R2MError("expected the residual of at least one specialist, got none")
    norms = {
        name: {key: block_norm(block) for key, block in blocks.items()} for name, blocks in residuals.items()
    }
    factors = matching_factors(norms, norm_match)
    matched = {
        name: _total(norms[name][key] * factors[name][key] for key in norms[name]) for name in residuals
    }
    mean = {key: _mean(tensor, key, residuals, factors) for key, tensor in core.items()}
    core_norm, mean_norm = norm(core.values()), norm(mean.values())
    mean_of_norms = sum(matched.values()) / len(matched)
    if mean_norm <= CANCELLED * mean_of_norms:
        if mean_of_norms > 0:
            logger.warning("the residuals cancel in their mean: the merge is the Real component alone")
        factor = 0.0
    else:
        factor = coefficient(scale, core_norm, mean_norm)
    update = {key: tensor + factor * mean[key] for key, tensor in core.items()}
    return update, {
        "core_norm": core_norm,
        "residual_norms": {name: _total(norms[name].values()) for name in residuals},
        "matched_norms": matched,
        "mean_residual_norm": mean_norm,
        "remaining_share": mean_norm / mean_of_norms if mean_of_norms > 0 else 0.0,
        "lambda": factor,
        "update_norm": norm(update.values()),
    }


def coefficient(scale: ScaleOptions, core_norm: float, residual_norm: float) -> float:
    """Return λ; 0 for a residual of zeros."""
    if scale.absolute is not None:
        return scale.absolute
    assert scale.relative is not None
    return scale.relative * core_norm / residual_norm if residual_norm > 0 else 0.0


def matching_factors(norms: Mapping[str, Mapping[str, float]], rule: str) -> dict[str, dict[str, float]]:
    """Return n̄ / n_j per specialist and tensor, from norms of the same nesting; 1 for a residual of zeros.

    `model` takes norms over the whole model, `layer` over one tensor; `none` leaves everything as it is.
    """
    if rule == "none":
        return {name: dict.fromkeys(blocks, 1.0) for name, blocks in norms.items()}
    if rule == "model":
        totals = {name: _total(blocks.values()) for name, blocks in norms.items()}
        norms = {name: dict.fromkeys(blocks, totals[name]) for name, blocks in norms.items()}
    factors: dict[str, dict[str, float]] = {}
    for name, blocks in norms.items():
        factors[name] = {}
        for key, one in blocks.items():
            target = sum(other[key] for other in norms.values()) / len(norms)
            factors[name][key] = target / one if one > 0 else 1.0
    return factors


def _mean(
    core: Tensor, key: str, residuals: Mapping[str, Blocks], factors: Mapping[str, Mapping[str, float]]
) -> Tensor:
    """Return (1/K) Σ_j F̃_j of one tensor, summed in float64; zeros where no specialist has it."""
    total = torch.zeros(core.shape, dtype=torch.float64)
    for name, blocks in residuals.items():
        if key in blocks:
            block = blocks[key]
            dense = block.dense().reshape(core.shape) if isinstance(block, LowRank) else block
            total.add_(dense, alpha=factors[name][key])
    return (total / len(residuals)).float()


def _total(norms: Any) -> float:
    return sum(one**2 for one in norms) ** 0.5
