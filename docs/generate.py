"""Write what follows from code and results into the pages: params, commands, methods, numbers of the run.

`python docs/generate.py` rewrites the text between `<!-- generated: NAME -->` and `<!-- end: NAME -->`.
"""

import csv
import importlib
import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
ARXIV = re.compile(r"arXiv (\d{4}\.\d{5})")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], columns: str = "") -> str:
    """Return a Markdown table; `columns` has a letter per column, `l` or `r`, by default all `l`."""
    rules = ["---:" if side == "r" else "---" for side in columns or "l" * len(header)]
    lines = [header, rules, *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def code(value: Any) -> str:
    """Return a value as it would stand in params.yaml, as code; nothing for null."""
    if value is None:
        return ""
    text = json.dumps(value, ensure_ascii=False).replace('"', "")
    return f"`{text}`"


# params.yaml

Schema = Mapping[str, Any]


class Params:
    """The tables of params.yaml, section by section, from its JSON schema."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.definitions = schema["$defs"]

    def pages(self) -> str:
        """Return a heading and a table for every section."""
        top, sections = [], []
        for key, part in self.schema["properties"].items():
            if self._is_section(part) or self._members(part) is not None:
                sections.append((key, part))
            else:
                top.append(self._row(key, part, key in self.schema["required"]))
        texts = ["### Top level", table(("Key", "Default", "Values", "Meaning"), top)]
        for key, part in sections:
            texts += self._section(key, part, "###")
        return "\n\n".join(texts)

    def _section(self, key: str, part: Schema, heading: str) -> Iterator[str]:
        members = self._members(part)
        if members is not None:
            yield f"{heading} `{key}.NAME`"
            yield _sentence(part.get("description", ""))
            part, key = members, f"{key}.NAME"
        else:
            yield f"{heading} `{key}`"
        section = self._resolved(part)
        yield _sentence(section.get("description", ""))
        own = section["properties"]
        required = section.get("required", [])
        # Sections of sections, such as `experiments` and `merge.methods`, have headings of their own.
        inner = [
            name
            for name, value in own.items()
            if self._members(value) is not None or (key == "experiments" and self._is_section(value))
        ]
        rows = [row for name in own if name not in inner for row in self._rows(name, own[name], required)]
        if rows:
            yield table(("Key", "Default", "Values", "Meaning"), rows)
        for name in inner:
            yield from self._section(f"{key}.{name}", own[name], "####")

    def _rows(self, name: str, part: Schema, required: Sequence[str]) -> Iterator[list[str]]:
        if not self._is_section(part):
            yield self._row(name, part, name in required)
            return
        section = self._resolved(part)
        defaults = part.get("default") or {}
        for key, value in section["properties"].items():
            value = {**value, "default": defaults[key]} if key in defaults else value
            yield from self._rows(f"{name}.{key}", value, [])

    def _row(self, name: str, part: Schema, is_required: bool) -> list[str]:
        default = "required" if is_required else code(part.get("default"))
        return [f"`{name}`", default, self._values(part), part.get("description", "")]

    def _resolved(self, part: Schema) -> Schema:
        reference = part.get("$ref")
        return self.definitions[reference.rpartition("/")[2]] if reference else part

    def _is_section(self, part: Schema) -> bool:
        return "properties" in self._resolved(part)

    def _members(self, part: Schema) -> Schema | None:
        """Return the section that every value of a mapping is, if it is one of sections."""
        values = self._mapped(part)
        return values if values is not None and self._is_section(values) else None

    @staticmethod
    def _mapped(part: Schema) -> Schema | None:
        """Return what every value of a mapping is, None where anything may be."""
        values = next(iter(part.get("patternProperties", {}).values()), part.get("additionalProperties"))
        return values if isinstance(values, Mapping) and values else None

    def _values(self, part: Schema) -> str:
        """Return what values are allowed, in words."""
        part = self._resolved(part)
        if "anyOf" in part:
            options = [one for one in part["anyOf"] if one.get("type") != "null"]
            return " or ".join(dict.fromkeys(self._values(one) for one in options))
        if "enum" in part:
            return ", ".join(code(value) for value in part["enum"])
        if "const" in part:
            return code(part["const"])
        if "properties" in part:
            return "`{" + ", ".join(f"{key}: …" for key in part["properties"]) + "}`"
        kind = str(part.get("type", "any"))
        if kind == "array":
            items = part.get("items") or part.get("prefixItems", [{}])[0]
            return f"list of: {self._values(items)}" if items else "list"
        if kind == "object":
            values = self._mapped(part)
            return f"mapping to: {self._values(values)}" if values is not None else "mapping"
        names = {"string": "text", "boolean": "`true`, `false`"}
        return " ".join([names.get(kind, kind), *self._bounds(part)]).strip()

    @staticmethod
    def _bounds(part: Schema) -> Iterator[str]:
        signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
        given = [f"{sign} {part[key]}" for key, sign in signs.items() if key in part]
        if given:
            yield ", ".join(given)


def params() -> str:
    """Return the tables of params.yaml."""
    from r2m.params import Params as Model

    return Params(Model.model_json_schema()).pages()


# Commands


def commands() -> str:
    """Return a heading, the help and a table of options for every command."""
    from r2m.cli import r2m

    with click.Context(r2m, info_name="r2m") as parent:
        parts = [_command(name, r2m.get_command(parent, name), parent) for name in r2m.list_commands(parent)]
    return "\n\n".join(parts)


def _command(name: str, command: click.Command | None, parent: click.Context) -> str:
    assert command is not None
    context = click.Context(command, info_name=name, parent=parent)
    usage = " ".join(["r2m", name, *command.collect_usage_pieces(context)])
    text = inspect.cleandoc((command.help or "").partition("\b")[0]).strip()
    rows = []
    for option in command.params:
        if not isinstance(option, click.Option):
            continue
        record = option.get_help_record(context)
        if record is not None and option.name != "help":
            rows.append([f"`{' '.join(record[0].split())}`", " ".join(record[1].split())])
    parts = [f"### `r2m {name}`", f"`{usage}`", text]
    return "\n\n".join([*parts, table(("Option", "Meaning"), rows)] if rows else parts)


# Merging methods


def methods() -> str:
    """Return the table of merging methods, then those of the options that have a meaning told."""
    from r2m.merge import registry

    rows = []
    for name in registry.names():
        method = registry.get(name)
        # "TIES: trim, elect signs, merge." tells what it does; R²M's begins a page of its own.
        first = (importlib.import_module(f"r2m.merge.methods.{name}").__doc__ or "").splitlines()[0]
        what = first.partition(": ")[2] or method.title
        chosen = [f"`{key}={value}`" for key, value, _ in _options(method.options)]
        shown = "[below](#options-of-r2m)" if name == "r2m" else " ".join(chosen)
        needs = "statistics" if method.statistics else ""
        rows.append([f"`{name}`", _sentence(what), shown, needs, _cited(method.citation)])
    return table(("Method", "Update of a tensor", "Options", "Needs", "Source"), rows)


def r2m_options() -> str:
    """Return the table of R²M's options."""
    from r2m.merge import registry

    rows = [[f"`{key}`", f"`{value}`", text] for key, value, text in _options(registry.get("r2m").options)]
    return table(("Option", "Default", "Meaning"), rows)


# Tuning methods


def tunings() -> str:
    """Return the table of tuning methods, and that of their options."""
    from r2m.train.tuning import registry

    rows, options = [], []
    for name in registry.names():
        method = registry.get(name)
        first = (importlib.import_module(registry.module_of(name)).__doc__ or "").splitlines()[0]
        rows.append([f"`{name}`", _sentence(first.partition(": ")[2]), _cited(method.citation)])
        for key, value, text in _options(method.options):
            options.append([f"`{name}`", f"`{key}`", f"`{value}`", text])
    tables = (
        (("Method", "What is trained", "Source"), rows),
        (("Method", "Option", "Default", "Meaning"), options),
    )
    return "\n\n".join(table(header, lines) for header, lines in tables)


def _options(section: Any, prefix: str = "", value: Any = None) -> Iterator[tuple[str, str, str]]:
    """Yield the dotted name, the default and the description of every option of a method."""
    for name, field in section.model_fields.items():
        if field.is_required():
            continue
        default = field.get_default(call_default_factory=True) if value is None else getattr(value, name)
        if hasattr(default, "model_fields_set"):
            yield from _options(type(default), f"{prefix}{name}.", default)
        else:
            yield f"{prefix}{name}", json.dumps(default).replace('"', ""), field.description or ""


def _cited(citation: str) -> str:
    """Return who a method is by, with a link to arXiv where it is there."""
    found = ARXIV.search(citation)
    if found is None:
        return citation
    text = citation[: found.start()].rstrip(" ,")
    return f"[{text}](https://arxiv.org/abs/{found[1]})"


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text[:1].upper() + text[1:] + ("" if not text or text[-1] in ".?" else ".")


# Results

UNSEEN = "Unseen generators"
SHOWN = ("Model", "In distribution", UNSEEN, "Cross-dataset")


def results() -> str:
    """Return mean AUCs from results/tables/main.md, of all models but the specialists.

    Where unseen generators are in groups, each group stands there in place of all of them.
    """
    header, rows = main_table(RESULTS / "tables/main.md")
    groups = [name for name in header if name.startswith(f"{UNSEEN}, ") and name != f"{UNSEEN}, video"]
    shown = [one for name in SHOWN for one in (groups if name == UNSEEN and groups else [name])]
    columns = [header.index(name) for name in shown]
    section, kept = "", []
    for row in rows:
        section = row[0] if row[0].startswith("*") and not any(row[1:]) else section
        if section != "*Specialists*":
            kept.append([row[column] for column in columns])
    return table(shown, kept, "l" + "r" * (len(shown) - 1))


def main_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a table of mean AUCs, those that name sections included."""
    lines = path.read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return header, rows


def classical_and_neural() -> str:
    """Return mean AUCs on classical forgeries (docs/classical/main.md) beside those of the default run."""
    columns = ("In distribution", UNSEEN, "Cross-dataset")
    old_header, old_rows = main_table(ROOT / "docs/classical/main.md")
    new_header, new_rows = main_table(RESULTS / "tables/main.md")
    classical = {row[0]: row for row in old_rows}
    marks = str.maketrans("", "", "*")
    rows = []
    for row in new_rows:
        if row[0] in classical and any(row[1:]):
            pairs = [
                (classical[row[0]][old_header.index(name)], row[new_header.index(name)]) for name in columns
            ]
            plain = [re.sub(r"</?ins>", "", value).translate(marks) for pair in pairs for value in pair]
            rows.append([row[0], *plain])
    header = ["Model", *(f"{name}, {kind}" for name in columns for kind in ("classical", "neural"))]
    return table(header, rows, "lrrrrrr")


def costs() -> str:
    """Return what the stages of the run took, from results/runtimes.csv."""
    with open(RESULTS / "runtimes.csv", newline="", encoding="utf-8") as file:
        stages = list(csv.DictReader(file))
    rows = [
        [
            one["stage"] if one["stage"] == "all" else f"`{one['stage']}`",
            one["jobs"],
            f"{float(one['cpu_seconds']):.0f} s",
            f"{float(one['peak_mib']) * 2**20 / 1e9:.1f} GB",
        ]
        for one in stages
    ]
    return table(("Stage", "Jobs", "CPU time", "Peak memory of a job"), rows, "lrrr")


# Pages

GENERATED: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"results": results},
    "docs/experiments.md": {"classical and neural": classical_and_neural, "costs": costs},
    "docs/merging.md": {"methods": methods, "options of r2m": r2m_options},
    "docs/reference.md": {"params": params, "tunings": tunings, "commands": commands},
}


def renewed(page: str) -> str:
    """Return the text of a page with its generated parts as they should be.

    Raises:
        ValueError: a marker does not stand there once, or its end before it.
    """
    text = (ROOT / page).read_text(encoding="utf-8")
    for name, make in GENERATED[page].items():
        start, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
        for marker in (start, end):
            if text.count(marker) != 1:
                raise ValueError(f"{page}: {marker} stands there {text.count(marker)} times; expected once")
        before, _, rest = text.partition(start)
        if end not in rest:
            raise ValueError(f"{page}: {end} stands there before its beginning")
        after = rest.partition(end)[2]
        text = f"{before}{start}\n\n{make()}\n\n{end}{after}"
    return text


def main() -> None:
    """Rewrite the generated parts of all pages."""
    for page in GENERATED:
        (ROOT / page).write_text(renewed(page), encoding="utf-8")


if __name__ == "__main__":
    main()
