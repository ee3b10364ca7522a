"""One look for all figures: sizes in inches, colours by meaning, the same bytes for the same content."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from r2m.evaluate.image_kinds import FOREIGN, OWN, TRAINED, UNSEEN
from r2m.evaluate.protocols import EvaluationContext
from r2m.files import atomic_path
from r2m.manifest import REAL

logging.getLogger("fontTools").setLevel(logging.WARNING)  # tells every step of subsetting a font at INFO

FORMATS = ("pdf", "svg", "png")
INK = "#222222"
FAINT = "#999999"
STYLE: dict[str, str | float | bool] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "text.color": INK,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "savefig.dpi": 200,
    # Fonts travel with the file: TrueType in the PDF, outlines in the SVG.
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "r2m",
}
# Okabe–Ito first, then Paul Tol's muted colours: told apart with any colour vision.
METHOD_COLOURS = {
    "r2m": "#D55E00",
    "weight_averaging": "#0072B2",
    "task_arithmetic": "#E69F00",
    "ties": "#009E73",
    "dare": "#CC79A7",
    "cart": "#56B4E9",
    "tsv_m": "#882255",
    "iso_c": "#44AA99",
    "iso_cts": "#117733",
    "knots_ties": "#332288",
    "breadcrumbs": "#999933",
    "consensus": "#AA4499",
    "lines": "#661100",
    "pcb": "#6699CC",
    "model_stock": "#888888",
    "slerp": "#DDCC77",
    "karcher": "#B8860B",
    "wudi": "#4B0082",
    "fisher": "#CC6677",
    "regmean": "#88CCEE",
}
KIND_COLOURS = {"base": FAINT, "joint": "#000000"}
KIND_MARKERS = {"base": "^", "specialist": "D", "joint": "s", "merge": "o"}
# Of images, in every figure that parts reals from fakes: Paul Tol's vibrant colours, which no method has.
IMAGE_COLOURS = {REAL: INK, OWN: "#CC3311", TRAINED: "#009988", FOREIGN: "#EE7733", UNSEEN: "#33BBEE"}
IMAGE_MARKERS = {REAL: "o", OWN: "s", TRAINED: "D", FOREIGN: "^", UNSEEN: "v"}
FAMILY_COLOURS = {"FS": "#4477AA", "FR": "#EE6677", "EFS": "#228833", "FE": "#CCBB44"}


def method_colour(name: str) -> str:
    """Colour of a merge method or of a variant named after one (`r2m_task`), the same in every figure."""
    known = [method for method in METHOD_COLOURS if name == method or name.startswith(f"{method}_")]
    if known:
        return METHOD_COLOURS[max(known, key=len)]
    palette = list(METHOD_COLOURS.values())
    return palette[hashlib.sha256(name.encode()).digest()[0] % len(palette)]


def model_colour(model: str, kind: str, method: str, context: EvaluationContext) -> str:
    """Colour of any model: a merge's by its method, a specialist's by its family."""
    if kind == "merge":
        return method_colour(method)
    if kind == "specialist":
        generator = context.generators.get(model)
        return FAMILY_COLOURS.get(generator.family if generator else model, FAINT)
    return KIND_COLOURS[kind]


@contextmanager
def styled() -> Iterator[None]:
    """Draw inside this context: the style holds when an artist is made, whatever matplotlibrc says."""
    with matplotlib.style.context(["default", STYLE]):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of the given size in inches, without pyplot's global state."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def add_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes by their place in inches from the top left corner of the figure."""
    total_width, total_height = figure.get_size_inches()
    bottom = total_height - top - height
    return figure.add_axes(
        (left / total_width, bottom / total_height, width / total_width, height / total_height)
    )


def canvas(figure: Figure) -> Axes:
    """Add axes over the whole figure in inches, y downwards, for shapes and text placed by hand."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return axes


@lru_cache(maxsize=4096)
def text_width(text: str, size: float) -> float:
    """Width in inches of the longest line of `text` at `size` points, and 5 % for hinting in bitmaps."""
    return 1.05 * max(
        (
            TextPath((0, 0), line, size=size).get_extents().x1 / 72
            for line in text.split("\n")
            if line.strip()
        ),
        default=0.0,
    )


def wrap(text: str, size: float, width: float) -> str:
    """Break `text` at spaces so that lines are at most `width` inches wide, where words allow."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


def save(figure: Figure, stem: str | Path) -> None:
    """Write `stem`.pdf, .svg and .png, each atomically, without dates: equal figures give equal bytes."""
    metadata: dict[str, dict[str, str | None]] = {
        "pdf": {"CreationDate": None},
        "svg": {"Date": None},
        "png": {"Software": None},
    }
    stem = Path(stem)
    with styled():
        for suffix in FORMATS:
            with atomic_path(stem.with_name(f"{stem.name}.{suffix}")) as path:
                figure.savefig(path, format=suffix, metadata=metadata[suffix])
