"""One merge of a stream of tensors: the method where it applies, its rule for other tensors elsewhere."""

import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from r2m.errors import R2MError
from r2m.merge.diagnostics import (
    NO_RESIDUAL,
    NO_UPDATE,
    Comparison,
    Survey,
    compare,
    is_finite,
    running_warning,
    survey,
    total,
)
from r2m.merge.gram import grams
from r2m.merge.gram import total as gram_total
from r2m.merge.kinds import is_running_statistic
from r2m.merge.method import Method
from r2m.merge.stream import MemorySource, Piece, Source, TensorStream, averages, trained
from r2m.merge.stream import average as averaged
from r2m.merge.tensors import TaskVectors, Tensors
from r2m.merge.weights import Weighted
from r2m.options import Section

logger = logging.getLogger(__name__)

Shapes = Mapping[str, tuple[int, ...]]


def updater(method: Method, stream: TensorStream, options: Any) -> tuple[Callable[[Piece], Tensor], Any]:
    """Return the function that gives a piece's update, and the state of the method's passes over the model.

    Raises:
        R2MError: too few or too many specialists for the method.
    """
    method.check_count(options, len(stream.names))
    state = method.prepare(stream, options) if method.prepare is not None else None

    def update(piece: Piece) -> Tensor:
        if method.others == "alike" or piece.kind in method.kinds:
            return method.merge(piece, options, state)
        if method.others == "base":
            return piece.mean().zero_()
        return piece.mean() * (options.scaling if method.others == "scaled_mean" else 1.0)

    return update, state


def merge(
    method: Method,
    task_vectors: TaskVectors,
    options: Section,
    *,
    base: Tensors | None = None,
    statistics: TaskVectors | None = None,
    shapes: Shapes | None = None,
    threads: int = 1,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Merge task vectors in memory; return the update, θ* = θ₀ + update, and the method's part of a report.

    `shapes` are those of all tensors of the model, to which shares and depths refer (default: those of `base`
    that take part in a merge). The update holds the tensors that some specialist changed; of others, `base`
    may lack the values. Specialists are taken in the order of their names, whatever that of the mapping.

    Raises:
        R2MError: task vectors of different shapes, not finite, or of a number that the method does not take;
            statistics of other specialists.
    """
    check_statistics(task_vectors, statistics)
    task_vectors = dict(sorted(task_vectors.items()))
    stream = TensorStream(MemorySource(task_vectors, base, statistics, shapes), threads)
    parameters = trained(stream)
    update, state = updater(method, parameters, options)
    result = {key: updates[0] for key, updates in parameters.map(update)} | averages(stream)
    return dict(sorted(result.items())), method.describe(state) if method.describe is not None else {}


def sweep(
    method: Method,
    task_vectors: TaskVectors,
    candidates: Sequence[Section],
    *,
    base: Tensors | None = None,
    statistics: TaskVectors | None = None,
    shapes: Shapes | None = None,
) -> Iterator[tuple[Section, dict[str, Tensor]]]:
    """Yield every candidate's options and update, in an order that suits the method.

    The updates equal those of `merge` up to rounding; the arguments are the same.
    """
    check_statistics(task_vectors, statistics)
    task_vectors = dict(sorted(task_vectors.items()))
    if method.sweep is not None:
        stream = TensorStream(MemorySource(task_vectors, base, statistics, shapes))
        running = averages(stream)
        for options, update in method.sweep(trained(stream), candidates):
            yield options, update | running
        return
    groups: dict[Section, list[Any]] = {}
    for options in candidates:
        shared = options.model_copy(update={"scaling": 1.0}) if method.is_proportional else options
        groups.setdefault(shared, []).append(options)
    for shared, alike in groups.items():
        update, _ = merge(method, task_vectors, shared, base=base, statistics=statistics, shapes=shapes)
        for options in alike:
            factor = options.scaling if method.is_proportional else 1.0
            yield options, update if factor == 1 else _scaled(update, factor)


def _scaled(update: Tensors, factor: float) -> dict[str, Tensor]:
    return {key: change if is_running_statistic(key) else factor * change for key, change in update.items()}


def check_statistics(specialists: Collection[str], statistics: TaskVectors | None) -> None:
    """Raise R2MError where there are statistics, but not those of every specialist."""
    if statistics is not None and set(statistics) != set(specialists):
        names = ", ".join(sorted(statistics)) or "none"
        raise R2MError(f"statistics: expected those of {', '.join(sorted(specialists))}, got {names}")


class Weights(Source, Protocol):
    """A source that knows the weights of base and specialists, and not only their differences.

    `unchanged` is set when it is known; `is_first_reading` while all pieces are read in order to find it.
    """

    is_first_reading: bool

    def original(self, key: str, start: int, stop: int) -> Tensor:
        """Return entries of θ₀ in the type that they are stored in, (n,)."""

    def average(self, key: str, start: int, stop: int) -> Tensor:
        """Return entries of the mean of the θ_k in float32, (n,), which may be NaN or infinite."""

    def are_equal(self, first: int, second: int, keys: Collection[str]) -> bool:
        """Tell whether two specialists have equal tensors `keys`; asked after the first reading."""

    def not_finite(self, key: str) -> R2MError:
        """Return the error that names who holds NaN or infinite values in a tensor."""


class Sink(Protocol):
    """Where merged tensors go."""

    def dtype(self, key: str) -> torch.dtype:
        """Return the type that a tensor is wanted in."""

    def write(self, key: str, start: int, tensor: Tensor) -> None:
        """Take entries from `start` on, (n,), in that type."""


@dataclass(frozen=True)
class Outcome:
    """What a merge of weights tells: the method's report, the specialists beside each other, ‖update‖.

    `nonfinite` are the tensors with NaN or infinite values among the inputs, `warnings` all that was logged.
    """

    described: dict[str, Any]
    comparison: Comparison
    update_norm: float
    nonfinite: list[str]
    warnings: list[str]


def merge_weights(
    method: Method,
    options: Any,
    stream: TensorStream,
    source: Weights,
    sink: Sink,
    *,
    inner: Callable[[TensorStream], dict[str, Tensor] | None] = lambda stream: None,
    permitting: str | None = None,
    factors: Mapping[str, float] | None = None,
) -> Outcome:
    """Merge the weights that `stream` has from `source`, tensor by tensor, into `sink`; log what looks wrong.

    Running statistics are averaged, whatever the method. `inner` gives the inner products of the task vectors
    that are known before. `permitting` ends the error about values that are not finite, and tells how
    to merge all the same; with None they are merged, and tensors that hold such values are averaged.
    `factors` of the specialists are those that the merge multiplies their task vectors by; what is told of
    the specialists is that of the task vectors themselves.

    Raises:
        R2MError: values that are not finite, among the inputs or in the result's type.
    """
    names, notes = source.names, list[str]()
    is_one_pass = method.grain == "elements" and method.prepare is None and permitting is not None
    surveys: dict[str, Survey] = {}

    def note(texts: Iterable[str]) -> None:
        for text in texts:
            logger.warning("%s", text)
            notes.append(text)

    def checked(key: str, parts: Sequence[Survey]) -> Survey:
        sums = total(parts, len(names))
        if not sums.is_finite and permitting is not None:
            raise source.not_finite(key)
        return sums

    def compared(finite: TensorStream) -> Comparison:
        sums = total([surveys[key] for key in (*finite.keys, *finite.unchanged)], len(names))
        result = compare(
            *(names, sums, lambda first, second: source.are_equal(first, second, finite.keys)),
            lambda: gram_total(grams(finite), len(names)),
        )
        note(result.warnings())
        return result

    source.is_first_reading = True
    if not is_one_pass:
        surveys = {
            key: checked(key, parts) for key, parts in stream.map(survey, "elements", label="checking")
        }
        source.unchanged = frozenset(key for key, sums in surveys.items() if not sums.changes)
        source.is_first_reading = False
    nonfinite = [key for key, sums in surveys.items() if not sums.is_finite]
    for key in nonfinite:
        logger.warning("%s: NaN or infinite values among the inputs; averaged", key)
    running = [key for key in stream.keys if is_running_statistic(key) and key not in nonfinite]
    # A stream sets the unchanged tensors apart that its source knows of by then.
    finite = stream.only(key for key in stream.keys if key not in {*nonfinite, *running})
    if not is_one_pass:
        comparison = compared(finite)
    seen: Source = source
    if factors is not None:
        seen = Weighted(source, [factors[name] for name in names])
    merged_stream = finite.of(seen).only((*finite.keys, *finite.unchanged))
    merged_stream.grams = inner(merged_stream)
    update: Callable[[Piece], Tensor] = averaged
    state = None
    if finite.keys or finite.unchanged:
        update, state = updater(method, merged_stream, options)

    def work(piece: Piece) -> tuple[float, Survey | None]:
        sums = survey(piece) if is_one_pass else None
        key, dtype, span = piece.key, sink.dtype(piece.key), (piece.key, piece.start, piece.stop)
        length = 0.0
        if key in nonfinite:
            weights = source.average(*span)
            length = torch.linalg.vector_norm(weights - piece.base().reshape(-1)).double().item()
            merged = weights.to(dtype)
        elif key in source.unchanged or (sums is not None and not sums.changes):
            merged = source.original(*span).to(dtype)
        else:
            change = (averaged if key in running else update)(replace(piece, source=seen))
            length = torch.linalg.vector_norm(change).double().item()
            merged = change.add_(piece.base()).to(dtype)
        if permitting is not None and (sums is None or sums.is_finite) and not is_finite(merged):
            raise R2MError(
                f"{key}: merging gives NaN or values beyond {merged.dtype} from finite inputs; {permitting}"
            )
        sink.write(key, piece.start, merged.reshape(-1).cpu())
        return length**2, sums

    squares = []
    for key, results in stream.map(work, method.grain, label="merging"):
        squares += [square for square, _ in results]
        if parts := [part for _, part in results if part is not None]:
            surveys[key] = checked(key, parts)
    source.is_first_reading = False
    if is_one_pass:
        comparison = compared(finite)
    update_norm = math.sqrt(math.fsum(x for x in squares if math.isfinite(x)))
    described = method.describe(state) if method.describe is not None and state is not None else {}
    if described.get("lambda") == 0:
        note([NO_RESIDUAL])
    if update_norm == 0 and any(comparison.norms()):
        note([NO_UPDATE])
    if running:
        note([running_warning(running)])
    return Outcome(described, comparison, update_norm, nonfinite, notes)
