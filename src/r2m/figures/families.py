"""What specialists are trained on and how they are merged, as dots."""

import pandas as pd
from matplotlib.figure import Figure

from r2m.evaluate.protocols import EvaluationContext
from r2m.figures.heads import protocol_series
from r2m.report.figures.dots import dot_rows


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw families.csv: a row a strategy with its number of specialists, below the merge."""
    return dot_rows(
        list(table["merge"]),
        [
            f"{training} ({number})"
            for training, number in zip(table["training"], table["specialists"], strict=True)
        ],
        protocol_series(table),
        "Mean AUC; in brackets how many models were trained. Numbers: val, on which every row's options were"
        " chosen anew.",
    )
