"""Tables for readers: one renderer of Markdown and LaTeX, and CSV for programs."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd

from r2m.errors import R2MError
from r2m.evaluate.protocols import SPREAD
from r2m.files import atomic_path, write_text
from r2m.report.numbers import number, rounded

MISSING = "–"
_LATEX_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "λ": r"$\lambda$",
        "θ": r"$\theta$",
        "τ": r"$\tau$",
        "²": r"\textsuperscript{2}",
        "–": "--",
        "×": r"$\times$",
        "<": r"$<$",
        "†": r"$^\dagger$",
        "±": r"$\pm$",
    }
)


def escape(text: str) -> str:
    """Escape text for LaTeX."""
    return text.translate(_LATEX_ESCAPES)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]], columns: str) -> list[str]:
    """Return the lines of a Markdown table; `columns` has `l` or `r` per column, as LaTeX's `tabular`."""
    rules = ["---:" if side == "r" else "---" for side in columns]
    return [_markdown_row(header), f"|{'|'.join(rules)}|", *map(_markdown_row, rows)]


def _markdown_row(cells: Sequence[object]) -> str:
    quoted = [str(cell).replace("|", r"\|") for cell in cells]
    return f"| {' | '.join(quoted)} |"


def write_csv(frame: pd.DataFrame, path: Path, float_format: str | None = "%.6f") -> None:
    """Write a frame as CSV without its index, atomically, with Unix line ends."""
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False, float_format=float_format, lineterminator="\n")


@dataclass(frozen=True)
class Heading:
    """A column's heading that stands below another one, `group`, which neighbouring columns share.

    LaTeX has both lines. Markdown has a single one, for which there is `alone`.
    """

    group: str
    title: str
    alone: str


@dataclass(frozen=True)
class Markup:
    """How the best and the second of a column look in a format, and how the format quotes plain text."""

    best: str
    second: str
    quote: Callable[[str], str]


MARKDOWN = Markup("**{}**", "<ins>{}</ins>", str)
LATEX = Markup(r"\textbf{{{}}}", r"\underline{{{}}}", escape)


@dataclass(frozen=True)
class Table:
    """A table as a reader sees it.

    `titles` maps the columns of `frame` that are shown to their headings, in order. Columns in `best` have
    their greatest value bold and the second underlined, by the three digits shown, within each value of the
    column `section`; those in `lowest` their least. `shown` tells which rows a reader sees, by default all;
    the CSV always has all of them. A column's standard deviation over seeds stands in `frame` under its name
    and `_sd`; it is shown with the column's digits, one at least.

    Rarely needed: `sections` gives sections (by value) a heading of their own. Within `compared`, a value of
    `section`, values are ranked, and nowhere else; there have to be two. `notes` has a text to put behind
    each value of a column. Columns of text in `right` are aligned to the right, as numbers are. In the
    caption, `**bold**` and `<ins>underlined</ins>` are marked in Markdown only.
    """

    frame: pd.DataFrame
    titles: Mapping[str, str | Heading]
    caption: str
    label: str
    best: Sequence[str] = ()
    section: str | None = None
    digits: Mapping[str, int] = field(default_factory=dict)
    shown: Sequence[bool] | None = None
    lowest: Sequence[str] = ()
    sections: Mapping[str, str] = field(default_factory=dict)
    compared: str | None = None
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    right: Sequence[str] = ()

    def to_markdown(self) -> str:
        """Render as Markdown, the caption below."""
        header = [title.alone if isinstance(title, Heading) else title for title in self.titles.values()]
        lines = markdown_table(header, [], self._columns)
        cells = self._cells(MARKDOWN)
        for section, rows in self._sections():
            if section in self.sections:
                lines.append(f"| *{self.sections[section]}* |" + " |" * (len(header) - 1))
            lines += [_markdown_row(cells[row]) for row in rows]
        return "\n".join([*lines, "", self.caption, ""])

    def to_latex(self) -> str:
        """Render as a `table` float for a document that loads booktabs and graphicx."""
        caption = re.sub(r"\*\*|</?ins>", "", self.caption)
        grouped = any(isinstance(title, Heading) for title in self.titles.values())
        lines = [
            r"% needs \usepackage{booktabs,graphicx}",
            r"\begin{table}[t]",
            r"\centering",
            r"\footnotesize",
            *([r"\setlength{\tabcolsep}{3pt}"] if grouped else []),
            rf"\caption{{{escape(caption)}}}",
            rf"\label{{tab:{self.label}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{self._columns}}}",
            r"\toprule",
            *(self._latex_groups() if grouped else []),
            _latex_row(
                escape(title.title if isinstance(title, Heading) else title) for title in self.titles.values()
            ),
        ]
        cells = self._cells(LATEX)
        for section, rows in self._sections():
            lines.append(r"\midrule")
            if section in self.sections:
                heading = rf"\textit{{{escape(self.sections[section])}}}"
                lines.append(rf"\multicolumn{{{len(self.titles)}}}{{l}}{{{heading}}} \\")
            lines += [_latex_row(cells[row]) for row in rows]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])

    def write(self, stem: Path) -> None:
        """Write `stem`.csv with all columns of the frame, `stem`.md and `stem`.tex."""
        write_csv(self.frame, stem.with_suffix(".csv"))
        write_text(stem.with_suffix(".md"), self.to_markdown())
        write_text(stem.with_suffix(".tex"), self.to_latex())

    def places(self, name: str) -> pd.Series:
        """Return the rank of every shown value of a column in its section, 1 the best; 0 where unranked."""
        values = self._rows[name]
        if name not in (*self.best, *self.lowest):
            return pd.Series(0, index=values.index)
        sections = pd.Series("", index=values.index) if self.section is None else self._rows[self.section]
        ranked = values.map(rounded)
        if self.compared is not None:
            within = sections == self.compared
            ranked = ranked.where(within & (within.sum() > 1))
        return ranked.groupby(sections).rank("dense", ascending=name in self.lowest).fillna(0).astype(int)

    @property
    def _rows(self) -> pd.DataFrame:
        return self.frame if self.shown is None else self.frame[np.array(self.shown, dtype=bool)]

    @property
    def _columns(self) -> str:
        return "".join("r" if self._is_number(name) or name in self.right else "l" for name in self.titles)

    def _is_number(self, name: str) -> bool:
        return pd.api.types.is_numeric_dtype(self.frame[name])

    def _sections(self) -> list[tuple[str, list[int]]]:
        """Return value and row numbers of each section; without rows there is a single, empty section."""
        count = len(self._rows)
        values = [""] * count if self.section is None else self._rows[self.section].tolist()
        return [(value, list(rows)) for value, rows in groupby(range(count), values.__getitem__)] or [
            ("", [])
        ]

    def _latex_groups(self) -> list[str]:
        """Return the line of shared headings, each over the columns of its group, and the rules below."""
        cells, rules, first = [], [], 1
        groups = [title.group if isinstance(title, Heading) else "" for title in self.titles.values()]
        for group, members in groupby(groups):
            count = len(list(members))
            if group:
                cells.append(rf"\multicolumn{{{count}}}{{c}}{{{escape(group)}}}")
                rules.append(rf"\cmidrule(lr){{{first}-{first + count - 1}}}")
            else:
                cells += [""] * count
            first += count
        return [_latex_row(cells), " ".join(rules)]

    def _cells(self, markup: Markup) -> list[list[str]]:
        columns = [self._column(name, markup) for name in self.titles]
        return [list(row) for row in zip(*columns, strict=True)]

    def _column(self, name: str, markup: Markup) -> list[str]:
        """Return the texts of a column's cells."""
        values = self._rows[name]
        missing = pd.Series(np.nan, index=values.index)
        deviations = self._rows.get(name + SPREAD, missing)
        notes = pd.Series(self.notes.get(name, ""), index=self.frame.index)[values.index]
        digits = self.digits.get(name, 3 if pd.api.types.is_float_dtype(values) else 0)
        marks = {1: markup.best, 2: markup.second}
        cells = []
        for value, place, deviation, note in zip(values, self.places(name), deviations, notes, strict=True):
            if pd.isna(value):
                cells.append(markup.quote(MISSING))
                continue
            text = number(value, digits) if self._is_number(name) else markup.quote(str(value))
            behind = ("" if pd.isna(deviation) else f" ± {number(deviation, max(digits, 1))}") + note
            cells.append(marks.get(place, "{}").format(text) + markup.quote(behind))
        return cells


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def over_seeds(tables: Sequence[Table]) -> Table:
    """Return the table of means over seeds; columns that differ between them get a standard deviation.

    Raises:
        R2MError: the tables have not the same rows.
    """
    first = tables[0]
    if len(tables) == 1:
        return first
    measured = list(first.frame.select_dtypes("float").columns)
    for table in tables[1:]:
        if not table.frame.drop(columns=measured).equals(first.frame.drop(columns=measured)):
            raise R2MError(f"table {first.label}: expected the same rows with every seed")
    stacked = np.stack([table.frame[measured].to_numpy() for table in tables])
    frame = first.frame.assign(**dict(zip(measured, stacked.mean(axis=0).T, strict=True)))
    for name, spread in zip(measured, stacked.std(axis=0, ddof=1).T, strict=True):
        if np.nanmax(spread, initial=0.0) > 0:
            frame.insert(list(frame).index(name) + 1, name + SPREAD, spread)
    caption = f"{first.caption} Mean ± standard deviation over {len(tables)} seeds of training."
    return replace(first, frame=frame, caption=caption)
