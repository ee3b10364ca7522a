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
@click.option(
    "--resamples",
    type=click.IntRange(min=100),
    default=1000,
    show_default=True,
    help="Bootstrap resamples of people behind every interval.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the resamples.")
@click.option("--reference", help="Model that all others are tested against; default: no tests.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the tables.")
def command(
    first: tuple[Path, ...],
    more: tuple[Path, ...],
    options: EvaluationContext,
    resamples: int,
    seed: int,
    reference: str | None,
    out: Path,
) -> None:
    """Write the tables: CSV for programs, Markdown and LaTeX for readers, JSON for `dvc metrics`."""
    from r2m.report.tables import write_tables

    paths = [*first, *more]
    write_tables(paths, options, out, resamples=resamples, seed=seed, reference=reference)
