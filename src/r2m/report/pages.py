"""Tables and cards as HTML pages: the Snakemake report shows those, and only saves Markdown and CSV."""

import base64
import csv
import io
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt

from r2m.errors import R2MError

TYPES = {".md": "text/markdown", ".csv": "text/csv"}
DECIMALS = 4
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{name}</title>
<style>
body {{ font: 14px/1.5 "DejaVu Sans", Verdana, sans-serif; color: #222; margin: 1.5em 2em; }}
h1 {{ font-size: 1.5em; }}
h2 {{ font-size: 1.15em; margin-top: 1.8em; }}
p, ul {{ max-width: 52em; }}
table {{ border-collapse: collapse; font-size: 13px; }}
th {{ position: sticky; top: 0; background: #fff; border-bottom: 1.5px solid #222; text-align: left; }}
th, td {{ padding: .25em .7em; vertical-align: top; }}
tbody tr:nth-child(even) {{ background: #f3f5f8; }}
th.number, td.number {{ text-align: right; }}
tr > :first-child, .data td {{ white-space: nowrap; }}
.data {{ font-size: 12px; }}
td code {{ word-break: break-all; }}
pre {{ background: #f3f5f8; padding: .8em 1em; overflow-x: auto; }}
code {{ font: 12px "DejaVu Sans Mono", monospace; }}
.save {{ display: block; text-align: right; font-size: 12px; margin-bottom: .7em; }}
</style>
</head>
<body>
<a class="save" download="{name}" href="data:{type};charset=utf-8;base64,{content}">Save {name}</a>
{body}</body>
</html>
"""


def page(path: Path) -> str:
    """Return a Markdown or CSV file as a page of its own, with a link that saves the file."""
    if path.suffix not in TYPES:
        raise R2MError(f"{path}: expected {' or '.join(TYPES)}")
    try:
        content = path.read_bytes()
        text = content.decode("utf-8")
        body = csv_table(text) if path.suffix == ".csv" else markdown(text)
    except (OSError, ValueError, csv.Error) as error:
        raise R2MError(f"{path}: cannot be read as {TYPES[path.suffix]}: {error}") from error
    return PAGE.format(
        name=escape(path.name),
        type=TYPES[path.suffix],
        content=base64.b64encode(content).decode(),
        body=body,
    )


def markdown(text: str) -> str:
    """Return Markdown with tables as HTML."""
    return MarkdownIt("commonmark").enable("table").render(text)


def csv_table(text: str) -> str:
    """Return CSV as an HTML table: numbers to the right, with four decimals where there are more."""
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    sides = [' class="number"' if _are_numbers(column) else "" for column in columns]

    def line(tag: str, cells: Sequence[str]) -> str:
        texts = (f"<{tag}{side}>{escape(cell)}</{tag}>" for side, cell in zip(sides, cells, strict=True))
        return f"<tr>{''.join(texts)}</tr>\n"

    body = "".join(line("td", [_rounded(cell) for cell in row]) for row in rows)
    head = f"<thead>\n{line('th', header)}</thead>\n"
    return f'<table class="data">\n{head}<tbody>\n{body}</tbody>\n</table>\n'


def _are_numbers(cells: Sequence[str]) -> bool:
    """Tell whether a column has numbers, and nothing else but gaps."""
    return any(cells) and all(map(_is_number, filter(None, cells)))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _rounded(cell: str) -> str:
    if not re.fullmatch(rf"-?\d*\.\d{{{DECIMALS + 1},}}(e-?\d+)?", cell):
        return cell
    value = float(cell)
    return f"{value:.{DECIMALS}f}" if value == 0 or abs(value) >= 10**-DECIMALS else f"{value:.1e}"
