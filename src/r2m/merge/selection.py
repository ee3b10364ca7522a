"""Exact order statistics of numbers that stream by: the k-th value by counting, not by sorting.

The bits of a float32 are mapped to an integer key of the same order. A pass over the data counts the keys in
bins of an interval that holds the one sought; the bin of its rank is the next interval, until it is one key.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from r2m.merge.kinds import Grain
from r2m.merge.stream import Piece, TensorStream

# Keys of -inf and of what lies behind +inf.
LEAST, END = -0x7F800001, 0x7F800001

# All counts of a pass together: 2²² int64 are 32 MB, however many specialists there are.
ALL_BINS_BITS, MOST_BINS_BITS, LEAST_BINS_BITS = 22, 19, 16

# A sample in many short runs, since neighbours resemble each other; 2²³ float32 are 32 MB.
RUNS, MOST_RUN, ALL_RUNS = 2**10, 2**9, 2**13

# A margin of so many standard errors is missed once in 16 000 times, which costs a pass but not exactness.
STANDARD_ERRORS = 4.0


class _Search:
    """One order statistic, of 0-based `rank`: its key is sought in [low, high), in bins of 2^shift keys."""

    def __init__(self, rank: int, bits: int, low: int = LEAST, high: int = END) -> None:
        self.rank = rank
        self._bits = bits
        self._aim(low, high)

    def _aim(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self.shift = max(0, (high - low - 1).bit_length() - self._bits)
        self.below = 0
        self.counts = np.zeros(((high - low - 1) >> self.shift) + 1, np.int64)

    @property
    def is_settled(self) -> bool:
        """Whether one key is left."""
        return self.high - self.low == 1

    def count(self, keys: NDArray[np.int32], lock: Lock) -> None:
        """Count more `keys` (n,)."""
        below = int(np.count_nonzero(keys < self.low))
        bins = keys[(keys >= self.low) & (keys < self.high)].astype(np.int64)
        bins -= self.low
        bins >>= self.shift
        with lock:
            self.below += below
            np.add.at(self.counts, bins, 1)

    def count_zeros(self, number: int) -> None:
        """Count so many numbers that are zero, whose key is 0."""
        if self.low > 0:
            self.below += number
        elif self.high > 0:
            self.counts[-self.low >> self.shift] += number

    def narrow(self) -> None:
        """Go on in the bin that holds the rank, or beside the interval if that was guessed wrongly."""
        offset = self.rank - self.below
        cumulated = self.counts.cumsum()
        if 0 <= offset < cumulated[-1]:
            low = self.low + (int(np.searchsorted(cumulated, offset, side="right")) << self.shift)
            self._aim(low, min(low + (1 << self.shift), self.high))
        elif (self.low, self.high) == (LEAST, END):
            raise ValueError(f"rank {self.rank} of {cumulated[-1]} numbers")
        elif offset < 0:
            self._aim(LEAST, self.low)
        else:
            self._aim(self.high, END)


def kth_of(values: Tensor, ranks: Sequence[int]) -> list[float]:
    """Return the values of 0-based `ranks`, ascending, among `values` (n,) in float32.

    Only the numbers where a sample expects a rank are sorted, which is several times faster than all.
    """
    numbers = values.cpu().numpy()
    keys = _keys(numbers)
    # An odd step does not stay in a few columns of a matrix.
    sample = numbers[:: len(keys) // 2**14 | 1]
    results = []
    for rank in ranks:
        low, high = _interval(sample, np.arange(len(sample)), rank / len(keys))
        inside = keys[(keys >= low) & (keys < high)]
        offset = rank - int(np.count_nonzero(keys < low))
        if not 0 <= offset < len(inside):
            inside, offset = keys, rank
        results.append(_value(int(np.partition(inside, offset)[offset])))
    return results


def kth_values(
    stream: TensorStream,
    values: Callable[[Piece], Tensor],
    ranks: Sequence[int],
    grain: Grain = "elements",
    keys: Iterable[str] | None = None,
    label: str = "ranking",
) -> Tensor:
    """Return the values (K, R) of 0-based `ranks`, ascending, in each of K rows of numbers over all tensors.

    `values(piece)` gives float32 numbers (K, …) of a piece, zeros where no task vector changes anything: so
    unchanged tensors count without being read. `keys` limits the numbers to some tensors. If `values` works
    entry by entry (`grain` `elements`), the first intervals come from a sample, and one pass over the data is
    enough but for ranks in the far tails, which take two, as all do with grain `tensor`.

    Raises:
        ValueError: a rank of more numbers than there are.
    """
    if keys is not None:
        stream = stream.only(keys)
    count = len(stream.names)
    fitting = ALL_BINS_BITS - (count * len(ranks) - 1).bit_length()
    bits = min(MOST_BINS_BITS, max(LEAST_BINS_BITS, fitting))
    if grain == "elements":
        searches = _guess(stream, values, ranks, label, bits)
    else:
        searches = [[_Search(rank, bits) for rank in ranks] for _ in range(count)]
    lock = Lock()

    def tally(piece: Piece) -> None:
        for row, row_searches in zip(values(piece).reshape(count, -1), searches, strict=True):
            numbers = _keys(row.cpu().numpy())
            for search in row_searches:
                if not search.is_settled:
                    search.count(numbers, lock)

    while not all(search.is_settled for search in itertools.chain.from_iterable(searches)):
        for _ in stream.map(tally, grain, label=label):
            pass
        for search in itertools.chain.from_iterable(searches):
            if not search.is_settled:
                search.count_zeros(stream.unchanged_size)
                search.narrow()
    return torch.tensor([[_value(search.low) for search in row_searches] for row_searches in searches])


def _guess(
    stream: TensorStream, values: Callable[[Piece], Tensor], ranks: Sequence[int], label: str, bits: int
) -> list[list[_Search]]:
    """Return searches in the intervals where a sample of every row expects the ranks."""
    keys = (*stream.keys, *stream.unchanged)
    count, total = len(stream.names), stream.total_size
    length = max(1, min(MOST_RUN, ALL_RUNS // count))
    gap = max(length, total // RUNS)
    offsets = dict(zip(keys, np.cumsum([0, *map(stream.size, keys)]).tolist(), strict=False))

    def runs(piece: Piece) -> list[NDArray[np.float32]]:
        starts = range(-offsets[piece.key] % gap, piece.stop, gap)
        run_pieces = (replace(piece, start=start, stop=min(start + length, piece.stop)) for start in starts)
        return [values(run).reshape(count, -1).cpu().numpy().copy() for run in run_pieces]

    sample = [run for _, (piece_runs,) in stream.map(runs, "tensor", keys, label) for run in piece_runs]
    starts = np.cumsum([0, *(run.shape[1] for run in sample[:-1])])
    rows = np.concatenate(sample, axis=1)
    return [[_Search(rank, bits, *_interval(row, starts, rank / total)) for rank in ranks] for row in rows]


def _interval(row: NDArray[np.float32], starts: NDArray[np.int64], share: float) -> tuple[int, int]:
    """Return the keys [low, high) where a sample (m,), in runs from `starts`, expects the quantile `share`.

    The standard error is that of a cluster sample: from how far the runs differ from each other.
    """
    ordered = np.sort(row)
    size = len(row)
    excess = np.add.reduceat((row < ordered[min(int(share * size), size - 1)]) - share, starts)
    margin = STANDARD_ERRORS * np.sqrt(np.square(excess).sum()) + 1
    first, last = int(share * size - margin), int(share * size + margin)
    keys = _keys(ordered[[max(first, 0), min(last, size - 1)]])
    return int(keys[0]) if first >= 0 else LEAST, int(keys[1]) + 1 if last < size else END


def _keys(values: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return integers of the same order as float32 `values`: negative numbers have their bits turned over."""
    bits = values.view(np.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _value(key: int) -> float:
    """Return the number of a key."""
    bits = np.array([key], np.int32)
    return float((bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)[0])
