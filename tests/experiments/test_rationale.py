"""Shifts of features by the parts of R²M on the small ViT, their summary, and the command."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reported import chosen_file, compute, report
from sklearn.metrics import roc_auc_score

from layout import check_layout
from r2m.errors import R2MError
from r2m.evaluate.protocols import EvaluationContext, read_table
from r2m.evaluate.shifts import COLUMNS, MEASURED, measure, separation, summary
from r2m.experiments import rationale
from r2m.merge import merging
from r2m.merge.options import R2M
from r2m.merge.passes import parts


def test_shifts_are_those_of_merged_features(bench, chosen):
    found = rationale.run(bench, [chosen], "drawn", ["swap", "up"])
    rows = bench.inputs.select(split="test", domain="drawn")
    method = chosen.method
    absolute = chosen.options.model_dump(exclude_none=True) | {"scale": {"absolute": 0.0}}
    whole, _ = merging.merge(method, bench.task_vectors, chosen.options)
    core, _ = merging.merge(method, bench.task_vectors, R2M.model_validate(absolute))
    alone = {key: whole[key] - core[key] for key in whole}
    x0, xc, x, xr = (
        bench.features(bench.updated(update), rows).astype(float) for update in ({}, core, whole, alone)
    )
    # A residual alone, at the factor that it has in the mean of all.
    found_parts = parts(bench.task_vectors, chosen.options)
    single = {
        name: bench.features(
            bench.updated({key: core[key] + found_parts.residual(name)[key] for key in core}), rows
        ).astype(float)
        - xc
        for name in bench.task_vectors
    }
    val = bench.inputs.select(split="val", domain="drawn")
    y = bench.features(bench.updated(whole), val)
    means = {name: y[(val["generator"] == name).to_numpy()].mean(0) for name in ("real", "swap", "up")}
    d = (means["swap"] + means["up"]) / 2 - means["real"]
    d = d / np.linalg.norm(d)
    expected = {
        "base": (x0, None),
        "core": (xc - x0, None),
        "residual": (x - xc, sum(single.values())),
        **{f"residual:{name}": (shift, None) for name, shift in single.items()},
        "core + residual": (x - x0, (xc - x0) + (xr - x0)),
    }
    for part, (shift, total) in expected.items():
        one = found[found["part"] == part]
        assert one["image_id"].tolist() == rows["image_id"].tolist()
        np.testing.assert_allclose(one["along"], shift @ d, atol=1e-3)
        if part != "base":
            np.testing.assert_allclose(one["square"], (shift**2).sum(1), rtol=1e-2)
        if total is not None:
            np.testing.assert_allclose(one["dot"], (shift * total).sum(1), rtol=1e-2)
            np.testing.assert_allclose(one["sum_square"], (total**2).sum(1), rtol=1e-2)
    assert set(found["part"]) == set(expected)
    without = [part for part, (_, total) in expected.items() if total is None]
    assert found.loc[found["part"].isin(without), "dot"].isna().all()
    assert (found["width"] == x.shape[1]).all()


def test_separation_weighs_generators_alike():
    features = np.array([[0.0, 0], [0, 0], [2, 0], [2, 0], [2, 0], [0, 4]])
    generator = ["real", "real", "a", "a", "a", "b"]
    np.testing.assert_allclose(separation(features, generator), np.array([1, 2]) / np.sqrt(5))
    with pytest.raises(R2MError, match="the same mean"):
        separation(np.ones((2, 3)), ["real", "a"])


def test_measures_of_a_linear_sum_have_no_error():
    shift = np.random.default_rng(0).normal(size=(5, 3))
    found = measure(shift, np.array([0.0, 1, 0]), shift)
    assert found["along"].tolist() == shift[:, 1].tolist()
    np.testing.assert_allclose(found["square"], found["dot"])
    assert measure(shift, np.array([0.0, 1, 0]))["dot"].isna().all()


def made_shifts():
    random = np.random.default_rng(0)
    rows = []
    for part in ("base", "core", "residual", "core + residual", "residual:swap"):
        for generator in ("real", "swap", "up", "new"):
            for person in range(6):
                square = np.nan if part == "base" else random.uniform(4, 9)
                sums = random.uniform(2, 4, 2) if part in ("residual", "core + residual") else [np.nan] * 2
                rows.append(
                    [
                        *("r2m", part, f"{generator}/{person}", generator, f"p{person}", 64),
                        *(random.normal(), square, *sums),
                    ]
                )
    keys = ["variant", "part", "image_id", "generator", "identity", "width"]
    return pd.DataFrame(rows, columns=[*keys, *MEASURED])


def test_summary(context, tmp_path):
    made = made_shifts()
    frame = summary(made, context).set_index(["part", "images"])
    assert frame.loc["residual:swap"].index.tolist() == ["real", "own", "foreign", "unseen"]
    assert frame.loc["core"].index.tolist() == ["real", "trained", "unseen"]
    part = made[made["part"] == "core + residual"]
    fakes, reals = part[part["generator"].isin(["swap", "up"])], part[part["generator"] == "real"]
    row = frame.loc[("core + residual", "trained")]
    share = (fakes["along"] ** 2).sum() / fakes["square"].sum()
    assert row["share"] == pytest.approx(share)
    replicates = [
        (one["along"] ** 2).sum() / one["square"].sum()
        for one in (fakes[fakes["identity"] != f"p{person}"] for person in range(6))
    ]
    error = np.sqrt(5 / 6 * np.sum((np.array(replicates) - np.mean(replicates)) ** 2))
    assert row["share_high"] - row["share_low"] == pytest.approx(2 * 1.959964 * error)
    assert row["size"] == pytest.approx(np.sqrt(fakes["square"].mean()))
    assert row["separation"] == pytest.approx(fakes["along"].mean() - reals["along"].mean())
    apart = fakes["square"] + fakes["sum_square"] - 2 * fakes["dot"]
    assert row["error"] == pytest.approx(np.sqrt(apart.sum() / fakes["square"].sum()))
    cosine = fakes["dot"] / np.sqrt(fakes["square"] * fakes["sum_square"])
    assert row["cosine"] == pytest.approx(cosine.mean())
    base = made[made["part"] == "base"].set_index("image_id")["along"]
    placed = part.set_index("image_id")["along"] + base
    aucs = []
    for name in ("swap", "up"):
        chosen = placed[[f"real/{i}" for i in range(6)] + [f"{name}/{i}" for i in range(6)]]
        aucs.append(roc_auc_score(np.repeat([0, 1], 6), chosen))
    assert row["auc"] == pytest.approx(np.mean(aucs))
    assert frame.loc[("base", "trained"), ["share", "size", "error"]].isna().all()
    path = tmp_path / "scores.parquet"
    made.to_parquet(path)
    table = rationale.table(path, context)
    assert "0.0156 would lie along a random direction" in table.caption
    assert "| residual of swap | Fake, own |" in table.to_markdown()
    made.iloc[:0].to_parquet(path)
    with pytest.raises(R2MError, match="expected one row per image and part, got none"):
        rationale.table(path, context)
    pd.DataFrame({"part": ["core"]}).to_parquet(path)
    with pytest.raises(R2MError, match=r"scores\.parquet: expected shifts with the columns variant, part"):
        rationale.table(path, context)


def test_a_part_of_zeros_has_no_share(context):
    made = made_shifts()
    made.loc[made["part"] == "core", ["along", "square"]] = 0.0
    frame = summary(made, context).set_index(["part", "images"])
    assert frame.loc[("core", "real"), "size"] == 0
    assert np.isnan(frame.loc[("core", "real"), "share"])


def test_run_table_and_figure(bench_files, chosen, tmp_path):
    out = tmp_path / "scores.parquet"
    chosen_files = [chosen_file(tmp_path, chosen)]
    values = {"domain": "drawn", "generators": ["swap", "up"]}
    compute("rationale", bench_files, out, chosen=chosen_files, **values)
    report("rationale", out, tmp_path)
    assert pd.read_csv(tmp_path / "table.csv")["share"].dropna().between(0, 1).all()


def written(rows: list[dict[str, object]], folder: Path) -> pd.DataFrame:
    """Return the rows as the figure gets them, empty cells as text."""
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return read_table(folder / "table.csv")


@pytest.mark.parametrize("merges", [["R²M"], ["R²M, matrix space", "A merge with quite a long name"]])
def test_rationale_layout(merges: list[str], tmp_path: Path) -> None:
    parts = {
        "base": "none (base)",
        "core": "core",
        "residual": "residual",
        "residual:up": "residual of Upsampler",
    }
    rows: list[dict[str, object]] = [
        {"merge": merge, "part": part, "shift": shift, "images": kind, **dict.fromkeys(COLUMNS, 0.2)}
        for merge in merges
        for part, shift in parts.items()
        for kind in ("real", *(("own", "foreign") if ":" in part else ("trained",)), "unseen")
    ]
    for row in rows:
        if row["part"] != "residual":
            row["error"] = None
    figure = rationale.figure(written(rows, tmp_path), EvaluationContext())
    check_layout(figure)
    assert not any("base" in text.get_text() for text in figure.axes[0].texts)
