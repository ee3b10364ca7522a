"""`r2m similarity`: how alike specialists and merges see the same images."""

from pathlib import Path
from typing import Any

import click

from r2m.cli.compute import FILE, bench_options
from r2m.cli.json_type import Options
from r2m.experiments.options import SimilarityOptions


@click.command()
@bench_options
@click.option("--tune", type=FILE, multiple=True, required=True, help="A variant's chosen options (JSON).")
@click.option(
    "--options", type=Options(SimilarityOptions), required=True, help="experiments.similarity as JSON."
)
@click.option("--domain", required=True, help="Domain whose test images are compared.")
@click.option("--out", type=FILE, required=True, help="Similarities to write (Parquet).")
def command(tune: tuple[Path, ...], options: SimilarityOptions, domain: str, out: Path, **files: Any) -> None:
    """Compare every specialist's features with those of the base, other specialists and merges, by layer."""
    from r2m.cli.bench import bench_of
    from r2m.evaluate.scores import write
    from r2m.experiments.similarity import similarities
    from r2m.merge.stages import read_chosen

    variants = [read_chosen(path) for path in tune]
    found = similarities(bench_of(**files), variants, domain, options.images)
    write(found, {"experiment": "similarity", "variants": ",".join(one.variant for one in variants)}, out)
