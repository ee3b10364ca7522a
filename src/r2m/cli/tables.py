"""`r2m tables`: metrics of all models, from their scores."""

from pathlib import Path

import click

from r2m.cli.json_type import Options
from r2m.evaluate.protocols import EvaluationContext


@click.command()
@click.option(
    "--scores",
    "first",
    type=click.Path(path_type=Path),
    required=True,
    multiple=True,
    help="A file of scores; more may follow as arguments. Merged models are listed in this order.",
)
@click.argument("more", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--options",
    type=Options(EvaluationContext),
    required=True,
    help="Families, roles and labels of generators and domains, in the order of display.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the tables.")
def command(first: tuple[Path, ...], more: tuple[Path, ...], options: EvaluationContext, out: Path) -> None:
    """Write auc.csv, models.csv, dumbbell.csv, main.md, main.tex and metrics.json."""
    from r2m.evaluate.tables import write_tables

    write_tables([*first, *more], options, out)
