"""`r2m composability`: scores and costs while generators arrive one by one."""

import math
from pathlib import Path
from typing import Any

import click

from r2m.cli.compute import FILE, bench_options
from r2m.cli.json_type import Options
from r2m.cli.named_file import named_files
from r2m.merge.variants import MergeOptions


@click.command()
@bench_options
@named_files("--model", required=True, help="Model trained on a subset of the specialists' images: a-b=FILE.")
@named_files("--benchmark", help="Snakemake's benchmark file of its training, which may be missing.")
@click.option("--order", "orders", multiple=True, required=True, help="Specialists as they arrive: b,a,c.")
@click.option("--options", type=Options(MergeOptions), required=True, help="The section `merge` as JSON.")
@click.option("--out", type=FILE, required=True, help="Scores to write (Parquet).")
@click.option("--steps", type=FILE, required=True, help="CSV to write: what each step cost.")
def command(
    model: dict[str, Path],
    benchmark: dict[str, Path],
    orders: tuple[str, ...],
    options: MergeOptions,
    out: Path,
    steps: Path,
    **files: Any,
) -> None:
    """Merge and score the specialists that have arrived at each step, beside joint training on the same."""
    from r2m.cli.bench import bench_of
    from r2m.errors import R2MError
    from r2m.evaluate.scores import write
    from r2m.experiments.composability import composability, read_trained
    from r2m.experiments.orders import subsets
    from r2m.files import atomic_path
    from r2m.report.runtimes import cpu_seconds

    arrivals = [order.split(",") for order in orders]
    known = files["task_vector"].keys()
    for order in arrivals:
        if sorted(order) != sorted(known):
            raise R2MError(f"--order {','.join(order)}: expected each of {', '.join(known)} once")
    if lacking := {*subsets(arrivals), *known} - model.keys():
        raise R2MError(f"--model: expected one of {min(lacking)} as well")
    trained = {
        name: read_trained(path, cpu_seconds(benchmark[name]) if name in benchmark else math.nan)
        for name, path in model.items()
    }
    scores, taken = composability(bench_of(**files), trained, options.methods, arrivals)
    write(scores, {"experiment": "composability", "orders": " ".join(orders)}, out)
    with atomic_path(steps) as temporary:
        taken.to_csv(temporary, index=False, float_format="%.2f", lineterminator="\n")
