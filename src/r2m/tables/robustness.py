"""Table of AUC as test images are perturbed."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from r2m.errors import R2MError
from r2m.evaluate.bootstrap import LEVEL, interval, resampled_aucs
from r2m.evaluate.protocols import PROTOCOLS, EvaluationContext, mean_columns
from r2m.evaluate.score_matrix import people, set_rows
from r2m.evaluate.scores import KEPT
from r2m.experiments.robustness import CLEAN
from r2m.report.table import Table as Rendered

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
