"""Scores, intervals and the figure of perturbed images."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from experiment_context import CONTEXT
from sklearn.metrics import roc_auc_score
from test_experiments import invoke

from detector_samples import VIT, load_detector, session_of
from r2m import manifest
from r2m.cli import experiment_figure, experiment_table
from r2m.cli import robustness as robustness_command
from r2m.errors import R2MError
from r2m.evaluate.scores import score
from r2m.experiments import robustness
from r2m.models import checkpoint
from r2m.tables import robustness as robustness_tables
from r2m.trunk.inputs import Inputs

LEVELS = {"jpeg": [80, 10], "blur": [[5, 0.5]], "noise": [0.1]}


@pytest.fixture
def models(bench_files):
    """Two models: one of all trainable tensors, one head alone."""
    base, _ = checkpoint.load(bench_files["base"])
    task_vector, _ = checkpoint.load(bench_files["task_vector"]["swap"])
    heads = {name: checkpoint.load(bench_files["head"][name])[0] for name in ("swap", "up")}
    merged = {key: base[key] + change for key, change in task_vector.items()} | heads["swap"]
    return {"r2m": merged, "base": heads["up"]}


@pytest.fixture
def rows(image_sets):
    frames = [manifest.read(path).assign(set=path.parent.name) for path in image_sets.manifests.values()]
    return robustness.perturbed_rows(frames, "drawn", ["swap", "up"], 1.0, 0)


@pytest.fixture
def scores(models, rows, base_files, one_thread):
    detector = load_detector(base_files["vit"], VIT)
    return robustness.robustness_scores(
        detector, models, rows, LEVELS, VIT, torch.device("cpu"), "fp32", 4, 0
    )


def test_rows_are_test_images_of_one_domain(image_sets, rows):
    assert set(rows["split"]) == {"test"}
    assert set(rows["domain"]) == {"drawn"}
    assert rows["generator"].value_counts().to_dict() == {"real": 3, "swap": 3, "up": 3}
    frames = [manifest.read(path).assign(set=path.parent.name) for path in image_sets.manifests.values()]
    some = robustness.perturbed_rows(frames, "drawn", ["swap"], 0.5, 0)
    assert some["generator"].value_counts().to_dict() == {"real": 2, "swap": 2}
    assert some["identity"].nunique() == 2
    with pytest.raises(R2MError, match="generator swop: no test images in domain drawn; expected one of"):
        robustness.perturbed_rows(frames, "drawn", ["swap", "swop"], 1.0, 0)
    with pytest.raises(R2MError, match=r"domain nowhere: no test images .* expected one of drawn"):
        robustness.perturbed_rows(frames, "nowhere", ["swap"], 1.0, 0)


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


def test_scores_do_not_depend_on_the_batch(models, rows, base_files, scores):
    again = robustness.robustness_scores(
        load_detector(base_files["vit"], VIT), models, rows, LEVELS, VIT, torch.device("cpu"), "fp32", 64, 0
    )
    np.testing.assert_allclose(again["logit"], scores["logit"], atol=1e-3)


def test_means_and_intervals_by_hand(scores, context):
    means = robustness_tables.mean_aucs(scores, context).set_index(["perturbation", "level", "model"])
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
        robustness_tables.mean_aucs(broken, context)


def test_crops_of_another_size_are_refused(models, rows, base_files):
    other = VIT.model_copy(update={"image_size": 48})
    with pytest.raises(R2MError, match=r"is 32×32 px; expected 48×48"):
        robustness.robustness_scores(
            load_detector(base_files["vit"], VIT), models, rows, {}, other, torch.device("cpu"), "fp32", 4, 0
        )


def test_command_table_and_figure(image_sets, base_files, models, tmp_path):
    given = [part for path in image_sets.manifests.values() for part in ("--manifest", path)]
    for name, tensors in models.items():
        checkpoint.save(tmp_path / f"{name}.safetensors", tensors, {})
        given += ["--model", f"{name}={tmp_path / name}.safetensors"]
    out = tmp_path / "scores.parquet"
    options = json.dumps({"enabled": True, **LEVELS})
    given += ["--base", base_files["vit"], "--backbone", VIT.model_dump_json(), "--domain", "drawn"]
    given += ["--generator", "swap", "--generator", "up", "--precision", "fp32", "--options", options]
    invoke(robustness_command, *given, "--out", out)
    unseen = {**CONTEXT, "resamples": 100}
    unseen["generators"] = {**CONTEXT["generators"], "up": {"family": "EFS", "role": "unseen"}}
    shared = ["--options", json.dumps(unseen)]
    invoke(experiment_table, "--experiment", "robustness", *shared, "--out", tmp_path / "table", out)
    table = pd.read_csv(tmp_path / "table.csv")
    assert len(table) == 5 * 2
    assert table["setting"].iloc[0] == "Clean"
    assert table["name"].tolist()[:2] == ["Base (linear probe)", "R²M"]
    assert {"in_distribution_low", "unseen_generator_high"} <= set(table)
    given = ["--experiment", "robustness", *shared, "--out", tmp_path / "figure", tmp_path / "table.csv"]
    invoke(experiment_figure, *given)
    assert (tmp_path / "figure.svg").stat().st_size > 500
