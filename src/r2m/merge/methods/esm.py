"""ESM: the directions in which task vectors move outputs most, made orthogonal, great parts made greater."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field, PositiveInt

from r2m.merge.kinds import Kind, role
from r2m.merge.method import Method
from r2m.merge.methods import tsv_m
from r2m.options import Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece, TensorStream

# How eigenvalues weigh their directions, and by which power norms count relative to their mean.
EIGENVALUE_POWER = 0.15
NORM_POWER = 2


class Options(Section):
    """Essential subspaces, merged with polarized scaling."""

    scaling: float = 1.0
    images: PositiveInt = Field(
        default=32, description="training images (half of them fakes) of the workflow's statistics"
    )


class State(NamedTuple):
    """Updates of the blocks' matrices before they are compared with others, and the factors from that."""

    updates: Mapping[str, Tensor]
    factors: Mapping[str, float]


def prepare(stream: TensorStream, options: Options) -> State:
    """Merge the matrices of the model's blocks, and compare each with those of its role in other blocks.

    Raises:
        R2MError: no statistics at all, or those of a tensor do not fit.
    """
    from r2m.merge.stream import require_any
    from r2m.merge.tensors import norm

    require_any(stream, "esm")
    updates = stream.scratch()
    alike = defaultdict(list)
    for key in stream.keys:
        if stream.whole(key).kind is Kind.MATRIX and (own_role := role(key)) is not None:
            alike[own_role, stream.source.shapes[key]].append(key)

    def work(piece: Piece) -> float:
        update = updates[piece.key] = joined(piece)
        return norm([update])

    keys = sorted(key for group in alike.values() for key in group)
    norms = {key: size for key, (size,) in stream.map(work, keys=keys, label="decomposing")}
    means = {key: sum(norms[one] for one in group) / len(group) for group in alike.values() for key in group}
    factors = {key: (norms[key] / (means[key] or 1.0)) ** NORM_POWER for key in keys}
    return State(updates, factors)


def merge(piece: Piece, options: Options, state: State) -> Tensor:
    """Return scaling · (‖τ‖ / mean ‖τ‖)² τ of a matrix (m, n) of the blocks, else scaling · τ; τ = 2 ē c̄ E C.

    E (m, rK) and C (rK, n), r = int(m / K), join over the specialists the r leading eigenvectors of
    τ_k G_k τ_kᵀ, G_k (n, n) the Gram of the layer's inputs, and C_k = E_kᵀ τ_k. The columns of E and the rows
    of C are weighted by λ^0.15 as a multiple of its mean over the r; C_k by (‖τ_k‖ / mean ‖τ_k‖)²; and the
    columns of C, once joined, by the squares of their norms as multiples of the mean norm. Then E and C are
    replaced by their orthogonal polar factors; ē and c̄ are the mean singular values of what they replace. The
    mean ‖τ‖ is over the changed matrices of the same shape and role in the model's blocks. Li et al., Model
    merging in the essential subspace, CVPR 2026, arXiv 2602.20208, with the constants of the authors' code.

    Matrices of which nobody has statistics are merged as by `tsv_m`, as the authors do with the attention's
    output projection. Eigenvectors whose √λ is a rounding error, and directions in which the joined ones
    depend on each other, are left out and count as zero in all means, where the authors' code takes arbitrary
    vectors. With more specialists than m, r = 0: no change.
    """
    if piece.key in state.factors:
        return state.updates[piece.key] * (options.scaling * state.factors[piece.key])
    return joined(piece).mul_(options.scaling)


def joined(piece: Piece) -> Tensor:
    """Return τ = 2 ē c̄ E C of a matrix (m, n), in float32.

    Raises:
        R2MError: statistics of some specialists only, or of another shape.
    """
    import torch

    from r2m.merge.linalg import matmul, polar
    from r2m.merge.stream import statistics
    from r2m.merge.tensors import norm

    (m, n), count = piece.shape, len(piece.names)
    input_grams = statistics(piece, (n, n))
    if input_grams is None:
        return tsv_m.merge(piece, tsv_m.Options(), None)
    rank = m // count
    frames, coordinates, norms = [], [], []
    for task_vector, gram in zip(piece.each_task_vector(), input_grams, strict=True):
        values, frame = essential_directions(task_vector, gram, rank)
        norms.append(norm([task_vector]))
        weights = (values / values[:1]) ** EIGENVALUE_POWER
        weights *= rank / weights.sum()
        frames.append(frame * weights)
        coordinates.append(norms[-1] ** NORM_POWER * weights[:, None] * matmul(frame.T, task_vector.double()))
    left, right = torch.cat(frames, dim=1), torch.cat(coordinates)
    if left.shape[1] == 0:
        return piece.task_vector(0).zero_()
    right *= (count / sum(norms)) ** NORM_POWER
    lengths = torch.linalg.vector_norm(right, dim=0)
    right *= (lengths / lengths.mean()) ** NORM_POWER
    (left, left_values), (right, right_values) = polar(left), polar(right)
    size = 2 * left_values.sum() / (rank * count) * right_values.sum() / min(rank * count, n)
    return (size * matmul(left, right)).float()


def essential_directions(task_vector: Tensor, gram: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return λ (r,) descending, and E (m, r): the `rank` leading eigenpairs of τ G τᵀ, in float64.

    Takes τ (m, n) and G (n, n). Pairs whose √λ is below `linalg.ROUNDING` of the greatest are left out. Where
    m > n, they come from a problem of size n: with G = R Rᵀ the eigenvectors are left singular ones of τ R.
    """
    from r2m.merge.linalg import ROUNDING, column_gram, eigen, leading_eigen, matmul

    m, n = task_vector.shape
    precise, rank = task_vector.double(), min(rank, m, n)
    # Sums in float32 may differ across the diagonal, which would look like directions of their own.
    gram = (gram + gram.T) / 2
    if m <= n:
        values, vectors = leading_eigen(matmul(precise, matmul(gram, precise.T)), rank)
    else:
        squares, basis = eigen(gram)
        moved = matmul(precise, basis * squares.clamp(min=0).sqrt())
        values, vectors = leading_eigen(column_gram(moved), rank)
    kept = int((values > ROUNDING**2 * values[:1].clamp(min=0)).sum())
    values, vectors = values[:kept], vectors[:, :kept]
    return values, vectors if m <= n else matmul(moved, vectors) / values.sqrt()


METHOD = Method(
    title="ESM",
    citation="Li et al., Model merging in the essential subspace, CVPR 2026, arXiv 2602.20208",
    options=Options,
    merge=merge,
    prepare=prepare,
    others="scaled_mean",
    statistics="a .safetensors file of input Grams (in, in), under the names of their linear layers' weights",
    is_proportional=True,
)
