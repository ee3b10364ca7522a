"""`r2m tune`: choose a merge variant's options on the val split."""

import json
from pathlib import Path

import click

from r2m.cli.compute import FILE, compute_options, inputs_options
from r2m.cli.json_type import Options
from r2m.cli.named_file import named_files
from r2m.merge.variants import MergeVariant
from r2m.models.options import BackboneOptions


@click.command()
@inputs_options
@click.option("--variant", required=True, help="Name of the merge variant.")
@click.option("--options", type=Options(MergeVariant), required=True)
@named_files("--task-vector", required=True, help="A specialist's task vector.")
@named_files("--statistics", help="A specialist's statistics (fisher, regmean).")
@named_files("--head", required=True, help="A specialist's head.")
@click.option("--initial-head", type=FILE, required=True, help="What all specialists' heads started from.")
@click.option("--generator", "generators", multiple=True, required=True, help="Generators to choose on.")
@click.option("--candidates", type=FILE, required=True, help="CSV to write, one row a candidate.")
@click.option("--out", type=FILE, required=True, help="JSON to write: the chosen options.")
@compute_options
def command(
    manifests: tuple[Path, ...],
    trunks: tuple[Path, ...],
    base: Path,
    backbone: BackboneOptions,
    variant: str,
    options: MergeVariant,
    task_vector: dict[str, Path],
    statistics: dict[str, Path],
    head: dict[str, Path],
    initial_head: Path,
    generators: tuple[str, ...],
    candidates: Path,
    out: Path,
    device: str,
    precision: str,
    threads: int,
) -> None:
    """Merge and score every candidate on the val split; write the curve and the best options."""
    import pandas as pd
    import torch

    from r2m.evaluate.tune import tune
    from r2m.files import atomic_path, write_text
    from r2m.merge.heads import merge_heads
    from r2m.merge.stages import read_same_base
    from r2m.merge.tensors import merged_shapes
    from r2m.models import checkpoint
    from r2m.models.backbone import Detector
    from r2m.models.precision import resolve_device
    from r2m.options import combinations
    from r2m.trunk.inputs import Inputs

    torch.set_num_threads(threads)
    weights, metadata = checkpoint.load(base)
    detector = Detector(backbone)
    detector.load_tensors(weights, f"{base}: tensors", complete=True)
    heads = {name: checkpoint.load(path)[0] for name, path in head.items()}
    method = options.method or variant
    trained = {name: weights[name] for name in detector.trainable_state() if name in weights}
    shapes = merged_shapes(weights)
    # The frozen rest would stay in memory, beside the detector's own copy.
    del weights
    chosen, rows = tune(
        method,
        options.options,
        combinations(options.tune),
        detector=detector,
        base=trained,
        shapes=shapes,
        task_vectors=read_same_base(task_vector, metadata.get("base_hash"))[0],
        statistics=read_same_base(statistics, metadata.get("base_hash"))[0] or None,
        head=merge_heads(heads, options.head, checkpoint.load(initial_head)[0]),
        inputs=Inputs(manifests, trunks, backbone, metadata.get("base_hash")),
        generators=list(generators),
        device=resolve_device(device),
        precision=precision,
    )
    with atomic_path(candidates) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    best = next(row for row in rows if row["chosen"])
    description = {
        "variant": variant,
        "method": method,
        "head": options.head,
        "options": chosen,
        "tuned": {key: best[key] for key in options.tune},
        "val_auc": best["val_auc"],
    }
    write_text(out, json.dumps(description, indent=2, sort_keys=True) + "\n")
