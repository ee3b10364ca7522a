"""`r2m prune`: results of names that params.yaml does not hold any more."""

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from r2m.cli.job import PARAMS


@click.command()
@click.option("--yes", is_flag=True, help="Remove the files; without it they are only listed.")
@PARAMS
def command(yes: bool, path: Path) -> None:
    """List the files below results that params.yaml does not ask for, and remove them if told to.

    It is said how many of them are in git, which has them again.
    """
    from r2m.params import load
    from r2m.workflow import Workflow

    orphans = Workflow(load(path)).orphans()
    size = sum(file.lstat().st_size for file in orphans)
    in_git = len(_tracked(orphans))
    for file in orphans:
        click.echo(str(file))
    if yes:
        for file in orphans:
            file.unlink()
            for folder in file.parents:
                with suppress(OSError):  # not empty, or not ours to remove
                    folder.rmdir()
    given = "" if path == Path("params.yaml") else f" --params {path}"
    done = "removed" if yes else f"that {path} does not ask for; `r2m prune{given} --yes` removes them"
    told = f", {in_git} of them tracked by git," if in_git else ""
    click.echo(f"{len(orphans)} files ({size / 2**20:.1f} MiB){told} {done}", err=True)


def _tracked(files: Sequence[Path]) -> set[str]:
    """Return which files git tracks; none where this is no git checkout."""
    try:
        result = subprocess.run(["git", "ls-files", "-z", "--", "results"], capture_output=True, check=False)
    except OSError:  # no git
        return set()
    return {str(file) for file in files} & set(os.fsdecode(result.stdout).split("\0"))
