"""The passes of R²M over a whole model, whose equations stand in `real_aware`.

1. `real_component`: inner products of the task vectors, and every tensor's Real parts.
2. `residuals`: what is left of each specialist, truncated.
3. `average`: the residuals, norm-matched and averaged; then λ, which needs sums over all tensors.

Only small numbers stay in memory from pass to pass; tensors wait in stores, which are scratch of the stream's
(`prepare`, `sweep`) or become files (`stages`). Of K specialists one tensor at a time is held, so memory does
not grow with K; with `real.rank` it does.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from r2m.errors import R2MError
from r2m.merge.gram import grams, total
from r2m.merge.kinds import MATRICES_AND_CONVOLUTIONS
from r2m.merge.linalg import LowRank
from r2m.merge.options import R2M, RealOptions, ResidualOptions, ScaleOptions
from r2m.merge.real_aware import (
    CANCELLED,
    Combination,
    Frame,
    Norms,
    Span,
    Truncation,
    add_,
    block_weight,
    coefficient,
    frame,
    matching_factors,
    projection,
    residual_,
    significant,
    total_norm,
    truncated,
)
from r2m.merge.stream import MemorySource, Piece, TensorStream, averages, trained
from r2m.merge.tensors import CHUNK, TaskVectors, as_matrix, dot, square

logger = logging.getLogger(__name__)

Store = MutableMapping[str, Tensor]
Key = TypeVar("Key")
Seen = Callable[[str, Tensor], None]


# Pass 1


@dataclass(frozen=True)
class RealComponent:
    """The Real component of a model with the specialists `names`.

    `store` holds of every tensor τ_core as `core.KEY`, and how its Real parts are made: a `Combination` as
    `weights.KEY` and `loadings.KEY`, in the order of `names`, or a `Frame` as `left.KEY` U_cᵀ, `right.KEY`
    V_cᵀ and `center.KEY`.
    """

    names: tuple[str, ...]
    store: Store
    report: dict[str, Any]

    def core(self, key: str) -> Tensor:
        """Return τ_core of one tensor, in float32, not to be changed."""
        return self.store[f"core.{key}"]

    def how(self, key: str) -> Combination | Frame:
        """Return how the Real parts of one tensor are made."""
        if f"weights.{key}" in self.store:
            return Combination(self.store[f"weights.{key}"], self.store.get(f"loadings.{key}"))
        left, right, center = (self.store[f"{part}.{key}"] for part in ("left", "right", "center"))
        return Frame(left.T, right.T, center, tuple(self.core(key).shape))


def real_component(stream: TensorStream, options: RealOptions, store: Store) -> RealComponent:
    """Factorize the task vectors into what they share; tensors go to `store`."""
    inner = grams(stream) if stream.grams is None else stream.grams
    rules = plan(stream, inner, options)

    def work(piece: Piece) -> Extent:
        key = piece.key
        real, how = share(stream, key, rules[key], torch.float32)
        store[f"core.{key}"] = real.core()
        for part, tensor in _tensors(how).items():
            store[f"{part}.{key}"] = tensor
        if isinstance(real, Frame):
            return frame_extent(real, [real.coordinates(one) for one in piece.each_task_vector()])
        return span_extent(real, inner[key])

    extents = {key: measured for key, (measured,) in stream.map(work, label="sharing")}
    return RealComponent(stream.names, store, _described(stream.names, inner, extents))


def plan(
    stream: TensorStream, inner: Mapping[str, Tensor], options: RealOptions
) -> dict[str, Combination | float]:
    """Return how each tensor's Real parts are made: a combination, or (matrix space) the core ratio."""
    size = len(stream.names)
    if options.space == "matrix":
        mean = Combination(_mean_weights(size), torch.ones(size, 1, dtype=torch.float64))
        return {key: options.core_ratio if is_matrix(stream.whole(key)) else mean for key in stream.keys}
    weighted = {
        key: inner[key] * block_weight(inner[key], stream.size(key), options.block_weight) ** 2
        for key in stream.keys
    }
    if options.scope == "model":
        return dict.fromkeys(stream.keys, projection(total(weighted, size), options.rank, options.center))
    return {key: projection(one, options.rank, options.center) for key, one in weighted.items()}


def is_matrix(piece: Piece) -> bool:
    """Tell whether a tensor is taken as a matrix: linear layers and convolutions are, unless empty."""
    return piece.kind in MATRICES_AND_CONVOLUTIONS and piece.stop > 0


def share(
    stream: TensorStream, key: str, rule: Combination | Frame | float, dtype: torch.dtype = torch.float64
) -> tuple[Span | Frame, Combination | Frame]:
    """Return what one tensor's task vectors share, in `dtype`, and how it is made (a frame in float64)."""
    if isinstance(rule, Frame):
        return rule.to(dtype), rule
    shape = stream.whole(key).shape
    if isinstance(rule, Combination):
        directions = combine(stream, key, rule.weights, dtype).reshape(len(rule.weights), *shape)
        return Span(directions, rule), rule
    mean = combine(stream, key, _mean_weights(len(stream.names)), torch.float64)
    made = frame(mean.reshape(shape), rule)
    return made.to(dtype), made


def combine(stream: TensorStream, key: str, weights: Tensor, dtype: torch.dtype) -> Tensor:
    """Return Σ_i weights_ai τ_i (r, n) of a tensor of n entries, summed in float64, in `dtype`."""
    combined = None
    for piece in stream.pieces(key) or [stream.whole(key)]:
        task_vectors = piece.task_vectors().reshape(weights.shape[1], -1)
        if combined is None:
            weights = weights.to(task_vectors.device)
            combined = weights.new_empty(len(weights), stream.size(key), dtype=dtype)
            buffer = weights.new_empty(len(task_vectors), CHUNK)
        for at, part in enumerate(task_vectors.split(CHUNK, 1)):
            begin = piece.start + at * CHUNK
            combined[:, begin : begin + part.shape[1]] = weights @ buffer[:, : part.shape[1]].copy_(part)
    assert combined is not None
    return combined


@dataclass(frozen=True)
class Extent:
    """Sizes of one tensor's Real parts: ‖τ_core‖², and (K,) ‖R_j‖² and ⟨R_j, τ_core⟩, in float64."""

    core: float
    parts: Tensor
    along: Tensor


def span_extent(span: Span, gram: Tensor) -> Extent:
    """Measure the Real parts of a tensor in task space, by its Gram (K, K)."""
    coefficients = span.combination.coefficients
    products = coefficients @ gram @ coefficients.T
    return Extent(products.mean().clamp(min=0).item(), products.diagonal(), products.mean(1))


def frame_extent(frame: Frame, coordinates: Sequence[Tensor]) -> Extent:
    """Measure the Real parts of a matrix in matrix space, by the `coordinates` (r, r) of all K."""
    stacked, center = torch.stack(list(coordinates)).double().cpu(), frame.center.double().cpu()
    parts, along = stacked.square().sum((1, 2)), (stacked * center).sum((1, 2))
    return Extent(center.square().sum().item(), parts, along)


def _described(
    names: Sequence[str], inner: Mapping[str, Tensor], extents: Mapping[str, Extent]
) -> dict[str, Any]:
    """Report norms, cosines of the task vectors, and each specialist's part in the core.

    `core_weights` are ⟨R_j, τ_core⟩ / (K ‖τ_core‖²) and sum to 1; `shared_energy` is ‖R_j‖² / ‖τ_j‖².
    """
    count = len(names)
    whole = total(inner, count)
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


def _tensors(how: Combination | Frame) -> dict[str, Tensor]:
    if isinstance(how, Frame):
        return {"left": how.left.T, "right": how.right.T, "center": how.center}
    return {"weights": how.weights} | ({} if how.loadings is None else {"loadings": how.loadings})


def _mean_weights(size: int) -> Tensor:
    return torch.full((1, size), 1 / size, dtype=torch.float64)


# Pass 2


@dataclass(frozen=True)
class Residual:
    """The truncated residual F̂_j of one specialist.

    `squares` are ‖F̂_j‖² of the tensors that it has. Unless that is zero, `store` holds the tensor as
    `dense.KEY`, or in two factors, left · rightᵀ, as `left.KEY` and `right.KEY`; behind `prefix` each.
    """

    squares: Mapping[str, float]
    store: Mapping[str, Tensor]
    prefix: str
    report: dict[str, Any]

    def tensor(self, key: str) -> Tensor | LowRank:
        """Return F̂_j of one tensor, which must not be zero; not to be changed."""
        if f"{self.prefix}dense.{key}" in self.store:
            return self.store[f"{self.prefix}dense.{key}"]
        return LowRank(self.store[f"{self.prefix}left.{key}"], self.store[f"{self.prefix}right.{key}"])


def residuals(
    stream: TensorStream,
    component: RealComponent,
    choices: Sequence[ResidualOptions],
    stores: Sequence[Store],
    *,
    only: Sequence[str] | None = None,
    seen: Seen | None = None,
) -> list[dict[str, Residual]]:
    """Return the truncated residuals of the specialists `only` (default: all), for each of `choices`.

    The choices are of one definition. Each fills its own store, under the names of the specialists, and with
    the same bits whatever the others are. `seen` is told the key of every matrix and its F_j.

    Raises:
        R2MError: the stream's specialists are not those that the Real component was made of.
    """
    if stream.names != component.names:
        raise R2MError(
            f"the Real component was made of the specialists {list(component.names)},"
            f" but the task vectors given are {list(stream.names)}"
        )
    names = stream.names if only is None else tuple(only)

    def examine(piece: Piece, name: str, real: Span | Frame, core: Tensor | None) -> list[Truncation | None]:
        index = stream.names.index(name)
        task_vector = piece.task_vector(index)
        own = square(task_vector)
        rest = residual_(task_vector, real, index, core)
        whole = significant(square(rest), own)
        if not is_matrix(piece):
            whole_one = Truncation(piece.shape, None, whole, whole, rest if whole > 0 else None)
            return [whole_one if one.vectors == "keep" else None for one in choices]
        if seen is not None:
            seen(piece.key, as_matrix(rest if whole > 0 else torch.zeros_like(rest)))
        return list(truncated(as_matrix(rest), whole, [one.rank for one in choices]))

    def work(piece: Piece) -> list[list[Truncation | None]]:
        real, _ = share(stream, piece.key, component.how(piece.key), torch.float32)
        core = component.core(piece.key) if choices[0].definition == "shift" else None
        table = []
        for name in names:
            results = examine(piece, name, real, core)
            for store, result in zip(stores, results, strict=True):
                if result is not None and result.tensor is not None:
                    store.update(_stored(f"{name}/", piece, result.tensor))
            table.append([result and replace(result, tensor=None) for result in results])
        return table

    tables = {key: table for key, (table,) in stream.map(work, label="decomposing")}
    return [
        {
            name: _residual({key: table[row][column] for key, table in tables.items()}, store, f"{name}/")
            for row, name in enumerate(names)
        }
        for column, store in enumerate(stores)
    ]


def _stored(prefix: str, piece: Piece, tensor: Tensor | LowRank) -> dict[str, Tensor]:
    if isinstance(tensor, LowRank):
        return {f"{prefix}left.{piece.key}": tensor.left, f"{prefix}right.{piece.key}": tensor.right}
    return {f"{prefix}dense.{piece.key}": tensor.reshape(piece.shape)}


def _residual(truncations: Mapping[str, Truncation | None], store: Store, prefix: str) -> Residual:
    """Report ‖F̂_j‖, the share of ‖F_j‖² that the matrices keep, and rank and share per matrix."""
    kept = {key: one for key, one in truncations.items() if one is not None}
    matrices = {key: one for key, one in kept.items() if one.rank is not None}
    others = math.fsum(one.kept for key, one in kept.items() if key not in matrices)
    whole, left = (sum(getattr(one, part) for one in matrices.values()) for part in ("whole", "kept"))
    report = {
        "norm": (left + others) ** 0.5,
        "energy": min(left / whole, 1.0) if whole > 0 else 1.0,
        "matrices": {
            key: {"shape": list(one.shape), "rank": one.rank, "energy": one.energy}
            for key, one in matrices.items()
        },
    }
    return Residual({key: one.kept for key, one in kept.items()}, store, prefix, report)


# Pass 3


@dataclass(frozen=True)
class Sums:
    """Of one tensor: ‖τ_core‖², ‖F̃‖² and ⟨τ_core, F̃⟩."""

    core: float
    residual: float
    along: float


@dataclass(frozen=True)
class Average:
    """The mean F̃ of the norm-matched residuals, which waits in `store` as `mean.KEY`, and its sums."""

    component: RealComponent
    residuals: Mapping[str, Residual]
    norms: Norms
    factors: Norms
    store: Store
    sums: list[Sums]


@dataclass(frozen=True)
class State:
    """A merge whose passes are done: λ, and the report."""

    average: Average
    factor: float
    report: dict[str, Any]


def average(
    stream: TensorStream,
    component: RealComponent,
    residuals: Mapping[str, Residual],
    norm_match: str,
    store: Store,
) -> Average:
    """Match the residuals of all specialists and average them: F̃ = (1/K) Σ_j F̃_j.

    Raises:
        R2MError: no residual.
    """
    if not residuals:
        raise R2MError("expected the residual of at least one specialist, got none")
    norms = {
        name: {key: math.sqrt(one) for key, one in residual.squares.items()}
        for name, residual in residuals.items()
    }
    factors = matching_factors(norms, norm_match)

    def work(piece: Piece) -> Sums:
        key, core = piece.key, component.core(piece.key)
        mean = torch.zeros_like(core)
        for name, residual in residuals.items():
            if norms[name].get(key, 0.0) > 0:
                add_(mean, residual.tensor(key), factors[name][key] / len(residuals))
        store[f"mean.{key}"] = mean
        return Sums(square(core), square(mean), dot(core, mean))

    sums = [measured for _, (measured,) in stream.map(work, label="averaging residuals")]
    return Average(component, residuals, norms, factors, store, sums)


def scaled(averaged: Average, scale: ScaleOptions) -> State:
    """Choose λ, and report all that was found.

    Where the residuals cancel, nothing of them is added. Those of K = 2 always do in task space with rank 1
    and matched norms: both lie on the one direction that is left, with opposite signs.
    """
    norms, factors, sums = averaged.norms, averaged.factors, averaged.sums
    core_norm = sum(one.core for one in sums) ** 0.5
    mean_norm = sum(one.residual for one in sums) ** 0.5
    matched = {
        name: total_norm(norms[name][key] * factors[name][key] for key in norms[name]) for name in norms
    }
    mean_of_norms = sum(matched.values()) / len(matched)
    factor = 0.0
    if mean_norm > CANCELLED * mean_of_norms:
        factor = coefficient(scale, core_norm, mean_norm)
    elif mean_of_norms > 0:
        logger.warning("the residuals cancel in their mean: the merge is the Real component alone")
    update = sum(one.core + 2 * factor * one.along + factor**2 * one.residual for one in sums)
    report = {
        "core_norm": core_norm,
        "residual_norms": {name: total_norm(norms[name].values()) for name in norms},
        "matched_norms": matched,
        "mean_residual_norm": mean_norm,
        "remaining_share": mean_norm / mean_of_norms if mean_of_norms > 0 else 0.0,
        "lambda": factor,
        "update_norm": max(update, 0.0) ** 0.5,
        "real": averaged.component.report,
        "residuals": {name: residual.report for name, residual in averaged.residuals.items()},
    }
    return State(averaged, factor, report)


def update(key: str, state: State) -> Tensor:
    """Return τ_core + λ F̃ of one tensor, in float32."""
    core = state.average.component.core(key)
    if state.factor == 0:
        return core.clone()
    return torch.add(core, state.average.store[f"mean.{key}"], alpha=state.factor)


# The whole method


def prepare(stream: TensorStream, options: R2M) -> State:
    """Make all passes over a model."""
    component = real_component(stream, options.real, stream.scratch())
    (truncations,) = residuals(stream, component, [options.residual], [stream.scratch()])
    averaged = average(stream, component, truncations, options.norm_match, stream.scratch())
    return scaled(averaged, options.scale)


def sweep(stream: TensorStream, candidates: Sequence[R2M]) -> Iterator[tuple[R2M, dict[str, Tensor]]]:
    """Yield the update of every candidate, the same as `update` gives of it alone to the last bit.

    What candidates have in common is computed once: inner products, Real parts, the residuals' Gram matrices,
    their decompositions by one rule, and averages. Candidates that share come one after the other, whatever
    their order in `candidates`.
    """
    if stream.grams is None:
        stream.grams = grams(stream)
    for real_options, alike in _grouped(candidates, lambda one: one.real).items():
        component = real_component(stream, real_options, stream.scratch())
        for same in _grouped(alike, lambda one: one.residual.definition).values():
            by_residual = _grouped(same, lambda one: one.residual)
            stores = [stream.scratch() for _ in by_residual]
            found = residuals(stream, component, list(by_residual), stores)
            for truncations, cut in zip(found, by_residual.values(), strict=True):
                for norm_match, matched in _grouped(cut, lambda one: one.norm_match).items():
                    averaged = average(stream, component, truncations, norm_match, stream.scratch())
                    for candidate in matched:
                        state = scaled(averaged, candidate.scale)
                        yield candidate, {key: update(key, state) for key in stream.keys}


def _grouped(candidates: Sequence[R2M], key: Callable[[R2M], Key]) -> dict[Key, list[R2M]]:
    groups: dict[Key, list[R2M]] = {}
    for candidate in candidates:
        groups.setdefault(key(candidate), []).append(candidate)
    return groups


@dataclass(frozen=True)
class Parts:
    """The summands of an update θ* − θ₀ = τ_core + Σ_j λ F̃_j / K.

    `core` is τ_core, and the mean τ of running statistics.
    """

    core: dict[str, Tensor]
    state: State

    def residual(self, name: str) -> dict[str, Tensor]:
        """Return λ F̃_j / K of the specialist `name`, of every tensor of the core."""
        averaged = self.state.average
        share = self.state.factor / len(averaged.residuals)
        found = {key: torch.zeros_like(tensor) for key, tensor in self.core.items()}
        for key, norm in averaged.norms[name].items():
            if norm > 0:
                add_(found[key], averaged.residuals[name].tensor(key), share * averaged.factors[name][key])
        return found


def parts(task_vectors: TaskVectors, options: R2M) -> Parts:
    """Return the summands of the merge that `options` ask for; they add up to it but for rounding."""
    everything = TensorStream(MemorySource(dict(sorted(task_vectors.items()))))
    stream = trained(everything)
    state = prepare(stream, options)
    core = {key: state.average.component.core(key) for key in stream.keys}
    return Parts(core | averages(everything), state)
