"""`r2m hostile`: merges with one uneven or hostile specialist."""

from pathlib import Path
from typing import Any

import click

from r2m.cli.compute import FILE, bench_options
from r2m.cli.json_type import Options
from r2m.cli.named_file import named_files
from r2m.experiments.options import HostileOptions


@click.command()
@bench_options
@click.option("--tune", type=FILE, multiple=True, required=True, help="A variant's chosen options (JSON).")
@click.option("--victim", required=True, help="The specialist that is replaced.")
@named_files(
    "--hostile-task-vector", required=True, help="Task vector of a trained replacement, by its kind."
)
@named_files("--hostile-head", required=True, help="Its head, by its kind.")
@click.option("--generator", "generators", multiple=True, required=True, help="Fakes to put a trigger in.")
@click.option("--options", type=Options(HostileOptions), required=True, help="experiments.hostile as JSON.")
@click.option("--seed", default=0)
@click.option("--out", type=FILE, required=True, help="Scores to write (Parquet).")
@click.option("--diagnostics", type=FILE, required=True, help="Diagnoses to write (Parquet).")
def command(
    tune: tuple[Path, ...],
    victim: str,
    hostile_task_vector: dict[str, Path],
    hostile_head: dict[str, Path],
    generators: tuple[str, ...],
    options: HostileOptions,
    seed: int,
    out: Path,
    diagnostics: Path,
    **files: Any,
) -> None:
    """Score every val and test image with the honest merges, and with one specialist replaced."""
    from r2m.cli.bench import bench_of
    from r2m.evaluate.scores import write
    from r2m.experiments.hostile import HONEST, KINDS, Specialist, diagnoses, hostile_scores, untrained
    from r2m.merge.stages import read_chosen, read_same_base
    from r2m.models import checkpoint

    bench = bench_of(**files)
    variants = [read_chosen(path) for path in tune]
    base_hash = checkpoint.read_metadata(files["base"]).get("base_hash")
    task_vectors, _ = read_same_base(hostile_task_vector, base_hash)
    heads, _ = read_same_base(hostile_head, base_hash)
    honest = Specialist(bench.task_vectors[victim], bench.heads[victim])
    found = {
        HONEST: honest,
        **{kind: Specialist(one, heads[kind]) for kind, one in task_vectors.items()},
        **untrained(honest, bench.initial_head, options.scale, seed),
    }
    replacements = {kind: found[kind] for kind in KINDS if kind in found}
    write(
        diagnoses(bench.task_vectors, replacements, victim, seed),
        {"experiment": "hostile", "victim": victim},
        diagnostics,
    )
    scores = hostile_scores(
        bench, replacements, variants, victim, generators, options, files["backbone"].name
    )
    variant_names = ",".join(one.variant for one in variants)
    write(scores, {"experiment": "hostile", "victim": victim, "variants": variant_names}, out)
