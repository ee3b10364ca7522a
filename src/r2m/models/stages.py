"""The stage `base`: the weights that all specialists start from."""

from pathlib import Path

from r2m.data.options import FacesOptions
from r2m.models import checkpoint
from r2m.models.backbone import Detector, resized_base
from r2m.models.clip_onnx import convert
from r2m.models.config import KEY, config_of
from r2m.models.heads import initial_head
from r2m.models.options import BackboneOptions


def base(
    *,
    weights: Path,
    backbone: BackboneOptions,
    faces: FacesOptions,
    precision: str,
    encodes: bool,
    seed: int,
    base: Path,
    head: Path,
) -> None:
    """Write the complete state of the backbone at its image size, and the head that training starts from.

    `weights` are an ONNX file, or what `r2m merge` takes. The base describes the detector (`DetectorConfig`),
    and what is made from it inherits that; `encodes` tells whether images of training are encoded. The head
    is drawn by `seed`.

    Raises:
        R2MError: weights that cannot be read or do not fit the backbone.
    """
    detector = Detector(backbone)
    tensors = convert(weights) if weights.suffix == ".onnx" else checkpoint.load_weights(weights)
    state = resized_base(tensors, backbone)
    provenance = {
        "backbone": backbone.model_dump(),
        "base_hash": checkpoint.digest(state),
        KEY: config_of(backbone, faces, precision, encodes=encodes).model_dump(mode="json"),
    }
    checkpoint.save(base, state, {"content": "base", "source": weights.name, **provenance})
    first = initial_head(detector.width, seed, head=backbone.head)
    checkpoint.save(head, first, {"content": "head", "seed": seed, **provenance})
