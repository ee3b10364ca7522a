"""The stream of a merge: tensors, or flat pieces of them, of the base and of all specialists."""

import ctypes
import importlib
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from math import prod
from typing import Any, Protocol, TypeVar

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from r2m.errors import R2MError
from r2m.merge.kinds import Grain, Kind, first_names, is_running_statistic, kind
from r2m.merge.tensors import TaskVectors, Tensors, check, merged_shapes

# A piece of base and specialists together stays in the processor's cache: 2²⁰ float32 are 4 MB.
PIECE_ENTRIES = 2**20
PIECE_STEP = 2**12
# On shorter pieces calls take longer than what they compute: TIES of 40 took 1.7 times as long.
LEAST_PIECE = 2**16

# After a tensor of so many entries, freed memory goes back to the system.
LARGE = 2**18

Result = TypeVar("Result")


class Source(Protocol):
    """Where pieces come from: flat entries [start, stop) of named tensors, in float32 on one device.

    `shapes` are those of all tensors of the model that are merged; `unchanged` names the ones that are known
    to equal the base in every specialist, so that they count without being read.
    """

    names: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    unchanged: frozenset[str]

    def base(self, key: str, start: int, stop: int) -> Tensor:
        """Return entries of θ₀, (n,)."""

    def task_vector(self, index: int, key: str, start: int, stop: int) -> Tensor:
        """Return entries of one τ_k, (n,), in memory of its own."""

    def task_vectors(self, key: str, start: int, stop: int) -> Tensor:
        """Return entries of all τ_k, (K, n); valid until the same thread asks again."""

    def statistic(self, index: int, key: str, start: int, stop: int) -> Tensor | None:
        """Return what a specialist's statistics hold under `key`, None if nothing.

        Of a tensor of the same shape the entries, (n,), of another the whole.
        """

    def first_name(self, key: str) -> str:
        """Return the first name of a tensor that is the same in all models under several names."""

    def scratch(self) -> MutableMapping[str, Tensor]:
        """Return an empty place for intermediate tensors of the device, on disk where the source is."""


@dataclass(frozen=True)
class Piece:
    """One tensor of all specialists, or a flat part [start, stop) of it, read when it is asked for."""

    source: Source
    key: str
    start: int
    stop: int

    @property
    def names(self) -> tuple[str, ...]:
        """The specialists, in the order of their index."""
        return self.source.names

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """Shape of the tensor that this is a piece of."""
        return self.source.shapes[self.key]

    @property
    def is_whole(self) -> bool:
        """Whether this is a whole tensor."""
        return self.stop - self.start == prod(self.tensor_shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of this piece: the tensor's, or (n,) for a part of it."""
        return self.tensor_shape if self.is_whole else (self.stop - self.start,)

    @property
    def kind(self) -> Kind:
        """Kind of the tensor."""
        return kind(self.key, self.tensor_shape)

    @property
    def first_name(self) -> str:
        """Name of the tensor, or the first one of those that are tied to it."""
        return self.source.first_name(self.key)

    def base(self) -> Tensor:
        """Return θ₀ in float32, of this piece's shape."""
        return self.source.base(self.key, self.start, self.stop).reshape(self.shape)

    def task_vector(self, index: int) -> Tensor:
        """Return τ of one specialist in float32, of this piece's shape; the caller may change it."""
        return self.source.task_vector(index, self.key, self.start, self.stop).reshape(self.shape)

    def each_task_vector(self) -> Iterator[Tensor]:
        """Yield τ of one specialist after the other, so that memory does not grow with their number."""
        return (self.task_vector(index) for index in range(len(self.names)))

    def task_vectors(self) -> Tensor:
        """Return all τ in float32, (K, *shape), not to be changed and valid until this thread asks again."""
        stacked = self.source.task_vectors(self.key, self.start, self.stop)
        return stacked.reshape(len(self.names), *self.shape)

    def weighted_sum(self, weight: float) -> Tensor:
        """Return weight · Σ τ_k, of this piece's shape, from all τ at once."""
        stacked = self.source.task_vectors(self.key, self.start, self.stop)
        return (torch.full((len(stacked),), weight, device=stacked.device) @ stacked).reshape(self.shape)

    def total(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return Σ τ_k in `dtype`, of this piece's shape, from one τ at a time."""
        total = self.task_vector(0).to(dtype)
        for index in range(1, len(self.names)):
            total += self.task_vector(index)
        return total

    def mean(self) -> Tensor:
        """Return the mean τ, of this piece's shape."""
        return self.total() / len(self.names)

    def statistic(self, index: int) -> Tensor | None:
        """Return one specialist's statistics, None if absent: this piece's part, or all of another shape."""
        values = self.source.statistic(index, self.key, self.start, self.stop)
        return values.reshape(self.shape) if values is not None and values.ndim == 1 else values


class Progress(Protocol):
    """Is told how a pass over the tensors proceeds."""

    def begin(self, label: str, tensors: int, entries: int) -> None:
        """A pass over so many tensors of so many entries begins."""

    def advance(self, entries: int) -> None:
        """One more tensor, of so many entries, is done."""

    def end(self) -> None:
        """The pass is over."""


class TensorStream:
    """All tensors of a merge, streamed through functions by several threads.

    Every thread computes with one BLAS thread and results come in the order of the tensors, so that they do
    not depend on `threads`. `keys`, by default those of all tensors, limits them to some. Tensors that the
    source calls unchanged are set apart as `unchanged`: shares of the model's entries refer to them as well,
    but they are not streamed. `grams` are inner products of the task vectors (K, K) per tensor, where they
    are known.
    """

    def __init__(
        self,
        source: Source,
        threads: int = 1,
        progress: Progress | None = None,
        keys: Iterable[str] | None = None,
    ) -> None:
        self.source = source
        self.names = source.names
        chosen = tuple(source.shapes if keys is None else keys)
        self.unchanged = tuple(key for key in chosen if key in source.unchanged)
        self.keys = tuple(key for key in chosen if key not in source.unchanged)
        self.grams: Mapping[str, Tensor] | None = None
        self._threads = threads
        self._progress = progress

    def of(self, source: Source) -> "TensorStream":
        """Return the tensors of another source, streamed in the same way."""
        return TensorStream(source, self._threads, self._progress)

    def only(self, keys: Iterable[str]) -> "TensorStream":
        """Return some of the tensors, streamed in the same way."""
        return TensorStream(self.source, self._threads, self._progress, keys)

    def size(self, key: str) -> int:
        """Return the number of entries of a tensor."""
        return prod(self.source.shapes[key])

    @property
    def total_size(self) -> int:
        """Number of entries P of all tensors together, unchanged ones included."""
        return sum(map(self.size, self.keys)) + self.unchanged_size

    @property
    def unchanged_size(self) -> int:
        """Number of entries of the unchanged tensors, which are zero in every task vector."""
        return sum(map(self.size, self.unchanged))

    def whole(self, key: str) -> Piece:
        """Return a tensor as one piece."""
        return Piece(self.source, key, 0, self.size(key))

    def pieces(self, key: str) -> list[Piece]:
        """Return a tensor as flat pieces, the fewer entries the more specialists there are."""
        length = max(LEAST_PIECE, PIECE_ENTRIES // (len(self.names) + 1) // PIECE_STEP * PIECE_STEP)
        size = self.size(key)
        return [Piece(self.source, key, i, min(i + length, size)) for i in range(0, size, length)]

    def map(
        self,
        function: Callable[[Piece], Result],
        grain: Grain = "tensor",
        keys: Iterable[str] | None = None,
        label: str = "reading",
    ) -> Iterator[tuple[str, list[Result]]]:
        """Yield every tensor's name and what `function` returned for its pieces.

        With grain `elements` a tensor may be cut into pieces, which one thread takes in order; else it is one
        piece. Results wait until they are taken, so `function` should return little, or write.
        """
        chosen = self.keys if keys is None else tuple(keys)

        def work(key: str) -> list[Result]:
            pieces = self.pieces(key) if grain == "elements" else [self.whole(key)]
            results = [function(piece) for piece in pieces]
            if self.size(key) >= LARGE:
                give_back()
            return results

        if grain == "tensor":
            # The limit of one thread a worker holds for those BLAS libraries only that are loaded by then.
            importlib.import_module("scipy.linalg")
        if self._progress is not None:
            self._progress.begin(label, len(chosen), sum(map(self.size, chosen)))
        for key, results in zip(chosen, in_order(work, chosen, self._threads), strict=True):
            if self._progress is not None:
                self._progress.advance(self.size(key))
            yield key, results
        if self._progress is not None:
            self._progress.end()

    def scratch(self) -> MutableMapping[str, Tensor]:
        """Return an empty place for tensors that wait from one pass to the next."""
        return self.source.scratch()


class MemorySource:
    """Task vectors in memory; a tensor that one lacks did not change in that specialist.

    The model's tensors are those in `shapes`, by default the ones of `base` that take part in a merge, and
    without a base those of the task vectors.

    Raises:
        R2MError: task vectors that do not fit together or into the model, or are not finite.
    """

    def __init__(
        self,
        task_vectors: TaskVectors,
        base: Tensors | None = None,
        statistics: TaskVectors | None = None,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        zeros = check(task_vectors)
        changed = {key: tuple(zero.shape) for key, zero in zeros.items()}
        if shapes is None:
            shapes = changed if base is None else merged_shapes(base)
        for key, shape in changed.items():
            if shapes.get(key) != shape:
                raise R2MError(f"{key}: shape {shape} in the task vectors, but {shapes.get(key)} in the base")
        self.names = tuple(task_vectors)
        self.shapes: Mapping[str, tuple[int, ...]] = dict(sorted(shapes.items()))
        self.unchanged = frozenset(shapes.keys() - changed.keys())
        self._task_vectors = task_vectors
        self._base = base
        self._statistics = statistics

    def base(self, key: str, start: int, stop: int) -> Tensor:
        """Return entries of θ₀; raises R2MError where no base was given."""
        if self._base is None:
            raise R2MError("this merging method needs the base weights beside the task vectors")
        return self._base[key].reshape(-1)[start:stop].float()

    def task_vector(self, index: int, key: str, start: int, stop: int) -> Tensor:
        """Return entries of one τ_k."""
        change = self._task_vectors[self.names[index]].get(key)
        if change is None:
            return torch.zeros(stop - start)
        return change.reshape(-1)[start:stop].float().clone()

    def task_vectors(self, key: str, start: int, stop: int) -> Tensor:
        """Return entries of all τ_k."""
        return torch.stack([self.task_vector(index, key, start, stop) for index in range(len(self.names))])

    def statistic(self, index: int, key: str, start: int, stop: int) -> Tensor | None:
        """Return a specialist's statistics of one tensor."""
        values = None if self._statistics is None else self._statistics[self.names[index]].get(key)
        if values is not None and values.shape == self.shapes[key]:
            return values.reshape(-1)[start:stop].float()
        return values

    def first_name(self, key: str) -> str:
        """Return the first name of tensors with the same changes in every specialist."""
        return self._first_names[key]

    @cached_property
    def _first_names(self) -> dict[str, str]:
        keys = [key for key in self.shapes if key not in self.unchanged]
        return first_names(self.shapes, keys, self._are_equal)

    def _are_equal(self, key: str, other_key: str) -> bool:
        for changes in self._task_vectors.values():
            left, right = changes.get(key), changes.get(other_key)
            if left is None or right is None:
                if left is not right:
                    return False
            elif not torch.equal(left, right):
                return False
        return True

    def scratch(self) -> MutableMapping[str, Tensor]:
        """Return a dict."""
        return {}


def in_order(work: Callable[[Any], Result], items: Iterable[Any], threads: int) -> Iterator[Result]:
    """Yield work(item) in order, computed by `threads` threads a few items ahead."""
    with threadpool_limits(1):
        if threads == 1:
            yield from map(work, items)
            return
        pending: deque[Future[Result]] = deque()
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                for item in items:
                    pending.append(pool.submit(work, item))
                    if len(pending) > 2 * threads:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()


def give_back() -> None:
    """Give freed memory back to the system.

    glibc would keep it, in a heap for every thread that grows with what does not fit its holes.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    return ctypes.CDLL(None).malloc_trim if platform.libc_ver()[0] == "glibc" else None


def trained(stream: TensorStream) -> TensorStream:
    """Return the stream that a method merges: all but running statistics."""
    kept = [key for key in (*stream.keys, *stream.unchanged) if not is_running_statistic(key)]
    return stream.only(sorted(kept))


def averages(stream: TensorStream) -> dict[str, Tensor]:
    """Return the mean τ of the running statistics; measured rather than trained, every method averages them.

    A variance that is extrapolated like a weight may fall below zero. The mean is taken in float64, so that
    θ₀ and it do not.
    """
    return {key: average(stream.whole(key)) for key in stream.keys if is_running_statistic(key)}


def average(piece: Piece) -> Tensor:
    """Return the mean τ of a piece, taken in float64, in float32."""
    total = sum(task_vector.double() for task_vector in piece.each_task_vector())
    return (torch.as_tensor(total) / len(piece.names)).float()


def require_any(stream: TensorStream, method: str) -> None:
    """Raise R2MError if no specialist has statistics of any tensor."""
    specialists = range(len(stream.names))
    if not any(
        stream.whole(key).statistic(index) is not None
        for key in stream.source.shapes
        for index in specialists
    ):
        raise R2MError(f"{method}: no specialist has statistics; give them by --statistics NAME=FILE")


def statistics(piece: Piece, shape: tuple[int, ...]) -> Iterator[Tensor] | None:
    """Return every specialist's statistics of a piece in turn, in float64; None if nobody has any.

    Raises:
        R2MError: only some specialists have them, or they are not finite, or not of the `shape` expected.
    """
    first = piece.statistic(0)
    if first is None:
        for index in range(1, len(piece.names)):
            if piece.statistic(index) is not None:
                raise _missing(piece, 0)
        return None
    return _each_statistic(piece, shape, first)


def _each_statistic(piece: Piece, shape: tuple[int, ...], first: Tensor) -> Iterator[Tensor]:
    for index, name in enumerate(piece.names):
        statistic = piece.statistic(index) if index else first
        if statistic is None:
            raise _missing(piece, index)
        if statistic.shape != shape:
            actual = tuple(statistic.shape)
            raise R2MError(f"{piece.key}: statistics of {name!r}: expected shape {shape}, got {actual}")
        if not statistic.isfinite().all():
            raise R2MError(f"{piece.key}: statistics of {name!r} hold NaN or infinite values")
        yield statistic.double()


def _missing(piece: Piece, index: int) -> R2MError:
    return R2MError(f"{piece.key}: missing in the statistics of {piece.names[index]!r}, but others have it")
