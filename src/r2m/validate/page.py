"""The report as one HTML page that needs no network."""

import re
from collections.abc import Mapping
from html import escape

import pandas as pd

from r2m.validate.counts import by_split
from r2m.validate.report import Report, Result, number_text, worded
from r2m.validate.thumbnails import SHOWN, SIDE

TITLES = {
    "generators": "By generator",
    "families": "By family",
    "domains": "By domain",
    "datasets": "By data set",
    "splits": "By split",
    "labels": "By label",
}
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 14px/1.5 "DejaVu Sans", Verdana, sans-serif; color: #222; margin: 1.5em auto;
  max-width: 76em; padding: 0 1.5em; }}
h1 {{ font-size: 1.5em; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.2em; margin-top: 2em; border-bottom: 1.5px solid #222; }}
h3 {{ font-size: 1em; margin: 1.6em 0 .3em; }}
p {{ max-width: 52em; margin: .4em 0; overflow-wrap: anywhere; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 12.5px; margin: .6em 0; }}
th {{ border-bottom: 1px solid #222; text-align: left; vertical-align: bottom; }}
th, td {{ padding: .2em .7em; }}
td {{ vertical-align: top; }}
tbody tr:nth-child(even) {{ background: #f3f5f8; }}
th.number, td.number {{ text-align: right; white-space: nowrap; }}
td.path {{ min-width: 16em; overflow-wrap: anywhere; font: 12px "DejaVu Sans Mono", monospace; }}
code {{ font: 12px "DejaVu Sans Mono", monospace; }}
img {{ display: block; max-width: {side}px; max-height: {side}px; margin-bottom: .2em; }}
.samples {{ display: flex; flex-wrap: wrap; gap: .3em; min-width: 18em; }}
.error, .warning, .info, .none {{ display: inline-block; min-width: 5.2em; text-align: center;
  border-radius: .3em; padding: 0 .5em; font-size: 12px; font-weight: normal; color: #fff; }}
.error {{ background: #a5202e; }}
.warning {{ background: #8a5a00; }}
.info {{ background: #2f5f8f; }}
.none {{ background: #4d6b4d; }}
details {{ margin: .4em 0; }}
summary {{ cursor: pointer; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def page(report: Report, pictures: Mapping[str, str], samples: pd.DataFrame) -> str:
    """Return the report as HTML, with pictures (path → data URI) of examples and of the `samples`."""
    how = "All files were opened." if report.has_contents else "Files were looked for, but not opened."
    body = [
        f"<h1>Validation of {escape(report.index)}</h1>",
        f"<p>{report.files:,} files below <code>{escape(report.root)}</code>. {how}"
        f"{' Leaks between splits are allowed.' if report.allow_leakage else ''}"
        f" Found: {report.summary()}.</p>",
        *_overview(report),
        *(line for result in report.found() for line in _section(result, pictures)),
        "<h2>Images and videos</h2>",
    ]
    for name, title in TITLES.items():
        body += [f"<h3>{title}</h3>", table(by_split(report.counts[name]))]
    if len(report.sizes):
        body += ["<h2>Sizes in pixels</h2>", table(report.sizes)]
    if len(samples):
        body += ["<h2>Samples</h2>", _samples(samples, pictures)]
    return PAGE.format(title=f"Validation of {escape(report.index)}", side=SIDE, body="\n".join(body))


def table(frame: pd.DataFrame, pictures: Mapping[str, str] | None = None) -> str:
    """Return a table; cells of the columns `path` and `other_path` have their picture above."""
    if frame.empty:
        return ""
    shown = worded(frame)
    kinds = {
        name: "number" if pd.api.types.is_numeric_dtype(shown[name]) else "path" if "path" in name else ""
        for name in map(str, shown)
    }

    def cell(name: str, value: object) -> str:
        if kinds[name] == "number":
            return f'<td class="number">{number_text(value)}</td>'  # type: ignore[arg-type]
        text = "–" if pd.isna(value) else escape(str(value))  # type: ignore[call-overload]
        text = text.replace("/", "/<wbr>") if kinds[name] == "path" else text
        picture = _image(str(value), pictures or {}) if kinds[name] == "path" else ""
        return f'<td class="{kinds[name]}">{picture}{text}</td>' if kinds[name] else f"<td>{text}</td>"

    head = "".join(
        f'<th class="{kind}">{escape(_heading(name))}</th>' if kind else f"<th>{escape(_heading(name))}</th>"
        for name, kind in kinds.items()
    )
    rows = (
        "<tr>" + "".join(cell(name, value) for name, value in zip(kinds, values, strict=True)) + "</tr>"
        for values in shown.itertuples(index=False, name=None)
    )
    return _table(head, "\n".join(rows))


def _overview(report: Report) -> list[str]:
    rows = []
    for result in [*report.found(), *(result for result in report.results if not result.count)]:
        severity = result.severity if result.count else "none"
        word = result.severity if result.count else "not made" if result.finding is None else "none"
        title = escape(result.check.title)
        link = f'<a href="#{result.check.name}">{title}</a>' if result.count else title
        amount = result.amount if result.finding is not None else "–"
        rows.append(
            f'<tr><td><span class="{severity}">{word}</span></td><td>{link}</td><td>{amount}</td></tr>'
        )
    return ["<table>", *rows, "</table>"]


def _section(result: Result, pictures: Mapping[str, str]) -> list[str]:
    assert result.finding is not None
    examples = result.finding.examples
    lines = [
        f'<h2 id="{result.check.name}"><span class="{result.severity}">{result.severity}</span>'
        f" {escape(result.check.title)}: {result.amount}</h2>",
        f"<p>{_with_code(result.advice)}</p>",
        table(result.finding.where),
    ]
    if len(examples):
        lines += [
            f"<h3>Examples ({len(examples)} of {result.count:,})</h3>",
            table(examples.head(SHOWN), pictures),
        ]
    if len(examples) > SHOWN:
        lines += ["<details><summary>More examples</summary>", table(examples.iloc[SHOWN:]), "</details>"]
    return lines


def _samples(samples: pd.DataFrame, pictures: Mapping[str, str]) -> str:
    rows = []
    for _, part in samples.groupby(["domain", "label", "method"], observed=True):
        images = "".join(_image(path, pictures) for path in part["path"])
        names = (escape(part[name].iloc[0]) for name in ("domain", "method", "family"))
        rows.append(
            f"<tr>{''.join(f'<td>{name}</td>' for name in names)}"
            f'<td><div class="samples">{images}</div></td></tr>'
        )
    head = "<th>domain</th><th>method</th><th>family</th><th>images</th>"
    return _table(head, "\n".join(rows))


def _table(head: str, body: str) -> str:
    top = f"<thead><tr>{head}</tr></thead>"
    return f'<div class="wide"><table>\n{top}\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _image(path: str, pictures: Mapping[str, str]) -> str:
    if path not in pictures:
        return ""
    return f'<img src="{pictures[path]}" alt="" title="{escape(path)}">'


def _with_code(text: str) -> str:
    """Return text with what stands in backticks as code."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(text))


def _heading(name: str) -> str:
    return name.replace("_", " ")
