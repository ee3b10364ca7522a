"""`r2m two-sources`: scores of merges of specialists trained with reals of one source, and of two."""

from pathlib import Path
from typing import Any

import click

from r2m.cli.compute import FILE, bench_options
from r2m.cli.json_type import Options
from r2m.cli.named_file import named_files
from r2m.experiments.plans import SourcesPlan


@click.command()
@bench_options
@named_files("--second-task-vector", required=True, help="The same specialist's, trained with both sources.")
@named_files("--second-head", required=True, help="Its head.")
@click.option("--plan", type=Options(SourcesPlan), required=True, help="JSON: what is merged.")
@click.option("--resamples", type=click.IntRange(min=1), required=True, help="Of people, for intervals.")
@click.option("--seed", type=int, required=True, help="Of the resamples.")
@click.option("--out", type=FILE, required=True, help="Scores to write (Parquet).")
def command(
    second_task_vector: dict[str, Path],
    second_head: dict[str, Path],
    plan: SourcesPlan,
    resamples: int,
    seed: int,
    out: Path,
    **files: Any,
) -> None:
    """Merge both groups of specialists with every core, and score every val and test image."""
    from r2m.cli.bench import bench_of
    from r2m.evaluate.scores import write
    from r2m.experiments.sources import source_scores
    from r2m.merge.stages import read_same_base
    from r2m.models import checkpoint

    base_hash = checkpoint.read_metadata(files["base"]).get("base_hash")
    two = {
        "task_vectors": read_same_base(second_task_vector, base_hash)[0],
        "heads": read_same_base(second_head, base_hash)[0],
    }
    scores = source_scores(bench_of(**files), two, plan)
    notes = {"domain": plan.domain, "resamples": str(resamples), "seed": str(seed)}
    write(scores, {"experiment": "sources", **notes}, out)
