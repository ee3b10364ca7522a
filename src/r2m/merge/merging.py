"""One merge of a stream of tensors: the method where it applies, its rule for other tensors elsewhere."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from r2m.errors import R2MError
from r2m.merge.kinds import is_running_statistic
from r2m.merge.method import Method
from r2m.merge.stream import MemorySource, Piece, TensorStream, averages, trained
from r2m.merge.tensors import TaskVectors, Tensors
from r2m.options import Section

Shapes = Mapping[str, tuple[int, ...]]


def updater(method: Method, stream: TensorStream, options: Any) -> tuple[Callable[[Piece], Tensor], Any]:
    """Return the function that gives a piece's update, and the state of the method's passes over the model.

    Raises:
        R2MError: too few or too many specialists for the method.
    """
    check_count(method, options, len(stream.names))
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
    may lack the values.

    Raises:
        R2MError: task vectors of different shapes, not finite, or of a number that the method does not take;
            statistics of other specialists.
    """
    check_statistics(task_vectors, statistics)
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

    The updates equal those of `merge`, which tells the arguments, up to rounding.
    """
    check_statistics(task_vectors, statistics)
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
    for shared, same in groups.items():
        update, _ = merge(method, task_vectors, shared, base=base, statistics=statistics, shapes=shapes)
        for options in same:
            factor = options.scaling if method.is_proportional else 1.0
            yield options, update if factor == 1 else _scaled(update, factor)


def _scaled(update: Tensors, factor: float) -> dict[str, Tensor]:
    return {key: one if is_running_statistic(key) else factor * one for key, one in update.items()}


def check_statistics(task_vectors: TaskVectors, statistics: TaskVectors | None) -> None:
    """Raise R2MError where there are statistics, but not those of every specialist."""
    if statistics is not None and set(statistics) != set(task_vectors):
        given = ", ".join(sorted(statistics)) or "none"
        raise R2MError(f"statistics: expected those of {', '.join(sorted(task_vectors))}, got {given}")


def check_count(method: Method, options: Any, count: int) -> None:
    """Raise R2MError where a method does not take so many specialists, or its options do not fit them."""
    least, most = method.least_specialists, method.most_specialists
    if count < least or (most is not None and count > most):
        wanted = f"at least {least}" if most is None else f"{least} to {most}" if least < most else f"{least}"
        raise R2MError(f"{method.name}: expected {wanted} specialists, got {count}")
    if method.check is not None:
        method.check(options, count)
