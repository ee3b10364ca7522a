"""Heads of merged backbones on the small ViT, their table and figure."""

import numpy as np
import pandas as pd
import pytest
from reported import chosen_file, compute, report

from r2m.errors import R2MError
from r2m.experiments import heads
from r2m.train.probe import fit_lda_head
from r2m.train.rows import rows_of


def test_heads_are_fitted_to_training_images_alone(bench, chosen):
    scores = heads.run(bench, [chosen], ["swap", "up"])
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


def test_run_table_and_figure(bench_files, chosen, tmp_path):
    out = tmp_path / "scores.parquet"
    chosen_files = [chosen_file(tmp_path, chosen)]
    compute("heads", bench_files, out, chosen=chosen_files, generators=["swap", "up"])
    report("heads", out, tmp_path)
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["val_auc"].between(0, 1).all()
    latex = (tmp_path / "table.tex").read_text()
    assert latex.count(r"\midrule") == 1
    assert r"\textbf{" in latex
    assert (tmp_path / "table.md").read_text().count("\n|") == len(table) + 1


def test_a_file_without_the_columns_is_refused(tmp_path, context):
    path = tmp_path / "scores.parquet"
    pd.DataFrame({"logit": [1.0]}).to_parquet(path)
    with pytest.raises(R2MError, match=r"scores\.parquet: expected scores with the columns variant, head"):
        heads.table(path, context)
