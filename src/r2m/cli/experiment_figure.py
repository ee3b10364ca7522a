"""`r2m experiment-figure`: the figure of one experiment."""

from importlib import import_module
from pathlib import Path

import click

from r2m.cli.json_type import Options
from r2m.errors import R2MError
from r2m.evaluate.protocols import EvaluationContext, read_table
from r2m.experiments.options import ExperimentsOptions

NAMES = list(ExperimentsOptions.model_fields)


@click.command()
@click.option("--experiment", type=click.Choice(NAMES), required=True, help="Module of r2m.figures.")
@click.option("--options", type=Options(EvaluationContext), required=True, help="As for `r2m tables`.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Path without .pdf, .svg, .png")
@click.argument("table", type=click.Path(path_type=Path))
def command(experiment: str, options: EvaluationContext, out: Path, table: Path) -> None:
    """Draw the figure of an experiment's table (CSV)."""
    from r2m.report.figures.style import save

    try:
        figure = import_module(f"r2m.figures.{experiment}").figure(read_table(table), options)
    except KeyError as error:
        raise R2MError(
            f"{table}: expected the table of the experiment {experiment}; lacks {error}"
        ) from error
    save(figure, out)
