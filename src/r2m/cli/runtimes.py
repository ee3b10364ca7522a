"""`r2m runtimes`: time and memory that the stages of the workflow took."""

from pathlib import Path

import click


@click.command()
@click.argument("benchmarks", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="CSV to write.")
def command(benchmarks: Path, out: Path) -> None:
    """Sum Snakemake's benchmark files below a folder by stage."""
    from r2m.report.runtimes import write_runtimes

    write_runtimes(benchmarks, out)
