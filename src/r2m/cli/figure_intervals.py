"""`r2m figure-intervals`: mean AUC of every model and protocol, with confidence intervals."""

from pathlib import Path

import click

from r2m.cli.json_type import Options
from r2m.evaluate.protocols import EvaluationContext, read_table


@click.command()
@click.option("--means", type=click.Path(path_type=Path), required=True, help="intervals.csv")
@click.option("--options", type=Options(EvaluationContext), required=True, help="As for `r2m tables`.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Path without .pdf, .svg, .png")
def command(means: Path, options: EvaluationContext, out: Path) -> None:
    """Draw the forest plot."""
    from r2m.report.figures.intervals import intervals
    from r2m.report.figures.style import save

    save(intervals(read_table(means), options), out)
