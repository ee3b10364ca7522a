"""Videos: a real and a fake of the same name, sets without videos, and the scores of a video."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from r2m.errors import R2MError
from r2m.evaluate.evaluation import Evaluation, evaluate, read_scores
from r2m.evaluate.options import Aggregation
from r2m.evaluate.protocols import EvaluationContext, read_table
from r2m.evaluate.score_matrix import ScoreMatrix
from r2m.evaluate.video import VIDEO_COLUMNS, evaluate_videos, sets_of_videos, video_table, videos
from r2m.models.decision import Decision
from r2m.report.stages import tables

SETTINGS = {"resamples": 100, "seed": 0}
OF_STAGE = {**SETTINGS, "video": "mean", "built_in": [], "members": {}}


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """Three frames a video; reals and fakes of all generators share the names, as in FaceForensics++."""
    place = frame["image_id"].str.extract(r"(\d+)$")[0].astype(int)
    return frame.assign(video=[f"{number // 3:03}" for number in place])


@pytest.fixture
def with_videos(score_files: list[Path], rewrite: Callable[..., Path]) -> list[Path]:
    return [rewrite(path, named) for path in score_files[4:]]


def made_of(paths: list[Path], context: EvaluationContext) -> Evaluation:
    return evaluate(map(read_scores, paths), context, **SETTINGS)


def table_of(made: Evaluation, context: EvaluationContext) -> pd.DataFrame:
    return video_table(evaluate_videos(made, context, **SETTINGS))


@pytest.mark.parametrize(("aggregation", "auc"), [("mean", 3 / 4), ("median", 2 / 4), ("max", 3.5 / 4)])
def test_auc_by_hand_of_videos_that_all_have_one_name(aggregation: Aggregation, auc: float) -> None:
    """Means .35, .45 | .4, .7; medians .45, .45 | .4, .7; greatest .5, .45 | .5, .8."""
    frames = {
        ("real", "a"): [0.1, 0.45, 0.5],
        ("real", "b"): [0.45, 0.45, 0.45],
        ("swap", "a"): [0.3, 0.4, 0.5],
        ("swap", "b"): [0.6, 0.7, 0.8],
    }
    rows = [
        (int(generator != "real"), generator, domain, "x", "000")
        for generator, domain in frames
        for _ in range(3)
    ]
    units = pd.DataFrame(rows, columns=["label", "generator", "domain", "identity", "video"])
    probabilities = np.concatenate(list(frames.values()))[None]
    shuffled = np.random.default_rng(0).permutation(len(units))
    matrix = ScoreMatrix(units, ["m"], probabilities, probabilities)
    found = videos(matrix, shuffled, aggregation)
    assert found.units["frames"].tolist() == [3, 3, 3, 3]
    assert roc_auc_score(found.units["label"], found.scores[0]) == auc


def test_score_of_a_video_is_the_mean_of_its_frames(
    with_videos: list[Path], context: EvaluationContext
) -> None:
    made = made_of(with_videos, context)
    table = table_of(made, context)
    assert list(table.columns) == VIDEO_COLUMNS
    assert len(table) == 3 * 8
    assert (table[["n_real", "n_fake", "frames", "frames_least", "frames_most"]] == [10, 10, 60, 3, 3]).all(
        axis=None
    )
    assert set(table["sampling"]) == {"every frame in the manifests"}

    model = made.models.set_index("model").loc["joint"]
    fitted = Decision(slope=model["slope"], offset=model["offset"])
    frame = read_scores(with_videos[0]).frame
    frame = frame[(frame["split"] == "test") & (frame["domain"] == "b")]
    frame = frame[frame["generator"].isin(["real", "up"])]
    frame = frame.assign(p=fitted.probabilities(frame["logit"]))
    means = frame.groupby(["label", "video"])["p"].mean()
    row = table[(table["model"] == "joint") & (table["test_set"] == "b/up")].iloc[0]
    labels = means.index.get_level_values("label")
    assert row["auc"] == pytest.approx(roc_auc_score(labels, means))
    threshold = fitted.probabilities(model["threshold"])
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
    table = table_of(made, context)
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
        table = table_of(made, context)
    assert set(table["test_set"]) == {"b/swap", "b/tps", "b/up"}
    assert "a/swap, a/tps, a/up, a/inp, b/inp" in caplog.text


def test_without_videos_there_is_a_header_and_a_sentence(
    score_files: list[Path], context: EvaluationContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        tables(scores=score_files[:1], context=context, out=tmp_path, **OF_STAGE, reference=None)
    assert "no image of the test split names a video" in caplog.text
    table = read_table(tmp_path / "video.csv")
    assert list(table.columns) == VIDEO_COLUMNS
    assert table.empty
    made = made_of(score_files[:1], context)
    assert sets_of_videos(made.matrix, made.sets) == []


def test_sampling_is_what_the_manifests_say(
    with_videos: list[Path], context: EvaluationContext, rewrite: Callable[..., Path]
) -> None:
    def sampled(frame: pd.DataFrame) -> pd.DataFrame:
        said = frame["generator"].map({"real": "32 of each video", "swap": "8 of each video"})
        return frame.assign(sampling=said.where(frame["domain"] == "a"))

    made = made_of([rewrite(path, sampled) for path in with_videos], context)
    said = table_of(made, context).drop_duplicates("test_set").set_index("test_set")["sampling"]
    assert said["a/swap"] == "32 of each video; 8 of each video"
    assert said["a/up"] == "32 of each video; every frame in the manifests"
    assert said["b/up"] == "every frame in the manifests"
    with pytest.raises(R2MError, match="score both on the same manifests"):
        made_of(
            [with_videos[0], rewrite(with_videos[1], lambda frame: frame.drop(columns="sampling"))], context
        )


def columns(path: Path) -> list[str]:
    return [cell.strip() for cell in path.read_text().splitlines()[0].strip("|").split("|")]


def test_tables_have_videos_beside_frames(
    with_videos: list[Path], context: EvaluationContext, tmp_path: Path, rewrite: Callable[..., Path]
) -> None:
    tables(scores=with_videos, context=context, out=tmp_path, **OF_STAGE, reference="r2m")
    table = read_table(tmp_path / "video.csv")
    assert len(table) == 3 * 8
    assert table["auc"].between(0, 1).all()

    names = ["In distribution", "Unseen generators", "Cross-dataset"]
    for name in ("main.md", "main_intervals.md"):
        shown = columns(tmp_path / name)
        for protocol in names:
            assert shown[shown.index(protocol) + 1] == f"{protocol}, video"
        assert len([one for one in shown if "video" in one]) == 3
        assert "Video: of videos instead of frames" in (tmp_path / name).read_text()
    means = read_table(tmp_path / "intervals.csv").set_index(["model", "protocol", "part"])
    own = table[(table["model"] == "joint") & (table["protocol"] == "cross_dataset")]
    row = means.loc[("joint", "cross_dataset", "mean")]
    assert row["video_auc"] == pytest.approx(own["auc"].mean(), abs=2e-6)
    assert row["video_low"] <= row["video_auc"] <= row["video_high"]
    assert (
        f"{row['video_auc']:.3f} [{row['video_low']:.3f}, {row['video_high']:.3f}]"
        in (tmp_path / "main_intervals.md").read_text()
    )
    assert means["video_auc"].notna().all()
    assert (tmp_path / "main.tex").read_text().count("& video") == 3


def test_a_protocol_of_which_a_set_has_no_videos_has_a_dash(
    with_videos: list[Path], context: EvaluationContext, tmp_path: Path, rewrite: Callable[..., Path]
) -> None:
    def lose(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(
            video=frame["video"].where((frame["domain"] != "b") | (frame["generator"] != "up"))
        )

    paths = [rewrite(path, lose) for path in with_videos]
    tables(scores=paths, context=context, out=tmp_path, **OF_STAGE, reference=None)
    shown = columns(tmp_path / "main.md")
    lines = (tmp_path / "main.md").read_text().splitlines()
    cells = next(line for line in lines if line.startswith("| Joint |")).strip("|").split("|")
    by_title = dict(zip(shown, map(str.strip, cells), strict=True))
    assert by_title["Cross-dataset, video"] == "–"
    assert float(by_title["In distribution, video"]) <= 1
    means = read_table(tmp_path / "intervals.csv").set_index(["model", "protocol", "part"])["video_auc"]
    assert means["joint", "cross_dataset", "trained"] == means["joint", "cross_dataset", "mean"] == ""
    assert float(means["joint", "cross_dataset", "unseen"]) <= 1
    protocols = columns(tmp_path / "protocols.md")
    assert [name for name in protocols if "video" in name] == ["P1 video", "P2 video", "P3 video"]


def test_without_videos_no_table_speaks_of_them(
    score_files: list[Path], context: EvaluationContext, tmp_path: Path
) -> None:
    tables(scores=score_files, context=context, out=tmp_path / "out", **OF_STAGE, reference="r2m")
    for path in (tmp_path / "out").iterdir():
        assert path.name == "video.csv" or "video" not in path.read_text().lower(), path.name
