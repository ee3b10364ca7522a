"""`r2m experiment-table`: the table of one experiment."""

from importlib import import_module
from pathlib import Path

import click

from r2m.cli.json_type import Options
from r2m.evaluate.protocols import EvaluationContext


@click.command()
@click.option("--experiment", required=True, help="Module of r2m.experiments.")
@click.option("--options", type=Options(EvaluationContext), required=True, help="As for `r2m tables`.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Path without suffix.")
@click.argument("source", type=click.Path(path_type=Path))
def command(experiment: str, options: EvaluationContext, out: Path, source: Path) -> None:
    """Write the table of an experiment's scores as CSV, Markdown and LaTeX."""
    import_module(f"r2m.experiments.{experiment}").table(source, options).write(out)
