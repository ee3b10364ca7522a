"""`r2m rationale`: which way the parts of R²M shift features."""

from pathlib import Path
from typing import Any

import click

from r2m.cli.compute import FILE, bench_options


@click.command()
@bench_options
@click.option("--tune", type=FILE, multiple=True, required=True, help="A variant's chosen options (JSON).")
@click.option("--domain", required=True, help="Domain whose test images are shifted.")
@click.option("--generator", "generators", multiple=True, required=True, help="Generators on val.")
@click.option("--out", type=FILE, required=True, help="Shifts to write (Parquet).")
def command(
    tune: tuple[Path, ...], domain: str, generators: tuple[str, ...], out: Path, **files: Any
) -> None:
    """Measure how R²M's Real component and residuals shift every test image's features."""
    from r2m.cli.bench import bench_of
    from r2m.evaluate.scores import write
    from r2m.experiments.rationale import shifts
    from r2m.merge.stages import read_chosen

    variants = [read_chosen(path) for path in tune]
    found = shifts(bench_of(**files), variants, domain, generators)
    write(found, {"experiment": "rationale", "variants": ",".join(one.variant for one in variants)}, out)
