"""What each part of R²M contributes: one option at a time is changed from those that were chosen on val."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from r2m.evaluate.bench import Bench
from r2m.evaluate.scores import KEPT
from r2m.merge import merging, registry
from r2m.merge.options import R2M
from r2m.merge.stages import Chosen
from r2m.merge.tensors import Tensors
from r2m.options import with_dotted

CHOSEN, CORE, RESIDUAL = "as chosen", "core alone", "residual alone"


class Setting(NamedTuple):
    """One row of the ablation: the option that is changed, its value as text, and all options."""

    factor: str
    value: str
    options: R2M


def settings(options: R2M, factors: Mapping[str, Sequence[Any]]) -> list[Setting]:
    """Return the settings of every value of every factor, in their order, with all else as in `options`.

    One of a factor's values may be that of `options` itself: it differs from seed to seed which.

    Raises:
        pydantic.ValidationError: a factor or value that R²M does not have.
    """
    return [
        Setting(factor, str(value), replaced(options, factor, value))
        for factor, values in factors.items()
        for value in values
    ]


def replaced(options: R2M, factor: str, value: Any) -> R2M:
    """Return options with one dotted one changed."""
    return R2M.model_validate(with_dotted(options.model_dump(exclude_none=True), {factor: value}))


def ablation_scores(
    bench: Bench, variants: Sequence[Chosen], factors: Mapping[str, Sequence[Any]]
) -> pd.DataFrame:
    """Return the scores of every setting, columns variant, factor, value, `KEPT` and logit.

    Besides `factors`, the Real component alone and the residual alone are scored.
    """
    method = registry.get("r2m")
    parts = []
    for variant in variants:
        options = variant.r2m()
        head = bench.head(variant.head)

        def scored(update: Tensors, head: Tensors = head) -> pd.DataFrame:
            return bench.scores(bench.updated(update), head)[[*KEPT, "logit"]]

        whole, _ = merging.merge(method, bench.task_vectors, options)
        core, _ = merging.merge(method, bench.task_vectors, replaced(options, "scale.absolute", 0.0))
        named = {(CHOSEN, ""): scored(whole), (CORE, ""): scored(core)}
        named[RESIDUAL, ""] = scored({key: tensor - core[key] for key, tensor in whole.items()})
        changed = settings(options, factors)
        different = list(dict.fromkeys(one.options for one in changed))
        sweep = merging.sweep(method, bench.task_vectors, different)
        scores = {found: scored(update) for found, update in sweep}
        named |= {(one.factor, one.value): scores[one.options] for one in changed}
        parts += [
            part.assign(variant=variant.variant, factor=factor, value=value)
            for (factor, value), part in named.items()
        ]
    columns = ["variant", "factor", "value", *KEPT, "logit"]
    return pd.concat(parts, ignore_index=True)[columns]
