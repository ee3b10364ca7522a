"""What stands around the panels of a figure: the legend above them, and the text below."""

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.figure import Figure

NOTE_SIZE = 6.5


def legend_above(
    figure: Figure,
    handles: Sequence[Artist],
    margin: float,
    columns: int,
    top: float = 0.03,
    **spacing: float,
) -> None:
    """Add a legend at the upper left, `margin` and `top` in inches from the edges."""
    width, height = figure.get_size_inches()
    figure.legend(
        handles=list(handles),
        loc="upper left",
        bbox_to_anchor=(margin / width, 1 - top / height),
        ncols=columns,
        borderaxespad=0,
        **spacing,
    )


def text_below(figure: Figure, text: str, margin: float, bottom: float = 0.08) -> None:
    """Write `text` at the lower left, `margin` and `bottom` in inches from the edges."""
    width, height = figure.get_size_inches()
    figure.text(margin / width, bottom / height, text, size=NOTE_SIZE, va="bottom", linespacing=1.3)
