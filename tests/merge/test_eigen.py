import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from r2m.merge import linalg

SHAPES = [(300, 300), (400, 300), (300, 400), (40, 90), (90, 40), (1, 30), (30, 1), (1, 1)]
SPECTRA = {
    "flat": lambda i: 1 - 5e-4 * i,
    "marchenko-pastur": lambda i: 2 - 1.5 * (i / i.max().clamp(min=1)) ** 0.7,
    "slow": lambda i: (i + 1) ** -0.3,
    "harmonic": lambda i: 1 / (i + 1),
    "steep": lambda i: 0.5**i,
    "dominant": lambda i: torch.where(i == 0, 1000.0, 1 - 1e-3 * i),
    "low rank and noise": lambda i: torch.where(i < 7, 9 - i, 1e-3 - 1e-6 * i),
    "rank-deficient": lambda i: torch.where(i < 20, 3 - 0.1 * i, 0.0),
    "tiny": lambda i: 1e-12 / (i + 1),
    "zero": lambda i: 0 * i,
}


@pytest.fixture(autouse=True)
def _one_blas_thread():
    with threadpool_limits(1):
        yield


def with_spectrum(name, shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    short = min(shape)
    sides = [torch.randn(size, short, generator=generator, dtype=torch.float64) for size in shape]
    left, right = (torch.linalg.qr(side).Q for side in sides)
    values = SPECTRA[name](torch.arange(short, dtype=torch.float64))
    return ((left * values) @ right.T).float()


def truncation(matrix, vectors):
    matrix, vectors = matrix.double(), vectors.double()
    tall = matrix.shape[0] >= matrix.shape[1]
    return matrix @ vectors @ vectors.T if tall else vectors @ (vectors.T @ matrix)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_truncation_agrees_with_the_exact_one(spectrum, shape):
    matrix = with_spectrum(spectrum, shape)
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    norm = torch.linalg.norm(values).item()
    for rank in sorted({1, max(1, min(shape) // 10), max(1, min(shape) // 2), min(shape)}):
        found = linalg.leading_right_vectors(matrix, rank)
        assert found.vectors.shape == (min(shape), rank)
        assert torch.allclose(found.vectors.T @ found.vectors, torch.eye(rank).to(found.vectors), atol=1e-4)
        exact = (left[:, :rank] * values[:rank]) @ right[:rank]
        assert torch.linalg.norm(truncation(matrix, found.vectors) - exact) <= 1e-5 * norm
        assert torch.allclose(found.values, values[:rank], rtol=1e-4, atol=1e-6 * norm)
        assert (found.values.diff() <= 0).all()


@pytest.mark.parametrize("spectrum", ["harmonic", "dominant", "low rank and noise", "rank-deficient", "zero"])
def test_hard_spectra_take_the_exact_route(spectrum):
    matrix = with_spectrum(spectrum, (300, 300))
    assert linalg.leading_right_vectors(matrix, 60).vectors.dtype == torch.float64


def test_easy_spectra_take_the_fast_route():
    matrix = with_spectrum("slow", (400, 300))
    assert linalg.leading_right_vectors(matrix, 30).vectors.dtype == torch.float32


def low_rank_with_noise(shape, noise, seed):
    """Return what task vectors look like: a decaying spectrum of rank 40, in dense noise."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(size, 40, generator=generator) for size in shape)
    signal = left / torch.arange(1, 41) ** 0.5 @ right.T
    dense = torch.randn(shape, generator=generator)
    return signal / signal.norm() + noise * dense / dense.norm()


@settings(max_examples=25, deadline=None)
@given(
    noise=st.floats(0.05, 3),
    share=st.sampled_from([0.02, 0.1, 0.25]),
    shape=st.sampled_from([(300, 300), (900, 300), (300, 400)]),
    seed=st.integers(0, 99),
)
def test_truncation_among_noise_is_exact(noise, share, shape, seed):
    matrix = low_rank_with_noise(shape, noise, seed)
    rank = int(share * min(shape))
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    exact = (left[:, :rank] * values[:rank]) @ right[:rank]
    found = linalg.leading_right_vectors(matrix, rank)
    assert torch.linalg.norm(truncation(matrix, found.vectors) - exact) <= 1e-5 * torch.linalg.norm(values)
    assert torch.allclose(found.values, values[:rank], rtol=1e-4)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.25])
def test_cuts_in_noise_take_the_fast_route(share):
    matrix = low_rank_with_noise((900, 300), 0.7, 0)
    assert linalg.leading_right_vectors(matrix, int(share * 300)).vectors.dtype == torch.float32


def test_a_near_tie_at_the_cut_takes_the_exact_route():
    values = torch.where(torch.arange(300) < 30, 2.0, 1.0).double()
    values[30] = 2 - 1e-5
    sides = (
        torch.randn(300, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (1, 2)
    )
    left, right = (torch.linalg.qr(side).Q for side in sides)
    matrix = ((left * values) @ right.T).float()
    assert linalg.leading_right_vectors(matrix, 30).vectors.dtype == torch.float64
    assert linalg.leading_right_vectors(matrix, 31).vectors.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("size", "rank"), [(1, 1), (5, 0), (5, 1), (90, 20), (90, 31), (90, 60), (90, 90)])
def test_leading_eigen_is_the_end_of_the_full_decomposition(size, rank, dtype):
    half = torch.randn(size, size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    symmetric = (half + half.T).to(dtype)
    before = symmetric.clone()
    values, vectors = linalg.leading_eigen(symmetric, rank)
    assert torch.equal(symmetric, before)
    assert values.dtype == vectors.dtype == dtype
    assert vectors.shape == (size, rank)
    tolerance = 1e-3 if dtype == torch.float32 else 1e-10
    assert torch.allclose(values, torch.linalg.eigvalsh(symmetric).flip(0)[:rank], atol=tolerance)
    assert torch.allclose(symmetric @ vectors, vectors * values, atol=tolerance)
    assert torch.allclose(vectors.T @ vectors, torch.eye(rank, dtype=dtype), atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_lapacks_address_scipys_function_serves(monkeypatch, dtype):
    symmetric = linalg.side_gram(with_spectrum("slow", (90, 40)), dtype)
    values, vectors = linalg.leading_eigen(symmetric, 4)
    linalg._syevr.cache_clear()
    monkeypatch.setattr(linalg, "cython_lapack", object())
    try:
        other_values, other_vectors = linalg.leading_eigen(symmetric, 4)
    finally:
        linalg._syevr.cache_clear()
    assert torch.equal(values, other_values)
    assert torch.equal(vectors, other_vectors)


def test_a_failure_of_lapack_falls_back(monkeypatch):
    symmetric = linalg.side_gram(with_spectrum("slow", (90, 40)))
    expected = linalg.leading_eigen(symmetric, 4)[0]
    monkeypatch.setattr(linalg, "_by_address", lambda *arguments: None)
    assert torch.allclose(linalg.leading_eigen(symmetric, 4)[0], expected)


def test_grams_do_not_depend_on_rows_at_once(monkeypatch):
    matrix = with_spectrum("slow", (90, 40))
    whole = linalg.column_gram(matrix)
    monkeypatch.setattr(linalg, "ROWS", 7)
    assert torch.allclose(linalg.column_gram(matrix), whole, atol=1e-14)
    assert torch.allclose(linalg.column_gram(matrix.T), matrix.double() @ matrix.double().T, atol=1e-14)
    assert torch.allclose(linalg.side_gram(matrix.T), whole, atol=1e-14)


@pytest.mark.parametrize("shape", [(30, 30), (50, 30), (30, 50), (1, 7), (7, 1)])
def test_polar_factor_is_that_of_the_svd(shape):
    matrix = with_spectrum("slow", shape)
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    factor, found = linalg.polar(matrix)
    assert torch.allclose(factor, left @ right, atol=1e-9)
    assert torch.allclose(found, values, atol=1e-9)


@given(rank=st.integers(0, 12), seed=st.integers(0, 99), wide=st.booleans())
@settings(max_examples=20, deadline=None)
def test_polar_factor_leaves_out_what_is_zero(rank, seed, wide):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(20, rank, generator=generator) @ torch.randn(rank, 12, generator=generator)
    matrix = matrix.T if wide else matrix
    factor, values = linalg.polar(matrix)
    left, _, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    assert torch.allclose(factor, left[:, :rank] @ right[:rank], atol=1e-5)
    assert (values > 0).sum() == rank


@pytest.mark.parametrize("shape", [(50, 30), (30, 50), (30, 30)])
def test_leading_triplets(shape):
    matrix = with_spectrum("rank-deficient", shape)
    left, values, right = linalg.leading_triplets(matrix, 25)
    assert left.shape == (shape[0], 20)
    assert right.shape == (shape[1], 20)
    assert torch.allclose((left * values) @ right.T, matrix.double(), atol=1e-6)
    for side in (left, right):
        assert torch.allclose(side.T @ side, torch.eye(20, dtype=torch.float64), atol=1e-9)
