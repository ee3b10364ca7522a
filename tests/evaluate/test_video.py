"""Videos: a real and a fake of the same name, sets without videos, and the scores of a video."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from r2m.evaluate.evaluation import Evaluation, evaluate, read_scores
from r2m.evaluate.protocols import EvaluationContext, read_table
from r2m.evaluate.video import VIDEO_COLUMNS, sets_of_videos, video_table, videos
from r2m.report.stages import tables

SETTINGS = {"resamples": 100, "seed": 0}


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """Three frames a video; reals and fakes of all generators share the names, as in FaceForensics++."""
    place = frame["image_id"].str.extract(r"(\d+)$")[0].astype(int)
    return frame.assign(video=[f"{number // 3:03}" for number in place])


@pytest.fixture
def with_videos(score_files: list[Path], rewrite: Callable[..., Path]) -> list[Path]:
    return [rewrite(path, named) for path in score_files[4:]]


def made_of(paths: list[Path], context: EvaluationContext) -> Evaluation:
    return evaluate(map(read_scores, paths), context, **SETTINGS)


def test_score_of_a_video_is_the_mean_of_its_frames(
    with_videos: list[Path], context: EvaluationContext
) -> None:
    made = made_of(with_videos, context)
    table = video_table(made, context, **SETTINGS)
    assert list(table.columns) == VIDEO_COLUMNS
    assert len(table) == 3 * 8
    assert (table[["n_real", "n_fake", "frames", "frames_least", "frames_most"]] == [10, 10, 60, 3, 3]).all(
        axis=None
    )
    assert set(table["sampling"]) == {"every frame in the manifests"}

    frame = read_scores(with_videos[0]).frame
    frame = frame[(frame["split"] == "test") & (frame["domain"] == "b")]
    frame = frame[frame["generator"].isin(["real", "up"])].assign(p=expit(frame["logit"].astype(float)))
    means = frame.groupby(["label", "video"])["p"].mean()
    row = table[(table["model"] == "joint") & (table["test_set"] == "b/up")].iloc[0]
    labels = means.index.get_level_values("label")
    assert row["auc"] == pytest.approx(roc_auc_score(labels, means))
    threshold = expit(made.models.set_index("model")["threshold"]["joint"])
    assert row["accuracy"] == pytest.approx(np.mean((means >= threshold) == (labels == 1)))
    assert row["auc_low"] <= row["auc"] <= row["auc_high"]


def test_real_and_fake_of_one_name_are_two_videos(
    with_videos: list[Path], context: EvaluationContext
) -> None:
    made = made_of(with_videos, context)
    found = videos(made.matrix, np.arange(len(made.matrix.units)))
    assert len(found.units) == 2 * 5 * 10, "of a name, one video for every domain and generator"
    assert not found.units.duplicated(["label", "generator", "domain", "video"]).any()
    assert (found.units["frames"] == 3).all()
    assert ((found.scores > 0) & (found.scores < 1)).all()


def test_a_video_of_one_frame_scores_as_its_frame(
    score_files: list[Path], context: EvaluationContext, rewrite: Callable[..., Path]
) -> None:
    paths = [rewrite(path, lambda f: f.assign(video=f["image_id"])) for path in score_files[:2]]
    made = made_of(paths, context)
    table = video_table(made, context, **SETTINGS)
    shared = ["model", "test_set", "n_real", "n_fake", "auc", "auc_low", "auc_high", "eer", "ece", "accuracy"]
    pd.testing.assert_frame_equal(table[shared], made.auc[shared])


def test_identity_of_a_video_is_the_most_frequent(
    with_videos: list[Path], context: EvaluationContext, rewrite: Callable[..., Path]
) -> None:
    def lose_sight(frame: pd.DataFrame) -> pd.DataFrame:
        seen = np.where(frame["image_id"].str.endswith("0"), "0-someone", "the-star")
        return frame.assign(identity=seen)

    made = made_of([rewrite(with_videos[0], lose_sight)], context)
    assert set(videos(made.matrix, np.arange(len(made.matrix.units))).units["identity"]) == {"the-star"}


def test_sets_without_videos_are_left_out_and_named(
    with_videos: list[Path],
    context: EvaluationContext,
    rewrite: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def lose(frame: pd.DataFrame) -> pd.DataFrame:
        lost = (frame["domain"] == "a") | (frame["generator"].eq("inp") & frame["image_id"].str.endswith("7"))
        return frame.assign(video=frame["video"].where(~lost))

    made = made_of([rewrite(path, lose) for path in with_videos], context)
    with caplog.at_level(logging.INFO):
        table = video_table(made, context, **SETTINGS)
    assert set(table["test_set"]) == {"b/swap", "b/tps", "b/up"}
    assert "a/swap, a/tps, a/up, a/inp, b/inp" in caplog.text


def test_without_videos_there_is_a_header_and_a_sentence(
    score_files: list[Path], context: EvaluationContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        tables(scores=score_files[:1], context=context, out=tmp_path, **SETTINGS, reference=None)
    assert "no image of the test split names a video" in caplog.text
    table = read_table(tmp_path / "video.csv")
    assert list(table.drop(columns="auc_sd").columns) == VIDEO_COLUMNS
    assert table.empty
    made = made_of(score_files[:1], context)
    assert sets_of_videos(made.matrix, made.sets) == []


def test_the_table_is_written(with_videos: list[Path], context: EvaluationContext, tmp_path: Path) -> None:
    tables(scores=with_videos, context=context, out=tmp_path, **SETTINGS, reference="r2m")
    table = read_table(tmp_path / "video.csv")
    assert len(table) == 3 * 8
    assert table["auc"].between(0, 1).all()
