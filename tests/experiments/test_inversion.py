"""Test sets that specialists invert, and what merges make of them."""

import pandas as pd
import pytest
from reported import report

from r2m.errors import R2MError
from r2m.experiments import inversion


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
def test_table_and_figure_with_and_without_inversions(tmp_path, inverted):
    values = {name: {"swap": 0.9, "up": 0.8} for name in ("swap", "up", "weight_averaging", "r2m")}
    values["swap"]["up"] = inverted
    auc_table(values).to_csv(tmp_path / "auc.csv", index=False)
    report("inversion", tmp_path / "auc.csv", tmp_path)
