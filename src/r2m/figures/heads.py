"""Heads of merged backbones, as dots."""

import pandas as pd
from matplotlib.figure import Figure

from r2m.evaluate.experiment_means import TITLES
from r2m.evaluate.protocols import EvaluationContext
from r2m.report.figures.dots import PROTOCOL_COLOURS, PROTOCOL_MARKS, Series, dot_rows

NAMES = {"average": "mean of the specialists'", "base": "initial", "retrain": "re-trained", "lda": "LDA"}


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw heads.csv: a row a head, below the merge that it is put on."""
    return dot_rows(
        [context.variant_label(name) for name in table["variant"]],
        [_label(name, context) for name in table["head"]],
        protocol_series(table),
        "Mean AUC with different heads on one merged backbone. Numbers: val. LDA and re-trained heads are"
        " fitted to training images.",
    )


def protocol_series(table: pd.DataFrame) -> list[Series]:
    """Return a series for val and each protocol of a table of settings."""
    return [
        Series(title, table[key].tolist(), PROTOCOL_COLOURS[key], *PROTOCOL_MARKS[key])
        for key, title in TITLES.items()
        if key in table
    ]


def _label(head: str, context: EvaluationContext) -> str:
    kind, _, name = head.partition(":")
    return f"of {context.generator_label(name)}" if kind == "specialist" else NAMES.get(head, head)
