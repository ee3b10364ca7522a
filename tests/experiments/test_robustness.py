"""Scores, intervals and the figure of perturbed images."""

import cv2
import numpy as np
import pandas as pd
import pytest
from experiment_context import CONTEXT
from pydantic import ValidationError
from reported import report
from sklearn.metrics import roc_auc_score

from detector_samples import VIT, load_detector, session_of
from layout import check_layout
from r2m.data.perturbations import PERTURBATIONS
from r2m.errors import R2MError
from r2m.evaluate.perturbed import mean_aucs, perturbed_rows, perturbed_scores
from r2m.evaluate.protocols import EvaluationContext
from r2m.evaluate.scores import score
from r2m.experiments import robustness
from r2m.models import checkpoint
from r2m.session_files import Compute, SessionFiles
from r2m.trunk.inputs import Inputs

LEVELS = {"jpeg": [80, 10], "blur": [[5, 0.5]], "noise": [0.1]}


@pytest.fixture
def models(bench_files):
    """Two models: one of all trainable tensors, one head alone."""
    base, _ = checkpoint.load(bench_files["files"].base)
    task_vector, _ = checkpoint.load(bench_files["parts"].task_vectors["swap"])
    heads = {name: checkpoint.load(bench_files["parts"].heads[name])[0] for name in ("swap", "up")}
    merged = {key: base[key] + change for key, change in task_vector.items()} | heads["swap"]
    return {"r2m": merged, "base": heads["up"]}


@pytest.fixture
def inputs(image_sets):
    return Inputs(list(image_sets.manifests.values()), [], VIT)


@pytest.fixture
def session(inputs, base_files, one_thread):
    return session_of(load_detector(base_files["vit"], VIT), inputs)


@pytest.fixture
def rows(inputs):
    return perturbed_rows(inputs.rows, "drawn", ["swap", "up"], 1.0, 0)


@pytest.fixture
def scores(session, models, rows):
    return perturbed_scores(session, VIT, models, rows, LEVELS, 4, 0)


def test_rows_are_test_images_of_one_domain(inputs, rows):
    assert set(rows["split"]) == {"test"}
    assert set(rows["domain"]) == {"drawn"}
    assert rows["generator"].value_counts().to_dict() == {"real": 3, "swap": 3, "up": 3}
    some = perturbed_rows(inputs.rows, "drawn", ["swap"], 0.5, 0)
    assert some["generator"].value_counts().to_dict() == {"real": 2, "swap": 2}
    assert some["identity"].nunique() == 2
    with pytest.raises(R2MError, match="generator swop: no test images in domain drawn; expected one of"):
        perturbed_rows(inputs.rows, "drawn", ["swap", "swop"], 1.0, 0)
    with pytest.raises(R2MError, match=r"domain nowhere: no test images .* expected one of drawn"):
        perturbed_rows(inputs.rows, "nowhere", ["swap"], 1.0, 0)


def test_clean_scores_are_those_of_each_model(image_sets, trunk_files, base_files, models, scores):
    inputs = Inputs(
        image_sets.paths("drawn", "swap", "up"), [trunk_files[n] for n in ("drawn", "swap", "up")], VIT
    )
    for name in models:
        detector = load_detector(base_files["vit"], VIT)
        detector.load_tensors(models[name])
        expected = score(session_of(detector, inputs)).set_index("image_id")["logit"]
        found = scores.query("model == @name and perturbation == 'clean'")
        np.testing.assert_allclose(found["logit"], expected.loc[found["image_id"]], atol=5e-3)


def test_scores_of_every_level(scores, rows):
    found = scores.groupby(["perturbation", "level", "model"], sort=False).size()
    settings = [("clean", ""), ("jpeg", "80"), ("jpeg", "10"), ("blur", "0.5"), ("noise", "0.1")]
    assert list(found.index) == [(*one, model) for one in settings for model in ("r2m", "base")]
    assert set(found) == {len(rows)}
    logits = scores[scores["model"] == "r2m"].groupby(["perturbation", "level"])["logit"].agg(tuple)
    assert logits.nunique() == len(settings)


def test_scores_do_not_depend_on_the_batch(session, models, rows, scores):
    again = perturbed_scores(session, VIT, models, rows, LEVELS, 64, 0)
    np.testing.assert_allclose(again["logit"], scores["logit"], atol=1e-3)


def test_means_and_intervals_by_hand(scores, context):
    means = mean_aucs(scores, context).set_index(["perturbation", "level", "model"])
    for (key, one), (found, row) in zip(
        scores.groupby(["perturbation", "level", "model"], sort=False), means.iterrows(), strict=True
    ):
        assert key == found
        aucs = []
        for generator in ("swap", "up"):
            part = one[(one["label"] == 0) | (one["generator"] == generator)]
            aucs.append(roc_auc_score(part["label"], part["logit"]))
        assert row["in_distribution"] == pytest.approx(np.mean(aucs))
        assert row["in_distribution_low"] <= row["in_distribution"] <= row["in_distribution_high"]


def test_levels_of_other_images_are_refused(scores, context):
    broken = scores.drop(scores[(scores["perturbation"] == "noise")].index[0])
    with pytest.raises(R2MError, match=r"'noise'.* is of other images than"):
        mean_aucs(broken, context)


def test_crops_of_another_size_are_perturbed_at_the_detectors(session, models, rows, tmp_path):
    larger = rows.copy()
    for i, path in enumerate(rows["path"]):
        image = cv2.resize(cv2.imread(path), (64, 64), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
    larger["path"] = [str(tmp_path / f"{i}.png") for i in range(len(rows))]
    again = perturbed_scores(session, VIT, models, larger, LEVELS, 4, 0)
    pd.testing.assert_frame_equal(again, perturbed_scores(session, VIT, models, rows, LEVELS, 4, 0))
    (tmp_path / "3.png").unlink()
    with pytest.raises(R2MError, match=r"3\.png: cannot be read: No such file"):
        perturbed_scores(session, VIT, models, larger, LEVELS, 4, 0)


def test_scores_do_not_depend_on_the_threads(session, models, rows, scores):
    session.inputs.threads = 3
    pd.testing.assert_frame_equal(perturbed_scores(session, VIT, models, rows, LEVELS, 4, 0), scores)


def test_run_table_and_figure(image_sets, base_files, models, tmp_path):
    files = {name: tmp_path / f"{name}.safetensors" for name in models}
    for name, tensors in models.items():
        checkpoint.save(files[name], tensors, {})
    out = tmp_path / "scores.parquet"
    robustness.run(
        files=SessionFiles(tuple(image_sets.manifests.values()), (), base_files["vit"]),
        models=files,
        domain="drawn",
        generators=["swap", "up"],
        people=1.0,
        levels=LEVELS,
        batch_size=64,
        seed=0,
        compute=Compute(VIT, "cpu", "fp32"),
        scores=out,
        threads=1,
    )
    unseen = {**CONTEXT, "resamples": 100}
    unseen["generators"] = {**CONTEXT["generators"], "up": {"family": "EFS", "role": "unseen"}}
    report("robustness", out, tmp_path, unseen)
    table = pd.read_csv(tmp_path / "table.csv")
    assert len(table) == 5 * 2
    assert table["setting"].iloc[0] == "Clean"
    assert table["name"].tolist()[:2] == ["Base (linear probe)", "R²M"]
    assert {"in_distribution_low", "unseen_generator_high"} <= set(table)


def test_options_follow_from_the_perturbations():
    fields = robustness.RobustnessOptions.model_fields
    assert list(fields) == ["enabled", "variants", "people", *PERTURBATIONS]
    given = {"enabled": True, "noise": [0.1], "jpeg": [80, 10]}
    options = robustness.RobustnessOptions.model_validate(given)
    assert options.levels == {"jpeg": [80, 10], "noise": [0.1]}
    with pytest.raises(ValidationError, match="expected levels of at least one perturbation"):
        robustness.RobustnessOptions(enabled=True)
    with pytest.raises(ValidationError, match="expected an odd size of the kernel"):
        robustness.RobustnessOptions.model_validate({"blur": [[4, 0.5]]})


VARIANTS = {
    "weight_averaging": "Weight averaging",
    "tsv_m": "TSV-M",
    "r2m": "R²M, matrix space",
    "ties": "TIES",
}
DRAWN_LEVELS = {
    "jpeg": ["100", "80", "60", "40", "20", "10"],
    "blur": ["0.5", "1", "1.5", "2", "3"],
    "noise": ["0.01", "0.03", "0.05", "0.1", "0.2"],
    "resize": ["0.5", "0.286"],
    "saturation": ["0.85", "0.6", "0.35"],
    "contrast": ["0.85", "0.6", "0.35"],
}


@pytest.mark.parametrize("kinds", [["jpeg"], ["jpeg", "blur", "noise", "resize"], list(DRAWN_LEVELS)])
@pytest.mark.parametrize("count", [1, 4])
def test_layout(kinds, count):
    context = EvaluationContext(variants=VARIANTS)
    rows = []
    names = {"base": "Base (linear probe)", "joint": "Joint training", **dict(list(VARIANTS.items())[:count])}
    for kind, levels in {"clean": [""], **{kind: DRAWN_LEVELS[kind] for kind in kinds}}.items():
        for step, level in enumerate(levels):
            for model, name in names.items():
                aucs = {
                    f"{protocol}{end}": 0.9 - 0.05 * step + shift
                    for protocol in ("in_distribution", "unseen_generator")
                    for end, shift in (("", 0), ("_low", -0.03), ("_high", 0.03))
                }
                rows.append({"perturbation": kind, "level": level, "model": model, "name": name, **aucs})
    figure = robustness.figure(pd.DataFrame(rows), context)
    check_layout(figure)
    assert len(figure.axes) == 2 * len(kinds)
    for axes, kind in zip(figure.axes, kinds, strict=False):
        assert all(
            len(line.get_xdata()) == len(DRAWN_LEVELS[kind]) + 1
            for line in axes.lines
            if line.get_marker() == "o"
        )
