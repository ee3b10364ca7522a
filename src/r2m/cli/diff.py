"""`r2m diff`: how two weights files differ."""

import sys
from pathlib import Path
from typing import IO, Any

import click

from r2m.cli.json_text import as_json
from r2m.cli.process import LAYOUT
from r2m.errors import R2MError
from r2m.terminal import printable


class Trouble(click.ClickException):
    """An error that ends the command with 2, since 1 says that the files differ."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the line of any other error."""
        click.echo(f"r2m: error: {printable(self.message, keep=LAYOUT)}", err=True)


@click.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option("--json", "in_json", is_flag=True, help="As JSON, with the tensors that are equal.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
def command(first: Path, second: Path, in_json: bool, threads: int) -> None:
    """Compare two weights files tensor by tensor: names, shapes, types, and how far values are apart.

    A file is all that `r2m inspect` takes. Norms and greatest entries are those of the difference, relative
    ones are shares of the first file's norm. Metadata are not compared. As with diff, the exit code is 0 if
    all tensors are equal, 1 if any differs, and 2 where files cannot be compared.
    """
    import torch

    from r2m.merge.difference import as_text, diff

    torch.set_num_threads(1)
    try:
        found = diff(first, second, threads)
    except (R2MError, OSError) as error:
        raise Trouble(str(error)) from error
    click.echo(as_json(found) if in_json else as_text(found))
    if not found["equal"]:
        sys.exit(1)
