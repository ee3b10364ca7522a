"""Symmetric eigenproblems, truncated singular value decompositions, and rules for the rank.

To be imported before threads are limited to one BLAS thread each: the limit reaches the libraries that are
loaded by then, and this module loads scipy's.
"""

import ctypes
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from scipy.integrate import quad
from scipy.linalg import cython_lapack, eigh
from scipy.optimize import brentq
from torch import Tensor

from r2m.merge.options import RankOptions

# Above this share of the eigenvectors, all at once (divide and conquer) come sooner than a range of them.
RANGE_SHARE = 0.35

# In the float32 route, so many vectors on either side of the cut are told apart anew in float64: neighbours
# mix the more, the nearer their values are.
WINDOW = 16

# The float32 route is left where `_expected_error` is greater, or small singular values drown: σ₁²/σ_r² is
# greater. Over many spectra, truncations by it differed from exact ones by at most 8 times what was
# expected, relative to ‖A‖, and by some 1e-7 where next to nothing was.
FLOAT32_ERROR, FLOAT32_RATIO = 1e-6, 1000.0

# Gram matrices up to this size are made and decomposed in float64 at once: there is little to save.
SMALL = 256

# Singular values below this share of the greatest are rounding errors of float32 data: they count as zero.
ROUNDING = 1e-6

# Rows that are taken to float64 at once.
ROWS = 4096


@dataclass(frozen=True)
class LeadingVectors:
    """The leading singular values of a matrix (m, n), and the singular vectors of its shorter side.

    `values` (r,) descend, in float64; `vectors` (min(m, n), r) are orthonormal, in float32 or float64 as they
    were computed: right singular vectors where m ≥ n, else left ones.
    """

    values: Tensor
    vectors: Tensor


def column_gram(matrix: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return AᵀA (n, n) of a matrix (m, n), computed in `dtype`."""
    total = torch.zeros(matrix.shape[1], matrix.shape[1], dtype=dtype, device=matrix.device)
    for rows in matrix.split(ROWS):
        total += _product(rows.to(dtype))
    return total


def side_gram(matrix: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return the Gram matrix of the shorter side of a matrix (m, n): AᵀA where m ≥ n, else AAᵀ."""
    return column_gram(matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T, dtype)


def eigen(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Return all eigenvalues (n,) of a symmetric matrix (n, n), descending, and its eigenvectors (n, n)."""
    if symmetric.device.type == "cpu" and symmetric.dtype == torch.float64:
        # In float64, numpy's LAPACK is faster than torch's on processors of other makers than Intel.
        values, vectors = map(torch.from_numpy, np.linalg.eigh(symmetric.numpy()))
    else:
        values, vectors = torch.linalg.eigh(symmetric)
    return values.flip(0), vectors.flip(1)


def leading_eigen(symmetric: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the greatest eigenvalues (r,) of a symmetric matrix (n, n), descending, and eigenvectors (n, r).

    In the precision of the matrix, by LAPACK's `syevr` for an index range. It is called by its address, since
    ctypes gives the interpreter's lock away, as scipy does not: threads then decompose matrices side by side
    (`benchmarks/eigen.py`). Where scipy has no such address, its own function serves, with the same bits.
    """
    size = len(symmetric)
    found = None
    if symmetric.device.type == "cpu" and 0 < rank <= RANGE_SHARE * size:
        routine = _syevr(symmetric.dtype)
        decomposed = _by_scipy if routine is None else partial(_by_address, routine)
        found = decomposed(symmetric.numpy(), rank)
    if found is None:
        values, vectors = eigen(symmetric)
        return values[:rank], vectors[:, :rank]
    return torch.from_numpy(found[0]).flip(0), torch.from_numpy(found[1]).flip(1)


def leading_right_vectors(
    matrix: Tensor, rank: int, product: Callable[[torch.dtype], Tensor] | None = None
) -> LeadingVectors:
    """Return the leading singular values of a matrix (m, n) and singular vectors of its shorter side.

    A V Vᵀ (U Uᵀ A where m < n) is then the truncation of the matrix to `rank` ≤ min(m, n), and agrees with
    that of an exact decomposition to 1e-5 of ‖A‖. In float32 where the spectrum admits it, else in float64.
    `product` returns the shorter side's Gram matrix in a precision, where it is known already.
    """
    product = product or partial(side_gram, matrix)
    if min(matrix.shape) > SMALL and matrix.dtype == torch.float32 and rank > 0:
        gram = product(torch.float32)
        squares, vectors = leading_eigen(gram, min(rank + WINDOW, len(gram)))
        if _expected_error(gram, squares.double(), rank) < FLOAT32_ERROR:
            return _sharpened(matrix, squares.double(), vectors, rank)
    return _exact(product(torch.float64), rank)


def exact_right_vectors(matrix: Tensor, rank: int) -> LeadingVectors:
    """Return the same as `leading_right_vectors`, in float64 throughout.

    Singular values below 1e-7 of the greatest, about, cannot be told from zero.
    """
    return _exact(side_gram(matrix), rank)


def leading_triplets(matrix: Tensor, rank: int, scale: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Return U (m, r), σ (r,) descending and V (n, r) of the leading singular triplets of a matrix (m, n).

    In float64. Triplets whose singular value is below `ROUNDING` of the greatest, or of `scale` where the
    matrix is a difference of such numbers, are left out, since their vectors are arbitrary: r ≤ `rank`.
    """
    found = leading_right_vectors(matrix, rank)
    kept = int((found.values > ROUNDING * found.values[:1].clamp(min=scale)).sum())
    short = found.vectors[:, :kept].double()
    wide = matrix.shape[0] < matrix.shape[1]
    long = matmul((matrix.T if wide else matrix).double(), short)
    values = torch.linalg.vector_norm(long, dim=0)
    long /= values
    return (short, values, long) if wide else (long, values, short)


def polar(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the orthogonal polar factor P Qᵀ (m, n) of a matrix P Σ Qᵀ, and all its singular values.

    In float64. Directions whose singular value is below `ROUNDING` of the greatest are left out, and their
    value is zero: there the factor is arbitrary. The others are exact to 1e-5 where σ > 1e-5 σ₁.
    """
    root, values = inverse_root(side_gram(matrix))
    whole = matrix.double()
    return matmul(root, whole) if matrix.shape[0] < matrix.shape[1] else matmul(whole, root), values


def inverse_root(product: Tensor) -> tuple[Tensor, Tensor]:
    """Return (AᵀA)^(-1/2) (n, n) of a Gram matrix AᵀA (n, n) in float64, and the singular values (n,) of A.

    A (AᵀA)^(-1/2) is the polar factor of A. What it leaves out is said there.
    """
    squares, vectors = eigen(product)
    kept = int((squares > ROUNDING**2 * squares[:1].clamp(min=0)).sum())
    values = squares[:kept].sqrt()
    scaled = vectors[:, :kept] / values.sqrt()
    return _product(scaled.T), torch.nn.functional.pad(values, (0, len(squares) - kept))


def whitened_product(left: Tensor, values: Tensor, right: Tensor) -> Tensor:
    """Return P diag(values) Qᵀ (m, n), with the polar factors P of `left` (m, k) and Q of `right` (n, k).

    In float64. The factors themselves, which are as large as the matrix, are not made.
    """
    middle = matmul(inverse_root(column_gram(left))[0] * values, inverse_root(column_gram(right))[0])
    return matmul(left, matmul(middle, right.T))


def matmul(left: Tensor, right: Tensor) -> Tensor:
    """Return the product of two matrices; on the CPU by numpy, for the same reason as in `_product`."""
    if left.device.type != "cpu":
        return left @ right
    return torch.from_numpy(left.numpy() @ right.numpy())


def _exact(product: Tensor, rank: int) -> LeadingVectors:
    squares, vectors = leading_eigen(product, rank)
    return LeadingVectors(squares.clamp(min=0).sqrt(), vectors)


def _expected_error(product: Tensor, squares: Tensor, rank: int) -> float:
    """Return the error to be expected of a truncation by float32 vectors, relative to ‖A‖, up to a factor.

    `squares` are the greatest eigenvalues of the Gram matrix `product` (n, n). Rounding perturbs it by E,
    whose entries between eigenvectors are about ε ‖AᵀA‖ / n. A vector that is kept then turns towards one
    that is left out by E_ij / (λ_i − λ_j), which changes the truncation by σ_i times that. The eigenvalues
    that are not known are taken to fall evenly, from the last one known on, to what the trace leaves for
    them. Pairs within the window do not count.
    """
    kept, size = squares[:rank], len(product)
    trace = product.diagonal().double().sum().item()
    if not 0 < squares[0] < FLOAT32_RATIO * kept[-1]:
        return math.inf
    turns = torch.zeros_like(kept)
    unknown = size - len(squares)
    if unknown > 0:
        last = squares[-1]
        fall = (2 * (last - (trace - squares.sum()) / unknown)).clamp(min=0)
        gaps = kept - last
        turns += unknown / (gaps * (gaps + fall))
    outside = max(0, rank - WINDOW)
    turns[:outside] += (squares[:outside, None] - squares[rank:]).square().reciprocal().sum(1)
    share = torch.finfo(torch.float32).eps / 2 * torch.linalg.matrix_norm(product.double()).item() / size
    error = share * (2 * (kept * turns).sum() / trace).sqrt().item()
    return error if math.isfinite(error) else math.inf


def _sharpened(matrix: Tensor, squares: Tensor, vectors: Tensor, rank: int) -> LeadingVectors:
    """Return the `rank` leading of the float32 `vectors` (n, > rank), those at the cut turned to be exact.

    By the Rayleigh–Ritz procedure in float64, on the span of `WINDOW` vectors on either side of the cut.
    """
    first = max(0, rank - WINDOW)
    if vectors.shape[1] == rank:
        return LeadingVectors(squares.sqrt(), vectors)
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    window = torch.linalg.qr(vectors[:, first:].double()).Q
    inner = torch.zeros(window.shape[1], window.shape[1], dtype=torch.float64, device=window.device)
    for rows in tall.split(ROWS // 4):
        image = matmul(rows.double(), window)
        inner += image.T @ image
    ritz, turn = eigen(inner)
    kept = rank - first
    turned = (window @ turn[:, :kept]).float()
    values = torch.cat([squares[:first], ritz[:kept]]).clamp(min=0).sqrt()
    return LeadingVectors(values.cummin(0).values, torch.cat([vectors[:, :first], turned], dim=1))


def _product(tall: Tensor) -> Tensor:
    if tall.device.type != "cpu":
        return tall.T @ tall
    # numpy takes the symmetric product (syrk), and its BLAS knows the vector units of all makers.
    array = tall.numpy()
    return torch.from_numpy(array.T @ array)


_Routine = Callable[..., None]


@cache
def _syevr(dtype: torch.dtype) -> _Routine | None:
    """Return LAPACK's ssyevr or dsyevr, free of the interpreter's lock; None where there is none."""
    name = {torch.float32: "ssyevr", torch.float64: "dsyevr"}.get(dtype)
    capsule = getattr(cython_lapack, "__pyx_capi__", {}).get(name)
    if capsule is None:
        return None
    name_of, pointer_of = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    address = pointer_of(capsule, name_of(capsule))
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 21)(address)


def _by_scipy(symmetric: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the greatest eigenvalues, ascending, and eigenvectors; None without convergence."""
    size = len(symmetric)
    try:
        return eigh(symmetric, subset_by_index=[size - rank, size - 1], driver="evr", check_finite=False)
    except np.linalg.LinAlgError:
        return None


def _by_address(routine: _Routine, symmetric: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the same as `_by_scipy`."""
    size, dtype = len(symmetric), symmetric.dtype
    matrix = np.array(symmetric, order="C")
    values, vectors = np.empty(size, dtype), np.empty((rank, size), dtype)
    support, unused = np.empty(2 * rank, np.int32), np.zeros(1, dtype)
    found, info = ctypes.c_int(), ctypes.c_int()

    def call(work: np.ndarray, work_size: int, integers: np.ndarray, integers_size: int) -> None:
        # fmt: off
        routine(
            b"V", b"I", b"L", _int(size), matrix.ctypes.data, _int(size), unused.ctypes.data,
            unused.ctypes.data, _int(size - rank + 1), _int(size), unused.ctypes.data,
            ctypes.byref(found), values.ctypes.data,
            vectors.ctypes.data, _int(size), support.ctypes.data, work.ctypes.data, _int(work_size),
            integers.ctypes.data, _int(integers_size), ctypes.byref(info),
        )
        # fmt: on

    work, integers = np.empty(1, dtype), np.empty(1, np.int32)
    call(work, -1, integers, -1)
    work, integers = np.empty(int(work[0]), dtype), np.empty(int(integers[0]), np.int32)
    call(work, len(work), integers, len(integers))
    return (values[:rank], vectors.T) if info.value == 0 and found.value == rank else None


def _int(value: int) -> object:
    return ctypes.byref(ctypes.c_int(value))


@dataclass(frozen=True)
class LowRank:
    """The matrix left · rightᵀ, with `left` (m, r) and `right` (n, r)."""

    left: Tensor
    right: Tensor

    def dense(self) -> Tensor:
        """Return the matrix (m, n)."""
        return self.left @ self.right.T


def singular_values(matrix: Tensor) -> Tensor:
    """Return all singular values of a matrix (m, n), descending, in float64."""
    return _roots(torch.linalg.eigvalsh(side_gram(matrix)).flip(0))


def decompose(matrix: Tensor, ranks: Collection[int | None]) -> dict[int | None, LeadingVectors]:
    """Decompose a matrix (m, n) once for every rank: so many leading singular values and vectors, None: all.

    Nothing but Gram matrices is shared, so that each result is the same to the last bit whatever the others
    are. Vectors are in float32; truncations by them agree with exact ones to 1e-5 of the norm. Where all are
    asked for, the Gram is decomposed in float64: they agree to 1e-6, and singular values below about 1e-7 of
    the greatest, which cannot be told from zero, are set to it.
    """
    product = cache(partial(side_gram, matrix))

    def decomposed(rank: int | None) -> LeadingVectors:
        if rank is not None:
            return leading_right_vectors(matrix, rank, product)
        squares, vectors = eigen(product(torch.float64))
        return LeadingVectors(_roots(squares), vectors)

    found = {rank: decomposed(rank) for rank in ranks}
    return {rank: LeadingVectors(one.values, one.vectors.float()) for rank, one in found.items()}


def truncate(matrix: Tensor, vectors: Tensor, rank: int) -> Tensor | LowRank:
    """Return the best approximation of a matrix (m, n) with `rank` singular triplets.

    `vectors` (min(m, n), ≥ rank) are leading singular vectors of its shorter side. Factors are returned where
    they are smaller than the matrix; the matrix itself at full rank. It is made by projection, A V Vᵀ or
    U Uᵀ A, so nothing is divided by small singular values.
    """
    m, n = matrix.shape
    if rank >= min(m, n):
        return matrix
    vectors = vectors[:, :rank].contiguous()
    factors = LowRank(matrix @ vectors, vectors) if m >= n else LowRank(vectors, matrix.T @ vectors)
    return factors if (m + n) * rank < m * n else factors.dense()


def rank_by_shape(shape: tuple[int, ...], rule: RankOptions) -> int | None:
    """Return the rank that a rule sets for any matrix of `shape` (m, n); None if it depends on the values."""
    short = min(shape)
    if rule.ratio is not None:
        return max(1, round(rule.ratio * short))
    return min(rule.fixed, short) if rule.fixed is not None else None


def choose_rank(values: Tensor, shape: tuple[int, ...], rule: RankOptions) -> int:
    """Return how many of the singular `values` (min(m, n),) of a matrix of `shape` (m, n) are kept.

    Raises:
        ValueError: the rule is empty (pydantic admits no such options).
    """
    rank = rank_by_shape(shape, rule)
    if rank is not None:
        return rank
    if rule.energy is not None:
        energy = values.square().cumsum(0)
        wanted = rule.energy * energy[-1] * (1 - 1e-12)
        return int((energy < wanted).sum()) + 1 if energy[-1] > 0 else 0
    if rule.optimal_threshold:
        threshold = optimal_coefficient(min(shape) / max(shape)) * values.median().item()
        return int((values > threshold).sum())
    raise ValueError("empty rank rule")


@cache
def optimal_coefficient(beta: float) -> float:
    """Return ω(β): the hard threshold in units of the median singular value, for unknown noise, β = m/n ≤ 1.

    Gavish and Donoho, "The optimal hard threshold for singular values is 4/√3", IEEE Trans. Inf. Theory
    60(8), 2014: ω(β) = λ*(β) / √μ_β, eq. (11) for λ* and μ_β the median of the Marčenko–Pastur distribution.
    """
    best = math.sqrt(2 * (beta + 1) + 8 * beta / (beta + 1 + math.sqrt(beta**2 + 14 * beta + 1)))
    return best / math.sqrt(_marchenko_pastur_median(beta))


def _marchenko_pastur_median(beta: float) -> float:
    low, half = (1 - math.sqrt(beta)) ** 2, 2 * math.sqrt(beta)

    # With t = low + 2 half sin²(φ/2) the density has no singular ends, for a square matrix (low = 0) either.
    def density(phi: float) -> float:
        sine, cosine = math.sin(phi / 2) ** 2, math.cos(phi / 2) ** 2
        return 4 * half**2 * sine * cosine / (2 * math.pi * beta * (low + 2 * half * sine))

    phi = brentq(lambda end: quad(density, 0.0, end)[0] - 0.5, 1e-6, math.pi)
    return low + 2 * half * math.sin(phi / 2) ** 2


def _roots(squares: Tensor) -> Tensor:
    """Square roots of a Gram's descending eigenvalues; those within its rounding become 0."""
    noise = len(squares) * torch.finfo(torch.float64).eps * squares[0].clamp(min=0)
    return torch.where(squares > noise, squares, 0.0).sqrt()
