"""What each part of R²M contributes: one option at a time is changed from those that were chosen on val."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field, ValidationError

from r2m.evaluate.protocols import KEPT, EvaluationContext
from r2m.experiments.experiment import (
    Experiment,
    ExperimentOptions,
    Factors,
    Variants,
    merge_stage,
    protocol_series,
    protocol_titles,
)
from r2m.merge.options import R2M
from r2m.merge.variants import rank_beyond
from r2m.options import complaint, scalar, with_dotted
from r2m.plan.stage import Stage

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from r2m.core_params import CoreParams
    from r2m.evaluate.bench import Bench
    from r2m.merge.stages import Chosen
    from r2m.merge.tensors import Tensors
    from r2m.plan.plan import Plan
    from r2m.report.table import Table

CHOSEN, CORE, RESIDUAL = "as chosen", "core alone", "residual alone"


class AblationOptions(ExperimentOptions):
    """R²M with one option changed at a time from those that were chosen on val."""

    variants: Variants = Field(default=["r2m"], description="enabled merge variants of the method r2m")
    factors: Factors = Field(default={}, description="dotted option → its values")


def check(params: CoreParams, options: AblationOptions) -> Iterator[str]:
    """Yield values that R²M does not take."""
    for factor, values in options.factors.items():
        key = f"experiments.ablation.factors.{factor}"
        for value in values:
            try:
                changed = R2M.model_validate(with_dotted({}, {factor: value}))
            except ValidationError as error:
                yield f"{key}: {complaint(error)}"
                return
            if options.enabled and (text := rank_beyond(changed, len(params.specialist_members))):
                yield f"{key}: {text}"
                return


def stages(plan: Plan, options: AblationOptions) -> Sequence[Stage]:
    """Return the stage of the scores."""
    factors = dict(sorted(options.factors.items()))
    return [merge_stage(plan, "ablation", options.variants, {"factors": factors}, memory=4000)]


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
        Setting(factor, scalar(value), replaced(options, factor, value))
        for factor, values in factors.items()
        for value in values
    ]


def replaced(options: R2M, factor: str, value: Any) -> R2M:
    """Return options with one dotted one changed."""
    return R2M.model_validate(with_dotted(options.model_dump(exclude_none=True), {factor: value}))


def run(bench: Bench, variants: Sequence[Chosen], factors: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """Return the scores of every setting, columns variant, factor, value, `KEPT` and logit.

    Besides `factors`, the Real component alone and the residual alone are scored.
    """
    import pandas as pd

    from r2m.merge import merging, registry

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
        different = list(dict.fromkeys(setting.options for setting in changed))
        sweep = merging.sweep(method, bench.task_vectors, different)
        scores = {complete: scored(update) for complete, update in sweep}
        named |= {(setting.factor, setting.value): scores[setting.options] for setting in changed}
        parts += [
            part.assign(variant=variant.variant, factor=factor, value=value)
            for (factor, value), part in named.items()
        ]
    columns = ["variant", "factor", "value", *KEPT, "logit"]
    return pd.concat(parts, ignore_index=True)[columns]


def table(source: Path, context: EvaluationContext) -> Table:
    """Return the table of the scores in `source`: one row per setting."""
    from r2m.evaluate.experiment_means import protocol_means, read_settings
    from r2m.report.table import Table

    by = ["variant", "factor", "value"]
    means = protocol_means(read_settings(source, by), by, context)
    means.insert(0, "merge", means["variant"].map(context.variant_label))
    titles = protocol_titles(means)
    return Table(
        means,
        {"merge": "Merge", "factor": "Changed", "value": "To", **titles},
        caption=(
            "R²M as chosen on val, and with one option set to other values; a row like the first is of the"
            " value that was chosen. Choices rest on the first column of"
            " numbers alone; the others are the test images. Mean AUC; best bold, second underlined."
        ),
        label="ablation",
        best=list(titles),
        section="variant",
    )


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw one row per setting, below the variant that it changes."""
    from r2m.report.figures.dots import dot_rows

    return dot_rows(
        [context.variant_label(name) for name in table["variant"]],
        [f"{factor} {value}".strip() for factor, value in zip(table["factor"], table["value"], strict=True)],
        protocol_series(table),
        "Mean AUC of R²M as chosen on val, and with one option changed. Numbers: val, on which choices rest.",
    )


EXPERIMENT = Experiment(
    title="Ablation of R²M",
    caption=(
        "R²M with the options that tuning chose on val, and with one of them changed at a time; also its"
        " Real component alone and its residual alone. All settings merge the same specialists and use the"
        " same head. Choices may rest on the val column only; the test columns report. Look at how far"
        " each row falls from the first one: differences below about 0.02 are noise in a test set of this"
        " size."
    ),
    options=AblationOptions,
    check=check,
    takes={"of_r2m": True},
    stages=stages,
    table=table,
    figure=figure,
    order=5,
)
