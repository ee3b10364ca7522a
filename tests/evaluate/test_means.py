"""Means with intervals: the long table, and the one to read."""

import re
from pathlib import Path

import numpy as np
import pytest

from r2m.evaluate.delong import comparisons
from r2m.evaluate.evaluation import Evaluation, evaluate, read_scores
from r2m.evaluate.means import MEAN_COLUMNS, mean_intervals
from r2m.evaluate.protocols import EvaluationContext, describe, mean_columns
from r2m.report.main_table import interval_table, main_table


@pytest.fixture
def made(score_files: list[Path], context: EvaluationContext) -> Evaluation:
    return evaluate(map(read_scores, score_files), context, resamples=200, seed=0)


def test_means_are_those_of_the_main_table(made: Evaluation, context: EvaluationContext) -> None:
    table = mean_intervals(made, "r2m", context)
    assert list(table.columns) == MEAN_COLUMNS
    values = table["auc"].to_numpy().reshape(7, 8)
    main = main_table([made.auc], made.models, context)
    np.testing.assert_allclose(values, main.frame[list(main.titles)[1:]])
    assert table["model"].drop_duplicates().tolist() == made.models["model"].tolist()
    assert (table["low"] <= table["auc"]).all()
    assert (table["auc"] <= table["high"]).all()


def test_intervals_of_means_and_differences(made: Evaluation, context: EvaluationContext) -> None:
    table = mean_intervals(made, "r2m", context).set_index(["model", "protocol", "part"])
    row = table.loc[("weight_averaging", "cross_dataset", "mean")]
    drawn = made.resampled[:, :, 4:].mean(axis=2)
    np.testing.assert_allclose([row["low"], row["high"]], np.quantile(drawn[:, 5], [0.025, 0.975]))
    limits = np.quantile(drawn[:, 6] - drawn[:, 5], [0.025, 0.975])
    np.testing.assert_allclose([row["difference_low"], row["difference_high"]], limits)
    own = table.loc[("r2m", "cross_dataset", "mean")]
    assert row["difference"] == pytest.approx(own["auc"] - row["auc"])
    assert row["reference"] == "r2m"
    assert own[["reference", "difference", "difference_low", "difference_high"]].isna().all()
    assert mean_intervals(made, None, context)[["reference", "difference"]].isna().all(axis=None)


def test_mean_of_one_set_has_the_interval_of_the_set(made: Evaluation, context: EvaluationContext) -> None:
    table = mean_intervals(made, None, context).set_index(["model", "protocol", "part"])
    sets = made.auc.set_index(["model", "test_set"])
    found = table.loc[("up", "in_distribution", "EFS"), ["auc", "low", "high"]]
    expected = sets.loc[("up", "a/up"), ["auc", "auc_low", "auc_high"]]
    np.testing.assert_allclose(found.to_numpy(float), expected.to_numpy(float))


def test_columns_of_means(context: EvaluationContext) -> None:
    sets = [describe(domain, generator, context) for domain in "ab" for generator in ("swap", "inp")]
    assert mean_columns(sets, context) == {
        ("in_distribution", "FS"): [0],
        ("in_distribution", "mean"): [0],
        ("unseen_generator", "mean"): [1],
        ("cross_dataset", "trained"): [2],
        ("cross_dataset", "unseen"): [3],
        ("cross_dataset", "mean"): [2, 3],
    }
    assert list(mean_columns(sets[2:3], context)) == [("cross_dataset", "mean")]


def test_columns_of_groups(grouped: EvaluationContext) -> None:
    pairs = [("a", "inp"), ("a", "up"), ("up", "up"), ("a", "tps"), ("b", "inp"), ("b", "tps")]
    sets = [describe(domain, generator, grouped) for domain, generator in pairs]
    assert list(mean_columns(sets, grouped).items()) == [
        (("unseen_generator", "other"), [3]),
        (("unseen_generator", "old"), [1, 2]),
        (("unseen_generator", "new"), [0]),
        (("unseen_generator", "mean"), [0, 1, 2, 3]),
        (("cross_dataset", "mean"), [4, 5]),
    ]
    assert list(mean_columns(sets[1:3], grouped)) == [("unseen_generator", "mean")]


def test_groups_stand_apart_in_both_tables(score_files: list[Path], grouped: EvaluationContext) -> None:
    one = evaluate([read_scores(path) for path in score_files[-2:]], grouped, resamples=20, seed=0)
    means = mean_intervals(one, "r2m", grouped)
    tables = {
        "main": main_table([one.auc], one.models, grouped),
        "intervals": interval_table(means, comparisons(one, "r2m"), one.models, 20),
    }
    groups = [f"unseen_generator/{group}" for group in ("other", "old", "new", "mean")]
    aucs = one.auc.set_index(["model", "test_set"])["auc"]["r2m"]
    expected = [aucs["a/tps"], aucs["a/up"], aucs["a/inp"], aucs[["a/tps", "a/up", "a/inp"]].mean()]
    for name, table in tables.items():
        row = table.frame.set_index("label").loc["R2M", groups]
        np.testing.assert_allclose(row.to_numpy(float), expected, err_msg=name)
        header = table.to_markdown().splitlines()[0]
        assert (
            "| Unseen generators, other | Unseen generators, old | Unseen generators, new"
            " | Unseen generators |" in header
        )
        assert r"\multicolumn{4}{c}{Unseen generators}" in table.to_latex()
        assert "& other & old & new & mean &" in table.to_latex()


def test_table_to_read(made: Evaluation, context: EvaluationContext) -> None:
    tested = comparisons(made, "r2m")
    table = interval_table(mean_intervals(made, "r2m", context), tested, made.models, 200)
    text = table.to_markdown()
    header = "| Model | In distribution | Unseen generators | Cross-dataset, trained | Cross-dataset, unseen "
    assert text.startswith(f"{header}| Cross-dataset | R2M, better / worse |")
    swap = tested[tested["model"] == "swap"]["significance"].value_counts()
    line = next(line for line in text.splitlines() if line.startswith("| Swap |"))
    assert line.endswith(f" {swap.get('better', 0)} / {swap.get('worse', 0)} |")
    assert len(re.findall(r"0\.\d{3} \[0\.\d{3}, [01]\.\d{3}\]", line)) == 5
    assert next(line for line in text.splitlines() if line.startswith("| R2M |")).endswith("| – |")
    assert "95 % interval from 200 bootstrap resamples" in text
    assert "of the 8 test sets R2M is significantly" in text
    assert "all 48 tests" in text

    latex = table.to_latex()
    assert latex.count("{") == latex.count("}")
    assert r"95 \% interval" in latex
    assert r"p $<$ 0.05" in latex
    assert r"\label{tab:intervals}" in latex
    rows = [line for line in latex.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {6}


def test_without_a_reference_there_is_no_last_column(made: Evaluation, context: EvaluationContext) -> None:
    table = interval_table(mean_intervals(made, None, context), comparisons(made, None), made.models, 200)
    text = table.to_markdown()
    assert "better" not in text
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {7}
