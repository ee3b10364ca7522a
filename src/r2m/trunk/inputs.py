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
from r2m.models.read_ahead import read_ahead
from r2m.models.weights import open_weights
from r2m.trunk.augment import augmented
from r2m.trunk.options import AugmentOptions

# Rows whose text is made at a time.
DIGESTED = 4096

_TRUNK_METADATA = {
    "images": "from other images than the manifest lists",
    "backbone": "with other options of the backbone",
    "base_hash": "with other base weights",
}


class Inputs:
    """The images of several sets; `rows` are the manifests' rows with the column `set` in place of `digest`.

    With `trunks` (one file per manifest, in the same order) `fetch` reads cached activations; without, the
    crops, resized to `size`. Neither is kept: `batches` has `threads` threads that read ahead. With trunks
    `rows` tell where the activations of an image are: `trunk` is the number of the file, `position` the place
    among the images of its domain and split. `base_hash` is that of the base weights which the trunks must
    have run.

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
        threads: int = 1,
    ) -> None:
        if trunks and len(trunks) != len(manifests):
            raise R2MError(f"expected one trunk file a manifest, got {len(trunks)} for {len(manifests)}")
        if len(set(manifests)) < len(manifests):
            raise R2MError("expected each manifest once; its images would count twice")
        frames = []
        for i, path in enumerate(manifests):
            frame = manifest.read(path)
            if trunks:
                expected = {
                    "images": images_digest(frame),
                    "backbone": json.dumps(trunk_options(backbone), sort_keys=True),
                    "base_hash": base_hash,
                }
                _check_trunk(trunks[i], expected)
                frame = frame.assign(trunk=np.int16(i), position=_positions(frame))
            frames.append(frame.drop(columns="digest").assign(set=path.parent.name))
        self.rows = pd.concat(frames, ignore_index=True)
        self.threads = threads
        self._trunks = list(trunks)
        self.size = backbone.image_size
        self._mean, self._std = normalization(backbone.name)

    def select(self, **columns: str | int | Sequence[str]) -> pd.DataFrame:
        """Return the rows in which every named column has the value, or one of the values."""
        mask = pd.Series(True, index=self.rows.index)
        for column, value in columns.items():
            values = [value] if isinstance(value, str | int) else list(value)
            mask &= self.rows[column].isin(values)
        return self.rows[mask]

    def fetch(self, rows: pd.DataFrame, options: AugmentOptions | None = None, seed: int = 0) -> Tensor:
        """Return the input `(B, …)` of `rows` in fp32; crops are augmented where `options` are given.

        What is drawn for an image depends on the seed and its id, not on the other rows.

        Raises:
            R2MError: an image that cannot be read, or a trunk that was truncated meanwhile.
        """
        if self._trunks:
            return self._activations(rows)
        images = load_images(list(rows["path"]), self.size)
        if options is not None:
            named = zip(images, rows["image_id"], strict=True)
            images = torch.stack([augmented(image, options, seed, image_id) for image, image_id in named])
        return (images - self._mean) / self._std

    def batches(self, rows: pd.DataFrame, size: int) -> Iterator[Tensor]:
        """Yield the input of `rows`, in their order, `size` of them at a time, read ahead."""
        starts = range(0, len(rows), size)
        yield from read_ahead(lambda start: self.fetch(rows.iloc[start : start + size]), starts, self.threads)

    def _activations(self, rows: pd.DataFrame) -> Tensor:
        """Return the activations `(B, tokens, D)` of images in fp32; only theirs are read."""
        activations = []
        with ExitStack() as opened:
            files = {
                number: opened.enter_context(open_weights(self._trunks[number]))
                for number in rows["trunk"].unique()
            }
            keys = rows["domain"] + "/" + rows["split"]
            for number, key, position in zip(rows["trunk"], keys, rows["position"], strict=True):
                shape = files[number].entries[key].shape[1:]
                size = math.prod(shape)
                activations.append(
                    files[number].read(key, position * size, (position + 1) * size).view(shape)
                )
        return torch.stack(activations).float()


def _check_trunk(trunk: Path, expected: Mapping[str, str | None]) -> None:
    """Raise R2MError for a trunk of other images, options or base weights than expected."""
    stored = checkpoint.read_metadata(trunk)
    if stored.get("content") != "trunk":
        raise R2MError(f"{trunk}: holds no activations of a trunk")
    for key, difference in _TRUNK_METADATA.items():
        if expected[key] not in (None, stored.get(key)):
            raise R2MError(f"{trunk}: was made {difference}; make it again")


def _positions(frame: pd.DataFrame) -> NDArray[np.int32]:
    """Return the place (n,) of every row of a manifest in its group of `groups`."""
    return np.asarray(frame.groupby(["domain", "split"]).cumcount(), dtype=np.int32)


def groups(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return `("<domain>/<split>", rows)` for each domain and split of a manifest, rows in manifest order."""
    return [
        (f"{domain}/{split}", rows) for (domain, split), rows in frame.groupby(["domain", "split"], sort=True)
    ]


def images_digest(frame: pd.DataFrame) -> str:
    """Return a digest of the ids, domains and splits of a manifest's rows."""
    digest = hashlib.sha256()
    for start in range(0, len(frame), DIGESTED):
        part = frame.iloc[start : start + DIGESTED]
        lines = part["image_id"] + "\t" + part["domain"] + "\t" + part["split"]
        digest.update(("\n" * (start > 0) + "\n".join(lines)).encode())
    return digest.hexdigest()


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
