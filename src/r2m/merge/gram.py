"""Inner products of task vectors, tensor by tensor, and means on the sphere that are made of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from r2m.merge.stream import Piece, TensorStream
from r2m.merge.tensors import CHUNK


def grams(stream: TensorStream, known: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return the Gram matrix A_ℓ A_ℓᵀ (K, K) of every tensor's flattened task vectors, in float64.

    `known` Grams (K, K) are taken as they are; where an entry is NaN, its row is computed. A tensor without
    unknown entries is not read.
    """
    size = len(stream.names)
    unknown = torch.full((size, size), torch.nan, dtype=torch.float64)
    result = {key: (known or {}).get(key, unknown) for key in stream.keys}
    missing = {key: rows for key in stream.keys if (rows := missing_rows(result[key]))}

    def products(piece: Piece) -> Tensor:
        return _products(piece, missing[piece.key])

    for key, parts in stream.map(products, "elements", missing, label="comparing"):
        rows, old = missing[key], result[key]
        found = torch.zeros_like(old)
        found[rows] = sum(parts, torch.zeros(len(rows), size, dtype=torch.float64))
        found[:, rows] = found[rows].T
        result[key] = torch.where(old.isnan(), found, old)
    return result


def missing_rows(gram: Tensor) -> list[int]:
    """Return rows of a symmetric matrix (K, K) that hold its unknown (NaN) entries, or their mirror."""
    unknown = gram.isnan()
    rows = []
    # The most unknown row first: a new specialist's row also holds what the others lack of it.
    while unknown.any():
        row = int(unknown.sum(1).argmax())
        rows.append(row)
        unknown[row] = unknown[:, row] = False
    return sorted(rows)


def total(grams: Mapping[str, Tensor], size: int) -> Tensor:
    """Return the sum (K, K) of the tensors' Grams."""
    return sum(grams.values(), torch.zeros(size, size, dtype=torch.float64))


@dataclass(frozen=True)
class GramCache:
    """Grams (N, N) of N specialists of one base, per tensor; NaN where a pair was never met together.

    `base` and `specialists` identify contents, so that a file that changed is another specialist.
    """

    base: str
    specialists: tuple[str, ...]
    grams: Mapping[str, Tensor]

    def known(self, base: str, specialists: Sequence[str]) -> dict[str, Tensor]:
        """Return what is known of `specialists` (K, K), in their order; nothing for another base."""
        if base != self.base:
            return {}
        return {key: _placed(gram, self.specialists, specialists) for key, gram in self.grams.items()}

    def updated(self, base: str, specialists: Sequence[str], grams: Mapping[str, Tensor]) -> "GramCache":
        """Return the cache with more `grams` (K, K); entries that it has stay to the last bit."""
        if base != self.base:
            return GramCache(base, tuple(specialists), dict(grams))
        every = tuple(dict.fromkeys((*self.specialists, *specialists)))
        none = torch.zeros(0, 0, dtype=torch.float64)
        merged = {}
        for key in sorted(self.grams.keys() | grams.keys()):
            old = _placed(self.grams[key], self.specialists, every) if key in self.grams else None
            new = _placed(grams.get(key, none), specialists if key in grams else (), every)
            merged[key] = new if old is None else torch.where(old.isnan(), new, old)
        return GramCache(base, every, merged)


def _placed(gram: Tensor, own: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Return a Gram of `own` specialists as one of `wanted` ones; NaN for those that it lacks."""
    places = {one: i for i, one in enumerate(own)}
    at = [(i, places[one]) for i, one in enumerate(wanted) if one in places]
    result = torch.full((len(wanted), len(wanted)), torch.nan, dtype=torch.float64)
    if at:
        to, where = torch.tensor(at).T
        result[to[:, None], to] = gram[where[:, None], where]
    return result


def _products(piece: Piece, rows: list[int]) -> Tensor:
    """Return the inner products (len(rows), K) of some task vectors with all, over one piece."""
    task_vectors = piece.task_vectors().reshape(len(piece.names), -1)
    total = torch.zeros(len(rows), len(piece.names), dtype=torch.float64, device=task_vectors.device)
    everything = len(rows) == len(piece.names)
    buffer = torch.empty(len(task_vectors), CHUNK, dtype=torch.float64, device=task_vectors.device)
    for part in task_vectors.split(CHUNK, 1):
        chunk = buffer[:, : part.shape[1]].copy_(part)
        total.addmm_(chunk if everything else chunk[rows], chunk.T)
    return total.cpu()


# Weights (K,) from the norms (K,) of the θ_k and from 1 - cos of the angles between them (K, K), in float64.
Weigh = Callable[[Tensor, Tensor], Tensor]


def sphere_weights(stream: TensorStream, weigh: Weigh) -> dict[str, Tensor]:
    """Return the weights (K,) of the specialists in every tensor, in one pass over the model."""
    return {
        key: weigh(*geometry(torch.stack(grams).sum(0)))
        for key, grams in stream.map(_with_base, "elements", label="angles")
    }


def weighted_update(piece: Piece, weights: Tensor) -> Tensor:
    """Return the update Σ w_k θ_k - θ₀ = Σ w_k τ_k + (Σ w_k - 1) θ₀ of a piece, for `weights` (K,)."""
    task_vectors = piece.task_vectors()
    update = torch.tensordot(weights.float().to(task_vectors.device), task_vectors, 1)
    return update.add_(piece.base(), alpha=weights.sum().item() - 1)


def geometry(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return the norms (K,) of θ_k = θ₀ + τ_k, and 1 - cos of their angles (K, K), from inner products.

    `gram` (K+1, K+1) holds those of θ₀, τ_1 … τ_K. Specialists are nearly parallel, 1 - cos ≈ 1e-7, so that
    it is made of small differences: 2 n_i n_j (1 - cos) = ‖τ_i - τ_j‖² - (n_i - n_j)². A zero vector has no
    angles; its row is 0.
    """
    base, cross, own = gram[0, 0], gram[0, 1:], gram[1:, 1:]
    excess = 2 * cross + own.diagonal()
    norms = (base + excess).clamp(min=0).sqrt()
    apart = own.diagonal()[:, None] + own.diagonal() - 2 * own
    sums, products = norms[:, None] + norms, 2 * norms[:, None] * norms
    longer = (excess[:, None] - excess) / torch.where(sums > 0, sums, 1.0)
    versines = (apart - longer.square()) / torch.where(products > 0, products, 1.0)
    return norms, torch.where(products > 0, versines, 0.0).clamp(0, 2).fill_diagonal_(0)


def _with_base(piece: Piece) -> Tensor:
    """Return the inner products (K+1, K+1) of a piece's θ₀, τ_1 … τ_K in float64."""
    task_vectors = piece.task_vectors().reshape(len(piece.names), -1)
    rows = torch.cat([piece.base().reshape(1, -1), task_vectors]).double()
    return (rows @ rows.T).cpu()
