"""Label inversion: where a specialist calls fakes more real than the reals, and what merges do there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from r2m.errors import R2MError
from r2m.evaluate.protocols import EvaluationContext, read_table
from r2m.experiments.experiment import Experiment, ExperimentOptions
from r2m.plan.stage import Stage

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from r2m.plan.plan import Plan
    from r2m.report.table import Table

CHANCE = 0.5
MARKS = "oDs^vP"


def stages(plan: Plan, options: ExperimentOptions) -> Sequence[Stage]:
    """Return no stages: the table of all models has everything."""
    return []


def inversions(auc: pd.DataFrame) -> pd.DataFrame:
    """Return the inverted cells of auc.csv, lowest first: specialist, test_set, own, a column per merge."""
    specialists = auc[(auc["kind"] == "specialist") & (auc["auc"] < CHANCE)]
    merges = auc[auc["kind"] == "merge"].pivot_table("auc", "test_set", "model")
    order = list(dict.fromkeys(auc.loc[auc["kind"] == "merge", "model"]))
    rows = specialists[["model", "test_set", "auc"]].set_axis(["specialist", "test_set", "own"], axis=1)
    joined = rows.join(merges[order], on="test_set")
    return joined.sort_values(["own", "specialist", "test_set"], ignore_index=True)


def table(source: Path, context: EvaluationContext) -> Table:
    """Return one row per specialist and test set with AUC below 0.5: that AUC, and those of all merges there.

    `source` is auc.csv. The caption counts the inversions that each merge leaves below 0.5 as well.

    Raises:
        R2MError: no table of metrics.
    """
    from r2m.report.table import Table

    auc = read_table(source)
    if missing := {"model", "kind", "test_set", "auc"} - set(auc):
        raise R2MError(f"{source}: expected the table auc.csv; lacks {', '.join(sorted(missing))}")
    frame = inversions(auc)
    merges = [name for name in frame if name in context.variants]
    shown = frame.assign(
        specialist=frame["specialist"].map(context.generator_label),
        set=[_set_label(name, context) for name in frame["test_set"]],
    )
    left = {name: f"{int((frame[name] < CHANCE).sum())}" for name in merges}
    counts = ", ".join(f"{context.variant_label(name)} {count}" for name, count in left.items())
    return Table(
        shown[["specialist", "test_set", "set", "own", *merges]],
        {
            "specialist": "Specialist",
            "set": "Test set",
            "own": "Its AUC",
            **{name: context.variant_label(name) for name in merges},
        },
        caption=(
            f"Test sets on which a specialist's AUC is below {CHANCE}: it calls these fakes more real than"
            f" the reals. Beside it what the merges have there. Inversions: {len(frame)}; below {CHANCE} in"
            f" a merge as well: {counts}."
        ),
        label="inversion",
    )


def _set_label(test_set: str, context: EvaluationContext) -> str:
    domain, generator = test_set.split("/", 1)
    return f"{context.generator_label(generator)} ({context.domain_label(domain)})"


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw one row per test set, below the specialist that inverts it."""
    from r2m.report.figures.dots import Series, dot_rows
    from r2m.report.figures.style import INK, method_colour, new_figure, styled

    if table.empty:
        with styled():
            nothing = new_figure(3.4, 0.6)
            nothing.text(0.5, 0.5, "No specialist has an AUC below 0.5.", ha="center", va="center")
        return nothing
    ordered = table.sort_values(["specialist", "own"], kind="stable", ignore_index=True)
    merges = [name for name in ordered if name in context.variants]
    colours = [method_colour(name) for name in merges]
    return dot_rows(
        list(ordered["specialist"]),
        list(ordered["set"]),
        [
            Series("The specialist", ordered["own"].tolist(), INK, "X"),
            *(
                # Variants of one method share its colour, not its mark.
                Series(
                    context.variant_label(name),
                    ordered[name].tolist(),
                    colour,
                    MARKS[colours[:at].count(colour) % len(MARKS)],
                )
                for at, (name, colour) in enumerate(zip(merges, colours, strict=True))
            ),
        ],
        "AUC on the test sets on which a specialist calls fakes more real than reals (numbers), and of the"
        " merges there. Dashed: chance.",
        chance=True,
    )


EXPERIMENT = Experiment(
    title="Label inversion",
    caption=(
        "Test sets on which a specialist's AUC is below 0.5, so that it calls these fakes more real than"
        " the reals, and the AUC of every merge on the same images (`results/tables/auc.csv`). Look at the"
        " dashed line: a merge repairs an inversion where its dot lies to the right of it."
    ),
    options=ExperimentOptions,
    stages=stages,
    table=table,
    figure=figure,
    reads="results/tables/auc.csv",
    order=1,
)
