import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r2m.merge import linalg
from r2m.merge.linalg import LowRank
from r2m.merge.options import RankOptions


def decompose(matrix, rank=None):
    return linalg.decompose(matrix, [rank])[rank]


def dense(kept):
    return kept.dense() if isinstance(kept, LowRank) else kept


def with_spectrum(values, shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = min(shape)
    left = torch.linalg.qr(torch.randn(shape[0], size, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(shape[1], size, generator=generator, dtype=torch.float64)).Q
    return ((left * torch.tensor(values, dtype=torch.float64)) @ right.T).float()


def exact_truncation(matrix, rank):
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


SPECTRA = {
    "flat": [1.0 - 0.001 * i for i in range(40)],
    "steep": [10.0 ** (-i / 2) for i in range(40)],
    "gap": [1.0] * 5 + [1e-3] * 35,
    "low rank": [float(5 - i) if i < 5 else 0.0 for i in range(40)],
    "tiny": [1e-12 * 0.9**i for i in range(40)],
    "zero": [0.0] * 40,
}


@pytest.mark.parametrize("shape", [(40, 40), (90, 40), (40, 90)])
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("rank", [1, 5, 20, 39, 40])
@pytest.mark.parametrize("decomposed_to", [None, "rank"])
def test_truncation_is_exact(spectrum, shape, rank, decomposed_to):
    matrix = with_spectrum(SPECTRA[spectrum], shape)
    kept = linalg.truncate(matrix, decompose(matrix, rank if decomposed_to else None).vectors, rank)
    exact = exact_truncation(matrix, rank)
    best = torch.linalg.norm(matrix.double() - exact)
    error = torch.linalg.norm(dense(kept).double() - matrix.double())
    scale = torch.linalg.norm(matrix.double()).item()
    # Where singular values tie, the best approximation is not unique: its error is.
    assert abs(error - best) <= 1e-5 * scale
    if spectrum in ("steep", "low rank", "tiny"):
        assert torch.linalg.norm(dense(kept).double() - exact) <= 1e-5 * scale


def test_truncation_of_a_large_matrix_is_exact():
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(400, 300, generator=generator) @ torch.randn(300, 300, generator=generator) * 1e-4
    for one in (matrix, matrix.T):
        for decomposition in (decompose(one), decompose(one, 20), decompose(one, 30)):
            kept = linalg.truncate(one, decomposition.vectors, 20)
            exact = exact_truncation(one, 20)
            assert torch.linalg.norm(dense(kept) - exact) <= 1e-5 * torch.linalg.norm(exact)


@pytest.mark.parametrize("shape", [(40, 40), (90, 40), (40, 90)])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_singular_values(spectrum, shape):
    matrix = with_spectrum(SPECTRA[spectrum], shape)
    exact = torch.linalg.svdvals(matrix.double())
    for values in (linalg.singular_values(matrix), decompose(matrix).values):
        assert values.shape == (40,)
        assert (values.diff() <= 0).all()
        assert torch.allclose(values, exact, rtol=1e-6, atol=1e-6 * exact[0].item())


def test_factors_only_where_they_are_smaller():
    matrix = with_spectrum(SPECTRA["steep"], (90, 40))
    vectors = decompose(matrix).vectors
    small, large = linalg.truncate(matrix, vectors, 27), linalg.truncate(matrix, vectors, 28)
    assert isinstance(small, LowRank)
    assert small.left.shape == (90, 27)
    assert small.right.shape == (40, 27)
    assert isinstance(large, torch.Tensor)


def test_full_rank_is_the_matrix_itself():
    matrix = with_spectrum(SPECTRA["steep"], (40, 90))
    assert linalg.truncate(matrix, decompose(matrix).vectors, 40) is matrix


def test_rank_zero_is_zero():
    matrix = with_spectrum(SPECTRA["steep"], (40, 90))
    assert not dense(linalg.truncate(matrix, decompose(matrix).vectors, 0)).any()


def test_a_leading_part_truncates_alike():
    matrix = with_spectrum(SPECTRA["gap"], (90, 40))
    whole = decompose(matrix).vectors
    assert torch.equal(linalg.truncate(matrix, whole, 4).left, linalg.truncate(matrix, whole[:, :10], 4).left)


def test_ratio_rounds_and_keeps_one():
    values = torch.ones(40, dtype=torch.float64)
    assert linalg.choose_rank(values, (40, 90), RankOptions(ratio=0.1)) == 4
    assert linalg.choose_rank(values, (40, 90), RankOptions(ratio=0.001)) == 1
    assert linalg.choose_rank(values, (40, 90), RankOptions(ratio=1)) == 40
    assert linalg.choose_rank(values, (768, 768), RankOptions(ratio=0.1)) == 77


def test_rank_by_shape():
    assert linalg.rank_by_shape((40, 90), RankOptions(ratio=0.1)) == 4
    assert linalg.rank_by_shape((40, 90), RankOptions(fixed=100)) == 40
    assert linalg.rank_by_shape((40, 90), RankOptions(energy=0.5)) is None
    assert linalg.rank_by_shape((40, 90), RankOptions(optimal_threshold=True)) is None


def test_fixed_is_capped():
    values = torch.ones(40, dtype=torch.float64)
    assert linalg.choose_rank(values, (40, 90), RankOptions(fixed=7)) == 7
    assert linalg.choose_rank(values, (40, 90), RankOptions(fixed=100)) == 40


@given(
    st.lists(st.floats(0, 1e3).map(lambda x: round(x, 6)), min_size=1, max_size=30),
    st.floats(0.01, 1),
)
@settings(deadline=None, max_examples=60)
def test_energy_is_the_least_rank(values, share):
    values = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    rank = linalg.choose_rank(values, (len(values), 99), RankOptions(energy=share))
    squares = values.square()
    total = squares.sum()
    if total == 0:
        assert rank == 0
    else:
        assert squares[:rank].sum() >= share * total * (1 - 1e-9)
        assert squares[: rank - 1].sum() < share * total * (1 + 1e-9)


def test_energy_one_keeps_the_numerical_rank():
    matrix = with_spectrum(SPECTRA["low rank"], (90, 40))
    values = decompose(matrix).values
    assert linalg.choose_rank(values, (90, 40), RankOptions(energy=0.999999)) == 5


@pytest.mark.parametrize(("beta", "published"), [(0.05, 1.5194), (0.5, 2.1711), (1.0, 2.8582)])
def test_optimal_coefficient_as_published(beta, published):
    assert linalg.optimal_coefficient(beta) == pytest.approx(published, abs=5e-4)


@pytest.mark.parametrize("beta", [0.1, 0.25, 0.7, 0.9])
def test_optimal_coefficient_near_the_published_cubic(beta):
    cubic = 0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43
    assert linalg.optimal_coefficient(beta) == pytest.approx(cubic, abs=0.03)


@pytest.mark.parametrize("shape", [(200, 200), (400, 150), (150, 400)])
def test_optimal_threshold_finds_the_signal(shape):
    generator = torch.Generator().manual_seed(3)
    noise = 0.1 * torch.randn(shape, generator=generator)
    top = 0.1 * (math.sqrt(shape[0]) + math.sqrt(shape[1]))
    signal = with_spectrum([3 * top] * 4 + [0.0] * (min(shape) - 4), shape)
    values = decompose(signal + noise).values
    assert linalg.choose_rank(values, shape, RankOptions(optimal_threshold=True)) == 4
    assert linalg.choose_rank(decompose(noise).values, shape, RankOptions(optimal_threshold=True)) == 0


def test_optimal_threshold_of_a_low_rank_matrix_keeps_its_rank():
    values = decompose(with_spectrum(SPECTRA["low rank"], (90, 40))).values
    kept = linalg.choose_rank(values, (90, 40), RankOptions(optimal_threshold=True))
    assert kept >= 5
