"""`r2m prune`: results of names that params.yaml does not hold any more."""

from contextlib import suppress
from pathlib import Path

import click

from r2m.cli.job import PARAMS


@click.command()
@click.option("--yes", is_flag=True, help="Remove the files; without it they are only listed.")
@PARAMS
def command(yes: bool, path: Path) -> None:
    """List the files below results that params.yaml does not ask for, and remove them if told to."""
    from r2m.params import load
    from r2m.workflow import Workflow

    orphans = Workflow(load(path)).orphans()
    size = sum(file.lstat().st_size for file in orphans)
    for file in orphans:
        click.echo(str(file))
    if yes:
        for file in orphans:
            file.unlink()
            for folder in file.parents:
                with suppress(OSError):  # not empty, or not ours to remove
                    folder.rmdir()
    done = "removed" if yes else "that params.yaml does not ask for; `r2m prune --yes` removes them"
    click.echo(f"{len(orphans)} files ({size / 2**20:.1f} MiB) {done}", err=True)
