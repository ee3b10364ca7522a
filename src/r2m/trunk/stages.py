"""The stage `trunk`: one pass of the frozen lower blocks over an image set."""

import logging
from pathlib import Path

import cv2
import torch
from tqdm import tqdm

from r2m.errors import R2MError
from r2m.models import checkpoint
from r2m.models.backbone import Detector
from r2m.models.options import BackboneOptions
from r2m.models.precision import outputs, resolve_device
from r2m.models.writer import WeightsWriter
from r2m.trunk.inputs import Inputs, groups, images_digest, trunk_options

logger = logging.getLogger(__name__)

BATCH = 32


def trunk(
    *,
    manifest: Path,
    base: Path,
    backbone: BackboneOptions,
    device: str,
    precision: str,
    activations: Path,
    threads: int = 1,
) -> None:
    """Write the trunk's activations of a manifest's images: fp16 `(n, tokens, D)` per domain and split.

    They are written batch by batch while the next images are read, so that memory does not grow with their
    number.

    Raises:
        R2MError: an image cannot be read, an activation exceeds half precision, or the disk refuses.
    """
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)  # images are read in as many threads
    weights, _ = checkpoint.load(base)
    torch_device = resolve_device(device)
    detector = Detector(backbone)
    detector.load_tensors(weights, f"{base}: tensors", complete=True)
    detector.eval().to(torch_device)
    inputs = Inputs([manifest], [], backbone, threads=threads)
    frame = inputs.rows
    metadata = {
        "content": "trunk",
        "images": images_digest(frame),
        "base_hash": checkpoint.digest(weights),
        "backbone": trunk_options(backbone),
    }
    del weights
    with torch.inference_mode():
        size = backbone.image_size
        shape = detector.trunk(torch.zeros(1, 3, size, size, device=torch_device)).shape[1:]
    row_groups = groups(frame)
    specs = {key: (torch.float16, (len(rows), *shape)) for key, rows in row_groups}
    with (
        tqdm(total=len(frame), unit="img", disable=None) as progress,
        WeightsWriter(activations, specs, metadata) as writer,
    ):
        for key, rows in row_groups:
            start = 0
            for values in outputs(detector.trunk, inputs.batches(rows, BATCH), torch_device, precision):
                halves = values.half()
                if not torch.isfinite(halves).all():
                    raise R2MError(
                        f"{manifest}: activations of {key} exceed half precision; expected"
                        " `backbone.trainable_blocks: all`, or other weights"
                    )
                writer.write(key, start * shape.numel(), halves)
                start += len(halves)
                progress.update(len(halves))
        writer.finish()
    logger.info("%s: activations of %d images", manifest, len(frame))
