"""Scores of perturbed test images, and their mean AUCs with intervals."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch.func import functional_call
from tqdm import tqdm

from r2m.data.images import Image
from r2m.data.perturbations import PERTURBATIONS, perturbed
from r2m.errors import R2MError
from r2m.evaluate.bootstrap import interval, resampled_aucs
from r2m.evaluate.protocols import KEPT, EvaluationContext, mean_columns
from r2m.evaluate.score_matrix import people, set_rows
from r2m.manifest import REAL
from r2m.merge.tensors import Tensors
from r2m.models.heads import HEAD
from r2m.models.options import BackboneOptions
from r2m.models.precision import autocast
from r2m.models.preprocess import load_image
from r2m.models.read_ahead import read_ahead
from r2m.seeding import rng
from r2m.session import Session
from r2m.trunk.inputs import detector_input

CLEAN = "clean"


def perturbed_rows(
    rows: pd.DataFrame, domain: str, generators: Sequence[str], share: float, seed: int
) -> pd.DataFrame:
    """Return the test images of a domain among `rows`: reals and the generators' fakes, of a share of people.

    Raises:
        R2MError: no test images of the domain, or of a generator in it.
    """
    rows = rows[rows["split"] == "test"]
    if domain not in set(rows["domain"]):
        known = ", ".join(sorted(set(rows["domain"])))
        raise R2MError(f"domain {domain}: no test images in the manifests; expected one of {known}")
    rows = rows[rows["domain"] == domain]
    for generator in generators:
        if generator not in set(rows["generator"]):
            known = ", ".join(sorted(set(rows["generator"]) - {REAL}))
            raise R2MError(
                f"generator {generator}: no test images in domain {domain}; expected one of {known}"
            )
    rows = rows[rows["generator"].isin(list(generators)) | (rows["label"] == 0)]
    identities = sorted(set(rows["identity"]))
    count = math.ceil(share * len(identities))
    chosen = rng(seed, "robustness").permutation(len(identities))[:count]
    return rows[rows["identity"].isin({identities[place] for place in chosen})].reset_index(drop=True)


def perturbed_scores(
    session: Session,
    backbone: BackboneOptions,
    models: Mapping[str, Tensors],
    rows: pd.DataFrame,
    levels: Mapping[str, Sequence[Any]],
    batch_size: int,
    seed: int,
) -> pd.DataFrame:
    """Return the logits of several models for every image, as it is and at every level of perturbation.

    Columns perturbation, level (as text), model, `KEPT` and logit. The trunk runs once for
    an image and level; a model is the tensors that it lays over those of the detector.

    Raises:
        R2MError: tensors that do not fit the detector, an image that cannot be read, or a logit that is not
            finite.
    """
    detector, device, precision = session.detector, session.device, session.precision
    own = {key: tensor.clone() for key, tensor in detector.trainable_state().items()}
    placed = {}
    for name, tensors in models.items():
        detector.load_tensors(tensors, f"{name}: tensors")  # checks that they fit
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
            read = partial(_images, perturbation, level, backbone.image_size, seed)
            batches = (rows.iloc[start : start + batch_size] for start in range(0, len(rows), batch_size))
            for images in read_ahead(read, batches, session.inputs.threads):
                x = detector_input(detector, images, backbone.name, device, precision)
                with torch.inference_mode(), autocast(device, precision):
                    for name, tensors in placed.items():
                        values = functional_call(detector, tensors, (x,))
                        logits[name].append(values.float().cpu().numpy())
                progress.update(len(images))
            for name, values in logits.items():
                text = "" if level is None else PERTURBATIONS[perturbation].level_text(level)
                named = {"perturbation": perturbation, "level": text, "model": name}
                parts.append(rows[KEPT].assign(**named, logit=np.concatenate(values)))
    scores = pd.concat(parts, ignore_index=True)
    if not np.isfinite(scores["logit"]).all():
        first = scores[~np.isfinite(scores["logit"])].iloc[0]
        raise R2MError(
            f"{first['model']}: the logit of {first['image_id']} is not finite"
            f" ({first['perturbation']} {first['level']})"
        )
    return scores[["perturbation", "level", "model", *KEPT, "logit"]]


def _images(perturbation: str, level: Any, size: int, seed: int, rows: pd.DataFrame) -> list[Image]:
    """Return the images of `rows` in BGR (size, size, 3), perturbed at that size."""
    images = []
    for path, image_id in zip(rows["path"], rows["image_id"], strict=True):
        image = load_image(path, size)
        is_clean = perturbation == CLEAN
        images.append(image if is_clean else perturbed(image, perturbation, level, seed, image_id))
    return images


def mean_aucs(scores: pd.DataFrame, context: EvaluationContext) -> pd.DataFrame:
    """Return the mean AUC of every protocol with its interval, by perturbation, level and model.

    Columns perturbation, level, model, and for each protocol that occurs its name, and that with `_low` and
    `_high`. A resample draws the same people everywhere.
    """
    by = ["perturbation", "level", "model"]
    groups = [
        (keys, rows.sort_values("image_id", ignore_index=True))
        for keys, rows in scores.groupby(by, sort=False)
    ]
    units = groups[0][1]
    for keys, rows in groups:
        if rows["image_id"].tolist() != units["image_id"].tolist():
            raise R2MError(f"scores: {keys} is of other images than {groups[0][0]}")
    matrix = np.stack([rows["logit"].to_numpy(np.float64) for _, rows in groups])
    sets = set_rows(units, context, "scores")
    estimates = np.array([[roc_auc_score(own.labels, row[own.rows]) for own in sets] for row in matrix])
    drawn = resampled_aucs(matrix, sets, people(units, context), context.resamples, context.seed)
    frame = pd.DataFrame([keys for keys, _ in groups], columns=by)
    for (protocol, part), places in mean_columns([own.item for own in sets], context).items():
        if part == "mean":
            mean = estimates[:, places].mean(axis=1)
            low, high = interval(drawn[:, :, places].mean(axis=2), mean)
            frame = frame.assign(**{protocol: mean, f"{protocol}_low": low, f"{protocol}_high": high})
    return frame
