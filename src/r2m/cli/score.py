"""`r2m score`: one model's scores of every val and test image."""

from pathlib import Path

import click

from r2m.cli.compute import FILE, compute_options, inputs_options
from r2m.models.options import BackboneOptions


@click.command()
@inputs_options
@click.option(
    "--checkpoint", "checkpoint_path", type=FILE, required=True, help="A head, a specialist or a merge."
)
@click.option("--model", required=True, help="Name in the tables.")
@click.option("--kind", type=click.Choice(["base", "specialist", "joint", "merge"]), required=True)
@click.option("--method", help="Merging method.")
@click.option("--seed", type=int, help="Of the training; none: the model depends on no seed.")
@click.option("--label", help="Name in the figures; default: the model's.")
@click.option("--batch-size", type=click.IntRange(min=1), default=64)
@click.option("--out", type=FILE, required=True)
@compute_options
def command(
    manifests: tuple[Path, ...],
    trunks: tuple[Path, ...],
    base: Path,
    backbone: BackboneOptions,
    checkpoint_path: Path,
    model: str,
    kind: str,
    method: str | None,
    seed: int | None,
    label: str | None,
    batch_size: int,
    out: Path,
    device: str,
    precision: str,
    threads: int,
) -> None:
    """Score images with a checkpoint laid over the base."""
    import torch

    from r2m.errors import R2MError
    from r2m.evaluate.scores import score, write
    from r2m.models import checkpoint
    from r2m.models.backbone import HEAD, Detector
    from r2m.models.precision import resolve_device
    from r2m.trunk.inputs import Inputs

    torch.set_num_threads(threads)
    detector = Detector(backbone)
    detector.load_tensors(checkpoint.load(base)[0], f"{base}: tensors", complete=True)
    tensors = checkpoint.load(checkpoint_path)[0]
    if HEAD + "weight" not in tensors:
        raise R2MError(f"{checkpoint_path}: holds no head ({HEAD}weight); expected a model or a head")
    detector.load_tensors(tensors, f"{checkpoint_path}: tensors")
    inputs = Inputs(manifests, trunks, backbone, checkpoint.read_metadata(base).get("base_hash"))
    place = resolve_device(device)
    scores = score(detector.to(place), inputs, place, precision, batch_size)
    described = {"model": model, "kind": kind, "method": method, "label": label or model, "seed": seed}
    write(scores, described, out)
