"""Mean AUCs with confidence intervals: the long table, and one to read."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r2m.evaluate.bootstrap import LEVEL, interval
from r2m.evaluate.delong import ALPHA
from r2m.evaluate.evaluation import Evaluation
from r2m.evaluate.protocols import FAMILIES, MODEL_KEYS, PROTOCOLS, mean_columns
from r2m.report.main_table import MainTable, Markup

MEAN_COLUMNS = [
    *MODEL_KEYS,
    *("label", "protocol", "part", "n_sets", "auc", "auc_sd", "low", "high"),
    *("reference", "difference", "difference_low", "difference_high"),
]


def mean_intervals(made: Evaluation, reference: str | None) -> pd.DataFrame:
    """Every mean of the main table with its interval (MEAN_COLUMNS); auc_sd, over seeds, is missing.

    `difference` is that of the reference minus the model, its interval from the same resamples. Without a
    reference, and for the reference itself, it is missing.
    """
    models, estimates = made.models, made.estimates
    own = None if reference is None else made.matrix.models.index(reference)
    parts = []
    for (protocol, part), places in mean_columns([one.item for one in made.sets]).items():
        mean, drawn = estimates[:, places].mean(axis=1), made.resampled[:, :, places].mean(axis=2)
        low, high = interval(drawn, mean)
        table = models[[*MODEL_KEYS, "label"]].assign(
            protocol=protocol, part=part, n_sets=len(places), auc=mean, auc_sd=np.nan, low=low, high=high
        )
        table[["reference", "difference", "difference_low", "difference_high"]] = None
        if own is not None:
            difference = mean[own] - mean
            lower, upper = interval(drawn[:, [own]] - drawn, difference)
            table = table.assign(
                reference=reference, difference=difference, difference_low=lower, difference_high=upper
            )
            table.loc[own, ["reference", "difference", "difference_low", "difference_high"]] = None
        parts.append(table)
    order = np.arange(len(parts) * len(models)).reshape(len(parts), len(models)).T.ravel()
    return pd.concat(parts, ignore_index=True).iloc[order].reset_index(drop=True)[MEAN_COLUMNS]


@dataclass(frozen=True)
class IntervalTable(MainTable):
    """A main table of whole protocols, with intervals `low` and `high` (models, columns) in its cells.

    `verdicts` (models,) are the last column, if there is one more title than there are values: on how many
    of the test sets the reference is significantly better and worse than the model.
    """

    name: ClassVar[str] = "intervals"

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    verdicts: list[str]
    explanation: str

    def legend(self, bold: str, underlined: str) -> str:
        """Explain the table, with the words `bold` and `underlined` in the markup that they name."""
        return f"{self.explanation}{self.seeds()} {bold}: best of the merged models, {underlined}: second."

    def _cells(self, row: int, markup: Markup) -> list[str]:
        limits = zip(self.low[row], self.high[row], strict=True)
        cells = [
            f"{cell} [{low:.3f}, {high:.3f}]"
            for cell, (low, high) in zip(super()._cells(row, markup), limits, strict=True)
        ]
        return cells + ([self.verdicts[row] or markup.missing] if len(self.columns) > len(cells) else [])


def interval_table(
    means: pd.DataFrame, tested: pd.DataFrame, models: pd.DataFrame, resamples: int, trainings: int = 1
) -> IntervalTable:
    """Whole protocols of `means` (MEAN_COLUMNS), and how often the reference is significantly apart.

    `tested` are the comparisons (COMPARISON_COLUMNS) with the reference of all `trainings`, without rows
    where there is none.
    """
    names = list(models["model"])
    shown = means[~means["part"].isin(FAMILIES)]
    keys = list(dict.fromkeys(zip(shown["protocol"], shown["part"], strict=True)))
    titles = [(PROTOCOLS[protocol], part) for protocol, part in keys]
    by_model = shown.set_index(["protocol", "part", "model"])
    values, spread, low, high = (
        np.array([[by_model[column][(*key, name)] for key in keys] for name in names], dtype=float)
        for column in ("auc", "auc_sd", "low", "high")
    )
    explanation = (
        f"Mean AUC over test sets, and its {100 * LEVEL:g} % interval from {resamples} bootstrap resamples "
        "of people."
    )
    verdicts = []
    if len(tested):
        label = models.set_index("model")["label"][tested["reference"].iloc[0]]
        titles.append((label, "better / worse"))
        count = tested.groupby(["model", "significance"]).size()
        verdicts = [
            f"{count.get((name, 'better'), 0)} / {count.get((name, 'worse'), 0)}" if name in count else ""
            for name in names
        ]
        explanation += (
            f" Last column: on how many of the {tested['test_set'].nunique()} test sets {label} is "
            f"{'' if trainings == 1 else f'and {trainings} seeds, each by itself, '}"
            f"significantly better / worse than the model (DeLong's paired test, p < {ALPHA} after Holm's "
            f"correction over all {len(tested) // trainings} tests{'' if trainings == 1 else ' of a seed'})."
        )
    return IntervalTable(
        titles,
        values,
        np.zeros(values.shape, dtype=bool),
        list(models["label"]),
        list(models["kind"]),
        spread,
        low,
        high,
        verdicts,
        explanation,
    )
