"""Scores and tables of the experiments on the small ViT, and their commands."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from experiment_context import CONTEXT

from r2m.cli import ablation as ablation_command
from r2m.cli import experiment_figure, experiment_table
from r2m.cli import heads as heads_command
from r2m.errors import R2MError
from r2m.evaluate.experiment_means import protocol_means, set_aucs
from r2m.experiments import ablation, heads
from r2m.merge import merging, registry
from r2m.merge.options import R2M
from r2m.merge.stages import Chosen, read_chosen
from r2m.tables import heads as heads_tables
from r2m.tables import inversion
from r2m.train.pairs import rows_of
from r2m.train.probe import fit_lda_head

FACTORS = {
    "residual.rank.ratio": [0.1, 0.5],
    "residual.rank.energy": [0.5],
    "scale.absolute": [2.0],
    "norm_match": ["none"],
}


@pytest.fixture
def chosen() -> Chosen:
    options = R2M.model_validate({"real": {"space": "matrix"}})
    return Chosen("r2m", registry.get("r2m"), "average", options)


def chosen_file(folder, chosen):
    path = folder / f"{chosen.variant}.json"
    content = {
        "variant": chosen.variant,
        "method": chosen.method.name,
        "head": chosen.head,
        "options": chosen.options.model_dump(mode="json"),
    }
    path.write_text(json.dumps(content))
    assert read_chosen(path) == chosen
    return path


def arguments(files):
    """Command-line arguments for what `open_bench` takes."""
    given = [part for path in files["manifests"] for part in ("--manifest", str(path))]
    given += [part for path in files["trunks"] for part in ("--trunk", str(path))]
    for flag in ("task_vector", "head"):
        for name, path in files[flag].items():
            given += [f"--{flag.replace('_', '-')}", f"{name}={path}"]
    given += ["--base", str(files["base"]), "--initial-head", str(files["initial_head"])]
    return [*given, "--backbone", files["backbone"].model_dump_json(), "--precision", "fp32"]


def invoke(module, *given):
    result = CliRunner().invoke(module.command, [str(one) for one in given], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_heads_are_fitted_to_training_images_alone(bench, chosen):
    scores = heads.head_scores(bench, [chosen], ["swap", "up"])
    assert list(dict.fromkeys(scores["head"])) == [
        *("average", "base", "specialist:swap", "specialist:up", "specialist:third"),
        *("retrain", "lda"),
    ]
    assert set(scores["split"]) == {"val", "test"}
    tensors = bench.merged(chosen.method, chosen.options)
    fakes, reals = rows_of(bench.inputs, ["swap", "up"], "train")
    train = pd.concat([fakes, reals], ignore_index=True)
    head = fit_lda_head(bench.features(tensors, train), train["label"].to_numpy())
    expected = bench.scores(tensors, head)
    found = scores[scores["head"] == "lda"]
    assert found["image_id"].tolist() == expected["image_id"].tolist()
    np.testing.assert_allclose(found["logit"], expected["logit"], rtol=1e-3, atol=1e-2)


def test_lda_head_separates_in_closed_form():
    random = np.random.default_rng(0)
    label = np.repeat([0, 1], [40, 160])
    x = random.normal(size=(200, 5)) + np.outer(label, [2, 0, -1, 0, 0])
    head = fit_lda_head(x, label)
    logits = x @ head["head.weight"].numpy()[0] + head["head.bias"].item()
    middle = (x[label == 0].mean(0) + x[label == 1].mean(0)) / 2
    assert abs(middle @ head["head.weight"].numpy()[0] + head["head.bias"].item()) < 1e-4
    assert logits[label == 1].mean() > 0 > logits[label == 0].mean()


def test_settings_are_one_change_away():
    options = R2M()
    found = ablation.settings(options, {**FACTORS, "real.rank": [1, 2]})
    assert [(one.factor, one.value) for one in found] == [
        ("residual.rank.ratio", "0.1"),
        ("residual.rank.ratio", "0.5"),
        ("residual.rank.energy", "0.5"),
        ("scale.absolute", "2.0"),
        ("norm_match", "none"),
        ("real.rank", "1"),
        ("real.rank", "2"),
    ]
    assert found[0].options == found[5].options == options
    assert found[2].options.residual.rank.model_dump(exclude_none=True) == {"energy": 0.5}
    assert found[3].options.scale.relative is None


def test_ablation_merges_what_it_says(bench, chosen):
    scores = ablation.ablation_scores(bench, [chosen], FACTORS)
    names = list(dict.fromkeys(zip(scores["factor"], scores["value"], strict=True)))
    assert names[:3] == [("as chosen", ""), ("core alone", ""), ("residual alone", "")]
    assert names[3:] == [(one.factor, one.value) for one in ablation.settings(chosen.options, FACTORS)]
    head = bench.head("average")
    for one in ablation.settings(chosen.options, FACTORS):
        update, _ = merging.merge(chosen.method, bench.task_vectors, one.options)
        found = scores[(scores["factor"] == one.factor) & (scores["value"] == one.value)]
        expected = bench.scores(bench.updated(update), head)
        np.testing.assert_allclose(found["logit"], expected["logit"], atol=1e-4)


def test_the_parts_of_the_ablation_sum_to_the_whole(bench, chosen, monkeypatch):
    updates = []
    monkeypatch.setattr(
        type(bench), "updated", lambda self, update: updates.append(update) or dict(self.base)
    )
    ablation.ablation_scores(bench, [chosen], {})
    whole, core, residual = updates
    for key, tensor in whole.items():
        np.testing.assert_allclose(core[key] + residual[key], tensor, atol=1e-6)
    assert any(core[key].abs().sum() > 0 for key in core)


def test_protocol_means(context):
    rows = [
        {"row": row, "domain": domain, "split": split, "label": label, "generator": name, "logit": logit}
        for row, sign in (("good", 1), ("bad", -1))
        for domain, split in (("drawn", "val"), ("drawn", "test"), ("sketch", "test"))
        for label, name in ((0, "real"), (1, "swap"), (1, "up"))
        for logit in (sign * label, sign * label + 0.5)
    ]
    scores = pd.DataFrame(rows)
    aucs = set_aucs(scores, ["row"], context)
    assert len(aucs) == 2 * 3 * 2
    means = protocol_means(scores, ["row"], context)
    assert means.columns.tolist() == ["row", "val_auc", "in_distribution", "cross_dataset"]
    assert means["row"].tolist() == ["good", "bad"]
    assert means.iloc[0, 1:].tolist() == [1, 1, 1]
    assert means.iloc[1, 1:].tolist() == [0, 0, 0]
    with pytest.raises(R2MError, match="sketch/swap has fakes but no reals"):
        set_aucs(scores[(scores["domain"] != "sketch") | (scores["label"] == 1)], ["row"], context)


def auc_table(values):
    kinds = {"swap": "specialist", "up": "specialist", "weight_averaging": "merge", "r2m": "merge"}
    return pd.DataFrame(
        [
            {"model": model, "kind": kinds[model], "test_set": f"drawn/{name}", "auc": auc}
            for model, aucs in values.items()
            for name, auc in aucs.items()
        ]
    )


def test_inversions_and_their_repair(tmp_path, context):
    values = {
        "swap": {"swap": 0.9, "up": 0.3},
        "up": {"swap": 0.45, "up": 0.9},
        "weight_averaging": {"swap": 0.6, "up": 0.4},
        "r2m": {"swap": 0.7, "up": 0.8},
    }
    path = tmp_path / "auc.csv"
    auc_table(values).to_csv(path, index=False)
    table = inversion.table(path, context)
    assert table.frame["specialist"].tolist() == ["swap", "Upsampler"]
    assert table.frame["own"].tolist() == [0.3, 0.45]
    assert table.frame["r2m"].tolist() == [0.8, 0.7]
    assert "Averaging 1, R²M 0" in table.caption
    assert "| swap | Upsampler (drawn) | 0.300 | 0.400 | 0.800 |" in table.to_markdown()
    path.write_text("a,b\n1,2\n")
    with pytest.raises(R2MError, match=r"auc\.csv: expected the table auc.csv; lacks auc, kind"):
        inversion.table(path, context)


@pytest.mark.parametrize("inverted", [0.3, 0.6])
def test_inversion_command_with_and_without_inversions(tmp_path, inverted):
    values = {name: {"swap": 0.9, "up": 0.8} for name in ("swap", "up", "weight_averaging", "r2m")}
    values["swap"]["up"] = inverted
    auc_table(values).to_csv(tmp_path / "auc.csv", index=False)
    shared = ["--experiment", "inversion", "--options", json.dumps(CONTEXT)]
    invoke(experiment_table, *shared, "--out", tmp_path / "table", tmp_path / "auc.csv")
    invoke(experiment_figure, *shared, "--out", tmp_path / "figure", tmp_path / "table.csv")
    assert (tmp_path / "figure.svg").stat().st_size > 500


@pytest.mark.parametrize("name", ["heads", "ablation"])
def test_commands(bench_files, chosen, tmp_path, name):
    given = [*arguments(bench_files), "--tune", chosen_file(tmp_path, chosen)]
    out = tmp_path / "scores.parquet"
    if name == "heads":
        invoke(heads_command, *given, "--generator", "swap", "--generator", "up", "--out", out)
    else:
        invoke(ablation_command, *given, "--options", json.dumps({"factors": FACTORS}), "--out", out)
    shared = ["--experiment", name, "--options", json.dumps(CONTEXT)]
    invoke(experiment_table, *shared, "--out", tmp_path / "table", out)
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["val_auc"].between(0, 1).all()
    latex = (tmp_path / "table.tex").read_text()
    assert latex.count(r"\midrule") == 1
    assert r"\textbf{" in latex
    assert (tmp_path / "table.md").read_text().count("\n|") == len(table) + 1
    invoke(experiment_figure, *shared, "--out", tmp_path / "figure", tmp_path / "table.csv")
    assert {path.suffix for path in tmp_path.glob("figure.*")} == {".png", ".pdf", ".svg"}


def test_a_file_without_the_columns_is_refused(tmp_path, context):
    path = tmp_path / "scores.parquet"
    pd.DataFrame({"logit": [1.0]}).to_parquet(path)
    with pytest.raises(R2MError, match=r"scores\.parquet: expected scores with the columns variant, head"):
        heads_tables.table(path, context)


@pytest.mark.parametrize("module", [experiment_table, experiment_figure])
def test_an_experiment_that_there_is_not(module, tmp_path):
    (tmp_path / "table.csv").write_text("merge\n")
    given = ["--experiment", "nonsense", "--options", "{}", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(module.command, [*given, str(tmp_path / "table.csv")])
    assert result.exit_code == 2
    assert "'nonsense' is not one of 'inversion'" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize("name", experiment_figure.NAMES)
def test_the_table_of_another_experiment_is_refused(name, tmp_path, context):
    path = tmp_path / "table.csv"
    path.write_text("nothing,that,they,have\n1,2,3,4\n")
    given = [
        "--experiment",
        name,
        "--options",
        json.dumps(CONTEXT),
        "--out",
        str(tmp_path / "figure"),
        str(path),
    ]
    with pytest.raises(R2MError, match=rf"table\.csv: expected the table of the experiment {name}; lacks"):
        CliRunner().invoke(experiment_figure.command, given, catch_exceptions=False)
    assert [one.name for one in tmp_path.iterdir()] == ["table.csv"]
