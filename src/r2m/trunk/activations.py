"""One pass of the frozen trunk over an image set."""

from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from r2m import manifest
from r2m.errors import R2MError
from r2m.models import checkpoint
from r2m.models.backbone import Detector
from r2m.models.precision import autocast, resolve_device
from r2m.params import BackboneOptions
from r2m.trunk.inputs import Inputs, groups, images_digest

BATCH = 32


def write_activations(
    manifest_path: Path, base: Path, backbone: BackboneOptions, out: Path, device: str, precision: str
) -> None:
    """Write the trunk's activations of a manifest's images: fp16 `(n, tokens, D)` a domain and split."""
    weights, _ = checkpoint.load(base)
    place = resolve_device(device)
    detector = Detector(backbone)
    detector.load_tensors(weights, f"{base}: tensors", complete=True)
    detector.eval().to(place)
    frame = manifest.read(manifest_path)
    inputs = Inputs([manifest_path], [], backbone)
    tensors: dict[str, Tensor] = {}
    with torch.inference_mode(), tqdm(total=len(frame), unit="img", disable=None) as progress:
        for key, rows in groups(frame):
            parts = []
            for start in range(0, len(rows), BATCH):
                images = inputs.fetch(rows.iloc[start : start + BATCH]).to(place)
                with autocast(place, precision):
                    parts.append(detector.trunk(images).to("cpu", torch.float16))
                progress.update(len(images))
            tensors[key] = torch.cat(parts)
            if not torch.isfinite(tensors[key]).all():
                raise R2MError(
                    f"{manifest_path}: activations of {key} exceed half precision; expected"
                    " `backbone.trainable_blocks: all`, or other weights"
                )
    checkpoint.save(
        out,
        tensors,
        {
            "content": "trunk",
            "images": images_digest(frame),
            "base_hash": checkpoint.sha256(weights),
            "backbone": backbone.model_dump(),
        },
    )
