"""`r2m experiment-table`: the table of one experiment."""

from importlib import import_module
from pathlib import Path

import click

from r2m.cli.json_type import Options
from r2m.evaluate.protocols import EvaluationContext
from r2m.experiments.options import ExperimentsOptions

NAMES = list(ExperimentsOptions.model_fields)


@click.command()
@click.option("--experiment", type=click.Choice(NAMES), required=True, help="Module of r2m.tables.")
@click.option("--options", type=Options(EvaluationContext), required=True, help="As for `r2m tables`.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Path without suffix.")
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
def command(experiment: str, options: EvaluationContext, out: Path, sources: tuple[Path, ...]) -> None:
    """Write the table of an experiment's scores, one file a seed, as CSV, Markdown and LaTeX."""
    from r2m.report.table import over_seeds

    table = import_module(f"r2m.tables.{experiment}").table
    over_seeds([table(source, options) for source in sources]).write(out)
