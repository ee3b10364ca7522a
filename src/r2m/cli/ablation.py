"""`r2m ablation`: scores of R²M with one option changed at a time."""

from pathlib import Path
from typing import Any

import click

from r2m.cli.compute import FILE, bench_options
from r2m.cli.json_type import Options
from r2m.experiments.options import AblationOptions


@click.command()
@bench_options
@click.option("--tune", type=FILE, multiple=True, required=True, help="A variant's chosen options (JSON).")
@click.option("--options", type=Options(AblationOptions), required=True, help="experiments.ablation as JSON.")
@click.option("--out", type=FILE, required=True, help="Scores to write (Parquet).")
def command(tune: tuple[Path, ...], options: AblationOptions, out: Path, **files: Any) -> None:
    """Score every val and test image with R²M as it was chosen, and one change away from that."""
    from r2m.cli.bench import bench_of
    from r2m.evaluate.scores import write
    from r2m.experiments.ablation import ablation_scores
    from r2m.merge.stages import read_chosen

    variants = [read_chosen(path) for path in tune]
    scores = ablation_scores(bench_of(**files), variants, options.factors)
    write(scores, {"experiment": "ablation", "variants": ",".join(one.variant for one in variants)}, out)
