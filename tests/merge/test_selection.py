import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r2m.merge import selection
from r2m.merge import stream as stream_module
from r2m.merge.stream import MemorySource, TensorStream

HARD = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1e-38, 3.4e38, -3.4e38, float("inf"), float("-inf"), 2.0**-126]


def stream(rows, cuts=(), threads=1):
    """Blocks over rows (K, P), cut into tensors."""
    parts = torch.tensor_split(rows, cuts, dim=1)
    task_vectors = {
        f"s{k}": {f"t{index:03d}": part[k] for index, part in enumerate(parts)} for k in range(len(rows))
    }
    return TensorStream(MemorySource(task_vectors), threads)


def values_of(block):
    return block.task_vectors()


def check(rows, ranks, grain="elements", threads=1, cuts=(3,)):
    found = selection.kth_values(stream(rows, cuts, threads), values_of, ranks, grain)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), np.sort(rows.numpy(), axis=1)[:, ranks])


@pytest.mark.parametrize("grain", ["elements", "tensor"])
@pytest.mark.parametrize("count", [1, 3, 40])
def test_every_rank(grain, count):
    rows = torch.randn(count, 11, generator=torch.Generator().manual_seed(count))
    check(rows, list(range(11)), grain)


@settings(deadline=None, max_examples=40)
@given(
    numbers=st.lists(
        st.sampled_from([v for v in HARD if abs(v) < 1e39])
        | st.floats(width=32, allow_nan=False, allow_infinity=False),
        min_size=4,
        max_size=60,
    ),
    share=st.floats(0, 1, exclude_max=True),
)
def test_any_numbers(numbers, share):
    row = torch.tensor([numbers])
    rank = int(share * len(numbers))
    check(row, [rank, rank], cuts=(2,))
    expected = sorted(row[0].tolist())[rank]
    assert selection.kth_of(row[0], [rank]) == [expected]


def test_one_tensor_with_infinite_numbers():
    values = torch.tensor(HARD)
    assert selection.kth_of(values, list(range(len(HARD)))) == sorted(values.tolist())


@pytest.mark.parametrize("misled", [False, True])
def test_one_tensor_of_many_numbers(misled, monkeypatch):
    values = torch.randn(300, 256, generator=torch.Generator().manual_seed(3))
    values[:, 7] *= 1000
    values[100:150] = 0
    values = values.reshape(-1)
    if misled:
        monkeypatch.setattr(selection, "_interval", lambda row, starts, share: (10, 20))
    ranks = [0, 5, 30_000, 38_400, 70_000, 76_795, 76_799]
    assert selection.kth_of(values, ranks) == values.sort().values[ranks].tolist()


@pytest.mark.parametrize("threads", [1, 2])
def test_many_numbers_of_unlike_tensors(threads, monkeypatch):
    monkeypatch.setattr(stream_module, "PIECE_ENTRIES", 2**14)
    monkeypatch.setattr(stream_module, "LEAST_PIECE", 2**12)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 200_000, generator=generator) * torch.rand(
        200_000, generator=generator
    ).repeat_interleave(1)
    rows[:, 50_000:90_000] *= 100
    rows[1, 120_000:] = 0
    ranks = [0, 20, 40_000, 100_000, 160_000, 199_980, 199_999]
    check(rows, ranks, threads=threads, cuts=(7, 50_000, 90_000, 90_001))


@pytest.mark.parametrize("values", [[5.0] * 999 + [7.0], [0.0] * 1000, [1.0] * 500 + [-1.0] * 500])
def test_repeated_numbers(values):
    row = torch.tensor([values])
    check(row, [0, 499, 500, 998, 999])


def test_a_sample_that_misleads_costs_passes_only(monkeypatch):
    rows = torch.randn(2, 5000, generator=torch.Generator().manual_seed(2))
    monkeypatch.setattr(selection, "_interval", lambda row, starts, share: (10, 20))
    check(rows, [0, 2500, 4999])


def test_one_pass_where_the_sample_is_good():
    class Counting:
        passes = -1  # The sample's own pass does not count.

        def begin(self, label, tensors, entries):
            self.passes += 1

        def advance(self, entries):
            pass

        def end(self):
            pass

    progress = Counting()
    row = torch.randn(1, 2**21, generator=torch.Generator().manual_seed(1)).abs()
    blocks = TensorStream(MemorySource({"s0": {"w": row[0]}}), progress=progress)
    found = selection.kth_values(blocks, values_of, [int(0.8 * 2**21)])
    assert found.item() == torch.kthvalue(row[0], int(0.8 * 2**21) + 1).values.item()
    assert progress.passes == 1


def test_chosen_tensors_only():
    rows = torch.arange(10.0).reshape(1, 10)
    blocks = stream(rows, cuts=(4, 8))
    assert selection.kth_values(blocks, values_of, [0, 1], keys=["t001"]).tolist() == [[4.0, 5.0]]


@pytest.mark.parametrize("grain", ["elements", "tensor"])
def test_a_rank_beyond_the_numbers(grain):
    with pytest.raises(ValueError, match="rank 4 of 4 numbers"):
        selection.kth_values(stream(torch.ones(1, 4), cuts=(2,)), values_of, [4], grain)
