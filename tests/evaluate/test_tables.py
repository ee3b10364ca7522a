import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from r2m.errors import R2MError
from r2m.evaluate.cross import CROSS_COLUMNS, cross_auc
from r2m.evaluate.evaluation import AUC_COLUMNS, SCORE_COLUMNS, evaluate, read_scores
from r2m.evaluate.means import panel_means
from r2m.evaluate.metrics import METRICS
from r2m.evaluate.protocols import EvaluationContext, read_table
from r2m.report.main_table import main_table
from r2m.report.stages import tables
from r2m.report.table import Heading, Table, escape

FILES = [
    *(
        "auc.csv",
        "calibration.csv",
        "closest.csv",
        "closest.md",
        "closest.tex",
        "cross_auc.csv",
        "delong.csv",
        "dumbbell.csv",
        "intervals.csv",
    ),
    *("main.md", "main.tex", "main_intervals.md", "main_intervals.tex", "metrics.json", "models.csv"),
    *("operating.csv", "operating.md", "operating.tex", "protocols.csv", "protocols.md", "protocols.tex"),
    *("protocols_p4.csv", "protocols_p4.md", "protocols_p4.tex", "reliability.csv", "video.csv"),
]
SETTINGS: dict[str, Any] = {"resamples": 100, "seed": 0}


def metrics(files: Iterable[Path], context: EvaluationContext) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The metrics and the models of some files of scores."""
    made = evaluate(map(read_scores, files), context, **SETTINGS)
    return made.auc, made.models


def write(files: list[Path], context: EvaluationContext, out: Path, reference: str | None) -> None:
    members = {name: [name] for name in ("swap", "tps", "up")}
    of_stage = {"reference": reference, "video": "mean", "built_in": [], "members": members}
    tables(scores=files, context=context, out=out, **SETTINGS, **of_stage)


def edit(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: change(frame.copy())


def test_long_table(score_files: list[Path], context: EvaluationContext) -> None:
    auc, models = metrics(score_files, context)
    assert list(auc.columns) == AUC_COLUMNS
    assert len(auc) == 7 * 8
    assert list(models["model"]) == ["base", "swap", "tps", "up", "joint", "weight_averaging", "r2m"]
    swap = auc[auc["model"] == "swap"].set_index("test_set")
    assert swap["auc"]["a/swap"] > 0.95
    assert swap["auc"]["a/up"] < 0.4
    assert (swap["n_real"] == 30).all()
    assert dict(auc.groupby("protocol")["test_set"].nunique()) == {
        "cross_dataset": 4,
        "in_distribution": 3,
        "unseen_generator": 1,
    }


def test_accuracy_uses_the_val_threshold_of_the_model(
    score_files: list[Path], context: EvaluationContext, rewrite: Callable[..., Path]
) -> None:
    before, _ = metrics([score_files[4]], context)

    def shift_test(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[frame["split"] == "test", "logit"] += 100
        return frame

    after, _ = metrics([rewrite(score_files[4], edit(shift_test))], context)
    np.testing.assert_allclose(after["auc"], before["auc"], atol=1e-3)
    np.testing.assert_allclose(after["accuracy"], 0.5)


def test_unseen_generators_do_not_move_the_threshold(
    score_files: list[Path], context: EvaluationContext, rewrite: Callable[..., Path]
) -> None:
    _, before = metrics([score_files[4]], context)

    def add_unseen(frame: pd.DataFrame) -> pd.DataFrame:
        extra = frame[(frame["split"] == "val") & (frame["generator"] == "up")]
        return pd.concat([frame, extra.assign(generator="inp", set="inp", logit=-50.0)], ignore_index=True)

    path = rewrite(score_files[4], edit(add_unseen))
    _, after = metrics([path], context)
    assert before["threshold"].equals(after["threshold"])

    only = rewrite(path, edit(lambda f: f[(f["split"] == "test") | f["generator"].isin(["real", "inp"])]))
    with pytest.raises(R2MError, match="role train"):
        metrics([only], context)


def test_files_are_complete_stable_and_rounded(
    score_files: list[Path], context: EvaluationContext, tmp_path: Path
) -> None:
    write(score_files, context, tmp_path / "one", reference="r2m")
    turned = [*score_files[:5][::-1], *score_files[5:]]
    write(turned, context, tmp_path / "two", reference="r2m")
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == FILES
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    line = (tmp_path / "one" / "auc.csv").read_text().splitlines()[1]
    assert re.fullmatch(r"base,base,,a/swap,swap,FS,a,in_distribution,30,30,\d\.\d{6},(,\d\.\d{6}){7}", line)
    means = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert set(means["r2m"]) == {"in_distribution", "unseen_generator", "cross_dataset"}


def test_panel_means(score_files: list[Path], context: EvaluationContext) -> None:
    auc, models = metrics(score_files, context)
    means = panel_means(auc, models, context)
    assert list(means["model"].unique()) == list(models["model"])
    row = means[(means["model"] == "r2m") & (means["group"] == "cross_dataset_trained")].iloc[0]
    sets = auc[(auc["model"] == "r2m") & auc["test_set"].isin(["b/swap", "b/tps", "b/up"])]
    assert row["auc"] == pytest.approx(sets["auc"].mean())
    assert row["n_sets"] == 3


def test_panel_means_of_groups(score_files: list[Path], grouped: EvaluationContext) -> None:
    auc, models = metrics(score_files, grouped)
    means = panel_means(auc, models, grouped)
    own = means[means["model"] == "r2m"].set_index("group")["auc"]
    assert list(own.index) == [
        "in_distribution",
        *(f"unseen_generator/{group}" for group in ("other", "old", "new")),
        *("cross_dataset_trained", "cross_dataset_unseen"),
    ]
    one = auc.loc[(auc["model"] == "r2m") & (auc["test_set"] == "a/up"), "auc"].item()
    assert own["unseen_generator/old"] == pytest.approx(one)


def test_main_table_values_and_marks(score_files: list[Path], context: EvaluationContext) -> None:
    auc, models = metrics(score_files, context)
    table = main_table([auc], models, context)
    assert [title.title for title in table.titles.values() if isinstance(title, Heading)] == [
        "FS",
        "FR",
        "EFS",
        "mean",
        "mean",
        "trained",
        "unseen",
        "mean",
    ]
    daggers = np.array([table.notes[column] for column in list(table.titles)[1:]]).T == "†"
    assert np.argwhere(daggers).tolist() == [[1, 0], [2, 1], [3, 2]]
    assert table.frame["in_distribution/FS"][1] == pytest.approx(
        auc.loc[(auc["model"] == "swap") & (auc["test_set"] == "a/swap"), "auc"].item()
    )
    text = table.to_markdown()
    assert "| *Merged* |" in text
    assert "**" not in next(line for line in text.splitlines() if line.startswith("| Joint |"))
    assert text.count("†") == 4


def marked(compared: str | None = "merge", **ranked: list[str]) -> Table:
    """A table of one column, joint training above merges."""
    frame = pd.DataFrame(
        {
            "label": list("jabcde"),
            "kind": ["joint", *["merge"] * 5],
            "auc": [0.99, 0.9, 0.9004, 0.8, 0.7, np.nan],
        }
    )
    titles = {"label": "Model", "auc": "AUC"}
    return Table(frame, titles, "", "x", section="kind", compared=compared, **ranked)


def test_best_and_second_count_ties_once() -> None:
    table = marked(best=["auc"])
    assert table.places("auc").tolist() == [0, 1, 1, 2, 3, 0]
    assert "| e | – |" in table.to_markdown()
    assert marked(None, best=["auc"]).places("auc").tolist() == [1, 1, 1, 2, 3, 0]
    assert marked("joint", best=["auc"]).places("auc").tolist() == [0] * 6, "nothing to be compared with"


def test_the_least_is_best_where_less_is_better() -> None:
    table = marked(lowest=["auc"])
    assert table.places("auc").tolist() == [0, 3, 3, 2, 1, 0]
    assert "| d | **0.700** |" in table.to_markdown()
    assert table.places("label").tolist() == [0] * 6


@pytest.mark.parametrize("metric", METRICS)
def test_main_table_of_any_metric(score_files: list[Path], context: EvaluationContext, metric: str) -> None:
    auc, models = metrics(score_files, context)
    table = main_table([auc], models, context, metric)
    within = auc[(auc["model"] == "r2m") & (auc["protocol"] == "in_distribution")]
    assert table.frame["in_distribution/mean"].iloc[-1] == pytest.approx(within[metric].mean())
    assert f"Mean {METRICS[metric].title} over test sets" in table.caption
    assert bool(table.best) == METRICS[metric].greater_is_better


def test_a_metric_without_a_mean_has_no_main_table(
    score_files: list[Path], context: EvaluationContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    auc, models = metrics(score_files, context)
    monkeypatch.setitem(METRICS, "eer", replace(METRICS["eer"], averaged=False))
    with pytest.raises(R2MError, match="metric eer"):
        main_table([auc], models, context, "eer")


def test_cells_are_quoted_for_their_format() -> None:
    frame = pd.DataFrame({"a|b": ["x|y_1", None], "n": [3, 4]})
    table = Table(
        frame, {"a|b": "A|B & C", "n": "N²"}, "**Bold** 5 %, <ins>b</ins>.", "t", notes={"n": ["†", ""]}
    )
    assert table.to_markdown().splitlines() == [
        r"| A\|B & C | N² |",
        "|---|---:|",
        r"| x\|y_1 | 3† |",
        "| – | 4 |",
        "",
        "**Bold** 5 %, <ins>b</ins>.",
    ]
    latex = table.to_latex()
    assert r"\caption{Bold 5 \%, b.}" in latex
    assert r"A|B \& C & N\textsuperscript{2} \\" in latex
    assert r"x|y\_1 & 3$^\dagger$ \\" in latex
    assert r"-- & 4 \\" in latex
    assert r"\begin{tabular}{lr}" in latex


def test_table_without_rows(tmp_path: Path) -> None:
    frame = pd.DataFrame({"name": pd.Series([], dtype=str), "auc": pd.Series([], dtype=float)})
    table = Table(frame, {"name": "Name", "auc": "AUC"}, "None.", "x", best=["auc"], section="name", shown=[])
    table.write(tmp_path / "table")
    assert (tmp_path / "table.csv").read_text() == "name,auc\n"
    assert (tmp_path / "table.md").read_text() == "| Name | AUC |\n|---|---:|\n\nNone.\n"
    assert r"Name & AUC \\" in (tmp_path / "table.tex").read_text()


def test_latex_is_balanced_and_escaped(score_files: list[Path], context: EvaluationContext) -> None:
    auc, models = metrics(score_files, context)
    text = main_table([auc], models, context).to_latex()
    assert r"Weight\_Averaging" in text
    assert text.count("{") == text.count("}")
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {8}
    assert escape("50% & R²M_1") == r"50\% \& R\textsuperscript{2}M\_1"


def test_errors_name_file_and_set(
    score_files: list[Path], context: EvaluationContext, rewrite: Callable[..., Path], tmp_path: Path
) -> None:
    swap, tps = score_files[1:3]
    with pytest.raises(R2MError, match=r"none\.parquet"):
        read_scores(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(R2MError, match=r"bad\.parquet"):
        read_scores(tmp_path / "bad.parquet")
    with pytest.raises(R2MError, match="no files of scores"):
        metrics([], context)
    with pytest.raises(R2MError, match="second file of scores for model 'swap'"):
        metrics([swap, swap], context)

    no_reals = rewrite(swap, edit(lambda f: f[~((f["domain"] == "b") & (f["label"] == 0))]))
    with pytest.raises(R2MError, match=r"swap\.parquet: split 'test': set b/swap has fakes but no reals"):
        metrics([no_reals], context)
    no_fakes = rewrite(score_files[3], edit(lambda f: f[f["label"] == 0]))
    with pytest.raises(R2MError, match=r"up\.parquet: no fakes in split 'val'"):
        metrics([no_fakes], context)

    fewer = rewrite(tps, edit(lambda f: f[f["image_id"] != "a/up/test3"]))
    with pytest.raises(R2MError, match=r"a/up: .*joint.* 30 reals and 30 fakes, but .*tps.* 30 and 29"):
        metrics([score_files[4], fewer], context)
    renamed = rewrite(
        score_files[6], edit(lambda f: f.assign(image_id=f["image_id"].str.replace("up/test3", "up/none")))
    )
    with pytest.raises(R2MError, match=r"joint\.parquet and .*r2m\.parquet are of other images"):
        metrics([score_files[4], renamed], context)
    no_val = rewrite(tps, edit(lambda f: f[f["split"] == "test"]))
    with pytest.raises(R2MError, match="no fakes in split 'val'"):
        metrics([no_val], context)


def test_scores_must_be_finite_and_described(score_files: list[Path], rewrite: Callable[..., Path]) -> None:
    nan = rewrite(score_files[0], edit(lambda f: f.assign(logit=f["logit"].where(f.index != 4))))
    with pytest.raises(R2MError, match="a/real/val4"):
        read_scores(nan)
    with pytest.raises(R2MError, match="logit"):
        read_scores(rewrite(score_files[1], edit(lambda f: f.drop(columns="logit"))))
    with pytest.raises(R2MError, match="kind"):
        read_scores(rewrite(score_files[2], edit(lambda f: f), kind="other"))


def test_reals_without_fakes_make_no_set(
    score_files: list[Path], context: EvaluationContext, rewrite: Callable[..., Path]
) -> None:
    path = rewrite(score_files[0], edit(lambda f: f[~((f["domain"] == "b") & (f["label"] == 1))]))
    auc, _ = metrics([path], context)
    assert set(auc["domain"]) == {"a"}


def test_scores_must_name_people(score_files: list[Path], rewrite: Callable[..., Path]) -> None:
    path = rewrite(score_files[0], edit(lambda f: f.drop(columns="identity")))
    with pytest.raises(R2MError, match=r"base\.parquet: expected the columns .*; missing: identity$"):
        read_scores(path)


def test_order_of_images_changes_nothing(
    score_files: list[Path], context: EvaluationContext, rewrite: Callable[..., Path]
) -> None:
    before = evaluate(map(read_scores, score_files), context, **SETTINGS)
    for path in score_files[::2]:
        rewrite(path, edit(lambda f: f.sample(frac=1, random_state=3)))
    after = evaluate(map(read_scores, score_files), context, **SETTINGS)
    pd.testing.assert_frame_equal(after.auc, before.auc)
    np.testing.assert_array_equal(after.resampled, before.resampled)


def test_estimates_are_the_aucs_of_the_table(score_files: list[Path], context: EvaluationContext) -> None:
    made = evaluate(map(read_scores, score_files), context, **SETTINGS)
    assert made.estimates.ravel().tolist() == made.auc["auc"].tolist()
    assert made.resampled.shape == (100, 7, 8)
    assert list(made.matrix.units) == [c for c in SCORE_COLUMNS if c not in ("set", "split", "logit")]
    assert (made.auc["auc_low"] <= made.auc["auc"]).all()
    assert (made.auc["auc"] <= made.auc["auc_high"]).all()


def test_cross_auc(score_files: list[Path], context: EvaluationContext, rewrite: Callable[..., Path]) -> None:
    made = evaluate(map(read_scores, score_files), context, **SETTINGS)
    table = cross_auc(made, context, **SETTINGS)
    assert list(table.columns) == CROSS_COLUMNS
    assert len(table) == 7 * 8
    assert (table["domain"] != table["real_domain"]).all()
    row = table[(table["model"] == "tps") & (table["test_set"] == "a/swap")].iloc[0]
    frame = read_scores(score_files[2]).frame.query("split == 'test'")
    pair = frame[
        frame["generator"].eq("swap") & frame["domain"].eq("a")
        | frame["generator"].eq("real") & frame["domain"].eq("b")
    ]
    assert row["auc"] == pytest.approx(roc_auc_score(pair["label"], pair["logit"]))
    assert row["auc_low"] <= row["auc"] <= row["auc_high"]
    assert (row["real_domain"], row["n_real"], row["n_fake"]) == ("b", 30, 30)

    alone = rewrite(score_files[0], edit(lambda f: f[f["domain"] == "a"]))
    none = cross_auc(evaluate([read_scores(alone)], context, **SETTINGS), context, **SETTINGS)
    assert list(none.columns) == CROSS_COLUMNS
    assert none.empty


def test_reference_must_have_scores(
    score_files: list[Path], context: EvaluationContext, tmp_path: Path
) -> None:
    with pytest.raises(R2MError, match=r"reference 'r3m': .* expected one of base, swap, .*, r2m"):
        write(score_files, context, tmp_path / "out", reference="r3m")
    assert not (tmp_path / "out").exists()
    write(score_files, context, tmp_path / "out", reference=None)
    assert read_table(tmp_path / "out" / "delong.csv").empty
    assert "better" not in (tmp_path / "out" / "main_intervals.md").read_text()


def test_files_of_the_stage(score_files: list[Path], context: EvaluationContext, tmp_path: Path) -> None:
    out = tmp_path / "tables"
    write(score_files, context, out, reference="r2m")
    assert sorted(path.name for path in out.iterdir()) == FILES
    tested = read_table(out / "delong.csv")
    assert len(tested) == 6 * 8
    assert set(tested["significance"]) >= {"better", "no"}
