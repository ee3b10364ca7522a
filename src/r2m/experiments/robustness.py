"""How AUC falls as test images are perturbed."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch.func import functional_call
from tqdm import tqdm

from r2m.data.images import read_crop
from r2m.data.perturb import perturbed
from r2m.errors import R2MError
from r2m.evaluate.bootstrap import LEVEL, interval, resampled_aucs
from r2m.evaluate.protocols import PROTOCOLS, EvaluationContext, mean_columns
from r2m.evaluate.rendered import Rendered
from r2m.evaluate.score_matrix import people, set_rows
from r2m.evaluate.scores import KEPT
from r2m.merge.tensors import Tensors
from r2m.models.backbone import HEAD, Detector
from r2m.models.precision import autocast
from r2m.params import BackboneOptions
from r2m.seeding import rng
from r2m.trunk.fresh import detector_input

CLEAN = "clean"
TITLES = {
    CLEAN: "Clean",
    "jpeg": "JPEG quality",
    "blur": "Blur, σ in pixels",
    "noise": "Noise, σ of the range",
    "resize": "Scaled down to",
    "saturation": "Saturation",
    "contrast": "Contrast",
}
LABELS = {"base": "Base (linear probe)", "joint": "Joint training"}


def perturbed_rows(
    frames: Sequence[pd.DataFrame], domain: str, generators: Sequence[str], share: float, seed: int
) -> pd.DataFrame:
    """Return the test images of a domain, reals and the generators' fakes, of a share of its people."""
    rows = pd.concat(frames, ignore_index=True)
    known = rows["generator"].isin(list(generators)) | (rows["label"] == 0)
    rows = rows[(rows["split"] == "test") & (rows["domain"] == domain) & known]
    identities = sorted(set(rows["identity"]))
    count = math.ceil(share * len(identities))
    chosen = rng(seed, "robustness").permutation(len(identities))[:count]
    return rows[rows["identity"].isin({identities[place] for place in chosen})].reset_index(drop=True)


def robustness_scores(
    detector: Detector,
    models: Mapping[str, Tensors],
    rows: pd.DataFrame,
    levels: Mapping[str, Sequence[Any]],
    backbone: BackboneOptions,
    device: torch.device,
    precision: str,
    batch_size: int,
    seed: int,
) -> pd.DataFrame:
    """Return the logits of several models for every image, as it is and at every level of perturbation.

    Columns perturbation, level (as text), model, `KEPT` and logit. The trunk runs once for
    an image and level; a model is the tensors that it lays over those of the detector.

    Raises:
        R2MError: tensors that do not fit the detector, images of another size, or a logit that is not finite.
    """
    own = {key: tensor.clone() for key, tensor in detector.trainable_state().items()}
    placed = {}
    for name, tensors in models.items():
        detector.load_tensors(tensors)  # checks that they fit
        placed[name] = {
            key if key.startswith(HEAD) else f"backbone.{key}": tensor.to(device)
            for key, tensor in tensors.items()
        }
    detector.load_tensors(own)  # a head alone is laid over these, not over the model before it
    detector.eval()
    settings = [(CLEAN, None), *((name, level) for name, given in levels.items() for level in given)]
    parts = []
    with tqdm(total=len(settings) * len(rows), unit="img", disable=None) as progress:
        for perturbation, level in settings:
            logits: dict[str, list[np.ndarray]] = {name: [] for name in models}
            for start in range(0, len(rows), batch_size):
                batch = rows.iloc[start : start + batch_size]
                images = [
                    _image(path, image_id, perturbation, level, backbone.image_size, seed)
                    for path, image_id in zip(batch["path"], batch["image_id"], strict=True)
                ]
                x = detector_input(detector, images, backbone.name, device, precision)
                with torch.inference_mode(), autocast(device, precision):
                    for name, tensors in placed.items():
                        found = functional_call(detector, tensors, (x,))
                        logits[name].append(found.float().cpu().numpy())
                progress.update(len(batch))
            for name, found in logits.items():
                named = {"perturbation": perturbation, "level": level_text(level), "model": name}
                parts.append(rows[KEPT].assign(**named, logit=np.concatenate(found)))
    scores = pd.concat(parts, ignore_index=True)
    if not np.isfinite(scores["logit"]).all():
        first = scores[~np.isfinite(scores["logit"])].iloc[0]
        raise R2MError(
            f"{first['model']}: the logit of {first['image_id']} is not finite"
            f" ({first['perturbation']} {first['level']})"
        )
    return scores[["perturbation", "level", "model", *KEPT, "logit"]]


def _image(path: str, image_id: str, perturbation: str, level: Any, size: int, seed: int) -> np.ndarray:
    image = read_crop(Path(path))
    if image.shape[:2] != (size, size):
        raise R2MError(f"{path}: is {image.shape[1]}×{image.shape[0]} px; expected {size}×{size}")
    return image if perturbation == CLEAN else perturbed(image, perturbation, level, seed, image_id)


def level_text(level: Any) -> str:
    """Return a level as tables name it: a blur by its σ, nothing for an image as it is."""
    if level is None:
        return ""
    return f"{level[1]:g}" if isinstance(level, Sequence) else f"{level:.3g}"


def table(source: Path, context: EvaluationContext) -> Rendered:
    """Return the table of the scores in `source`: a row a perturbation, level and model."""
    means = mean_aucs(_read(source), context)
    known = [name for name in PROTOCOLS if name in means]
    order = {name: place for place, name in enumerate([*LABELS, *context.variants])}
    settings = means.groupby(["perturbation", "level"], sort=False).ngroup()
    means = means.iloc[np.lexsort((means["model"].map(order), settings))].reset_index(drop=True)
    means.insert(0, "setting", (means["perturbation"].map(TITLES) + " " + means["level"]).str.strip())
    means.insert(1, "name", [LABELS.get(one) or context.variant_label(one) for one in means["model"]])
    titles = {"setting": "Perturbation", "name": "Model"}
    for name in known:
        titles |= {name: PROTOCOLS[name], f"{name}_low": "Low", f"{name}_high": "High"}
    return Rendered(
        means,
        titles,
        caption=(
            "Mean AUC on test images of the training domain as they are and perturbed, with"
            f" {100 * LEVEL:g} % intervals (low, high) from {context.resamples} bootstrap resamples of"
            " people. Sizes in pixels are those of the detector's input. Best of a level bold, second"
            " underlined."
        ),
        label="robustness",
        best=known,
        section="setting",
    )


def mean_aucs(scores: pd.DataFrame, context: EvaluationContext) -> pd.DataFrame:
    """Return the mean AUC of every protocol with its interval, a row a perturbation, level and model.

    Columns perturbation, level, model, and for each protocol that occurs its name, and that with `_low` and
    `_high`. A resample draws the same people everywhere.
    """
    by = ["perturbation", "level", "model"]
    groups = [
        (keys, one.sort_values("image_id", ignore_index=True)) for keys, one in scores.groupby(by, sort=False)
    ]
    units = groups[0][1]
    for keys, one in groups:
        if one["image_id"].tolist() != units["image_id"].tolist():
            raise R2MError(f"scores: {keys} is of other images than {groups[0][0]}")
    matrix = np.stack([one["logit"].to_numpy(np.float64) for _, one in groups])
    found = set_rows(units, context, "scores")
    crowd = people(units, context)
    estimates = np.array([[roc_auc_score(one.labels, row[one.rows]) for one in found] for row in matrix])
    drawn = resampled_aucs(matrix, found, crowd, context.resamples, context.seed)
    frame = pd.DataFrame([keys for keys, _ in groups], columns=by)
    for (protocol, part), places in mean_columns([one.item for one in found]).items():
        if part == "mean":
            mean = estimates[:, places].mean(axis=1)
            low, high = interval(drawn[:, :, places].mean(axis=2), mean)
            frame = frame.assign(**{protocol: mean, f"{protocol}_low": low, f"{protocol}_high": high})
    return frame


def _read(path: Path) -> pd.DataFrame:
    wanted = ["perturbation", "level", "model", *KEPT, "logit"]
    try:
        return pd.read_parquet(path, columns=wanted)
    except (OSError, ValueError, KeyError) as error:
        raise R2MError(f"{path}: expected scores with the columns {', '.join(wanted)} ({error})") from error
