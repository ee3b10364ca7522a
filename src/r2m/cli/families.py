"""`r2m families`: scores of merges of generators', of families' specialists, and of both levels."""

from pathlib import Path
from typing import Any

import click

from r2m.cli.compute import FILE, bench_options
from r2m.cli.json_type import Options
from r2m.experiments.plans import FamiliesPlan


@click.command()
@bench_options
@click.option("--plan", type=Options(FamiliesPlan), required=True, help="JSON: who is merged with what.")
@click.option("--joint", type=FILE, help="Joint training on all of the generators.")
@click.option("--out", type=FILE, required=True, help="Scores to write (Parquet).")
def command(plan: FamiliesPlan, joint: Path | None, out: Path, **files: Any) -> None:
    """Merge by every strategy with options chosen on val, and score every val and test image."""
    from r2m.cli.bench import bench_of
    from r2m.evaluate.scores import write
    from r2m.experiments.families import family_scores
    from r2m.models import checkpoint

    model = None if joint is None else checkpoint.load(joint)[0]
    scores = family_scores(bench_of(**files), plan, model)
    write(scores, {"experiment": "families", "trained": ",".join(plan.generators)}, out)
