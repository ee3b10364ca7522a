"""What every figure has to keep: all text on the page, and none over another."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text


def texts(figure: Figure) -> list[Text]:
    """All texts that are drawn: by hand, in legends, on axes and at ticks within the axis' range."""
    figure.draw_without_rendering()
    found = [text for legend in figure.legends for text in legend.get_texts()]
    for axes in figure.axes:
        found += axes.texts
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            found += [axis.label, *(tick.label1 for tick in ticks if tick.label1.get_visible())]
    return [text for text in found if text.get_text().strip()]


def check_layout(figure: Figure) -> None:
    """All text lies on the page, and no two texts overlap by more than a sliver."""
    boxes = [(item.get_text(), item.get_window_extent()) for item in texts(figure)]
    width, height = figure.bbox.width, figure.bbox.height
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text
    extents = np.array([[box.x0, box.y0, box.x1, box.y1] for _, box in boxes])
    over_x = np.minimum.outer(extents[:, 2], extents[:, 2]) - np.maximum.outer(extents[:, 0], extents[:, 0])
    over_y = np.minimum.outer(extents[:, 3], extents[:, 3]) - np.maximum.outer(extents[:, 1], extents[:, 1])
    pairs = np.argwhere(np.triu((over_x > 1.5) & (over_y > 1.5), 1))
    assert not len(pairs), [(boxes[a][0], boxes[b][0]) for a, b in pairs[:5]]
