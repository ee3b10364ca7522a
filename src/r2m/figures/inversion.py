"""Label inversions and what merges make of them, as dots."""

import pandas as pd
from matplotlib.figure import Figure

from r2m.evaluate.protocols import EvaluationContext
from r2m.figures.dots import Series, dot_rows
from r2m.figures.style import INK, method_colour, new_figure, styled


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw inversion.csv: a row a test set, below the specialist that inverts it."""
    if table.empty:
        with styled():
            nothing = new_figure(3.4, 0.6)
            nothing.text(0.5, 0.5, "No specialist has an AUC below 0.5.", ha="center", va="center")
        return nothing
    ordered = table.sort_values(["specialist", "own"], kind="stable", ignore_index=True)
    merges = [name for name in ordered if name in context.variants]
    return dot_rows(
        list(ordered["specialist"]),
        list(ordered["set"]),
        [
            Series("The specialist", ordered["own"].tolist(), INK, "X"),
            *(
                Series(context.variant_label(name), ordered[name].tolist(), method_colour(name))
                for name in merges
            ),
        ],
        "AUC on the test sets on which a specialist calls fakes more real than reals (numbers), and of the"
        " merges there. Dashed: chance.",
        chance=True,
    )
