"""`r2m data-card`: what the images are, where they come from and what they are not."""

from pathlib import Path

import click

from r2m.cli.json_type import Options
from r2m.report.data_card import CardContext, write_data_card


@click.command()
@click.argument("manifests", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--receipt", "receipts", type=click.Path(path_type=Path), multiple=True, help="Receipt of a package."
)
@click.option(
    "--options", type=Options(CardContext), required=True, help="Generators and domains of params.yaml."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Markdown file.")
def command(manifests: tuple[Path, ...], receipts: tuple[Path, ...], options: CardContext, out: Path) -> None:
    """Count images, list sources and licences; each manifest has its skipped.csv beside it."""
    write_data_card(manifests, receipts, options, out)
