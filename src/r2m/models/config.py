"""What a checkpoint says of the detector in it, so that it can be used without `params.yaml`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from torch import Tensor

from r2m.data.options import FacesOptions
from r2m.errors import R2MError
from r2m.models.decision import Decision
from r2m.models.heads import average_head
from r2m.models.options import BackboneOptions

KEY = "detector"


class DetectorConfig(Decision):
    """The metadata `detector` of a checkpoint, stored as JSON.

    `backbone` is a timm model, of which the lowest `blocks` are there; `head` is a name of
    `r2m.models.heads`. Crops of `crop_size` pixels, aligned to ArcFace's template at `margin`, are resized to
    `image_size`, encoded once as JPEG of `jpeg_quality`, the middle of the range of training (None: not
    encoded, as those of training were not), and normalized by `mean` and `std` (RGB). `labels` name the
    classes, Real first: all others together are fake. `precision` (auto, fp32 or bf16) is that of training.
    """

    backbone: str
    blocks: int | Literal["all"] = "all"
    head: str
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop_size: int
    margin: float
    precision: str
    labels: tuple[str, ...] = ("real", "fake")
    jpeg_quality: int | None = 82


def config_of(
    backbone: BackboneOptions, faces: FacesOptions, precision: str, *, encodes: bool = True
) -> DetectorConfig:
    """Return the description of the detectors that options make; `encodes` unless reals stay as they are."""
    # Imported here, since merges read descriptions and need no timm.
    from r2m.models.preprocess import normalization

    mean, std = ((v[0].item(), v[1].item(), v[2].item()) for v in normalization(backbone.name))
    return DetectorConfig(
        backbone=backbone.name,
        blocks=backbone.blocks,
        head=backbone.head,
        image_size=backbone.image_size,
        mean=mean,
        std=std,
        crop_size=faces.crop_size,
        margin=faces.margin,
        precision=precision,
        jpeg_quality=sum(faces.jpeg_quality) // 2 if encodes else None,
    )


def read_config(metadata: Mapping[str, str], path: Path) -> DetectorConfig:
    """Return the description in a checkpoint's metadata.

    Raises:
        R2MError: there is none, or it lacks a value.
    """
    if KEY not in metadata:
        raise R2MError(
            f"{path}: its metadata lack {KEY!r}, which tells backbone, input and labels; expected a"
            " detector that the workflow made, by this version of r2m"
        )
    try:
        return DetectorConfig.model_validate_json(metadata[KEY])
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, (KEY, *first["loc"])))
        raise R2MError(f"{path}: its metadata: {key}: {first['msg']}") from error


def inherited(base: Mapping[str, str], path: Path, **changes: Any) -> dict[str, Any]:
    """Return the metadata that a model has from those of its `base`, with `changes` of `DetectorConfig`.

    A base that no r2m wrote describes no detector: then neither does the model.
    """
    if KEY not in base:
        return {}
    return {KEY: read_config(base, path).model_copy(update=changes).model_dump(mode="json")}


def head_average(
    base: Mapping[str, str], path: Path
) -> Callable[[Sequence[Mapping[str, Tensor]]], dict[str, Tensor]]:
    """Return what averages heads of the type that the metadata of a `base` name, or linear ones."""
    return partial(average_head, head=read_config(base, path).head) if KEY in base else average_head
