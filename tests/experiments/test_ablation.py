"""R²M with one option changed at a time on the small ViT, its table and figure."""

import numpy as np
import pandas as pd
from reported import chosen_file, compute, report

from r2m.experiments import ablation
from r2m.merge import merging
from r2m.merge.options import R2M

FACTORS = {
    "residual.rank.ratio": [0.1, 0.5],
    "residual.rank.energy": [0.5],
    "scale.absolute": [2.0],
    "norm_match": ["none"],
}


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


def test_values_stand_as_in_yaml():
    found = ablation.settings(R2M(), {"residual.rank.optimal_threshold": [True], "norm_match": ["layer"]})
    assert [one.value for one in found] == ["true", "layer"]


def test_ablation_merges_what_it_says(bench, chosen):
    scores = ablation.run(bench, [chosen], FACTORS)
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
    ablation.run(bench, [chosen], {})
    whole, core, residual = updates
    for key, tensor in whole.items():
        np.testing.assert_allclose(core[key] + residual[key], tensor, atol=1e-6)
    assert any(core[key].abs().sum() > 0 for key in core)


def test_run_table_and_figure(bench_files, chosen, tmp_path):
    out = tmp_path / "scores.parquet"
    chosen_files = [chosen_file(tmp_path, chosen)]
    compute("ablation", bench_files, out, chosen=chosen_files, factors=FACTORS)
    report("ablation", out, tmp_path)
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["val_auc"].between(0, 1).all()
    latex = (tmp_path / "table.tex").read_text()
    assert latex.count(r"\midrule") == 1
    assert r"\textbf{" in latex
    assert (tmp_path / "table.md").read_text().count("\n|") == len(table) + 1
