"""Label inversions and what merges make of them, as dots."""

import pandas as pd
from matplotlib.figure import Figure

from r2m.evaluate.protocols import EvaluationContext
from r2m.report.figures.dots import Series, dot_rows
from r2m.report.figures.style import INK, method_colour, new_figure, styled

MARKS = "oDs^vP"


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw inversion.csv: a row a test set, below the specialist that inverts it."""
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
