"""`r2m statistics`: what a merging method needs of one specialist's training data."""

from pathlib import Path

import click

from r2m.cli.compute import FILE, compute_options, inputs_options
from r2m.models.options import BackboneOptions


@click.command()
@inputs_options
@click.option("--kind", type=click.Choice(["fisher", "regmean"]), required=True, help="Merging method.")
@click.option("--name", required=True, help="Name of the specialist.")
@click.option("--specialist", type=FILE, required=True, help="The specialist's model.")
@click.option("--generator", "generators", multiple=True, required=True, help="What it was trained on.")
@click.option("--images", type=click.IntRange(min=1), default=256, show_default=True)
@click.option("--seed", default=0, help="Of the draw of images.")
@click.option("--out", type=FILE, required=True, help="Statistics to write.")
@compute_options
def command(
    manifests: tuple[Path, ...],
    trunks: tuple[Path, ...],
    base: Path,
    backbone: BackboneOptions,
    kind: str,
    name: str,
    specialist: Path,
    generators: tuple[str, ...],
    images: int,
    seed: int,
    out: Path,
    device: str,
    precision: str,
    threads: int,
) -> None:
    """Compute squared gradients (fisher) or Grams of the layers' inputs (regmean) on training images."""
    import torch

    from r2m.digest import code_digest
    from r2m.errors import R2MError
    from r2m.models import checkpoint
    from r2m.models.backbone import Detector
    from r2m.models.precision import resolve_device
    from r2m.train.statistics import compute, draw
    from r2m.trunk.inputs import Inputs, images_digest

    torch.set_num_threads(threads)
    base_hash = checkpoint.read_metadata(base).get("base_hash")
    tensors, metadata = checkpoint.load(specialist)
    if metadata.get("base_hash") != base_hash:
        raise R2MError(f"{specialist}: made from base {metadata.get('base_hash')}, expected {base_hash}")
    detector = Detector(backbone)
    detector.load_tensors(checkpoint.load(base)[0], f"{base}: tensors", complete=True)
    detector.load_tensors(tensors, f"{specialist}: tensors")
    inputs = Inputs(manifests, trunks, backbone, base_hash)
    rows = draw(inputs, list(generators), images, seed, name)
    statistics = compute(kind, detector, inputs, rows, resolve_device(device), precision)
    provenance = {
        "content": "statistics",
        "kind": kind,
        "name": name,
        "generators": list(generators),
        "base_hash": base_hash,
        "specialist_hash": checkpoint.digest(tensors),
        "backbone": backbone.model_dump(),
        "count": len(rows),
        "seed": seed,
        "precision": precision,
        "images": images_digest(rows),
        "code": code_digest(["r2m.cli.statistics"]),
    }
    checkpoint.save(out, statistics, provenance)
