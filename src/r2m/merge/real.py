"""The shared Real component of task vectors (arXiv 2509.24367), in task space and in matrix space.

Either way a tensor's Real parts R_j lie in a small space that all specialists share: the span of a few
combinations of the task vectors, or the products of a few left and right singular vectors of their mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from r2m.errors import R2MError
from r2m.merge import eigen, gram
from r2m.merge.blocks import Block, Blocks, MemorySource
from r2m.merge.kinds import MATRICES_AND_CONVOLUTIONS
from r2m.merge.options import RealOptions
from r2m.merge.tensors import CHUNK, TaskVectors, as_matrix


@dataclass(frozen=True)
class Combination:
    """Combinations B_a = Σ_i weights_ai τ_i that span the Real parts R_j = Σ_a loadings_ja B_a.

    `weights` (r, K) and `loadings` (K, r) are in float64. Without loadings every R_j is τ_j itself, and B is
    their mean.
    """

    weights: Tensor
    loadings: Tensor | None

    @property
    def coefficients(self) -> Tensor:
        """C (K, K) with R_j = Σ_i C_ji τ_i."""
        if self.loadings is None:
            return torch.eye(self.weights.shape[1], dtype=self.weights.dtype)
        return self.loadings @ self.weights

    @property
    def center(self) -> Tensor:
        """Coefficients (r,) of τ_core = mean_j R_j = Σ_a center_a B_a."""
        return torch.ones(1, dtype=self.weights.dtype) if self.loadings is None else self.loadings.mean(0)


@dataclass(frozen=True)
class Span:
    """The Real parts of one tensor in task space: combinations of `directions` B (r, *shape)."""

    directions: Tensor
    combination: Combination

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.directions.device

    @property
    def how(self) -> Combination:
        """What the span is made by, without its directions."""
        return self.combination

    def core(self) -> Tensor:
        """Return τ_core, of the tensor's shape, in the directions' precision."""
        return _weighted(self.combination.center, self.directions)

    def part(self, index: int, task_vector: Tensor) -> Tensor:
        """Return R_j of one specialist, in the directions' precision."""
        if self.combination.loadings is None:
            return task_vector.to(self.directions.dtype)
        return _weighted(self.combination.loadings[index], self.directions)

    def subtract_(self, index: int, task_vector: Tensor) -> Tensor:
        """Subtract R_j from τ_j, in place."""
        if self.combination.loadings is None:
            return task_vector.zero_()
        for loading, direction in zip(
            self.combination.loadings[index].tolist(), self.directions, strict=True
        ):
            task_vector.sub_(direction, alpha=loading)
        return task_vector

    def to(self, dtype: torch.dtype) -> "Span":
        """Return the same in another precision."""
        return Span(self.directions.to(dtype), self.combination)


@dataclass(frozen=True)
class Frame:
    """The Real parts of one matrix in matrix space: R_j = U_c U_cᵀ τ_j V_c V_cᵀ, τ_core = U_c `center` V_cᵀ.

    `left` U_c (m, r), `right` V_c (n, r), `center` (r, r), all of one precision; `shape` is the tensor's own.
    """

    left: Tensor
    right: Tensor
    center: Tensor
    shape: tuple[int, ...]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.left.device

    @property
    def how(self) -> "Frame":
        """The frame itself, which is small."""
        return self

    def core(self) -> Tensor:
        """Return τ_core, of the tensor's shape."""
        return (self.left @ self.center @ self.right.T).reshape(self.shape)

    def coordinates(self, task_vector: Tensor) -> Tensor:
        """Return U_cᵀ τ_j V_c (r, r)."""
        return self.left.T @ as_matrix(task_vector).to(self.left.dtype) @ self.right

    def part(self, index: int, task_vector: Tensor) -> Tensor:
        """Return R_j of one specialist."""
        return (self.left @ self.coordinates(task_vector) @ self.right.T).reshape(self.shape)

    def subtract_(self, index: int, task_vector: Tensor) -> Tensor:
        """Subtract R_j from τ_j, in place."""
        if self.left.dtype != task_vector.dtype:
            return task_vector.sub_(self.part(index, task_vector))
        as_matrix(task_vector).addmm_(self.left @ self.coordinates(task_vector), self.right.T, alpha=-1)
        return task_vector

    def to(self, dtype: torch.dtype) -> "Frame":
        """Return the same in another precision."""
        return Frame(self.left.to(dtype), self.right.to(dtype), self.center.to(dtype), self.shape)


Shared = Span | Frame


@dataclass(frozen=True)
class RealComponent:
    """The core of a whole model, and how the Real parts of its tensors are made.

    The rows of a `Combination` are in the order of `names`. `running` are the mean τ of batch normalisation's
    running statistics, which are no part of it but belong to a merge.
    """

    names: tuple[str, ...]
    core: dict[str, Tensor]
    how: dict[str, Combination | Frame]
    running: dict[str, Tensor] = field(default_factory=dict)

    def blocks(self, task_vectors: TaskVectors) -> Blocks:
        """Return task vectors in the order that the component was made with.

        Raises:
            R2MError: they are not those of its specialists.
        """
        if sorted(task_vectors) != sorted(self.names):
            raise R2MError(
                f"the Real component was made of the specialists {sorted(self.names)},"
                f" but the task vectors given are {sorted(task_vectors)}"
            )
        return Blocks(MemorySource({name: task_vectors[name] for name in self.names}))


def real_component(
    blocks: Blocks, grams: Mapping[str, Tensor], options: RealOptions
) -> tuple[RealComponent, dict[str, Any]]:
    """Factorize K task vectors into what they share; return that, whole, and a report of it."""
    core, how, extents = {}, {}, {}
    for key, rule in plan(blocks, grams, options).items():
        shared = share(blocks, key, rule)
        core[key] = shared.to(torch.float32).core()
        how[key] = shared.how
        inside = (
            [shared.coordinates(one) for one in blocks.whole(key).each_task_vector()]
            if isinstance(shared, Frame)
            else []
        )
        extents[key] = extent(shared, grams[key], inside)
    return RealComponent(blocks.names, core, how), describe(blocks.names, grams, extents)


def plan(blocks: Blocks, grams: Mapping[str, Tensor], options: RealOptions) -> dict[str, Combination | float]:
    """Return how each tensor's Real parts are made: a combination, or (matrix space) the core ratio."""
    size = len(blocks.names)
    if options.space == "matrix":
        mean = Combination(
            torch.full((1, size), 1 / size, dtype=torch.float64), torch.ones(size, 1, dtype=torch.float64)
        )
        return {key: options.core_ratio if is_matrix(blocks.whole(key)) else mean for key in blocks.keys}
    weighted = {
        key: grams[key] * block_weight(grams[key], blocks.size(key), options.block_weight) ** 2
        for key in blocks.keys
    }
    if options.scope == "model":
        return dict.fromkeys(
            blocks.keys, projection(gram.total(weighted, size), options.rank, options.center)
        )
    return {key: projection(one, options.rank, options.center) for key, one in weighted.items()}


def is_matrix(block: Block) -> bool:
    """Tell whether a tensor is taken as a matrix: linear layers and convolutions are, unless empty."""
    return block.kind in MATRICES_AND_CONVOLUTIONS and block.stop > 0


def share(
    blocks: Blocks, key: str, how: Combination | Frame | float, dtype: torch.dtype = torch.float64
) -> Shared:
    """Return what one tensor's task vectors share, in `dtype`; a frame is that already."""
    if isinstance(how, Frame):
        return how.to(dtype)
    block = blocks.whole(key)
    pieces = blocks.pieces(key) or [block]
    if isinstance(how, Combination):
        return Span(combine(pieces, how.weights, dtype).reshape(len(how.weights), *block.shape), how)
    size = len(blocks.names)
    mean = combine(pieces, torch.full((1, size), 1 / size, dtype=torch.float64), torch.float64)
    return frame(mean.reshape(block.shape), how).to(dtype)


def combine(pieces: Sequence[Block], weights: Tensor, dtype: torch.dtype) -> Tensor:
    """Return Σ_i weights_ai τ_i (r, n), summed in float64, of a tensor in `pieces` of n entries together."""
    total = None
    for piece in pieces:
        task_vectors = piece.task_vectors().reshape(weights.shape[1], -1)
        if total is None:
            weights = weights.to(task_vectors.device)
            total = weights.new_empty(len(weights), pieces[-1].stop, dtype=dtype)
            buffer = weights.new_empty(len(task_vectors), CHUNK)
        for at, part in enumerate(task_vectors.split(CHUNK, 1)):
            begin = piece.start + at * CHUNK
            total[:, begin : begin + part.shape[1]] = weights @ buffer[:, : part.shape[1]].copy_(part)
    assert total is not None
    return total


def frame(mean: Tensor, ratio: float) -> Frame:
    """Return the frame of the leading singular vectors of a mean, r = max(1, round(ratio · min(m, n))).

    The longer side's come from an orthonormalisation of A V rather than A V S⁻¹, so small values do no harm.
    """
    matrix = as_matrix(mean)
    rank = max(1, round(ratio * min(matrix.shape)))
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    vectors = eigen.exact_right_vectors(matrix, rank).vectors
    images = torch.linalg.qr(tall @ vectors).Q
    left, right = (images, vectors) if tall is matrix else (vectors, images)
    return Frame(left, right, left.T @ matrix @ right, tuple(mean.shape))


def block_weight(gram: Tensor, size: int, rule: str) -> float:
    """Return γ_ℓ of a tensor of `size` entries with Gram A_ℓ A_ℓᵀ (K, K); 1 for a tensor of zeros."""
    frobenius = gram.trace().sqrt().item()
    if rule == "none" or frobenius == 0:
        return 1.0
    return (size**0.5 if rule == "frobenius_sqrt_size" else 1.0) / frobenius


def projection(gram: Tensor, rank: int, center: bool) -> Combination:
    """Return the projection on the `rank` leading directions of the rows that have a Gram matrix (K, K).

    Uncentred, C = U_r U_rᵀ of G = U Λ Uᵀ; all K directions give every task vector back. Centred, of the
    deviations from the mean: H G H = U S² Uᵀ with H = I − 11ᵀ/K, and C = G H U_r S_r⁻² U_rᵀ H. That is
    degenerate for two task vectors of equal norm, whose core vanishes, and undefined where nothing deviates
    (K = 1, or equal task vectors): then C = I.
    """
    size = len(gram)
    everything = Combination(torch.full((1, size), 1 / size, dtype=gram.dtype), None)
    if not center:
        leading = torch.linalg.eigh(gram).eigenvectors[:, -min(rank, size) :]
        return everything if rank >= size else Combination(leading.T, leading)
    deviation = torch.eye(size, dtype=gram.dtype) - 1 / size
    squares, vectors = torch.linalg.eigh(deviation @ gram @ deviation)
    kept = min(rank, int((squares > 1e-12 * gram.trace()).sum()))
    if kept == 0:
        return everything
    squares, vectors = squares[-kept:], vectors[:, -kept:]
    return Combination(vectors.T @ deviation, gram @ deviation @ (vectors / squares))


@dataclass(frozen=True)
class Extent:
    """Sizes of one tensor's Real parts: ‖τ_core‖², and (K,) ‖R_j‖² and ⟨R_j, τ_core⟩, in float64."""

    core: float
    parts: Tensor
    along: Tensor


def extent(shared: Shared, gram: Tensor, coordinates: Sequence[Tensor]) -> Extent:
    """Measure the Real parts of one tensor: a span by the Gram (K, K), a frame by `coordinates` (K)."""
    if isinstance(shared, Span):
        coefficients = shared.combination.coefficients
        products = coefficients @ gram @ coefficients.T
        return Extent(products.mean().clamp(min=0).item(), products.diagonal(), products.mean(1))
    stacked, center = torch.stack(list(coordinates)).double().cpu(), shared.center.double().cpu()
    parts, along = stacked.square().sum((1, 2)), (stacked * center).sum((1, 2))
    return Extent(center.square().sum().item(), parts, along)


def describe(
    names: Sequence[str], grams: Mapping[str, Tensor], extents: Mapping[str, Extent]
) -> dict[str, Any]:
    """Report norms, cosines of the task vectors, and each specialist's part in the core.

    `core_weights` are ⟨R_j, τ_core⟩ / (K ‖τ_core‖²) and sum to 1; `shared_energy` is ‖R_j‖² / ‖τ_j‖².
    """
    count = len(names)
    whole = gram.total(grams, count)
    norms = whole.diagonal().sqrt()
    core = sum(one.core for one in extents.values())
    zero = torch.zeros(count, dtype=torch.float64)
    along = sum((one.along for one in extents.values()), zero)
    parts = sum((one.parts for one in extents.values()), zero)

    def named(values: Tensor) -> dict[str, float]:
        return dict(zip(names, values.tolist(), strict=True))

    return {
        "specialists": list(names),
        "core_norm": core**0.5,
        "task_vector_norms": named(norms),
        "cosines": (whole / torch.outer(norms, norms).clamp(min=1e-300)).tolist(),
        "core_weights": named(along / (count * core) if core > 0 else zero),
        "shared_energy": named(torch.where(norms > 0, parts / norms.square(), 0.0)),
    }


def to_tensors(component: RealComponent) -> dict[str, Tensor]:
    """Return the component as named tensors, for a checkpoint."""
    tensors = {f"core.{key}": tensor for key, tensor in component.core.items()}
    tensors |= {f"running.{key}": tensor for key, tensor in component.running.items()}
    for key, how in component.how.items():
        if isinstance(how, Frame):
            tensors |= {f"left.{key}": how.left, f"right.{key}": how.right, f"center.{key}": how.center}
        else:
            tensors[f"weights.{key}"] = how.weights
            if how.loadings is not None:
                tensors[f"loadings.{key}"] = how.loadings
    return tensors


def from_tensors(tensors: Mapping[str, Tensor], names: tuple[str, ...]) -> RealComponent:
    """Return the component that `to_tensors` made."""
    core, running = (
        {name.removeprefix(part): one for name, one in tensors.items() if name.startswith(part)}
        for part in ("core.", "running.")
    )
    how: dict[str, Combination | Frame] = {}
    for key, tensor in core.items():
        if f"weights.{key}" in tensors:
            how[key] = Combination(tensors[f"weights.{key}"], tensors.get(f"loadings.{key}"))
        else:
            left, right, center = (tensors[f"{part}.{key}"] for part in ("left", "right", "center"))
            how[key] = Frame(left, right, center, tuple(tensor.shape))
    return RealComponent(names, core, how, running)


def _weighted(weights: Tensor, tensors: Tensor) -> Tensor:
    """Return Σ_a weights_a tensors_a."""
    total = torch.zeros_like(tensors[0])
    for weight, tensor in zip(weights.tolist(), tensors, strict=True):
        total.add_(tensor, alpha=weight)
    return total
