"""`r2m base`: the base weights, once, in timm's naming."""

from pathlib import Path

import click

from r2m.cli.json_type import Options
from r2m.params import BackboneOptions


@click.command()
@click.option(
    "--weights", type=click.Path(path_type=Path), required=True, help=".onnx, .safetensors, .pt, .pth or .bin"
)
@click.option("--backbone", type=Options(BackboneOptions), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def command(weights: Path, backbone: BackboneOptions, out: Path) -> None:
    """Convert weights into the complete state of the backbone at its image size."""
    from r2m.models import checkpoint
    from r2m.models.backbone import Detector, resized_base
    from r2m.models.clip_onnx import convert

    Detector(backbone)
    tensors = convert(weights) if weights.suffix == ".onnx" else checkpoint.load_weights(weights)
    state = resized_base(tensors, backbone)
    checkpoint.save(
        out,
        state,
        {
            "format": "base",
            "backbone": backbone.model_dump(),
            "source": weights.name,
            "base_hash": checkpoint.sha256(state),
        },
    )
