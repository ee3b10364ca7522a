"""Markdown that several cards and records are made of."""

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[object]], numbers: int) -> list[str]:
    """Lines of a Markdown table whose last `numbers` columns are aligned to the right."""
    rules = ["---"] * (len(header) - numbers) + ["---:"] * numbers
    cells = [[str(cell).replace("|", r"\|") for cell in row] for row in rows]
    return ["| " + " | ".join(line) + " |" for line in ([*header], rules, *cells)]
