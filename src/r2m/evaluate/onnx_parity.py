"""A detector as ONNX beside torch, on faces of the val split."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from r2m.data.images import read_square
from r2m.detection.export import OPSET, export_onnx, logits_of
from r2m.errors import R2MError
from r2m.models.image_detector import ImageDetector
from r2m.seeding import rng
from r2m.train.validation import aucs

# Fakes of each generator, and reals: the whole network runs over each image in three ways.
MOST = 48
DIGITS = 3


def val_sample(images: pd.DataFrame, seed: int, most: int = MOST) -> pd.DataFrame:
    """Return rows of the val split: of reals and of the fakes of each generator `most` at most."""
    val = images[images["split"] == "val"]
    drawn = []
    for (label, generator), rows in val.groupby(["label", "generator"], sort=False, observed=True):
        stream = rng(seed, "onnx parity", str(label), str(generator))
        places = stream.choice(len(rows), min(most, len(rows)), replace=False)
        drawn.append(rows.iloc[np.sort(places)])
    return pd.concat(drawn, ignore_index=True) if drawn else val


def onnx_parity(detector: ImageDetector, rows: pd.DataFrame) -> dict[str, Any]:
    """Return how a detector as ONNX, in fp32 and with 8-bit matrices, compares with torch on aligned crops.

    `rows` are of fakes and of reals in the same domains. The result holds the number of images, the opset,
    and for each format its mean AUC over generators, its size in MB and how far its logits are from torch's
    at most, to `DIGITS` digits after the point; or the opset and the `reason` why the detector cannot be
    written as ONNX.
    """
    size = detector.config.image_size
    crops = np.stack([read_square(Path(path), size)[..., ::-1] for path in rows["path"]])
    given = np.ascontiguousarray(crops.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)
    fakes, reals = (rows[rows["label"] == label].reset_index(drop=True) for label in (1, 0))
    is_fake = (rows["label"] == 1).to_numpy()
    expected = detector.logits(crops)

    def compared(logits: np.ndarray, path: Path | None = None) -> dict[str, float]:
        auc = np.mean(list(aucs(fakes, logits[is_fake], reals, logits[~is_fake]).values()))
        # What is below is rounding, which depends on where tensors lie in memory.
        difference = round(float(np.abs(logits - expected).max()), DIGITS)
        described = {"auc": float(auc), "difference": difference}
        return described if path is None else {**described, "megabytes": path.stat().st_size / 1e6}

    formats = {"torch": compared(expected)}
    with tempfile.TemporaryDirectory(prefix="r2m-onnx-parity-") as folder:
        for name in ("fp32", "int8"):
            path = Path(folder) / f"{name}.onnx"
            try:
                export_onnx(detector, path, int8=name == "int8")
            except R2MError as error:
                return {"opset": OPSET, "reason": str(error).removeprefix(f"{path}: ")}
            formats[name] = compared(logits_of(path, given), path)
    return {"images": len(rows), "opset": OPSET, "formats": formats}
