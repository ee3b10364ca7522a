"""Joint training with classes on the small ViT, its table and figure."""

import numpy as np
import pandas as pd
import pytest
import torch
from reported import compute, report

from r2m.errors import R2MError
from r2m.experiments import multiclass
from r2m.models import checkpoint


@pytest.fixture
def models(bench, bench_files, tmp_path):
    """A joint model with one logit, and one of three classes whose fake classes answer alike."""
    base, metadata = checkpoint.load(bench_files["files"].base)
    weight = torch.randn(1, 64, generator=torch.Generator().manual_seed(1))
    zero = torch.zeros_like(weight)
    heads = {
        "binary": {"head.weight": weight, "head.bias": torch.zeros(1)},
        "multiclass": {"head.weight": torch.cat([zero, weight, weight]), "head.bias": torch.zeros(3)},
    }
    paths = {name: tmp_path / f"{name}.safetensors" for name in heads}
    for name, head in heads.items():
        checkpoint.save(paths[name], {**base, **head}, metadata)
    return paths


def test_the_logit_of_classes_is_that_of_all_fakes_together(bench, models):
    scores = multiclass.run(bench, [], models=models)
    binary, classes = (scores[scores["objective"] == name].reset_index() for name in models)
    assert binary["image_id"].tolist() == classes["image_id"].tolist()
    np.testing.assert_allclose(classes["logit"], binary["logit"] + np.log(2), rtol=1e-4, atol=1e-4)


def test_run_table_and_figure(bench_files, models, tmp_path):
    out = tmp_path / "scores.parquet"
    compute("multiclass", bench_files, out, chosen=[], models=models)
    report("multiclass", out, tmp_path)
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["training"].tolist() == ["Fake against Real", "one class per generator"]
    assert table["val_auc"].iloc[0] == table["val_auc"].iloc[1]


def test_a_file_without_the_columns_is_refused(tmp_path, context):
    path = tmp_path / "scores.parquet"
    pd.DataFrame({"logit": [1.0]}).to_parquet(path)
    with pytest.raises(R2MError, match=r"scores\.parquet: expected scores with the columns objective"):
        multiclass.table(path, context)
