"""`r2m probe`: a linear probe of the base."""

from pathlib import Path

import click

from r2m.cli.compute import FILE, compute_options, inputs_options
from r2m.models.options import BackboneOptions


@click.command()
@inputs_options
@click.option("--generator", "generators", multiple=True, required=True, help="Generators to train on.")
@click.option("--out", type=FILE, required=True)
@compute_options
def command(
    manifests: tuple[Path, ...],
    trunks: tuple[Path, ...],
    base: Path,
    backbone: BackboneOptions,
    generators: tuple[str, ...],
    out: Path,
    device: str,
    precision: str,
    threads: int,
) -> None:
    """Fit a logistic regression on the base's features of the training split."""
    import pandas as pd
    import torch

    from r2m.digest import code_digest
    from r2m.models import checkpoint
    from r2m.models.backbone import Detector
    from r2m.models.precision import resolve_device
    from r2m.train.pairs import rows_of
    from r2m.train.probe import features, fit_head
    from r2m.trunk.inputs import Inputs

    torch.set_num_threads(threads)
    base_hash = checkpoint.read_metadata(base).get("base_hash")
    inputs = Inputs(manifests, trunks, backbone, base_hash)
    detector = Detector(backbone)
    detector.load_tensors(checkpoint.load(base)[0], f"{base}: tensors", complete=True)
    place = resolve_device(device)
    rows = pd.concat(rows_of(inputs, list(generators), "train"), ignore_index=True)
    head = fit_head(features(detector.to(place), inputs, rows, place, precision), rows["label"].to_numpy())
    provenance = {"content": "head", "base_hash": base_hash, "generators": list(generators)}
    checkpoint.save(out, head, {**provenance, "code": code_digest(["r2m.cli.probe"])})
