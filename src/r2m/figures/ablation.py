"""The ablation of R²M, as dots."""

import pandas as pd
from matplotlib.figure import Figure

from r2m.evaluate.protocols import EvaluationContext
from r2m.figures.heads import protocol_series
from r2m.report.figures.dots import dot_rows


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw ablation.csv: a row a setting, below the variant that it changes."""
    return dot_rows(
        [context.variant_label(name) for name in table["variant"]],
        [f"{factor} {value}".strip() for factor, value in zip(table["factor"], table["value"], strict=True)],
        protocol_series(table),
        "Mean AUC of R²M as chosen on val, and with one option changed. Numbers: val, on which choices rest.",
    )
