"""Pipeline diagram of a merge by R²M (arXiv 2509.24367), with the options and numbers of the one that ran."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from r2m.errors import R2MError
from r2m.evaluate.protocols import FAMILIES, EvaluationContext
from r2m.report.figures.style import (
    FAINT,
    FAMILY_COLOURS,
    INK,
    METHOD_COLOURS,
    canvas,
    new_figure,
    styled,
    text_width,
    wrap,
)

TEXT = 7.0
BOLD = 1.1  # width of a bold text, as a share of the plain one’s
MARGIN, PAD, GAP = 0.08, 0.06, 0.16
LINE, ROW = 0.14, 0.21
LANE_GAP, PASSAGE, STRIP = 0.3, 0.18, 0.04
CHOSEN = "*"
REPORTED = (
    "variant",
    "head",
    "options",
    "core_norm",
    "residual_norms",
    "matched_norms",
    "remaining_share",
    "lambda",
    "real",
    "residuals",
)


@dataclass(frozen=True)
class Box:
    """A step: its name, what it does in short lines, and one number per specialist; edges in inches."""

    title: str
    lines: Sequence[str]
    rows: Sequence[str] = ()
    x: float = 0.0
    width: float = 0.0

    @property
    def right(self) -> float:
        """Right edge."""
        return self.x + self.width

    @property
    def middle(self) -> float:
        """Centre between the edges."""
        return self.x + self.width / 2


def read_merge_report(path: str | Path) -> dict[str, Any]:
    """Read results/merged/VARIANT/report.json; raises R2MError if it is not that of an R²M merge."""
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
        missing = [key for key in REPORTED if key not in report]
    except (OSError, ValueError, TypeError) as error:
        raise R2MError(f"{path}: not the report of a merge: {error!r}") from error
    if missing:
        raise R2MError(f"{path}: expected the report of a merge by r2m; missing: {', '.join(missing)}")
    return report


def read_tuned(path: str | Path) -> set[str]:
    """Read the dotted names of the tuned options in results/tune/VARIANT/chosen.json."""
    try:
        return set(json.loads(Path(path).read_text(encoding="utf-8"))["tuned"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise R2MError(f"{path}: not the chosen options of a merge: {error!r}") from error


def draw_pipeline(
    report: Mapping[str, Any], tuned: Collection[str], context: EvaluationContext, title: str = ""
) -> Figure:
    """Draw the way from the base and the specialists to the merged detector, a row per specialist.

    `report` is that of the merge. Options in `tuned` (dotted names) bear a star: chosen on val.
    """
    names = _ordered(report["residuals"], context)
    labels = [_label(name, context) for name in names]
    steps = _placed(_steps(report, tuned, names, labels))
    specialists, vectors, residuals, truncation, matching, scaling = steps
    base = Box("Base", [r"$\theta_0$"], x=specialists.x, width=specialists.width)
    real = _beside(_real(report, tuned, len(names)), residuals.x, truncation.right)
    merged = _beside(_merged(report, context), matching.x, scaling.right)
    top = MARGIN + (0.18 if title else 0)
    upper = top + PASSAGE, max(map(_height, (base, real, merged)))
    lower = upper[0] + upper[1] + LANE_GAP, max(map(_height, steps))
    footnote = f"{CHOSEN} chosen on the validation split" if tuned else ""
    height = lower[0] + lower[1] + MARGIN + (LINE + 0.05 if footnote else 0)

    with styled():
        figure = new_figure(scaling.right + MARGIN, height)
        page = canvas(figure)
        if title:
            page.text(MARGIN, MARGIN, title, size=9, va="top")
        for box, colour in ((base, FAINT), (real, METHOD_COLOURS["r2m"]), (merged, METHOD_COLOURS["r2m"])):
            _draw(page, box, *upper, colour, text_top=upper[0] + (upper[1] - _height(box)) / 2)
        for box in steps:
            _draw(page, box, *lower, FAINT, text_top=lower[0])
        colours = [FAMILY_COLOURS.get(_family(name, context), FAINT) for name in names]
        _draw_rows(page, steps, lower[0], colours)
        centre, below = upper[0] + upper[1] / 2, upper[0] + upper[1]
        _arrow(page, [(base.middle, below), (base.middle, lower[0])], "fine-tuning")
        _arrow(page, [(vectors.middle, lower[0]), (vectors.middle, centre), (real.x, centre)])
        taken = r"$-\,\tau_\mathrm{core}$" if _shifted(report) else r"$-\,R_k$"
        _arrow(page, [(residuals.middle, below), (residuals.middle, lower[0])], taken)
        _arrow(page, [(real.right, centre), (merged.x, centre)])
        _arrow(page, [(scaling.middle, lower[0]), (scaling.middle, below)], r"$\lambda\tilde{F}$")
        over = top + PASSAGE / 2
        _arrow(
            page,
            [(base.middle, upper[0]), (base.middle, over), (merged.middle, over), (merged.middle, upper[0])],
        )
        for left, right in pairwise(steps):
            at = lower[0] + lower[1] / 2
            _arrow(page, [(left.right, at), (right.x, at)])
        if footnote:
            page.text(MARGIN, height - MARGIN, footnote, size=TEXT, va="bottom")
    return figure


def _steps(
    report: Mapping[str, Any], tuned: Collection[str], names: Sequence[str], labels: Sequence[str]
) -> list[Box]:
    """Return the steps of the lower lane, from the specialists to the scaled mean of their residuals."""
    real, parts = report["real"], report["residuals"]
    before, after = report["residual_norms"], report["matched_norms"]
    matching = report["options"]["norm_match"]
    left = f"{_percent(report['remaining_share'])} of the norm"
    return [
        Box("Specialists", [r"$\theta_k$"], labels),
        Box(
            "Task vectors",
            [r"$\tau_k=\theta_k-\theta_0$", r"norm $\Vert\tau_k\Vert$"],
            [_short(real["task_vector_norms"][name]) for name in names],
        ),
        Box(
            "Fake residuals",
            [
                r"$F_k=\tau_k-\tau_\mathrm{core}$" if _shifted(report) else r"$F_k=\tau_k-R_k$",
                r"$\Vert R_k\Vert^2/\,\Vert\tau_k\Vert^2$",
            ],
            [f"{_percent(real['shared_energy'][name])} Real" for name in names],
        ),
        Box(
            "Rank truncation",
            [*_rank_lines(report, tuned), r"$\Vert\hat{F}_k\Vert^2/\,\Vert F_k\Vert^2$"],
            [f"{_percent(parts[name]['energy'])} kept" for name in names],
        ),
        Box(
            "Norm matching",
            [
                {"model": "over the model", "layer": "tensor by tensor", "none": "none"}[matching]
                + _star("norm_match", tuned),
                r"norm $\Vert\tilde{F}_k\Vert$"
                if matching == "none"
                else r"$\Vert\hat{F}_k\Vert\rightarrow\Vert\tilde{F}_k\Vert$",
            ],
            [
                _short(before[name])
                if matching == "none"
                else f"{_short(before[name])} → {_short(after[name])}"
                for name in names
            ],
        ),
        Box(
            "Mean and scale",
            [r"$\tilde{F}=$ mean of $\tilde{F}_k$", f"{left} left", "", *_scale_lines(report, tuned)],
        ),
    ]


def _rank_lines(report: Mapping[str, Any], tuned: Collection[str]) -> list[str]:
    rank = report["options"]["residual"]["rank"]
    ((rule, value),) = rank.items()
    star = _star(f"residual.rank.{rule}", tuned)
    named = {"ratio": "ratio", "energy": "energy", "fixed": "fixed rank"}
    matrices = [matrix for part in report["residuals"].values() for matrix in part["matrices"].values()]
    ranks, full = [matrix["rank"] for matrix in matrices], [min(matrix["shape"]) for matrix in matrices]
    return [
        f"{named[rule]} {value:g}{star}" if rule in named else f"optimal threshold{star}",
        f"rank {_range(ranks)} of {_range(full)}" if matrices else "no matrices",
    ]


def _scale_lines(report: Mapping[str, Any], tuned: Collection[str]) -> list[str]:
    ((rule, value),) = report["options"]["scale"].items()
    star = _star(f"scale.{rule}", tuned)
    factor = rf"$\lambda=${_short(report['lambda'])}"
    if report["lambda"] == 0 and value != 0:
        return [factor, "(they cancel)"]
    if rule == "absolute":
        return [f"{factor}{star}"]
    return [factor, rf"$\Vert\lambda\tilde{{F}}\Vert=${value:g}{star} $\Vert\tau_\mathrm{{core}}\Vert$"]


def _real(report: Mapping[str, Any], tuned: Collection[str], count: int) -> Box:
    """Return the box of the Real component: the space, and the options that hold in it."""
    options = report["options"]["real"]
    if options["space"] == "matrix":
        ratio = f"{options['core_ratio']:g}{_star('real.core_ratio', tuned)}"
        space = f"matrix space{_star('real.space', tuned)}"
        lines = [f"{space}: leading singular directions of the mean"]
        measure = f"core ratio {ratio}, norm"
    else:
        where = {"model": "over the whole model", "layer": "tensor by tensor"}[options["scope"]]
        where += _star("real.scope", tuned)
        rank = f"{min(options['rank'], count)}{_star('real.rank', tuned)} of {count}"
        lines = [f"task space{_star('real.space', tuned)}: rank {rank}", where]
        lines += [f"centred{_star('real.center', tuned)}"] if options["center"] else []
        weight = {"frobenius": r"$1/\Vert A\Vert$", "frobenius_sqrt_size": r"$\sqrt{P}/\Vert A\Vert$"}
        if options["block_weight"] in weight:
            star = _star("real.block_weight", tuned)
            lines.append(f"tensors weighted by {weight[options['block_weight']]}{star}")
        measure = "norm"
    norm = rf"{measure} $\Vert\tau_\mathrm{{core}}\Vert=${_short(report['core_norm'])}"
    return Box(r"Shared Real component $\tau_\mathrm{core}$", [*lines, norm])


def _merged(report: Mapping[str, Any], context: EvaluationContext) -> Box:
    rule, _, name = report["head"].partition(":")
    head = {
        "average": "mean of the specialists’ heads",
        "base": "initial head of all specialists",
        "specialist": f"that of {context.generator_label(name)}",
    }.get(rule, report["head"])
    formula = r"$\theta^*=\theta_0+\tau_\mathrm{core}+\lambda\tilde{F}$"
    return Box("Merged detector", [formula, f"head: {head}"])


def _ordered(names: Collection[str], context: EvaluationContext) -> list[str]:
    """Sort specialists by family, then by place among the generators."""
    known = list(context.generators)

    def place(name: str) -> tuple[int, int, str]:
        family = _family(name, context)
        at = FAMILIES.index(family) if family in FAMILIES else len(FAMILIES)
        return at, known.index(name) if name in known else len(known), name

    return sorted(names, key=place)


def _family(name: str, context: EvaluationContext) -> str:
    """Family of a specialist: its generator's, or its own name where specialists are of families."""
    return context.generators[name].family if name in context.generators else name


def _label(name: str, context: EvaluationContext) -> str:
    family = _family(name, context)
    return name if name == family else f"{context.generator_label(name)} ({family})"


def _placed(boxes: Sequence[Box]) -> list[Box]:
    """Give the boxes of a lane their widths and places, from left to right."""
    placed: list[Box] = []
    x = MARGIN
    for box in boxes:
        widths = [BOLD * text_width(box.title, TEXT)]
        widths += [text_width(line, TEXT) for line in [*box.lines, *box.rows]]
        width = max(widths) + 2 * PAD
        width += 2 * STRIP if not placed else 0
        placed.append(Box(box.title, box.lines, box.rows, x, width))
        x += width + GAP
    return placed


def _beside(box: Box, left: float, right: float) -> Box:
    """Fit a box of the upper lane between two edges."""
    room = right - left - 2 * PAD
    lines = [part for line in box.lines for part in wrap(line, TEXT, room).split("\n")]
    return Box(box.title, lines, box.rows, left, right - left)


def _height(box: Box) -> float:
    return 2 * PAD + LINE * (1 + len(box.lines)) + (0.04 + ROW * len(box.rows) if box.rows else 0)


def _draw(page: Axes, box: Box, top: float, height: float, colour: str, text_top: float) -> None:
    """Draw the outline of a box, its name and its lines."""
    page.add_patch(
        FancyBboxPatch(
            (box.x, top),
            box.width,
            height,
            boxstyle="round,pad=0,rounding_size=0.05",
            facecolor="white",
            edgecolor=colour,
            lw=0.9,
        )
    )
    y = text_top + PAD + LINE / 2
    page.text(box.middle, y, box.title, size=TEXT, weight="bold", ha="center", va="center")
    for line in box.lines:
        y += LINE
        page.text(box.middle, y, line, size=TEXT, ha="center", va="center")


def _draw_rows(page: Axes, steps: Sequence[Box], top: float, colours: Sequence[str]) -> None:
    """Draw the specialists' rows: a strip in the family's colour, and each step's number on its tint."""
    first = top + PAD + LINE * (1 + max(len(box.lines) for box in steps if box.rows)) + 0.04
    for index, colour in enumerate(colours):
        y = first + index * ROW
        tint = [1 - 0.25 * (1 - part) for part in to_rgb(colour)]
        for box in steps:
            if box.rows:
                page.add_patch(
                    Rectangle((box.x + 0.03, y), box.width - 0.06, ROW - 0.03, facecolor=tint, lw=0)
                )
                page.text(
                    box.middle, y + (ROW - 0.03) / 2, box.rows[index], size=TEXT, ha="center", va="center"
                )
        page.add_patch(Rectangle((steps[0].x + 0.03, y), STRIP, ROW - 0.03, facecolor=colour, lw=0))


def _arrow(page: Axes, points: Sequence[tuple[float, float]], label: str = "") -> None:
    """Draw a line through points with a head at its end, and a label right of its middle."""
    xs, ys = zip(*points, strict=True)
    page.plot(xs[:-1], ys[:-1], color=INK, lw=0.9, solid_joinstyle="miter")
    page.annotate(
        "",
        xy=points[-1],
        xytext=points[-2],
        arrowprops={
            "arrowstyle": "-|>",
            "color": INK,
            "lw": 0.9,
            "shrinkA": 0,
            "shrinkB": 0,
            "mutation_scale": 7,
        },
    )
    if label:
        page.text(xs[0] + 0.05, (ys[0] + ys[-1]) / 2, label, size=TEXT, va="center")


def _shifted(report: Mapping[str, Any]) -> bool:
    return report["options"]["residual"]["definition"] == "shift"


def _star(option: str, tuned: Collection[str]) -> str:
    return CHOSEN if option in tuned else ""


def _short(value: float) -> str:
    """Three significant digits, without an exponent where there is room."""
    return f"{value:#.3g}".rstrip(".") if 1e-3 <= abs(value) < 1e4 else f"{value:.2g}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low}–{high}"
