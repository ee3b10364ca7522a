"""From scores of frames to scores and metrics of videos."""

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from r2m.evaluate.bootstrap import resampled_aucs
from r2m.evaluate.evaluation import AUC_COLUMNS, Evaluation, metrics_table
from r2m.evaluate.protocols import EvaluationContext
from r2m.evaluate.score_matrix import ScoreMatrix, SetRows, people, set_rows

logger = logging.getLogger(__name__)

# What a video is known by. Its name alone is not enough: fakes are often called after the real they are of.
KEY = ["label", "generator", "domain", "video"]
SAMPLING = "every frame in the manifests"
_COUNT = AUC_COLUMNS.index("auc")
VIDEO_COLUMNS = [
    *AUC_COLUMNS[:_COUNT],
    *("frames", "frames_least", "frames_most", "sampling"),
    *AUC_COLUMNS[_COUNT:],
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


def videos(matrix: ScoreMatrix, rows: NDArray[np.int64]) -> ScoreMatrix:
    """Scores of the videos that the frames at `rows` are of; all of them must name one.

    A video's score is the mean of its frames' probabilities; that is its probability, too. Its identity is
    the most frequent one of its frames, of equals the first by name. `units` has the column `frames` (count).
    """
    frames = matrix.units.iloc[rows]
    groups = frames.groupby(KEY, sort=True)
    code = groups.ngroup().to_numpy()
    count = np.bincount(code)
    mean = np.stack(
        [
            np.bincount(code, weights=frame_probabilities[rows]) / count
            for frame_probabilities in matrix.probabilities
        ]
    )
    identity = groups["identity"].agg(lambda names: names.mode().iloc[0])
    units = identity.reset_index().assign(frames=count)
    return ScoreMatrix(units, matrix.models, mean, mean)


def video_table(
    evaluation: Evaluation, context: EvaluationContext, resamples: int, seed: int
) -> pd.DataFrame:
    """Metrics of videos (VIDEO_COLUMNS), on the test sets of which every frame names its video.

    `frames` counts a set's frames, `frames_least` and `frames_most` those of a single video. The accuracy is
    at the frames' threshold.
    """
    whole = sets_of_videos(evaluation.matrix, evaluation.sets)
    if not whole:
        return pd.DataFrame(columns=VIDEO_COLUMNS)
    matrix = videos(evaluation.matrix, np.unique(np.concatenate([test_set.rows for test_set in whole])))
    sets = set_rows(matrix.units, context, "videos")
    resampled = resampled_aucs(matrix.scores, sets, people(matrix.units, context), resamples, seed)
    thresholds = expit(evaluation.models["threshold"].to_numpy(float))
    table = metrics_table(matrix, sets, evaluation.models, thresholds, resampled)
    frames = [matrix.units["frames"].to_numpy()[test_set.rows] for test_set in sets]
    counts = {
        test_set.item.name: (n.sum(), n.min(), n.max()) for test_set, n in zip(sets, frames, strict=True)
    }
    columns = pd.DataFrame(
        list(table["test_set"].map(counts)), columns=["frames", "frames_least", "frames_most"]
    )
    return pd.concat([table, columns], axis=1).assign(sampling=SAMPLING)[VIDEO_COLUMNS]
