"""The specialists behind a merged detector, which tell what a fake is most like."""

from collections.abc import Sequence
from pathlib import Path

from r2m.errors import R2MError
from r2m.models.config import DetectorConfig
from r2m.models.image_detector import ImageDetector, load

# What a crop depends on: a specialist is asked of the crops that the merged detector gets.
CROP = ("image_size", "crop_size", "margin", "jpeg_quality")


def load_specialists(
    files: Sequence[Path], base: Path | None, config: DetectorConfig, *, device: str = "auto"
) -> dict[str, ImageDetector]:
    """Return name → specialist, all of them in memory; `config` is of the detector whose faces they get.

    A specialist's name is that of its training, or of its file where that names none.

    Raises:
        R2MError: a file that `load` cannot read, a name that is there twice, or other crops than the
            detector's.
    """
    loaded: dict[str, ImageDetector] = {}
    for path in files:
        specialist = load(path, base, device=device)
        name = specialist.metadata.get("name") or path.stem
        if name in loaded:
            raise R2MError(f"{path}: a second specialist {name!r}; expected one of each name")
        for key in CROP:
            own, expected = getattr(specialist.config, key), getattr(config, key)
            if own != expected:
                raise R2MError(f"{path}: {key} {own}; expected {expected}, as the model has")
        loaded[name] = specialist
    return loaded
