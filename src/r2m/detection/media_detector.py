"""Detectors that are called with photographs and videos: what `r2m.load` returns."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from r2m.detection.detecting import Detection, detect_all
from r2m.detection.given import is_one
from r2m.errors import R2MError
from r2m.models import image_detector
from r2m.models.image_detector import ImageDetector, ImageLike


@dataclass(frozen=True)
class MediaDetector(ImageDetector):
    """A detector of forged faces, made by `load`: called with photographs and videos, it finds their faces.

    Its other methods take aligned face crops.
    """

    # A string is an iterable of strings too, as an array is one of arrays; the first that fits counts.
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, paths: ImageLike, *, faces: str | Path | None = ..., every: bool = ..., frames: int = ...
    ) -> Detection: ...

    @overload
    def __call__(
        self,
        paths: Iterable[ImageLike],
        *,
        faces: str | Path | None = ...,
        every: bool = ...,
        frames: int = ...,
    ) -> list[Detection]: ...

    def __call__(
        self,
        paths: ImageLike | Iterable[ImageLike],
        *,
        faces: str | Path | None = "data/raw/faces",
        every: bool = False,
        frames: int = 32,
    ) -> Detection | list[Detection]:
        """Return what the detector says of a photograph or video, or a list of what it says of several.

        Photographs may be in memory, as for `r2m.detect`, whose options these are. Folders may be among
        several paths.

        Raises:
            R2MError: a path that is not there, what is no image, a folder alone, or no face detector.
        """
        if isinstance(paths, str | Path) and Path(paths).is_dir():
            raise R2MError(f"{paths}: a folder; expected a file, or a list: detector([{str(paths)!r}])")
        found = detect_all(paths, self, faces=faces, every=every, frames=frames)
        return found[0] if is_one(paths) else found


def load(
    path: str | Path, base: str | Path | None = None, *, device: str = "auto", precision: str | None = None
) -> MediaDetector:
    """Return the detector in a checkpoint: a merged model, or a specialist with the `base` it was made from.

    `device` is auto, cpu, cuda or mps; `precision` auto, fp32 or bf16, by default as in training.

    Raises:
        R2MError: a file that cannot be read or does not describe its detector, a specialist without its base,
            or another base.
    """
    return MediaDetector(**vars(image_detector.load(path, base, device=device, precision=precision)))
