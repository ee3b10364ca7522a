"""Tables of experiments as CSV, Markdown and LaTeX."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from r2m.errors import R2MError
from r2m.evaluate.seeds import SPREAD
from r2m.files import atomic_path, write_text
from r2m.report.main_table import LATEX, MARKDOWN, Markup, escape


def over_seeds(tables: Sequence["Rendered"]) -> "Rendered":
    """Return the table of means over seeds; columns that differ between them get a standard deviation.

    Raises:
        R2MError: the tables have not the same rows.
    """
    first = tables[0]
    if len(tables) == 1:
        return first
    measured = list(first.frame.select_dtypes("float").columns)
    for other in tables[1:]:
        if not other.frame.drop(columns=measured).equals(first.frame.drop(columns=measured)):
            raise R2MError(f"table {first.label}: expected the same rows with every seed")
    stacked = np.stack([table.frame[measured].to_numpy() for table in tables])
    frame = first.frame.assign(**dict(zip(measured, stacked.mean(axis=0).T, strict=True)))
    for name, spread in zip(measured, stacked.std(axis=0, ddof=1).T, strict=True):
        if np.nanmax(spread, initial=0.0) > 0:
            frame.insert(list(frame).index(name) + 1, name + SPREAD, spread)
    caption = f"{first.caption} Mean ± standard deviation over {len(tables)} seeds of training."
    return replace(first, frame=frame, caption=caption)


@dataclass(frozen=True)
class Rendered:
    """A table as a reader sees it.

    `titles` maps the columns of `frame` that are shown to their headings, in order. Columns in `best` have
    their greatest value bold and the second underlined, by the three digits shown, within each value of
    `section`. `shown` tells which rows a reader sees, by default all; the CSV always has all of them. A
    column's standard deviation over seeds stands in `frame` under its name and `_sd`; it is shown with the
    column's digits, one at least.
    """

    frame: pd.DataFrame
    titles: Mapping[str, str]
    caption: str
    label: str
    best: Sequence[str] = ()
    section: str | None = None
    digits: Mapping[str, int] = field(default_factory=dict)
    shown: Sequence[bool] | None = None

    def to_markdown(self) -> str:
        """Render as Markdown, the caption below."""
        aligned = ["---:" if self._is_number(name) else "---" for name in self.titles]
        lines = ["| " + " | ".join(self.titles.values()) + " |", "|" + "|".join(aligned) + "|"]
        cells = self._cells(MARKDOWN, lambda text: text.replace("|", r"\|"))
        return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in cells), "", self.caption, ""])

    def to_latex(self) -> str:
        """Render as LaTeX with booktabs."""
        columns = "".join("r" if self._is_number(name) else "l" for name in self.titles)
        body = [" & ".join(row) + r" \\" for row in self._cells(LATEX, escape)]
        if self.section is not None:
            sections = self._rows[self.section]
            starts = np.flatnonzero((sections != sections.shift()).to_numpy())
            for start in reversed(starts[1:].tolist()):
                body.insert(start, r"\midrule")
        lines = [
            r"% needs \usepackage{booktabs,graphicx}",
            r"\begin{table}[t]",
            r"\centering",
            r"\footnotesize",
            rf"\caption{{{escape(self.caption)}}}",
            rf"\label{{tab:{self.label}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(map(escape, self.titles.values())) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
        return "\n".join(lines)

    def write(self, stem: Path) -> None:
        """Write `stem`.csv with all columns of the frame, `stem`.md and `stem`.tex."""
        with atomic_path(stem.with_suffix(".csv")) as temporary:
            self.frame.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
        write_text(stem.with_suffix(".md"), self.to_markdown())
        write_text(stem.with_suffix(".tex"), self.to_latex())

    @property
    def _rows(self) -> pd.DataFrame:
        return self.frame if self.shown is None else self.frame[list(self.shown)]

    def _is_number(self, name: str) -> bool:
        return pd.api.types.is_numeric_dtype(self.frame[name])

    def _places(self, name: str) -> pd.Series:
        """Return the place of every value, 1 the greatest, among those of its section."""
        values = self._rows[name].round(3)
        sections = self._rows[self.section] if self.section else pd.Series("", index=values.index)
        return values.groupby(sections).rank("dense", ascending=False)

    def _spread(self, name: str) -> pd.Series:
        missing = pd.Series(np.nan, index=self._rows.index)
        return self._rows.get(name + SPREAD, missing)

    def _cells(self, markup: Markup, quoted: Callable[[str], str]) -> list[list[str]]:
        columns = []
        for name in self.titles:
            values = self._rows[name]
            places = self._places(name) if name in self.best else pd.Series(0, index=values.index)
            frames = {1: markup.best, 2: markup.second}
            digits = self.digits.get(name, 3 if pd.api.types.is_float_dtype(values) else 0)
            columns.append(
                [
                    markup.missing
                    if pd.isna(value)
                    else frames.get(int(place) if not pd.isna(place) else 0, "{}").format(
                        f"{value:.{digits}f}" if self._is_number(name) else quoted(str(value))
                    )
                    + ("" if pd.isna(spread) else f"{markup.spread}{spread:.{max(digits, 1)}f}")
                    for value, place, spread in zip(values, places, self._spread(name), strict=True)
                ]
            )
        return [list(row) for row in zip(*columns, strict=True)]
