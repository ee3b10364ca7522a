"""`r2m trunk`: activations of the frozen trunk for one image set."""

from pathlib import Path

import click

from r2m.cli.compute import FILE, compute_options
from r2m.cli.json_type import Options
from r2m.models.options import BackboneOptions


@click.command()
@click.option("--manifest", type=FILE, required=True)
@click.option("--base", type=FILE, required=True)
@click.option(
    "--backbone", type=Options(BackboneOptions), required=True, help="The section `backbone` as JSON."
)
@click.option("--out", type=FILE, required=True)
@compute_options
def command(
    manifest: Path,
    base: Path,
    backbone: BackboneOptions,
    out: Path,
    device: str,
    precision: str,
    threads: int,
) -> None:
    """Run the frozen lower blocks once over every image of a manifest and keep the activations."""
    import torch

    from r2m.trunk.activations import write_activations

    torch.set_num_threads(threads)
    write_activations(manifest, base, backbone, out, device, precision)
