"""`r2m second-source`: a test domain of which some people are trained on."""

from pathlib import Path

import click

FILE = click.Path(path_type=Path)


@click.command()
@click.option("--domain", type=FILE, required=True, help="Folder of a domain of the role test.")
@click.option("--share", type=click.FloatRange(0, 1, min_open=True, max_open=True), required=True)
@click.option("--seed", type=int, required=True)
@click.option("--out", type=FILE, required=True, help="Folder, written complete or not at all.")
def command(domain: Path, share: float, seed: int, out: Path) -> None:
    """Put a share of a test domain's people into the training split."""
    from r2m.data.second_source import write_second_source

    write_second_source(domain, share, seed, out)
