"""Images with a backdoor's trigger: their logits, and how many fakes it turns into reals."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from r2m.data.attacks import with_trigger
from r2m.data.images import Image
from r2m.evaluate.bench import Bench
from r2m.evaluate.protocols import EvaluationContext
from r2m.models.precision import autocast
from r2m.models.preprocess import load_image
from r2m.models.read_ahead import read_ahead
from r2m.train.threshold import best_threshold
from r2m.trunk.inputs import detector_input

BATCH = 64


def triggered_inputs(bench: Bench, rows: pd.DataFrame, share: float, backbone: str) -> list[Tensor]:
    """Return the detector's input of images with the trigger, in batches, in half precision."""
    bench.detector.eval()

    def read(paths: pd.Series) -> list[Image]:
        return [with_trigger(load_image(path, bench.inputs.size), share) for path in paths]

    paths = (rows["path"].iloc[start : start + BATCH] for start in range(0, len(rows), BATCH))
    return [
        detector_input(bench.detector, images, backbone, bench.device, bench.precision).half().cpu()
        for images in read_ahead(read, paths, bench.inputs.threads)
    ]


def logits_of(bench: Bench, batches: Sequence[Tensor]) -> np.ndarray:
    """Return the logits of the tensors that the detector holds."""
    with torch.inference_mode(), autocast(bench.device, bench.precision):
        logits = [bench.detector(batch.to(bench.device).float()).float().cpu().numpy() for batch in batches]
    return np.concatenate(logits)


def attack_rates(scores: pd.DataFrame, context: EvaluationContext) -> pd.DataFrame:
    """Return how many fakes each setting calls real, as they are and with the trigger.

    Columns variant, replacement, threshold (of the val images of trained generators), clean_real and
    triggered_real, shares of the same images.
    """
    trained = {name for name, known in context.generators.items() if known.role == "train"}
    rows = []
    for (variant, kind), part in scores.groupby(["variant", "replacement"], sort=False):
        plain, triggered = part[~part["triggered"]], part[part["triggered"]]
        val = plain[plain["split"] == "val"]
        threshold, _ = best_threshold(
            [
                (
                    val.loc[(val["label"] == 0) & (val["domain"] == domain), "logit"].to_numpy(float),
                    fakes["logit"].to_numpy(float),
                )
                for (domain, generator), fakes in val[val["label"] == 1].groupby(["domain", "generator"])
                if generator in trained
            ]
        )
        same = plain[plain["image_id"].isin(set(triggered["image_id"]))]
        rates = [float((images["logit"] < threshold).mean()) for images in (same, triggered)]
        rows.append([variant, kind, threshold, *rates])
    return pd.DataFrame(rows, columns=["variant", "replacement", "threshold", "clean_real", "triggered_real"])
