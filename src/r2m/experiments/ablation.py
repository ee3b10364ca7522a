"""What each part of R²M contributes: one option at a time is changed from those that were chosen on val."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from r2m.dotted import with_dotted
from r2m.evaluate.bench import Bench
from r2m.evaluate.experiment_means import TITLES, protocol_means, read_settings
from r2m.evaluate.protocols import EvaluationContext
from r2m.evaluate.rendered import Rendered
from r2m.evaluate.scores import KEPT
from r2m.merge import merging, registry
from r2m.merge.options import R2M
from r2m.merge.stages.inputs import Chosen
from r2m.params import Section

CHOSEN, CORE, RESIDUAL = "as chosen", "core alone", "residual alone"


class Setting(NamedTuple):
    """One row of the ablation: the option that is changed, its value as text, and all options."""

    factor: str
    value: str
    options: R2M


def settings(options: R2M, factors: Mapping[str, Sequence[Any]]) -> list[Setting]:
    """Return the settings one change away from `options`, those that change nothing left out.

    Raises:
        pydantic.ValidationError: a factor or value that R²M does not have.
    """
    found = []
    for factor, values in factors.items():
        for value in values:
            changed = replaced(options, factor, value)
            if changed != options:
                found.append(Setting(factor, str(value), changed))
    return found


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

        def scored(
            factor: str, value: str, update: Any, head: Any = head, name: str = variant.variant
        ) -> None:
            scores = bench.scores(bench.updated(update), head)
            parts.append(scores[[*KEPT, "logit"]].assign(variant=name, factor=factor, value=value))

        whole, _ = merging.merge(method, bench.task_vectors, options)
        core, _ = merging.merge(method, bench.task_vectors, replaced(options, "scale.absolute", 0.0))
        scored(CHOSEN, "", whole)
        scored(CORE, "", core)
        scored(RESIDUAL, "", {key: tensor - core[key] for key, tensor in whole.items()})
        names: dict[Section, list[Setting]] = {}
        for one in settings(options, factors):
            names.setdefault(one.options, []).append(one)
        for found, update in merging.sweep(method, bench.task_vectors, list(names)):
            for one in names[found]:
                scored(one.factor, one.value, update)
    columns = ["variant", "factor", "value", *KEPT, "logit"]
    return pd.concat(parts, ignore_index=True)[columns]


def table(source: Path, context: EvaluationContext) -> Rendered:
    """Return the table of the scores in `source`: a row a setting."""
    by = ["variant", "factor", "value"]
    means = protocol_means(read_settings(source, by), by, context)
    means.insert(0, "merge", means["variant"].map(context.variant_label))
    return Rendered(
        means,
        {
            "merge": "Merge",
            "factor": "Changed",
            "value": "To",
            **{key: title for key, title in TITLES.items() if key in means},
        },
        caption=(
            "R²M as chosen on val, and with one option changed at a time. Choices rest on the first column of"
            " numbers alone; the others are the test images. Mean AUC; best bold, second underlined."
        ),
        label="ablation",
        best=[key for key in TITLES if key in means],
        section="variant",
    )
