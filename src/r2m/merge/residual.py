"""Fake residuals: what is left of a task vector beside the Real part, truncated per matrix."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from r2m.merge.options import RankOptions, ResidualOptions
from r2m.merge.real import RealComponent, real_part
from r2m.merge.svd import Decomposition, LowRank, choose_rank, decompose, truncate
from r2m.merge.tensors import TaskVectors, as_matrix, is_matrix, norm

# A residual below this share of the task vector is rounding of float32 weights. It counts as zero, or norm
# matching and a relative scale would blow it up.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Truncation:
    """What truncation did to one matrix (m, n): its singular values and how many were kept."""

    shape: tuple[int, ...]
    values: Tensor
    rank: int

    @property
    def energy(self) -> float:
        """Share of the squared norm that is kept; 1 for a matrix of zeros."""
        squares = self.values.square()
        total = squares.sum().item()
        return squares[: self.rank].sum().item() / total if total > 0 else 1.0


@dataclass(frozen=True)
class Residual:
    """The truncated residual F̂_j of one specialist: tensors or their factors, and how they were truncated."""

    blocks: dict[str, Tensor | LowRank]
    truncations: dict[str, Truncation]


def residual_block(
    component: RealComponent, task_vectors: TaskVectors, name: str, key: str, definition: str
) -> Tensor:
    """Return one tensor of F_j = τ_j − R_j (`projection`) or τ_j − τ_core (`shift`), in float32."""
    core = component.core[key]
    task_vector = task_vectors[name].get(key, torch.zeros(()).expand(core.shape))
    real = core.double() if definition == "shift" else real_part(component, task_vectors, name, key)
    residual = (task_vector.double() - real).float()
    if norm([residual]) <= ROUNDING * max(norm([task_vector]), norm([real])):
        return torch.zeros_like(residual)
    return residual


def decompositions(
    component: RealComponent,
    task_vectors: TaskVectors,
    name: str,
    definition: str,
    rules: list[RankOptions],
) -> dict[str, Decomposition]:
    """Decompose every matrix of one specialist's residual, up to the greatest rank that `rules` ask for."""
    result = {}
    for key, core in component.core.items():
        if is_matrix(core):
            matrix = as_matrix(residual_block(component, task_vectors, name, key, definition))
            whole = decompose(matrix)
            rank = max(choose_rank(whole.values, matrix.shape, rule) for rule in rules)
            result[key] = whole.leading(rank)
    return result


def truncated_residual(
    component: RealComponent,
    task_vectors: TaskVectors,
    name: str,
    options: ResidualOptions,
    decomposed: Mapping[str, Decomposition],
) -> Residual:
    """Return F̂_j, given `decompositions` of the same residual that reach as far as `options.rank`."""
    blocks: dict[str, Tensor | LowRank] = {}
    truncations = {}
    for key, core in component.core.items():
        if not is_matrix(core) and options.vectors == "drop":
            continue
        block = residual_block(component, task_vectors, name, key, options.definition)
        if not is_matrix(core):
            blocks[key] = block
            continue
        matrix, values = as_matrix(block), decomposed[key].values
        rank = choose_rank(values, matrix.shape, options.rank)
        truncations[key] = Truncation(tuple(matrix.shape), values, rank)
        kept = truncate(matrix, decomposed[key], rank)
        blocks[key] = kept if isinstance(kept, LowRank) else kept.reshape(core.shape)
    return Residual(blocks, truncations)


def fake_residual(
    component: RealComponent, task_vectors: TaskVectors, name: str, options: ResidualOptions
) -> Residual:
    """Return the truncated residual F̂_j of the specialist `name`."""
    decomposed = decompositions(component, task_vectors, name, options.definition, [options.rank])
    return truncated_residual(component, task_vectors, name, options, decomposed)


def block_norm(block: Tensor | LowRank) -> float:
    """Return the Frobenius norm of a block, whichever way it is kept."""
    return block.norm() if isinstance(block, LowRank) else norm([block])


def describe(residual: Residual) -> dict[str, Any]:
    """Report ‖F̂_j‖, the share of ‖F_j‖² that the matrices keep, and rank and share per matrix."""
    total = sum(one.values.square().sum().item() for one in residual.truncations.values())
    kept = sum(one.values[: one.rank].square().sum().item() for one in residual.truncations.values())
    return {
        "norm": sum(block_norm(block) ** 2 for block in residual.blocks.values()) ** 0.5,
        "energy": kept / total if total > 0 else 1.0,
        "matrices": {
            key: {"shape": list(one.shape), "rank": one.rank, "energy": one.energy}
            for key, one in residual.truncations.items()
        },
    }


def to_tensors(residual: Residual) -> dict[str, Tensor]:
    """Return the blocks as named tensors, for a checkpoint; the factors as `left.` and `right.`."""
    tensors: dict[str, Tensor] = {}
    for key, block in residual.blocks.items():
        if isinstance(block, LowRank):
            tensors |= {f"left.{key}": block.left, f"right.{key}": block.right}
        else:
            tensors[f"dense.{key}"] = block
    return tensors


def from_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor | LowRank]:
    """Return the blocks that `to_tensors` stored."""
    blocks: dict[str, Tensor | LowRank] = {}
    for name, tensor in tensors.items():
        part, key = name.split(".", 1)
        if part == "dense":
            blocks[key] = tensor
        elif part == "left":
            blocks[key] = LowRank(tensor, tensors[f"right.{key}"])
    return dict(sorted(blocks.items()))
