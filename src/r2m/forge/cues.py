"""Cheap cues: how far the files of fakes can be told from those of reals without looking at a face."""

import functools
import logging
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image as Pillow
from threadpoolctl import threadpool_limits

from r2m import manifest
from r2m.data.images import Image, read_crop
from r2m.seeding import rng

logger = logging.getLogger(__name__)

Values = NDArray[np.float64]

GROUPS = ("file", "tables", "colour", "spectrum")
COLUMNS = ("domain", "generator", "fakes", "reals", *GROUPS, "all")
MOST_IMAGES = 2000  # of a class
FOLDS = 5
BINS = 16
# Rounding to whole grey levels is noise of this power, and says nothing below it.
ROUNDING = 1 / 12


def file_cues(content: bytes) -> Values:
    """Return the log of a file's size and whether it is a JPEG (2,)."""
    return np.array([np.log(max(1, len(content))), content.startswith(b"\xff\xd8\xff")])


def table_cues(content: bytes) -> Values:
    """Return the first two quantization tables of a JPEG (128,), zeros for those that a file lacks."""
    values = np.zeros((2, 64))
    try:
        with Pillow.open(BytesIO(content), formats=["JPEG"]) as image:
            tables: dict[int, Sequence[int]] = getattr(image, "quantization", {})
    except OSError:  # another format
        tables = {}
    for row, (_, table) in zip(values, sorted(tables.items()), strict=False):
        row[:] = table
    return values.ravel()


def colour_cues(image: Image) -> Values:
    """Return the means and standard deviations of the channels of CIELAB (6,) of a BGR image (H, W, 3)."""
    mean, deviation = cv2.meanStdDev(cv2.cvtColor(image, cv2.COLOR_BGR2LAB))
    return np.concatenate([mean, deviation], dtype=np.float64).ravel()


def spectrum_cues(image: Image) -> Values:
    """Return the log of the mean power of grey levels in rings of frequencies (BINS,), the lowest first.

    The rings are equally wide, in shares of the Nyquist frequency from none to that along both axes at once
    (√2 of it), so that images of all sizes have the same. A ring that holds none of the frequencies of a
    small image has what its neighbours have.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float64)
    height, width = grey.shape
    # Without a window the step from one edge to the opposite one outweighs all high frequencies.
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    power = np.abs(np.fft.rfft2((grey - grey.mean()) * window)) ** 2 / (window**2).sum()
    shares = np.hypot(2 * np.fft.fftfreq(height)[:, None], 2 * np.fft.rfftfreq(width))
    rings = np.minimum(shares / np.sqrt(2) * BINS, BINS - 1).astype(int).ravel()[1:]  # all but the mean
    counts = np.bincount(rings, minlength=BINS)
    totals = np.bincount(rings, power.ravel()[1:], minlength=BINS)
    (filled,) = np.nonzero(counts)
    return np.interp(np.arange(BINS), filled, np.log(totals[filled] / counts[filled] + ROUNDING))


def read_cues(path: str) -> dict[str, Values]:
    """Return the cues of the image at `path` by group; raises R2MError where it is gone or damaged."""
    image = read_crop(Path(path))
    content = Path(path).read_bytes()
    return {
        "file": file_cues(content),
        "tables": table_cues(content),
        "colour": colour_cues(image),
        "spectrum": spectrum_cues(image),
    }


def cue_table(images: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the AUC of each group of cues, and of all, for each domain and generator of a manifest.

    The fakes of a generator in a domain stand against the domain's reals of the splits that they are in. At
    most `MOST_IMAGES` of either are read. Where either shows fewer than two people there is no row.
    """
    rows = []
    for domain, members in images.groupby("domain"):
        all_reals = members[members["generator"] == manifest.REAL]
        read_real = functools.cache(read_cues)  # the same for most generators
        for generator, all_fakes in members[members["generator"] != manifest.REAL].groupby("generator"):
            fakes = sample(all_fakes, rng(seed, "cues", str(domain), str(generator)))
            among = all_reals[all_reals["split"].isin(all_fakes["split"])]
            reals = sample(among, rng(seed, "cues", str(domain), manifest.REAL))
            if min(fakes["identity"].nunique(), reals["identity"].nunique()) < 2:
                logger.warning("%s/%s: fewer than two people; cues are left out", domain, generator)
                continue
            cues = [*map(read_real, reals["path"]), *map(read_cues, fakes["path"])]
            chosen = pd.concat([reals, fakes])
            aucs = _aucs(cues, chosen["label"].to_numpy(), chosen["identity"].tolist())
            logger.info("%s/%s: AUC of all cues %.3f", domain, generator, aucs["all"])
            counts = {"fakes": len(fakes), "reals": len(reals)}
            rows.append({"domain": domain, "generator": generator, **counts, **aucs})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def sample(rows: pd.DataFrame, stream: np.random.Generator, most: int = MOST_IMAGES) -> pd.DataFrame:
    """Return `most` rows at random (or all), taking turns among people, sorted by image_id."""
    shuffled = rows.sort_values("image_id").iloc[stream.permutation(len(rows))]
    turns = shuffled.groupby("identity").cumcount().to_numpy()
    return shuffled.iloc[np.argsort(turns, kind="stable")[:most]].sort_values("image_id")


def folds_of(identities: Sequence[str], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the fold of each image (n,); all images of a person are in one.

    There are `FOLDS`, or as many as people. These are dealt out in turn: first those with reals only, last
    those with fakes only, so that the reals of two people or more are in two folds or more, and so are fakes.
    """
    images = pd.DataFrame({"identity": identities, "label": labels})
    people = images.groupby("identity")["label"].agg(["min", "max", "size"])
    people["labels"] = people["min"] + people["max"]
    ordered = people.sort_values(["labels", "size"], ascending=[True, False], kind="stable").index
    folds = pd.Series(np.arange(len(ordered)) % min(FOLDS, len(ordered)), index=ordered)
    return folds[images["identity"]].to_numpy()


def _aucs(
    cues: Sequence[dict[str, Values]], labels: NDArray[np.integer], identities: Sequence[str]
) -> dict[str, float]:
    """Return the AUC of each group of cues, and of all together."""
    features = {group: np.stack([values[group] for values in cues]) for group in GROUPS}
    features["all"] = np.concatenate(list(features.values()), axis=1)
    folds = folds_of(identities, labels)
    return {group: cross_validated_auc(values, labels, folds) for group, values in features.items()}


def cross_validated_auc(features: Values, labels: NDArray[np.integer], folds: NDArray[np.int64]) -> float:
    """Return the AUC of scores (n,) by a logistic regression on `features` (n, D) of the other folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import PredefinedSplit, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    with threadpool_limits(1):  # sums, and so scores, would depend on the number of threads
        scores = cross_val_predict(
            model, features, labels, cv=PredefinedSplit(folds), method="decision_function"
        )
    return float(roc_auc_score(labels, scores))
