"""Options `--flag NAME=FILE` that may be given several times."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


class NamedFile(click.ParamType):
    """Parameter type that turns NAME=FILE into a pair."""

    name = "NAME=FILE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Path]:
        """Split at the first `=`."""
        if isinstance(value, tuple):
            return value
        name, separator, file = value.partition("=")
        if not (name and separator and file):
            self.fail(f"expected NAME=FILE, got {value!r}", param, ctx)
        return name, Path(file)


def named_files(flag: str, **settings: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command with a repeatable option; it gets a mapping of names to files, sorted by name."""

    def collect(ctx: click.Context, param: click.Parameter, pairs: tuple[tuple[str, Path], ...]) -> Any:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise click.BadParameter(f"{name!r} is given twice", ctx, param)
        return dict(sorted(pairs))

    return click.option(flag, type=NamedFile(), multiple=True, callback=collect, **settings)
