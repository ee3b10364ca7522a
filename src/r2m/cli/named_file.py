"""Options `--flag NAME=FILE` and `--flag NAME=NUMBER` that may be given several times."""

import glob
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


class NamedFile(click.ParamType):
    """Parameter type that turns NAME=FILE into a pair."""

    name = "NAME=FILE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        """Split at the first `=`."""
        if isinstance(value, tuple):
            return value
        name, separator, text = value.partition("=")
        if name and separator and text:
            try:
                return name, self.value_of(text)
            except ValueError:
                pass
        self.fail(f"expected {self.name}, got {value!r}", param, ctx)

    @staticmethod
    def value_of(text: str) -> Any:
        """Return what stands behind the `=`; raises ValueError where it is of another type."""
        return Path(text)


class FoundFile(NamedFile):
    """Parameter type of NAME=FILE, as a pair, and of files, folders and patterns, as a text."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        """Take what has no name of its own in front for a path, which may hold a `=` further on."""
        if isinstance(value, str) and ("=" not in value or "/" in value.partition("=")[0]):
            if not glob.has_magic(value) and not Path(value).exists():
                self.fail(f"expected {self.name}, or a file, folder or pattern, got {value!r}", param, ctx)
            return "", value
        return super().convert(value, param, ctx)


class NamedNumber(NamedFile):
    """Parameter type that turns NAME=NUMBER into a pair."""

    name = "NAME=NUMBER"

    @staticmethod
    def value_of(text: str) -> float:
        """Return a number."""
        return float(text)


def named_files(flag: str, **settings: Any) -> Decorator:
    """Decorate a command with a repeatable option; it gets a mapping of names to files, sorted by name."""
    return _named(flag, NamedFile(), settings)


def named_numbers(flag: str, **settings: Any) -> Decorator:
    """Decorate a command with a repeatable option; it gets a mapping of names to numbers, sorted by name."""
    return _named(flag, NamedNumber(), settings)


def found_files(flag: str, **settings: Any) -> Decorator:
    """Decorate a command with a repeatable option of files that may go without a name.

    It gets a mapping as with `named_files`, or, where some have no names, a list of that mapping and texts.
    """

    def gathered(pairs: tuple[tuple[str, Any], ...], named: dict[str, Any]) -> Any:
        texts = [text for name, text in pairs if not name]
        return [named, *texts] if texts else named

    return _named(flag, FoundFile(), settings, gathered)


def _named(
    flag: str,
    kind: click.ParamType,
    settings: Any,
    gathered: Callable[[tuple[tuple[str, Any], ...], dict[str, Any]], Any] = lambda pairs, named: named,
) -> Decorator:
    def collect(ctx: click.Context, param: click.Parameter, pairs: tuple[tuple[str, Any], ...]) -> Any:
        names = [name for name, _ in pairs if name]
        for name in names:
            if names.count(name) > 1:
                raise click.BadParameter(f"{name!r} is given twice", ctx, param)
        return gathered(pairs, {name: value for name, value in sorted(pairs) if name})

    return click.option(flag, type=kind, multiple=True, callback=collect, **settings)
