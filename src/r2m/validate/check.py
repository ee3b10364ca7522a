"""What a check declares about itself, and what it finds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
EXAMPLES = 20
PART = ("domain", "method", "split")


@dataclass(frozen=True)
class Finding:
    """How often a fault was found, and where.

    Attributes:
        count: of what the check counts.
        examples: at most `EXAMPLES` rows. Images in columns `path` and `other_path` are shown beside them.
        where: how the count is spread over the parts of the data; may be empty.
        advice: what to do about it, where that is not what the check says; empty if it is.
    """

    count: int
    examples: pd.DataFrame = field(default_factory=pd.DataFrame)
    where: pd.DataFrame = field(default_factory=pd.DataFrame)
    advice: str = ""


@dataclass(frozen=True)
class Check:
    """One check of an index.

    Attributes:
        name: how reports refer to it, lower case with underscores.
        severity: an `error` stops the workflow; a `warning` and an `info` are told.
        title: what is wrong, as a heading.
        advice: what to do about it.
        unit: what is counted, one and several.
        find: a function of the rows, with the columns that `r2m.validate.rows.examine` describes.
        needs_contents: whether `find` reads columns that are there only after the files were opened.
        is_leak: whether it is a leak between splits, which is a warning where leaks are allowed.
    """

    name: str
    severity: Severity
    title: str
    advice: str
    unit: tuple[str, str]
    find: Callable[[pd.DataFrame], Finding]
    needs_contents: bool = False
    is_leak: bool = False


def spread(rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return at most `EXAMPLES` of the row numbers, evenly spaced, so that not all are of one video."""
    if len(rows) <= EXAMPLES:
        return rows
    return rows[np.arange(EXAMPLES) * len(rows) // EXAMPLES]


def of_files(
    frame: pd.DataFrame,
    is_wrong: NDArray[np.bool_],
    columns: Sequence[str] = (),
    by: Sequence[str] = PART,
) -> Finding:
    """Return the finding of rows that are wrong each by itself, with these columns shown beside the path."""
    rows = np.flatnonzero(is_wrong)
    if not len(rows):
        return Finding(0)
    return Finding(
        count=len(rows),
        examples=frame.iloc[spread(rows)][["path", *by, *columns]].reset_index(drop=True),
        where=tally(frame.iloc[rows][list(by)], "files"),
    )


def tally(parts: pd.DataFrame, unit: str) -> pd.DataFrame:
    """Return how many rows each part has, most first; `unit` is the name of the column of counts."""
    counts = parts.groupby(list(parts), observed=True, sort=True).size().rename(unit).reset_index()
    return counts.sort_values(unit, ascending=False, kind="stable", ignore_index=True)
