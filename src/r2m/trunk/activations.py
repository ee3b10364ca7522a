"""One pass of the frozen trunk over an image set."""

import logging
from pathlib import Path

import torch
from tqdm import tqdm

from r2m import manifest
from r2m.errors import R2MError
from r2m.models import checkpoint
from r2m.models.backbone import Detector
from r2m.models.options import BackboneOptions
from r2m.models.precision import autocast, resolve_device
from r2m.models.writer import WeightsWriter
from r2m.trunk.inputs import Inputs, groups, images_digest

logger = logging.getLogger(__name__)

BATCH = 32


def write_activations(
    manifest_path: Path, base: Path, backbone: BackboneOptions, out: Path, device: str, precision: str
) -> None:
    """Write the trunk's activations of a manifest's images: fp16 `(n, tokens, D)` a domain and split.

    They are written batch by batch, so that memory does not grow with their number.

    Raises:
        R2MError: an image cannot be read, an activation exceeds half precision, or the disk refuses.
    """
    weights, _ = checkpoint.load(base)
    place = resolve_device(device)
    detector = Detector(backbone)
    detector.load_tensors(weights, f"{base}: tensors", complete=True)
    detector.eval().to(place)
    frame = manifest.read(manifest_path)
    inputs = Inputs([manifest_path], [], backbone)
    metadata = {
        "content": "trunk",
        "images": images_digest(frame),
        "base_hash": checkpoint.digest(weights),
        "backbone": backbone.model_dump(),
    }
    del weights
    with torch.inference_mode(), tqdm(total=len(frame), unit="img", disable=None) as progress:
        size = backbone.image_size
        shape = detector.trunk(torch.zeros(1, 3, size, size, device=place)).shape[1:]
        specs = {key: (torch.float16, (len(rows), *shape)) for key, rows in groups(frame)}
        with WeightsWriter(out, specs, metadata) as writer:
            for key, rows in groups(frame):
                for start in range(0, len(rows), BATCH):
                    images = inputs.fetch(rows.iloc[start : start + BATCH]).to(place)
                    with autocast(place, precision):
                        activations = detector.trunk(images).to("cpu", torch.float16)
                    if not torch.isfinite(activations).all():
                        raise R2MError(
                            f"{manifest_path}: activations of {key} exceed half precision; expected"
                            " `backbone.trainable_blocks: all`, or other weights"
                        )
                    writer.write(key, start * shape.numel(), activations)
                    progress.update(len(images))
            writer.finish()
    logger.info("%s: activations of %d images", manifest_path, len(frame))
