"""The main table, one row a model, as Markdown and as LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r2m.evaluate.protocols import (
    FAMILIES,
    PROTOCOLS,
    EvaluationContext,
    describe,
    mean_columns,
    order_test_sets,
)

KIND_TITLES = {"base": "Base", "specialist": "Specialists", "joint": "Joint training", "merge": "Merged"}
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


@dataclass(frozen=True)
class MainTable:
    """Mean AUCs: a row per model, a column per (protocol title, column title).

    Shapes: `values` (models, columns), NaN where a model has no test set; `own` (models, columns) marks the
    cells of a specialist's own family; `labels` and `kinds` (models,); `spread` (models, columns), the
    standard deviation over seeds of training, NaN where there is one.
    """

    name: ClassVar[str] = "main"

    columns: list[tuple[str, str]]
    values: NDArray[np.float64]
    own: NDArray[np.bool_]
    labels: list[str]
    kinds: list[str]
    spread: NDArray[np.float64]

    def ranks(self) -> NDArray[np.int64]:
        """Place of each merge within its column by the three digits shown, 1 the best; 0 for other models."""
        merges = np.flatnonzero(np.array(self.kinds) == "merge")
        ranks = np.zeros(self.values.shape, dtype=np.int64)
        if len(merges) > 1:
            for column, values in enumerate(self.values[merges].round(3).T):
                steps = np.unique(-values[~np.isnan(values)])
                ranks[merges, column] = np.where(np.isnan(values), 0, np.searchsorted(steps, -values) + 1)
        return ranks

    def to_markdown(self) -> str:
        """Render as a Markdown table with a legend."""
        titles = [_flat_title(*column).replace("|", r"\|") for column in self.columns]
        lines = ["| Model | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles)]
        for kind, rows in self._sections():
            lines.append(f"| *{KIND_TITLES[kind]}* |" + " |" * len(titles))
            for row in rows:
                label = self.labels[row].replace("|", r"\|")
                lines.append(f"| {label} | " + " | ".join(self._cells(row, MARKDOWN)) + " |")
        return "\n".join([*lines, "", self.legend("**Bold**", "<ins>underlined</ins>"), ""])

    def to_latex(self) -> str:
        """Render as a `table` float for a document that loads booktabs and graphicx."""
        protocols = [protocol for protocol, _ in self.columns]
        spans = [(name, protocols.index(name), protocols.count(name)) for name in dict.fromkeys(protocols)]
        groups = " & ".join(rf"\multicolumn{{{count}}}{{c}}{{{escape(name)}}}" for name, _, count in spans)
        rules = " ".join(rf"\cmidrule(lr){{{start + 2}-{start + count + 1}}}" for _, start, count in spans)
        width = len(self.columns)
        lines = [
            r"% needs \usepackage{booktabs,graphicx}",
            r"\begin{table}[t]",
            r"\centering",
            r"\footnotesize",
            r"\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{escape(self.legend('Bold', 'underlined'))}}}",
            rf"\label{{tab:{self.name}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * width}}}",
            r"\toprule",
            rf" & {groups} \\",
            rules,
            "Model & " + " & ".join(escape(title) for _, title in self.columns) + r" \\",
        ]
        for kind, rows in self._sections():
            lines += [r"\midrule", rf"\multicolumn{{{width + 1}}}{{l}}{{\textit{{{KIND_TITLES[kind]}}}}} \\"]
            lines += [
                " & ".join([escape(self.labels[row]), *self._cells(row, LATEX)]) + r" \\" for row in rows
            ]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])

    def legend(self, bold: str, underlined: str) -> str:
        """Explain the table, with the words `bold` and `underlined` in the markup that they name."""
        return (
            "Mean AUC over test sets; a family's column is the mean over its trained generators in the "
            f"training domain. {bold}: best of the merged models, {underlined}: second; †: the specialist's "
            f"own family.{self.seeds()}"
        )

    def seeds(self) -> str:
        """Say what ± means, where there are several seeds."""
        return "" if np.isnan(self.spread).all() else " Mean ± standard deviation over seeds of training."

    def _sections(self) -> list[tuple[str, list[int]]]:
        return [(kind, list(rows)) for kind, rows in groupby(range(len(self.kinds)), self.kinds.__getitem__)]

    def _cells(self, row: int, markup: "Markup") -> list[str]:
        cells = []
        columns = (self.values[row], self.spread[row], self.own[row], self.ranks()[row])
        for value, spread, own, rank in zip(*columns, strict=True):
            if np.isnan(value):
                cells.append(markup.missing)
            else:
                frame = {1: markup.best, 2: markup.second}.get(int(rank), "{}")
                deviation = "" if np.isnan(spread) else f"{markup.spread}{spread:.3f}"
                cells.append(frame.format(f"{value:.3f}") + deviation + (markup.own if own else ""))
        return cells


@dataclass(frozen=True)
class Markup:
    """How the best, the second, a specialist's own, a missing value and the sign before a deviation look."""

    best: str
    second: str
    own: str
    missing: str
    spread: str


MARKDOWN = Markup("**{}**", "<ins>{}</ins>", "†", "–", " ± ")
LATEX = Markup(r"\textbf{{{}}}", r"\underline{{{}}}", r"$^\dagger$", "--", r" $\pm$ ")


def main_table(seeds: Sequence[pd.DataFrame], models: pd.DataFrame, context: EvaluationContext) -> MainTable:
    """Average the AUCs over test sets: per family in distribution, and per protocol.

    Cross-dataset is parted by whether the generator was trained on where both kinds occur. `seeds` holds the
    AUCs (AUC_COLUMNS) of every training.
    """
    names = list(models["model"])
    pairs = seeds[0][["domain", "generator"]].drop_duplicates().itertuples(index=False)
    sets = order_test_sets([describe(domain, generator, context) for domain, generator in pairs], context)
    columns = mean_columns(sets)
    values = np.full((len(seeds), len(names), len(columns)), np.nan)
    own = np.zeros(values.shape[1:], dtype=bool)
    for column, ((_, part), places) in enumerate(columns.items()):
        for place, auc in enumerate(seeds):
            rows = auc["test_set"].isin([sets[own_set].name for own_set in places])
            values[place, :, column] = auc[rows].groupby("model")["auc"].mean().reindex(names)
        for row, (name, kind) in enumerate(zip(names, models["kind"], strict=True)):
            generator = context.generators.get(name) if kind == "specialist" else None
            own[row, column] = generator is not None and part == generator.family
    titles = [(PROTOCOLS[protocol], part) for protocol, part in columns]
    spread = values.std(axis=0, ddof=1) if len(seeds) > 1 else np.full(own.shape, np.nan)
    return MainTable(titles, values.mean(axis=0), own, list(models["label"]), list(models["kind"]), spread)


def _flat_title(protocol: str, column: str) -> str:
    if column == "mean":
        return protocol
    return column if column in FAMILIES else f"{protocol}, {column}"


def escape(text: str) -> str:
    """Escape text for LaTeX."""
    return text.translate(_LATEX_ESCAPES)
