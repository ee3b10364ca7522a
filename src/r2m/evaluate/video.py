"""From scores of frames to scores and metrics of videos."""

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r2m.evaluate.aggregation import AGGREGATIONS
from r2m.evaluate.bootstrap import resampled_aucs
from r2m.evaluate.evaluation import AUC_COLUMNS, Evaluation, calibrated, metrics_table
from r2m.evaluate.options import Aggregation
from r2m.evaluate.protocols import EVERY_FRAME, SAMPLING, SPREAD, EvaluationContext
from r2m.evaluate.score_matrix import ScoreMatrix, SetRows, people, set_rows

logger = logging.getLogger(__name__)

# What a video is known by. Its name alone is not enough: fakes are often called after the real they are of.
KEY = ["label", "generator", "domain", "video"]
_COUNT = AUC_COLUMNS.index("auc")
VIDEO_COLUMNS = [
    *AUC_COLUMNS[:_COUNT],
    *("frames", "frames_least", "frames_most", SAMPLING),
    *("auc", f"auc{SPREAD}"),
    *AUC_COLUMNS[_COUNT + 1 :],
]


def sets_of_videos(matrix: ScoreMatrix, sets: Sequence[SetRows]) -> list[SetRows]:
    """Those of the test sets of which every frame names its video; the log says what is left out."""
    named = matrix.units["video"].notna().to_numpy()
    whole = [test_set for test_set in sets if named[test_set.rows].all()]
    if not named.any():
        logger.info("no image of the test split names a video: the table of videos has no rows")
    elif len(whole) < len(sets):
        left = ", ".join(test_set.item.name for test_set in sets if not named[test_set.rows].all())
        logger.info("not in the table of videos, since images of theirs name no video: %s", left)
    return whole


def videos(matrix: ScoreMatrix, rows: NDArray[np.int64], aggregation: Aggregation = "mean") -> ScoreMatrix:
    """Scores of the videos that the frames at `rows` are of; all of them must name one.

    A video's score is the mean, or another `aggregation`, of its frames' probabilities; that is its
    probability, too. Its identity is the most frequent one of its frames, of equals the first by name.
    `units` has the columns `sampling`, whatever the frames say, and `frames` (count).
    """
    frames = matrix.units.iloc[rows]
    video: NDArray[np.int64] = np.asarray(frames.groupby(KEY, sort=True).ngroup(), dtype=np.int64)
    scores = np.stack([AGGREGATIONS[aggregation](values[rows], video) for values in matrix.probabilities])
    seen = frames.assign(place=video).groupby(["place", "identity"]).size().reset_index(name="count")
    seen = seen.sort_values(["place", "count", "identity"], ascending=[True, False, True])
    _, first = np.unique(video, return_index=True)
    sampling = frames[SAMPLING].fillna(EVERY_FRAME) if SAMPLING in frames else EVERY_FRAME
    units = frames.assign(**{SAMPLING: sampling}).iloc[first][[*KEY, SAMPLING]].reset_index(drop=True)
    units["identity"] = seen.drop_duplicates("place")["identity"].to_numpy()
    return ScoreMatrix(units.assign(frames=np.bincount(video)), matrix.models, scores, scores)


def evaluate_videos(
    evaluation: Evaluation,
    context: EvaluationContext,
    resamples: int,
    seed: int,
    aggregation: Aggregation = "mean",
) -> Evaluation | None:
    """The evaluation of videos on the test sets of which every frame names its video; None without such sets.

    The accuracy is at the frames' threshold.
    """
    whole = sets_of_videos(evaluation.matrix, evaluation.sets)
    if not whole:
        return None
    rows = np.unique(np.concatenate([test_set.rows for test_set in whole]))
    matrix = videos(evaluation.matrix, rows, aggregation)
    sets = set_rows(matrix.units, context, "videos")
    resampled = resampled_aucs(matrix.scores, sets, people(matrix.units, context), resamples, seed)
    thresholds = calibrated(evaluation.models["threshold"].to_numpy(float), evaluation.models)
    table = metrics_table(matrix, sets, evaluation.models, thresholds, resampled)
    return Evaluation(evaluation.models, table, matrix, sets, resampled)


def video_table(evaluation: Evaluation | None) -> pd.DataFrame:
    """Metrics of videos (VIDEO_COLUMNS); auc_sd, over seeds, is missing where there is one.

    `frames` counts a set's frames, `frames_least` and `frames_most` those of a single video. `sampling` says
    which frames of a video there are; where that differs within a set, everything that is said of it.
    """
    if evaluation is None:
        return pd.DataFrame(columns=VIDEO_COLUMNS)
    rows = []
    for test_set in evaluation.sets:
        own = evaluation.matrix.units.iloc[test_set.rows]
        frames, sampling = own["frames"], "; ".join(sorted(set(own[SAMPLING])))
        rows.append((test_set.item.name, frames.sum(), frames.min(), frames.max(), sampling))
    counts = pd.DataFrame(rows, columns=["test_set", "frames", "frames_least", "frames_most", SAMPLING])
    return evaluation.auc.merge(counts, on="test_set").reindex(columns=VIDEO_COLUMNS)
