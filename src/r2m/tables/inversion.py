"""Label inversion: where a specialist calls fakes more real than the reals, and what merges do there."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from r2m.errors import R2MError
from r2m.evaluate.protocols import EvaluationContext, read_table
from r2m.report.table import Table as Rendered

CHANCE = 0.5


def table(source: Path, context: EvaluationContext) -> Rendered:
    """Return one row a specialist and test set with AUC below 0.5: that AUC, and those of all merges there.

    `source` is auc.csv. The last row counts the inversions that each merge leaves below 0.5 as well.

    Raises:
        R2MError: no table of metrics.
    """
    auc = read_table(source)
    if missing := {"model", "kind", "test_set", "auc"} - set(auc):
        raise R2MError(f"{source}: expected the table auc.csv; lacks {', '.join(sorted(missing))}")
    frame = inversions(auc)
    merges = [name for name in frame if name in context.variants]
    shown = frame.assign(
        specialist=frame["specialist"].map(context.generator_label),
        set=frame["test_set"].map(_set_label(context)),
    )
    left = {name: f"{int((frame[name] < CHANCE).sum())}" for name in merges}
    counts = ", ".join(f"{context.variant_label(name)} {count}" for name, count in left.items())
    return Rendered(
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


def inversions(auc: pd.DataFrame) -> pd.DataFrame:
    """Return the inverted cells of auc.csv, lowest first: specialist, test_set, own, and a column a merge."""
    specialists = auc[(auc["kind"] == "specialist") & (auc["auc"] < CHANCE)]
    merges = auc[auc["kind"] == "merge"].pivot_table("auc", "test_set", "model")
    order = list(dict.fromkeys(auc.loc[auc["kind"] == "merge", "model"]))
    rows = specialists[["model", "test_set", "auc"]].set_axis(["specialist", "test_set", "own"], axis=1)
    joined = rows.join(merges[order], on="test_set")
    return joined.sort_values(["own", "specialist", "test_set"], ignore_index=True)


def _set_label(context: EvaluationContext) -> Callable[[str], str]:
    def label(name: str) -> str:
        domain, generator = name.split("/", 1)
        return f"{context.generator_label(generator)} ({context.domain_label(domain)})"

    return label
