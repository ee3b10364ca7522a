"""Sheet of relevance maps: a row per generator, every image beside its map."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from r2m.data.images import Image
from r2m.detection.overlay import overlaid
from r2m.report.figures.framing import NOTE_SIZE, text_below
from r2m.report.figures.style import add_axes, canvas, new_figure, styled, text_width, wrap
from r2m.report.numbers import number

SIDE, MARGIN, GAP, BETWEEN, NUMBER, LABEL = 0.8, 0.1, 0.02, 0.12, 0.16, 8
LEAST = 4.0
LEGEND = (
    "Each image, with its probability of being fake, beside what raises the detector's logit of fake: yellow"
    " where it is raised most, scaled to each map's own maximum. A map tells what this detector reacts to,"
    " right or wrong, and is no proof of where an image was forged."
)


@dataclass(frozen=True)
class MapRow:
    """Images BGR (S, S, 3) of one kind, their maps (S, S) in [0, 1], and their probabilities."""

    label: str
    images: Sequence[Image]
    maps: Sequence[NDArray[np.float32]]
    probabilities: Sequence[float]


def draw_map_sheet(rows: Sequence[MapRow]) -> Figure:
    """Draw the rows below each other."""
    pair = 2 * SIDE + GAP + BETWEEN
    left = MARGIN + max(text_width(row.label, LABEL) for row in rows) + 0.1
    width = max(left + max(len(row.images) for row in rows) * pair - BETWEEN + MARGIN, LEAST)
    legend = wrap(LEGEND, NOTE_SIZE, width - 2 * MARGIN)
    below = 0.16 + 0.13 * (legend.count("\n") + 1)
    identity = np.eye(2, 3)
    with styled():
        figure = new_figure(width, MARGIN + len(rows) * (SIDE + NUMBER) + below)
        page = canvas(figure)
        for line, row in enumerate(rows):
            top = MARGIN + line * (SIDE + NUMBER)
            page.text(left - 0.1, top + SIDE / 2, row.label, ha="right", va="center", size=LABEL)
            shown = zip(row.images, row.maps, row.probabilities, strict=True)
            for place, (image, relevance, probability) in enumerate(shown):
                x = left + place * pair
                for shift, picture in ((0.0, image), (SIDE + GAP, overlaid(image, relevance, identity))):
                    axes = add_axes(figure, x + shift, top, SIDE, SIDE)
                    axes.imshow(picture[..., ::-1], interpolation="nearest")
                    axes.set_axis_off()
                page.text(x, top + SIDE + 0.02, number(probability), ha="left", va="top", size=6)
        text_below(figure, legend, MARGIN)
    return figure
