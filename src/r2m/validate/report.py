"""What validation found: counts and the results of all checks, as JSON and as text."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from r2m.validate.check import SEVERITIES, Check, Finding, Severity
from r2m.validate.counts import by_split, count_all, count_sizes
from r2m.validate.registry import CHECKS

VERSION = 1
LABELS = {0: "real", 1: "fake"}


@dataclass(frozen=True)
class Result:
    """A check, what it found, and how severe that is here; `finding` is None where the check was not made."""

    check: Check
    severity: Severity
    finding: Finding | None

    @property
    def count(self) -> int:
        """How often the fault was found."""
        return self.finding.count if self.finding is not None else 0

    @property
    def advice(self) -> str:
        """What to do about it."""
        return (self.finding.advice if self.finding is not None else "") or self.check.advice

    @property
    def amount(self) -> str:
        """The count and what is counted."""
        return f"{self.count:,} {self.check.unit[self.count != 1]}"


@dataclass(frozen=True)
class Report:
    """The result of validation.

    Attributes:
        index: path of the index.
        root: folder that its paths are relative to.
        files: number of rows.
        has_contents: whether the files were opened.
        allow_leakage: whether a leak is a warning only.
        counts: tables by name (`r2m.validate.counts.TABLES`).
        sizes: numbers of images by size; empty where they were not opened.
        results: of all checks, in their order.
    """

    index: str
    root: str
    files: int
    has_contents: bool
    allow_leakage: bool
    counts: dict[str, pd.DataFrame]
    sizes: pd.DataFrame
    results: tuple[Result, ...]

    def found(self, *severities: Severity) -> list[Result]:
        """Return results with a fault of these severities, the most severe first; by default all."""
        chosen = [result for result in self.results if result.count]
        chosen = [result for result in chosen if result.severity in (severities or SEVERITIES)]
        return sorted(chosen, key=lambda result: SEVERITIES.index(result.severity))

    def summary(self) -> str:
        """Return how many checks found something, in words."""
        counts = Counter(result.severity for result in self.found())
        words: dict[Severity, str] = {"error": "errors", "warning": "warnings", "info": "remarks"}
        told = [
            f"{counts[severity]} {word[:-1] if counts[severity] == 1 else word}"
            for severity, word in words.items()
            if counts[severity]
        ]
        return ", ".join(told) or "nothing found"

    def as_json(self) -> str:
        """Return the report for programs: the attributes, and `severity`, the most severe one found, or null.

        A check has `made` false and `count` null where it was not made.
        """
        content = {
            "version": VERSION,
            "index": self.index,
            "root": self.root,
            "files": self.files,
            "contents": self.has_contents,
            "allow_leakage": self.allow_leakage,
            "severity": next((result.severity for result in self.found()), None),
            "counts": {name: _records(table) for name, table in self.counts.items()},
            "sizes": _records(self.sizes),
            "checks": [_as_json(result) for result in self.results],
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def as_text(self) -> str:
        """Return the report for a terminal."""
        how = "" if self.has_contents else "; files were not opened"
        lines = [f"{self.index}: {self.files:,} files below {self.root}{how}", ""]
        lines += [*aligned(by_split(self.counts["generators"])), ""]
        lines += [*aligned(by_split(self.counts["families"])), ""]
        if len(self.sizes):
            lines += [*aligned(self.sizes), ""]
        for result in self.found():
            assert result.finding is not None
            lines.append(f"{result.severity}: {result.check.title}: {result.amount}")
            lines += [f"    {line}" for line in aligned(result.finding.where.head(FEW))]
            if first := first_example(result.finding):
                lines.append(f"    such as {first}")
            lines += [f"    {result.advice}", ""]
        return "\n".join([*lines, self.summary()])


FEW = 8  # parts that the terminal shows of a finding


def compose(
    frame: pd.DataFrame,
    index: str,
    root: str,
    *,
    has_contents: bool,
    allow_leakage: bool,
    checks: Iterable[Check] = CHECKS,
) -> Report:
    """Return the report on the rows that `r2m.validate.rows.examine` returned."""
    return Report(
        index=index,
        root=root,
        files=len(frame),
        has_contents=has_contents,
        allow_leakage=allow_leakage,
        counts=count_all(frame),
        sizes=count_sizes(frame) if has_contents else pd.DataFrame(),
        results=tuple(results_of(frame, has_contents, allow_leakage, checks)),
    )


def results_of(
    frame: pd.DataFrame, has_contents: bool, allow_leakage: bool, checks: Iterable[Check] = CHECKS
) -> Iterator[Result]:
    """Yield what each of the checks found."""
    for check in checks:
        severity: Severity = "warning" if check.is_leak and allow_leakage else check.severity
        is_made = has_contents or not check.needs_contents
        yield Result(check, severity, check.find(frame) if is_made else None)


def first_example(finding: Finding) -> str:
    """Return the first example in words, or the first part where there are no examples; empty for none."""
    table = finding.where if finding.examples.empty else finding.examples
    if table.empty:
        return ""
    row = worded(table.head(1)).iloc[0]
    text = ", ".join(f"{name} {value}" for name, value in row.items() if name not in {"path", "other_path"})
    paths = " and ".join(str(row[name]) for name in ("path", "other_path") if name in row)
    return f"{paths} ({text})" if paths and text else paths or text


def worded(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with words for labels, and text instead of categories."""
    result = table.copy()
    for name in result:
        if name in {"label", "other_label"}:
            result[name] = result[name].map(LABELS)
        elif isinstance(result[name].dtype, pd.CategoricalDtype):
            result[name] = result[name].astype("object")
    return result


def aligned(table: pd.DataFrame) -> list[str]:
    """Return the lines of a table for a terminal, numbers to the right with commas."""
    if table.empty:
        return []
    shown = worded(table)
    columns = []
    for name in shown:
        is_number = pd.api.types.is_numeric_dtype(shown[name])
        cells = [str(name), *(number_text(value) if is_number else str(value) for value in shown[name])]
        width = max(map(len, cells))
        columns.append([cell.rjust(width) if is_number else cell.ljust(width) for cell in cells])
    return ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]


def number_text(value: float) -> str:
    """Return a number with commas, and with decimals only if it has any."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}".rstrip("0").rstrip(".")


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads(table.to_json(orient="records"))
    return records


def _as_json(result: Result) -> dict[str, Any]:
    check = result.check
    described = {
        "name": check.name,
        "severity": result.severity,
        "title": check.title,
        "advice": result.advice,
    }
    described["unit"] = check.unit[1]
    if result.finding is None:
        return {**described, "made": False, "count": None, "where": [], "examples": []}
    return {
        **described,
        "made": True,
        "count": result.finding.count,
        "where": _records(result.finding.where),
        "examples": _records(result.finding.examples),
    }
