"""Tables of several trainings: means and standard deviations over their seeds."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from r2m.errors import R2MError
from r2m.evaluate.evaluation import by_seed
from r2m.evaluate.protocols import EvaluationContext
from r2m.evaluate.seeds import mean_over_seeds
from r2m.report.stages import tables
from r2m.report.table import Table, over_seeds

SETTINGS = {"resamples": 100, "seed": 0, "reference": "r2m", "video": "mean", "built_in": []}
MEMBERS = {name: [name] for name in ("swap", "tps", "up")}


@pytest.fixture
def seeds(score_files: list[Path], tmp_path: Path, rewrite: Callable[..., Path]) -> dict[int, list[Path]]:
    """Score files of two trainings of every model but the base; the second's logits are noisier."""
    rng = np.random.default_rng(5)
    found: dict[int, list[Path]] = {3: [], 4: []}
    for seed, paths in found.items():
        for path in score_files[1:]:
            copied = tmp_path / f"seed{seed}" / path.name
            copied.parent.mkdir(exist_ok=True)
            copied.write_bytes(path.read_bytes())
            noise = (seed - 3) * rng.normal(size=pq.read_metadata(path).num_rows)
            rewrite(copied, lambda frame, noise=noise: frame.assign(logit=frame["logit"] + noise), seed=seed)
            paths.append(copied)
    return found


def tables_of(paths: list[Path], context: EvaluationContext, out: Path) -> dict[str, pd.DataFrame]:
    tables(scores=paths, context=context, members=MEMBERS, out=out, **SETTINGS)
    return {path.stem: pd.read_csv(path) for path in out.glob("*.csv") if path.stem != "video"}


def test_several_seeds_are_means_and_deviations_of_single_ones(
    score_files: list[Path], seeds: dict[int, list[Path]], context: EvaluationContext, tmp_path: Path
) -> None:
    base = score_files[0]
    alone = [tables_of([base, *paths], context, tmp_path / f"of{seed}") for seed, paths in seeds.items()]
    both = tables_of([base, *seeds[3], *seeds[4]], context, tmp_path / "both")
    for name in ("auc", "dumbbell", "cross_auc", "intervals"):
        single = np.stack([tables[name]["auc"] for tables in alone])
        np.testing.assert_allclose(both[name]["auc"], single.mean(axis=0), atol=2e-6)
        np.testing.assert_allclose(both[name]["auc_sd"], single.std(axis=0, ddof=1), atol=2e-6)
        assert alone[0][name]["auc_sd"].isna().all()
        first = alone[0][name]
        keys = [column for column in first.select_dtypes(exclude="float") if column != "seed"]
        pd.testing.assert_frame_equal(both[name][keys], first[keys])
    assert (both["auc"].query("model == 'base'")["auc_sd"] == 0).all()
    assert (both["auc"].query("model == 'r2m'")["auc_sd"] > 0).any()
    ece = np.stack([tables["auc"]["ece"] for tables in alone])
    np.testing.assert_allclose(both["auc"]["ece"], ece.mean(axis=0), atol=2e-6)
    assert both["delong"].groupby("seed").size().to_dict() == {
        3: len(both["delong"]) / 2,
        4: len(both["delong"]) / 2,
    }
    main = (tmp_path / "both/main.md").read_text()
    mean, deviation = (
        both["intervals"]
        .query("model == 'joint' and protocol == 'in_distribution' and part == 'mean'")[name]
        .item()
        for name in ("auc", "auc_sd")
    )
    assert f"{mean:.3f} ± {deviation:.3f}" in main
    assert "standard deviation over seeds" in main
    assert "±" not in (tmp_path / "of3/main.md").read_text()
    assert r"$\pm$" in (tmp_path / "both/main.tex").read_text()
    assert "and 2 seeds, each by itself" in (tmp_path / "both/main_intervals.md").read_text()
    metrics = json.loads((tmp_path / "both/metrics.json").read_text())
    assert metrics["joint"]["in_distribution"] == pytest.approx(mean, abs=2e-6)


def test_interval_of_a_mean_is_no_wider_than_those_of_its_parts(
    score_files: list[Path], seeds: dict[int, list[Path]], context: EvaluationContext, tmp_path: Path
) -> None:
    alone = [tables_of(paths, context, tmp_path / f"of{seed}")["auc"] for seed, paths in seeds.items()]
    both = tables_of([*seeds[3], *seeds[4]], context, tmp_path / "both")["auc"]
    widths = np.stack([one["auc_high"] - one["auc_low"] for one in alone])
    assert ((both["auc_high"] - both["auc_low"]) <= widths.max(axis=0) + 0.02).all()
    assert ((both["auc_low"] <= both["auc"]) & (both["auc"] <= both["auc_high"])).all()


def test_files_are_sorted_by_seed(score_files: list[Path], seeds: dict[int, list[Path]]) -> None:
    base = score_files[0]
    assert by_seed([base, *seeds[4], *seeds[3]]) == {4: [base, *seeds[4]], 3: [base, *seeds[3]]}
    assert by_seed(score_files) == {None: score_files}


def test_a_model_that_a_seed_lacks_is_named(
    score_files: list[Path], seeds: dict[int, list[Path]], context: EvaluationContext, tmp_path: Path
) -> None:
    paths = [score_files[0], *seeds[3], *(one for one in seeds[4] if one.stem != "weight_averaging")]
    with pytest.raises(R2MError, match="every model with every seed; missing: weight_averaging"):
        tables(scores=paths, context=context, members=MEMBERS, out=tmp_path / "out", **SETTINGS)
    assert not (tmp_path / "out").exists()


def test_rows_are_matched_by_their_keys() -> None:
    first = pd.DataFrame({"name": ["a", "b"], "n": [3, 4], "x": [1.0, 2.0], "text": ["p", "q"]})
    second = pd.DataFrame({"name": ["b", "a"], "n": [5, 3], "x": [4.0, 1.0], "text": ["q", "p"]})
    mean = mean_over_seeds([first, second], ["name"], ["x"])
    assert mean.columns.tolist() == ["name", "n", "x", "x_sd", "text"]
    assert mean["x"].tolist() == [1.0, 3.0]
    assert mean["n"].tolist() == [3, 4]
    np.testing.assert_allclose(mean["x_sd"], [0, np.sqrt(2)])


def rendered(values: list[float], names: tuple[str, ...] = ("a", "b")) -> Table:
    frame = pd.DataFrame({"name": list(names), "level": [0.5, 1.0], "auc": values})
    return Table(frame, {"name": "Name", "level": "Level", "auc": "AUC"}, "Caption.", "x", best=["auc"])


def test_tables_of_experiments_join_over_seeds() -> None:
    table = over_seeds([rendered([0.8, 0.6]), rendered([0.9, 0.6])])
    lines = table.to_markdown().splitlines()
    assert lines[2] == "| a | 0.500 | **0.850** ± 0.071 |"
    assert lines[3] == "| b | 1.000 | <ins>0.600</ins> ± 0.000 |"
    assert "Mean ± standard deviation over 2 seeds" in lines[-1]
    one = rendered([0.8, 0.6])
    assert over_seeds([one]) is one


def test_deviations_have_the_digits_of_their_column_and_one_at_least() -> None:
    runs = [replace(rendered(values), digits={"auc": 0}) for values in ([4.0, 6.0], [6.0, 6.0])]
    assert over_seeds(runs).to_markdown().splitlines()[2] == "| a | 0.500 | <ins>5</ins> ± 1.4 |"


def test_experiments_with_other_rows_do_not_join() -> None:
    with pytest.raises(R2MError, match="table x: expected the same rows with every seed"):
        over_seeds([rendered([0.8, 0.6]), rendered([0.8, 0.6], names=("a", "c"))])
