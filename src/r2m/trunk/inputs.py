"""Rows of manifests joined to what the detector reads: activations of the frozen trunk, or crops."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from r2m import manifest
from r2m.errors import R2MError
from r2m.models import checkpoint
from r2m.models.backbone import Detector
from r2m.models.options import BackboneOptions
from r2m.models.precision import outputs
from r2m.models.preprocess import load_images, normalization, stacked
from r2m.models.weights import open_weights
from r2m.trunk.augment import augment
from r2m.trunk.options import AugmentOptions

_TRUNK_METADATA = {
    "images": "from other images than the manifest lists",
    "backbone": "with other options of the backbone",
    "base_hash": "with other base weights",
}


class Inputs:
    """The images of several sets; `rows` are the manifests' rows with the column `set` added.

    With `trunks` (one file a manifest, in the same order) `fetch` reads cached activations; without, the
    crops. Neither is kept. `base_hash` is that of the base weights which the trunks must have run.

    Raises:
        R2MError: a file is missing or damaged, or a trunk was made of other images, of other base weights or
            with other options of the backbone.
    """

    def __init__(
        self,
        manifests: Sequence[Path],
        trunks: Sequence[Path],
        backbone: BackboneOptions,
        base_hash: str | None = None,
    ) -> None:
        if trunks and len(trunks) != len(manifests):
            raise R2MError(f"expected one trunk file a manifest, got {len(trunks)} for {len(manifests)}")
        if len(set(manifests)) < len(manifests):
            raise R2MError("expected each manifest once; its images would count twice")
        frames = []
        self._places: dict[str, tuple[Path, str, int]] = {}
        for i, path in enumerate(manifests):
            frame = manifest.read(path)
            frames.append(frame.assign(set=path.parent.name))
            if trunks:
                expected = {
                    "images": images_digest(frame),
                    "backbone": json.dumps(trunk_options(backbone), sort_keys=True),
                    "base_hash": base_hash,
                }
                self._index(frame, trunks[i], expected)
        self.rows = pd.concat(frames, ignore_index=True)
        self._cached = bool(trunks)
        self._size = backbone.image_size
        self._mean, self._std = normalization(backbone.name)

    def select(self, **columns: str | int | Sequence[str]) -> pd.DataFrame:
        """Return the rows in which every named column has the value, or one of the values."""
        mask = pd.Series(True, index=self.rows.index)
        for column, value in columns.items():
            values = [value] if isinstance(value, str | int) else list(value)
            mask &= self.rows[column].isin(values)
        return self.rows[mask]

    def fetch(self, rows: pd.DataFrame, options: AugmentOptions | None = None, seed: int = 0) -> Tensor:
        """Return the input `(B, …)` of `rows` in fp32; crops are augmented where `options` are given."""
        if self._cached:
            return self._activations(list(rows["image_id"]))
        images = load_images(list(rows["path"]), self._size)
        if options is not None:
            images = augment(images, options, seed)
        return (images - self._mean) / self._std

    def batches(self, rows: pd.DataFrame, size: int) -> Iterator[Tensor]:
        """Yield the input of `rows`, in their order, `size` of them at a time."""
        for start in range(0, len(rows), size):
            yield self.fetch(rows.iloc[start : start + size])

    def _index(self, frame: pd.DataFrame, trunk: Path, expected: Mapping[str, str | None]) -> None:
        stored = checkpoint.read_metadata(trunk)
        if stored.get("content") != "trunk":
            raise R2MError(f"{trunk}: holds no activations of a trunk")
        for key, what in _TRUNK_METADATA.items():
            if expected[key] not in (None, stored.get(key)):
                raise R2MError(f"{trunk}: was made {what}; make it again")
        for key, part in groups(frame):
            for position, image_id in enumerate(part["image_id"]):
                self._places[image_id] = (trunk, key, position)

    def _activations(self, image_ids: Sequence[str]) -> Tensor:
        """Return the activations `(B, tokens, D)` of images in fp32; only theirs are read."""
        places = [self._places[image_id] for image_id in image_ids]
        parts = []
        with ExitStack() as opened:
            trunks = {path for path, _, _ in places}
            files = {path: opened.enter_context(open_weights(path)) for path in trunks}
            for path, key, position in places:
                shape = files[path].entries[key].shape[1:]
                size = math.prod(shape)
                parts.append(files[path].read(key, position * size, (position + 1) * size).view(shape))
        return torch.stack(parts).float()


def groups(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return `("<domain>/<split>", rows)` for each domain and split of a manifest, rows in manifest order."""
    return [
        (f"{domain}/{split}", part) for (domain, split), part in frame.groupby(["domain", "split"], sort=True)
    ]


def images_digest(frame: pd.DataFrame) -> str:
    """Return a digest of the ids, domains and splits of a manifest's rows."""
    text = "\n".join(frame["image_id"] + "\t" + frame["domain"] + "\t" + frame["split"])
    return hashlib.sha256(text.encode()).hexdigest()


def trunk_options(backbone: BackboneOptions) -> dict[str, Any]:
    """Return the options that activations depend on: all but the head's."""
    return backbone.model_dump(exclude={"head"})


def detector_input(
    detector: Detector,
    images: Sequence[NDArray[np.uint8]],
    backbone: str,
    device: torch.device,
    precision: str,
) -> Tensor:
    """Return what `detector.forward` takes of BGR images (H, W, 3) of its size, `(B, …)` in fp32.

    That is the normalized images, or with a trunk its activations, rounded to half precision like those that
    the stage `trunk` keeps. The detector has to be in evaluation mode.
    """
    mean, std = normalization(backbone)
    normalized = ((stacked(images) - mean) / std).to(device)
    if detector.first_trainable is None:
        return normalized
    (activations,) = outputs(detector.trunk, [normalized], device, precision)
    return activations.half().float().to(device)
