"""R²M as a whole: Real component, residuals, truncation, norm matching and aggregation (arXiv 2509.24367)."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from r2m.merge import real, residual
from r2m.merge.aggregate import aggregate
from r2m.merge.options import R2M
from r2m.merge.tensors import TaskVectors


def merge(task_vectors: TaskVectors, options: R2M) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Merge K task vectors; return the update and a report of ranks, energies, norms and cosines.

    Raises:
        R2MError: task vectors of different shapes, not finite, or none.
    """
    component = real.real_component(task_vectors, options.real)
    residuals = {
        name: residual.fake_residual(component, task_vectors, name, options.residual) for name in task_vectors
    }
    blocks = {name: one.blocks for name, one in residuals.items()}
    update, report = aggregate(component.core, blocks, options.norm_match, options.scale)
    report["real"] = real.describe(component, task_vectors)
    report["residuals"] = {name: residual.describe(one) for name, one in residuals.items()}
    return update, report


def sweep(task_vectors: TaskVectors, candidates: Sequence[R2M]) -> Iterator[tuple[R2M, dict[str, Tensor]]]:
    """Yield the update of every candidate, equal to that of `merge` to the last bit.

    Each residual is decomposed once, as far as the greatest rank asked for. Candidates that share a Real
    component and a truncation come one after the other, whatever their order in `candidates`.
    """
    for real_options in dict.fromkeys(candidate.real for candidate in candidates):
        component = real.real_component(task_vectors, real_options)
        same_real = [candidate for candidate in candidates if candidate.real == real_options]
        for definition in dict.fromkeys(candidate.residual.definition for candidate in same_real):
            group = [one for one in same_real if one.residual.definition == definition]
            yield from _sweep_residuals(task_vectors, component, definition, group)


def _sweep_residuals(
    task_vectors: TaskVectors, component: real.RealComponent, definition: str, candidates: Sequence[R2M]
) -> Iterator[tuple[R2M, dict[str, Tensor]]]:
    rules = [candidate.residual.rank for candidate in candidates]
    decomposed = {
        name: residual.decompositions(component, task_vectors, name, definition, rules)
        for name in task_vectors
    }
    for options in dict.fromkeys(candidate.residual for candidate in candidates):
        blocks = {
            name: residual.truncated_residual(component, task_vectors, name, options, decomposed[name]).blocks
            for name in task_vectors
        }
        for candidate in candidates:
            if candidate.residual == options:
                update, _ = aggregate(component.core, blocks, candidate.norm_match, candidate.scale)
                yield candidate, update
