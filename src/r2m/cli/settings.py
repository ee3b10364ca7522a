"""`r2m settings`: commit, versions, digests of the models and params of a run."""

from pathlib import Path

import click

from r2m.cli.json_type import Options
from r2m.params import Params


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--params", type=Options(Params), required=True, help="The whole of params.yaml as JSON.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Markdown file.")
def command(models: tuple[Path, ...], params: Params, out: Path) -> None:
    """Record what a run was made with; run it where the run was."""
    from r2m.report.settings import write_settings

    write_settings(models, params, out)
