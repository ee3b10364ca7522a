"""`r2m figure-heatmap`: AUC of every model on every test set."""

from pathlib import Path

import click

from r2m.cli.json_type import Options
from r2m.evaluate.protocols import EvaluationContext, read_table


@click.command()
@click.option("--table", type=click.Path(path_type=Path), required=True, help="auc.csv")
@click.option("--models", type=click.Path(path_type=Path), required=True, help="models.csv")
@click.option("--options", type=Options(EvaluationContext), required=True, help="As for `r2m tables`.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Path without .pdf, .svg, .png")
def command(table: Path, models: Path, options: EvaluationContext, out: Path) -> None:
    """Draw the heat map."""
    from r2m.report.figures.heatmap import heatmap
    from r2m.report.figures.style import save

    save(heatmap(read_table(table), read_table(models), options), out)
