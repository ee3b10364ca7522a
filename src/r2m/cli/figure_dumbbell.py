"""`r2m figure-dumbbell`: merges against weight averaging and joint training."""

from pathlib import Path

import click


@click.command()
@click.option("--means", type=click.Path(path_type=Path), required=True, help="dumbbell.csv")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Path without .pdf, .svg, .png")
def command(means: Path, out: Path) -> None:
    """Draw the dumbbell plot."""
    from r2m.evaluate.protocols import read_table
    from r2m.report.figures.dumbbell import dumbbell
    from r2m.report.figures.style import save

    save(dumbbell(read_table(means)), out)
