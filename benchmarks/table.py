"""Tables of what was measured."""

import re
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

COLUMNS = (
    "",
    "wall, best (s)",
    "wall, median (s)",
    "start-up (s)",
    "CPU (s)",
    "peak RSS (GB)",
    "anonymous (GB)",
    "wall ×",
    "less start-up ×",
    "RSS ×",
    "difference",
)
START, END = "<!-- results -->", "<!-- /results -->"


def markdown(results: Mapping[str, Any]) -> str:
    """Return one section a case: table, what was left out or failed, machine, versions."""
    return "\n".join(_section(name, record) for name, record in results.items())


def fill(path: Path, text: str) -> None:
    """Put `text` between the two marker comments of a file."""
    content = path.read_text()
    pattern = re.compile(f"{re.escape(START)}.*{re.escape(END)}", re.DOTALL)
    path.write_text(pattern.sub(lambda _: f"{START}\n\n{text}\n{END}", content))


def _section(name: str, record: Mapping[str, Any]) -> str:
    rows = {row["name"]: row for row in record["rows"]}
    measured = [row for row in rows.values() if row["runs"]]
    lines = [f"### `{name}`: {record['title']}", ""]
    if measured:
        lines += ["| " + " | ".join(COLUMNS) + " |", "|---" + "|--:" * (len(COLUMNS) - 1) + "|"]
        lines += ["| " + " | ".join(_cells(row, rows.get(row["reference"]))) + " |" for row in measured]
        lines += [""]
    lines += [f"- failed: {row['name']} ({row['failed']})" for row in rows.values() if "failed" in row]
    lines += [f"- left out: {reason}" for reason in record["left_out"]]
    lines += ["- " + ", ".join(f"{key} {value}" for key, value in record["machine"].items())]
    lines += [
        f"- environment of {who}: " + ", ".join(f"{key} {value}" for key, value in packages.items())
        for who, packages in record["versions"].items()
    ]
    repeats = max((len(row["runs"]) for row in measured), default=0)
    return "\n".join([*lines, f"- {record['date']}, {repeats} runs of each", ""])


def _cells(row: Mapping[str, Any], reference: Mapping[str, Any] | None) -> list[str]:
    wall, rss = _wall(row), _peak(row, "rss")
    return [
        row["name"],
        f"{wall:.2f}",
        f"{median(run['wall'] for run in row['runs']):.2f}",
        f"{min(row['startup']):.2f}" if "startup" in row else "",
        f"{median(run['cpu'] for run in row['runs']):.1f}",
        f"{rss / 1e9:.2f}",
        f"{_peak(row, 'anonymous') / 1e9:.2f}",
        f"{wall / _wall(reference):.2f}" if reference and reference["runs"] else "",
        f"{_work(row) / _work(reference):.2f}" if reference and reference["runs"] else "",
        f"{rss / _peak(reference, 'rss'):.2f}" if reference and reference["runs"] else "",
        f"{row['difference']:.1e}" if "difference" in row else "",
    ]


def _wall(row: Mapping[str, Any]) -> float:
    return min(run["wall"] for run in row["runs"])


def _work(row: Mapping[str, Any]) -> float:
    """Return the best wall time less the start-up; a program that imports nothing has none."""
    return _wall(row) - min(row.get("startup", [0.0]))


def _peak(row: Mapping[str, Any], key: str) -> float:
    return max(run[key] for run in row["runs"])
