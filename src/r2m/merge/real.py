"""The shared Real component of task vectors (arXiv 2509.24367), in task space and in matrix space."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from r2m.errors import R2MError
from r2m.merge.options import RealOptions
from r2m.merge.tensors import TaskVectors, as_matrix, check, is_matrix, norm, rows


@dataclass(frozen=True)
class RealComponent:
    """The core and what is needed to project a task vector on the shared Real subspace.

    Every tensor name has either `coefficients` C (K, K), with R_j = Σ_i C_ji τ_i, or `bases` U_c (m, r) and
    V_c (n, r), with R_j = U_c U_cᵀ τ_j V_c V_cᵀ; both in float64. The rows of C are in the order of `names`.
    """

    names: tuple[str, ...]
    core: dict[str, Tensor]
    coefficients: dict[str, Tensor]
    bases: dict[str, tuple[Tensor, Tensor]]


def real_component(task_vectors: TaskVectors, options: RealOptions) -> RealComponent:
    """Factorize K task vectors into what they share.

    Raises:
        R2MError: task vectors of different shapes, not finite, or none.
    """
    zeros = check(task_vectors)
    factorize = _in_matrix_space if options.space == "matrix" else _in_task_space
    return factorize(task_vectors, zeros, options)


def real_part(component: RealComponent, task_vectors: TaskVectors, name: str, key: str) -> Tensor:
    """Return the Real-aligned part R_j of one tensor of one specialist, in float64.

    Raises:
        R2MError: `task_vectors` are not those that the component was made of.
    """
    if sorted(task_vectors) != sorted(component.names):
        raise R2MError(
            f"the Real component was made of the specialists {sorted(component.names)},"
            f" but the task vectors given are {sorted(task_vectors)}"
        )
    zero = torch.zeros(()).expand(component.core[key].shape)
    if key in component.bases:
        return _project(task_vectors[name].get(key, zero), *component.bases[key])
    ordered = {one: task_vectors[one] for one in component.names}
    return combine(component.coefficients[key][component.names.index(name)], rows(ordered, key, zero))


def combine(weights: Tensor, tensors: list[Tensor]) -> Tensor:
    """Return Σ_i weights_i · tensors_i in float64."""
    total = torch.zeros(tensors[0].shape, dtype=torch.float64)
    for weight, tensor in zip(weights.tolist(), tensors, strict=True):
        total.add_(tensor, alpha=weight)
    return total


def grams(task_vectors: TaskVectors, zeros: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return A_ℓ A_ℓᵀ (K, K) of every tensor, in float64."""
    result = {}
    for key, zero in zeros.items():
        stacked = torch.stack([row.reshape(-1).double() for row in rows(task_vectors, key, zero)])
        result[key] = stacked @ stacked.T
    return result


def block_weight(gram: Tensor, size: int, rule: str) -> float:
    """Return γ_ℓ of a tensor of `size` entries with Gram A_ℓ A_ℓᵀ (K, K); 1 for a tensor of zeros."""
    frobenius = gram.trace().sqrt().item()
    if rule == "none" or frobenius == 0:
        return 1.0
    return (size**0.5 if rule == "frobenius_sqrt_size" else 1.0) / frobenius


def projection_coefficients(gram: Tensor, rank: int, center: bool) -> Tensor:
    """Return C (K, K) with Π τ_j = Σ_i C_ji τ_i: the projection on the `rank` leading directions of the rows.

    Uncentred, C = U_r U_rᵀ of G = U Λ Uᵀ. Centred, of the deviations from the mean: H G H = U S² Uᵀ with
    H = I − 11ᵀ/K, and C = G H U_r S_r⁻² U_rᵀ H. That is degenerate for two task vectors of equal norm, whose
    core vanishes, and undefined where nothing deviates (K = 1, or equal task vectors): then C = I.
    """
    size = len(gram)
    if not center:
        leading = torch.linalg.eigh(gram).eigenvectors[:, -min(rank, size) :]
        return leading @ leading.T
    deviation = torch.eye(size, dtype=gram.dtype) - 1 / size
    squares, vectors = torch.linalg.eigh(deviation @ gram @ deviation)
    kept = min(rank, int((squares > 1e-12 * gram.trace()).sum()))
    if kept == 0:
        return torch.eye(size, dtype=gram.dtype)
    squares, vectors = squares[-kept:], vectors[:, -kept:]
    return gram @ deviation @ (vectors / squares) @ vectors.T @ deviation


def describe(component: RealComponent, task_vectors: TaskVectors) -> dict[str, Any]:
    """Report norms, cosines of the task vectors, and each specialist's part in the core.

    `core_weights` are ⟨R_j, τ_core⟩ / (K ‖τ_core‖²) and sum to 1; `shared_energy` is ‖R_j‖² / ‖τ_j‖².
    """
    names = list(component.names)
    ordered = {name: task_vectors[name] for name in names}
    gram = torch.zeros(len(names), len(names), dtype=torch.float64)
    for one in grams(ordered, check(ordered)).values():
        gram += one
    norms = gram.diagonal().sqrt()
    core_norm = norm(component.core.values())
    along, shared = {}, {}
    for name in names:
        along[name] = shared[name] = 0.0
        for key, core in component.core.items():
            part = real_part(component, ordered, name, key)
            along[name] += (part * core).sum().item()
            shared[name] += part.square().sum().item()
    return {
        "specialists": names,
        "core_norm": core_norm,
        "task_vector_norms": dict(zip(names, norms.tolist(), strict=True)),
        "cosines": (gram / torch.outer(norms, norms).clamp(min=1e-300)).tolist(),
        "core_weights": {name: _ratio(along[name], len(names) * core_norm**2) for name in names},
        "shared_energy": {
            name: _ratio(shared[name], square)
            for name, square in zip(names, norms.square().tolist(), strict=True)
        },
    }


def to_tensors(component: RealComponent) -> dict[str, Tensor]:
    """Return the component as named tensors, for a checkpoint."""
    tensors = {f"core.{key}": tensor for key, tensor in component.core.items()}
    tensors |= {f"coefficients.{key}": tensor for key, tensor in component.coefficients.items()}
    for key, (left, right) in component.bases.items():
        tensors |= {f"left.{key}": left, f"right.{key}": right}
    return tensors


def from_tensors(tensors: Mapping[str, Tensor], names: tuple[str, ...]) -> RealComponent:
    """Return the component that `to_tensors` made."""
    parts: dict[str, dict[str, Tensor]] = {"core": {}, "coefficients": {}, "left": {}, "right": {}}
    for name, tensor in tensors.items():
        part, key = name.split(".", 1)
        parts[part][key] = tensor
    bases = {key: (left, parts["right"][key]) for key, left in parts["left"].items()}
    return RealComponent(names, parts["core"], parts["coefficients"], bases)


def _in_task_space(
    task_vectors: TaskVectors, zeros: Mapping[str, Tensor], options: RealOptions
) -> RealComponent:
    blocks = grams(task_vectors, zeros)
    for key, gram in blocks.items():
        blocks[key] = gram * block_weight(gram, zeros[key].numel(), options.block_weight) ** 2
    if options.scope == "model":
        size = len(task_vectors)
        total = sum(blocks.values(), torch.zeros(size, size, dtype=torch.float64))
        blocks = dict.fromkeys(blocks, total)
    coefficients, core = {}, {}
    for key, gram in blocks.items():
        coefficients[key] = projection_coefficients(gram, options.rank, options.center)
        core[key] = combine(coefficients[key].mean(0), rows(task_vectors, key, zeros[key])).float()
    return RealComponent(tuple(task_vectors), core, coefficients, {})


def _in_matrix_space(
    task_vectors: TaskVectors, zeros: Mapping[str, Tensor], options: RealOptions
) -> RealComponent:
    size = len(task_vectors)
    mean_of_all = torch.full((size, size), 1 / size, dtype=torch.float64)
    core, coefficients, bases = {}, {}, {}
    for key, zero in zeros.items():
        mean = combine(mean_of_all[0], rows(task_vectors, key, zero))
        if is_matrix(zero):
            bases[key] = _leading_bases(as_matrix(mean), options.core_ratio)
            core[key] = _project(mean, *bases[key]).float()
        else:
            coefficients[key] = mean_of_all
            core[key] = mean.float()
    return RealComponent(tuple(task_vectors), core, coefficients, bases)


def _leading_bases(matrix: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """Return leading left (m, r) and right (n, r) singular vectors, r = max(1, round(ratio · min(m, n))).

    The longer side's come from an orthonormalisation of A V rather than A V S⁻¹, so small values do no harm.
    """
    rank = max(1, round(ratio * min(matrix.shape)))
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    vectors = torch.linalg.eigh(tall.T @ tall).eigenvectors.flip(1)[:, :rank]
    images = torch.linalg.qr(tall @ vectors).Q
    return (images, vectors) if tall is matrix else (vectors, images)


def _project(tensor: Tensor, left: Tensor, right: Tensor) -> Tensor:
    matrix = as_matrix(tensor).double()
    return (left @ (left.T @ matrix @ right) @ right.T).reshape(tensor.shape)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
