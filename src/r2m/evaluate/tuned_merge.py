"""A merge whose options are chosen on val by the variant's own grid, in memory."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from r2m.evaluate.bench import Bench
from r2m.evaluate.tune import tune
from r2m.merge import registry
from r2m.merge.variants import MergeVariant
from r2m.options import combinations, with_dotted


class TunedMerge(NamedTuple):
    """The update of the backbone, the head, and what was chosen: dotted option → value."""

    update: dict[str, Tensor]
    head: dict[str, Tensor]
    chosen: dict[str, Any]


def tuned_merge(
    bench: Bench,
    name: str,
    variant: MergeVariant,
    generators: Sequence[str],
    method_options: Mapping[str, Any] | None = None,
) -> TunedMerge:
    """Merge the specialists on the bench with the options that are best on the val images of `generators`.

    The candidates are those of the variant called `name`; `method_options` replace the options beside them.
    Where there is a single candidate there is nothing to choose, and no image is read.

    Raises:
        R2MError: no val images, or no candidate gives finite logits.
    """
    method = registry.get(variant.method or name)
    head = bench.head(variant.head)
    options = variant.options if method_options is None else method_options
    candidates = combinations(variant.tune)
    chosen = candidates[0]
    if len(candidates) > 1:
        tuned = tune(bench, method.name, options, candidates, head=head, generators=generators)
        chosen = next(values for values, row in zip(candidates, tuned.rows, strict=True) if row["chosen"])
    complete = method.options.model_validate(with_dotted(options, chosen))
    return TunedMerge(bench.update(method, complete), head, chosen)


def as_text(chosen: Mapping[str, Any]) -> str:
    """Return options as a reader sees them, by the last parts of their names: `ratio 0.05, relative 7.0`."""
    return ", ".join(f"{key.rsplit('.', 1)[-1]} {value}" for key, value in chosen.items())
