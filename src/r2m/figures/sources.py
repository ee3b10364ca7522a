"""Reals of one and of two sources in training, as dots with intervals."""

import pandas as pd
from matplotlib.figure import Figure

from r2m.evaluate.protocols import EvaluationContext
from r2m.report.figures.dots import PROTOCOL_COLOURS, PROTOCOL_MARKS, Series, dot_rows


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw sources.csv: a row a core and what was trained on, below the merge.

    The other source's AUC has its interval.
    """
    one = table["reals"].iloc[0]
    second = table["reals"].iloc[-1].removeprefix(f"{one} and ")
    names = {
        "val_auc": f"Val ({one})",
        "in_distribution": f"{one}: trained",
        "unseen_generator": f"{one}: unseen",
    }
    marks = [
        Series(name, table[key].tolist(), PROTOCOL_COLOURS[key], *PROTOCOL_MARKS[key])
        for key, name in names.items()
        if key in table
    ]
    other = Series(
        second,
        table["b"].tolist(),
        PROTOCOL_COLOURS["cross_dataset"],
        *PROTOCOL_MARKS["cross_dataset"],
        low=table["b_low"].tolist(),
        high=table["b_high"].tolist(),
    )
    measures = table.drop_duplicates("training")
    shares = "; ".join(
        f"{row.reals}: {row.first_share:.2f} and {row.second_share:.2f}" for row in measures.itertuples()
    )
    return dot_rows(
        list(table["merge"]),
        [
            ", ".join(filter(None, [reals, core]))
            for reals, core in zip(table["reals"], table["core"], strict=True)
        ],
        [*marks, other],
        f"Mean AUC by what specialists were trained on, and by core. {second}: people whom nobody was trained"
        f" on, 95 % intervals over people. Share of the first and second eigenvalue of the task vectors' Gram"
        f" matrix: {shares}. Numbers: val.",
    )
