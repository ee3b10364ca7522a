"""`r2m heads`: scores of merged backbones with every head."""

from pathlib import Path
from typing import Any

import click

from r2m.cli.compute import FILE, bench_options


@click.command()
@bench_options
@click.option("--tune", type=FILE, multiple=True, required=True, help="A variant's chosen options (JSON).")
@click.option("--generator", "generators", multiple=True, required=True, help="Generators to fit heads on.")
@click.option("--out", type=FILE, required=True, help="Scores to write (Parquet).")
def command(tune: tuple[Path, ...], generators: tuple[str, ...], out: Path, **files: Any) -> None:
    """Score every val and test image with the heads of the specialists, their mean, and fitted ones."""
    from r2m.cli.bench import bench_of
    from r2m.evaluate.scores import write
    from r2m.experiments.heads import head_scores
    from r2m.merge.stages import read_chosen

    variants = [read_chosen(path) for path in tune]
    scores = head_scores(bench_of(**files), variants, generators)
    write(scores, {"experiment": "heads", "variants": ",".join(one.variant for one in variants)}, out)
