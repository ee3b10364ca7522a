"""Detectors from their files alone, for images wherever they come from."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import Tensor

from r2m.data.images import MOST_OBLONG, Image, bgr_of, read_image, resized
from r2m.data.listing import list_images
from r2m.errors import R2MError
from r2m.models import checkpoint
from r2m.models.backbone import Detector
from r2m.models.config import DetectorConfig, read_config
from r2m.models.digests import weights_digest
from r2m.models.heads import HEAD
from r2m.models.options import BackboneOptions
from r2m.models.precision import outputs, resolve_device
from r2m.models.preprocess import stacked
from r2m.models.read_ahead import read_ahead
from r2m.models.weights import open_weights

BATCH = 64
MOST_THREADS = 8

Item = TypeVar("Item")
ImageLike = str | Path | Pillow.Image | NDArray[np.uint8]


@dataclass(frozen=True)
class ImageDetector:
    """A detector of forged faces, made by `load`.

    It takes one aligned face crop or many: paths, PIL images, RGB arrays (H, W, 3) of uint8, or an array of
    many. They are resized as in training. Files are read ahead, in as many threads as torch computes in (at
    most `MOST_THREADS`); each has a batch in memory. `config` describes the detector, `metadata` is all that
    its file says.
    """

    model: Detector
    config: DetectorConfig
    metadata: dict[str, str]
    device: torch.device
    precision: str

    def logits(self, images: ImageLike | Iterable[ImageLike], batch_size: int = BATCH) -> NDArray[np.float32]:
        """Return the logits (n,) of being fake, in the order of the images.

        Raises:
            R2MError: an image that cannot be read, is none or is far from square; the path, or its
                position, is named.
        """
        return self.logits_of_inputs(self.batches(images, batch_size))

    def logits_of_files(
        self, paths: Sequence[str], batch_size: int = BATCH
    ) -> tuple[NDArray[np.float32], list[str]]:
        """Return the logits (n,) of files, NaN where one cannot be scored, and why not, empty if it is."""
        reasons: list[str] = []
        scored = self.logits_of_inputs(self._readable(paths, batch_size, reasons))
        logits = np.full(len(paths), np.nan, np.float32)
        logits[[not reason for reason in reasons]] = scored
        return logits, reasons

    def probabilities(
        self, images: ImageLike | Iterable[ImageLike], batch_size: int = BATCH
    ) -> NDArray[np.float64]:
        """Return the probabilities (n,) of being fake; raises like `logits`.

        They were calibrated on val, where reals and fakes weigh the same.
        """
        return self.config.probabilities(self.logits(images, batch_size))

    def is_fake(self, images: ImageLike | Iterable[ImageLike], batch_size: int = BATCH) -> NDArray[np.bool_]:
        """Return whether images are fake (n,): by the detector's own threshold; raises like `logits`."""
        return self.probabilities(images, batch_size) >= self.config.threshold

    def logits_of_inputs(self, batches: Iterable[Tensor]) -> NDArray[np.float32]:
        """Return the logits (n,) of normalized images, given in batches (B, 3, S, S)."""
        logits = outputs(self.model, batches, self.device, self.precision)
        return np.concatenate([np.zeros(0, np.float32), *(batch.float().numpy() for batch in logits)])

    def batches(self, images: ImageLike | Iterable[ImageLike], batch_size: int = BATCH) -> Iterator[Tensor]:
        """Yield images as the model takes them, normalized (B, 3, S, S), in order; raises like `logits`."""
        if isinstance(images, str | Path | Pillow.Image):
            images = [images]
        elif isinstance(images, np.ndarray):
            images = list(images) if images.ndim == 4 else [images]

        def read(batch: Sequence[Path | Image]) -> Tensor:
            return self._normalized([self._crop(item) if isinstance(item, Path) else item for item in batch])

        # What the caller holds is read in the caller's own thread.
        items = (
            Path(image) if isinstance(image, str | Path) else self._crop(image, index)
            for index, image in enumerate(images)
        )
        yield from read_ahead(read, _batched(items, batch_size), _threads())

    def _readable(self, paths: Sequence[str], size: int, reasons: list[str]) -> Iterator[Tensor]:
        """Yield batches of those files that can be read, and append for each why not, empty if it can."""

        def read(batch: Sequence[str]) -> tuple[list[Image], list[str]]:
            crops, told = [], []
            for path in batch:
                try:
                    crops.append(self._crop(Path(path)))
                    told.append("")
                except R2MError as error:
                    told.append(str(error).removeprefix(f"{Path(path)}: "))
            return crops, told

        for crops, told in read_ahead(read, _batched(iter(paths), size), _threads()):
            reasons += told
            if crops:
                yield self._normalized(crops)

    def _crop(self, image: ImageLike, index: int = 0) -> Image:
        return resized(_bgr(image, index), self.config.image_size)

    def _normalized(self, crops: Sequence[Image]) -> Tensor:
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (self.config.mean, self.config.std))
        return (stacked(list(crops)) - mean) / std


def load(
    path: str | Path, base: str | Path | None = None, *, device: str = "auto", precision: str | None = None
) -> ImageDetector:
    """Return the detector in a checkpoint: a merged model, or a specialist with the `base` it was made from.

    `device` is auto, cpu, cuda or mps; `precision` auto, fp32 or bf16, by default as in training.

    Raises:
        R2MError: a file that cannot be read or does not describe its detector, a specialist without its base,
            or another base.
    """
    path = Path(path)
    tensors, metadata = _read(path)
    config = read_config(metadata, path)
    options = BackboneOptions(
        name=config.backbone,
        image_size=config.image_size,
        blocks=config.blocks,
        trainable_blocks="all",
        head=config.head,
    )
    detector = Detector(options)
    if HEAD + "weight" not in tensors:
        raise R2MError(f"{path}: holds no head ({HEAD}weight); expected a specialist or a merged model")
    lacking = sorted(detector.backbone.state_dict().keys() - tensors.keys())
    if base is not None:
        tensors = {**_read_base(Path(base), metadata.get("base_hash"), path), **tensors}
    elif lacking:
        raise R2MError(
            f"{path}: lacks {lacking[0]!r} and {len(lacking) - 1} more tensors of the backbone, which"
            " training did not change; give its base as well: r2m.load(path, base=...)"
        )
    detector.load_tensors(tensors, f"{path}: tensors", complete=True)
    target = resolve_device(device, "device")
    return ImageDetector(detector.eval().to(target), config, metadata, target, precision or config.precision)


def score(
    images: str | Path | Sequence[str | Path], detector: ImageDetector, batch_size: int = BATCH
) -> pd.DataFrame:
    """Return path, logit, probability of being fake, label and error of images: files, and those in folders.

    The label is the detector's for a probability beside its threshold. Images of a folder are those in its
    sub-folders too, by path. An image that cannot be scored, since it cannot be read, shows nothing or is far
    from square, does not stop the others: `error` says why not, and is empty where an image is scored.

    Raises:
        R2MError: no detector, a folder without images, or no image can be scored.
    """
    require_detector(detector, "r2m.score(images, r2m.load({}))")
    if isinstance(images, str | Path):
        paths = _files(Path(images))
    else:
        paths = [path for one in images for path in (_files(Path(one)) if Path(one).is_dir() else [str(one)])]
    logits, reasons = detector.logits_of_files(paths, batch_size)
    probability = detector.config.probabilities(logits)
    real, fake = detector.config.labels[0], _fake_label(detector.config.labels)
    label = np.where(probability >= detector.config.threshold, fake, real)
    table = pd.DataFrame({"path": paths, "logit": logits, "probability": probability, "label": label})
    table["error"] = reasons
    table["label"] = table["label"].where(table["error"] == "", None)
    if paths and all(reasons):
        raise R2MError(failures(table))
    return table


def require_detector(detector: object, expected: str) -> None:
    """Raise R2MError unless a detector is given; `expected` is the call, with {} for the path of one."""
    if not isinstance(detector, ImageDetector):
        is_path = isinstance(detector, str | Path)
        call = expected.replace("{}", repr(str(detector)) if is_path else "path")
        raise R2MError(f"detector: a {type(detector).__name__}; expected what r2m.load returns: {call}")


def failures(table: pd.DataFrame) -> str:
    """Return how many images of a table of `score` cannot be scored, such as which; empty if all are."""
    failed = table[table["error"] != ""]
    if failed.empty:
        return ""
    first = failed.iloc[0]
    return f"{len(failed)} of {len(table)} images cannot be scored, such as {first.path}: {first.error}"


def _files(path: Path) -> list[str]:
    """Return the file itself, or the images in a folder; raises R2MError if there are none."""
    return [str(path)] if path.is_file() else [str(path / name) for name in list_images(path)]


def _fake_label(labels: Sequence[str]) -> str:
    """Return what all classes but the first are together."""
    return labels[1] if len(labels) == 2 else "fake"


def _batched(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    return iter(lambda: list(islice(items, size)), [])


def _threads() -> int:
    return min(torch.get_num_threads(), MOST_THREADS)


def _bgr(image: ImageLike, index: int) -> Image:
    """Return an image as BGR (H, W, 3)."""
    try:
        if isinstance(image, str | Path):
            return _about_square(read_image(Path(image))[0])
        if isinstance(image, Pillow.Image):
            return _about_square(bgr_of(image))
        if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,):
            return _about_square(image[..., ::-1])
    except (ValueError, OSError) as error:
        name = image if isinstance(image, str | Path) else f"image {index}"
        raise R2MError(f"{name}: {error}") from error
    description = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
    raise R2MError(f"image {index}: {description}; expected a path, a PIL image, or RGB of uint8 (H, W, 3)")


def _about_square(image: Image) -> Image:
    """Return the image; raises ValueError where it is too far from square to be an aligned crop."""
    height, width = image.shape[:2]
    if max(height, width) > MOST_OBLONG * min(height, width):
        raise ValueError(f"no aligned crop: {width}×{height} pixels, expected about a square")
    return image


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with open_weights(path) as weights:
        metadata = dict(weights.metadata)
    return checkpoint.load_weights(path), metadata


def _read_base(path: Path, base_hash: str | None, model: Path) -> dict[str, Tensor]:
    with open_weights(path) as weights:
        digest = weights_digest(weights)
    if digest != base_hash:
        raise R2MError(f"{model}: made from base {base_hash}, but {path} is {digest}")
    return checkpoint.load_weights(path)
