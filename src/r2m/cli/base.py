"""`r2m base`: the base weights, once, in timm's naming."""

from pathlib import Path

import click

from r2m.cli.json_type import Options
from r2m.models.options import BackboneOptions


@click.command()
@click.option(
    "--weights", type=click.Path(path_type=Path), required=True, help=".onnx, or what `r2m merge` takes."
)
@click.option(
    "--backbone", type=Options(BackboneOptions), required=True, help="The section `backbone` as JSON."
)
@click.option("--seed", type=int, required=True, help="Of the initial head.")
@click.option("--head", type=click.Path(path_type=Path), required=True, help="Where the initial head goes.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def command(weights: Path, backbone: BackboneOptions, seed: int, head: Path, out: Path) -> None:
    """Convert weights into the complete state of the backbone at its image size, and draw the first head."""
    from r2m.models import checkpoint
    from r2m.models.backbone import Detector, initial_head, resized_base
    from r2m.models.clip_onnx import convert

    detector = Detector(backbone)
    tensors = convert(weights) if weights.suffix == ".onnx" else checkpoint.load_weights(weights)
    state = resized_base(tensors, backbone)
    provenance = {"backbone": backbone.model_dump(), "base_hash": checkpoint.digest(state)}
    checkpoint.save(out, state, {"content": "base", "source": weights.name, **provenance})
    first_head = initial_head(detector.head.in_features, seed)
    checkpoint.save(head, first_head, {"content": "head", "seed": seed, **provenance})
