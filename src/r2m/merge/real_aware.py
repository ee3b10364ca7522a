"""R²M: Real component, residuals, truncation, norm matching, aggregation (arXiv 2509.24367).

Of K specialists with task vectors τ_j = θ_j − θ₀, tensor by tensor:

    R_j = Π τ_j                        Real parts: what all of them share      `projection`, `frame`
    τ_core = (1/K) Σ_j R_j             the Real component                      `Span.core`, `Frame.core`
    F_j = τ_j − R_j, or τ_j − τ_core   residuals: what is a specialist's own   `residual_`
    F̂_j                                their ρ leading singular triplets       `truncated`
    F̃ = (1/K) Σ_j (n̄ / n_j) F̂_j      of one norm, n_j = ‖F̂_j‖               `matching_factors`
    θ* = θ₀ + τ_core + λ F̃                                                     `coefficient`

`passes` brings whole models to these functions, which know one tensor each, or K × K numbers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from r2m.merge import linalg
from r2m.merge.linalg import LowRank
from r2m.merge.options import RankOptions, ScaleOptions
from r2m.merge.tensors import as_matrix

# A residual below this share of the task vector is rounding of float32 weights. It counts as zero, or norm
# matching and a relative scale would blow it up.
ROUNDING = 1e-6

# A mean residual below this share of a single one is what rounding leaves of residuals that cancel, and a
# relative scale would blow it up to the size of the core.
CANCELLED = 1e-4

Norms = Mapping[str, Mapping[str, float]]


# 1. Real component


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


def projection(gram: Tensor, rank: int, center: bool) -> Combination:
    """Return the projection on the `rank` leading directions of task vectors with a Gram matrix G (K, K).

    Uncentred, C = U_r U_rᵀ of G = U Λ Uᵀ; all K directions give every task vector back. Centred, of the
    deviations from the mean: H G H = U S² Uᵀ with H = I − 11ᵀ/K, and C = G H U_r S_r⁻² U_rᵀ H. That is
    degenerate for two task vectors of equal norm, whose core vanishes, and undefined where nothing deviates
    (K = 1, or equal task vectors): then C = I.
    """
    size = len(gram)
    everything = Combination(torch.full((1, size), 1 / size, dtype=gram.dtype), None)
    if not center:
        if rank >= size:
            return everything
        # Memory of its own, as a store gives it back: what products round to depends on it.
        leading = torch.linalg.eigh(gram).eigenvectors[:, -rank:].clone(memory_format=torch.contiguous_format)
        return Combination(leading.T.clone(memory_format=torch.contiguous_format), leading)
    deviation = torch.eye(size, dtype=gram.dtype) - 1 / size
    squares, vectors = torch.linalg.eigh(deviation @ gram @ deviation)
    kept = min(rank, int((squares > 1e-12 * gram.trace()).sum()))
    if kept == 0:
        return everything
    squares, vectors = squares[-kept:], vectors[:, -kept:]
    return Combination(vectors.T @ deviation, gram @ deviation @ (vectors / squares))


def block_weight(gram: Tensor, size: int, rule: str) -> float:
    """Return γ of a tensor of `size` entries with Gram A Aᵀ (K, K); 1 for a tensor of zeros."""
    frobenius = gram.trace().sqrt().item()
    if rule == "none" or frobenius == 0:
        return 1.0
    return (size**0.5 if rule == "frobenius_sqrt_size" else 1.0) / frobenius


@dataclass(frozen=True)
class Span:
    """The Real parts of a tensor in task space: combinations of `directions` B (r, *shape)."""

    directions: Tensor
    combination: Combination

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


@dataclass(frozen=True)
class Frame:
    """The Real parts of a matrix in matrix space: R_j = U_c U_cᵀ τ_j V_c V_cᵀ, τ_core = U_c `center` V_cᵀ.

    `left` U_c (m, r), `right` V_c (n, r), `center` (r, r), all of one precision; `shape` is the tensor's own.
    """

    left: Tensor
    right: Tensor
    center: Tensor
    shape: tuple[int, ...]

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
        """Subtract R_j from τ_j of the same precision, in place."""
        as_matrix(task_vector).addmm_(self.left @ self.coordinates(task_vector), self.right.T, alpha=-1)
        return task_vector

    def to(self, dtype: torch.dtype) -> "Frame":
        """Return the same in another precision."""
        return Frame(self.left.to(dtype), self.right.to(dtype), self.center.to(dtype), self.shape)


def frame(mean: Tensor, ratio: float) -> Frame:
    """Return the frame of the leading singular vectors of the mean τ, r = max(1, round(ratio · min(m, n))).

    The longer side's come from an orthonormalisation of A V rather than A V S⁻¹, so small values do no harm.
    """
    matrix = as_matrix(mean)
    rank = max(1, round(ratio * min(matrix.shape)))
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    vectors = linalg.exact_right_vectors(matrix, rank).vectors
    images = torch.linalg.qr(tall @ vectors).Q
    # What products round to depends on the layout, so it is the same for every route and in every store.
    images, vectors = (columns.T.contiguous().T for columns in (images, vectors))
    left, right = (images, vectors) if tall is matrix else (vectors, images)
    return Frame(left, right, left.T @ matrix @ right, tuple(mean.shape))


# 2. Residuals


def residual_(task_vector: Tensor, real: Span | Frame, index: int, core: Tensor | None) -> Tensor:
    """Turn τ_j into F_j in place: τ_j − R_j, or τ_j − τ_core where that is given (the definition `shift`)."""
    if core is not None:
        return task_vector.sub_(core)
    return real.subtract_(index, task_vector)


def significant(whole: float, task_vector: float) -> float:
    """Return ‖F_j‖², or 0 where beside ‖τ_j‖² it is nothing but rounding."""
    return whole if whole > ROUNDING**2 * task_vector else 0.0


# 3. Truncation


@dataclass(frozen=True)
class Truncation:
    """What truncation leaves of a tensor: its rank, ‖F̂_j‖² of ‖F_j‖², and F̂_j unless that is zero.

    Tensors that are no matrices are not truncated, and have no rank.
    """

    shape: tuple[int, ...]
    rank: int | None
    kept: float
    whole: float
    tensor: Tensor | LowRank | None

    @property
    def energy(self) -> float:
        """Share of the squared norm that is kept; 1 for a matrix of zeros."""
        return min(self.kept / self.whole, 1.0) if self.whole > 0 else 1.0


def truncated(matrix: Tensor, whole: float, rules: Sequence[RankOptions]) -> list[Truncation]:
    """Truncate a residual matrix (m, n) of norm² `whole` by every rule: F̂_j = F_j V_ρ V_ρᵀ.

    Each result is the same, to the last bit, whatever the other rules are.
    """
    shape = tuple(matrix.shape)
    full = min(shape)
    if whole == 0:
        zeros = torch.zeros(full, dtype=torch.float64)
        return [Truncation(shape, linalg.choose_rank(zeros, shape, one), 0.0, 0.0, None) for one in rules]
    wanted = [linalg.rank_by_shape(shape, rule) for rule in rules]
    decomposed = linalg.decompose(matrix, {rank for rank in wanted if rank != full})
    results = []
    for rule, known in zip(rules, wanted, strict=True):
        rank = full if known == full else linalg.choose_rank(decomposed[known].values, shape, rule)
        if rank == full:
            results.append(Truncation(shape, rank, whole, whole, matrix))
        else:
            values, vectors = decomposed[known].values[:rank], decomposed[known].vectors
            kept = values.square().sum().item()
            results.append(Truncation(shape, rank, kept, whole, linalg.truncate(matrix, vectors, rank)))
    return results


# 4. Norm matching and aggregation


def matching_factors(norms: Norms, rule: str) -> dict[str, dict[str, float]]:
    """Return n̄ / n_j per specialist and tensor, from norms of the same nesting; 1 for a residual of zeros.

    `model` takes norms over the whole model, `layer` over one tensor; `none` leaves everything as it is.
    """
    if rule == "none":
        return {name: dict.fromkeys(tensors, 1.0) for name, tensors in norms.items()}
    if rule == "model":
        totals = {name: total_norm(tensors.values()) for name, tensors in norms.items()}
        norms = {name: dict.fromkeys(tensors, totals[name]) for name, tensors in norms.items()}
    return {
        name: {
            key: sum(other[key] for other in norms.values()) / len(norms) / norm if norm > 0 else 1.0
            for key, norm in tensors.items()
        }
        for name, tensors in norms.items()
    }


def add_(total: Tensor, residual: Tensor | LowRank, factor: float) -> None:
    """Add a truncated residual, times `factor`, to a tensor of its shape, in place."""
    if isinstance(residual, LowRank):
        as_matrix(total).addmm_(residual.left, residual.right.T, alpha=factor)
    else:
        total.add_(residual.reshape(total.shape), alpha=factor)


# 5. Merge


def coefficient(scale: ScaleOptions, core_norm: float, residual_norm: float) -> float:
    """Return λ = x · ‖τ_core‖ / ‖F̃‖ (`relative`) or x (`absolute`); a relative one is 0 for F̃ = 0."""
    if scale.absolute is not None:
        return scale.absolute
    assert scale.relative is not None
    return scale.relative * core_norm / residual_norm if residual_norm > 0 else 0.0


def total_norm(norms: Iterable[float]) -> float:
    """Return the norm of tensors together that have the `norms` one by one."""
    return sum(norm**2 for norm in norms) ** 0.5


def _weighted(weights: Tensor, tensors: Tensor) -> Tensor:
    """Return Σ_a weights_a tensors_a."""
    total = torch.zeros_like(tensors[0])
    for weight, tensor in zip(weights.tolist(), tensors, strict=True):
        total.add_(tensor, alpha=weight)
    return total
