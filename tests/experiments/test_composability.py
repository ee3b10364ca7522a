"""Generators that arrive one by one: orders, scores, costs, table and figure."""

import math

import numpy as np
import pandas as pd
import pytest
from composability_samples import trained_models
from experiment_context import CONTEXT
from reported import compute, report
from sklearn.metrics import roc_auc_score

from layout import check_layout
from r2m.errors import R2MError
from r2m.evaluate.orders import random_orders, subset_name, subsets
from r2m.evaluate.protocols import EvaluationContext
from r2m.experiments import composability
from r2m.merge import registry
from r2m.merge.variants import MergeVariant
from r2m.models import checkpoint
from r2m.report.figures.style import KIND_COLOURS, METHOD_COLOURS
from r2m.train.rows import rows_of
from r2m.train.validation import aucs

ORDERS = [["up", "swap", "third"], ["up", "third", "swap"]]
GRID = [0.2, 1.0]
VARIANTS = {
    "weight_averaging": MergeVariant(),
    "scaled": MergeVariant(method="task_arithmetic", head="base", tune={"scaling": GRID}),
}
PAIR = "swap-up"


@pytest.fixture(scope="module")
def models(bench_files, tmp_path_factory):
    return trained_models(bench_files, tmp_path_factory.mktemp("trained"), ORDERS)


@pytest.fixture
def found(bench, models):
    trained = {name: composability.read_trained(path, 10.0) for name, path in models.items()}
    return composability.composed(bench, trained, VARIANTS, ORDERS)


def test_orders_are_distinct_and_fixed_by_the_seed():
    names = ["c", "a", "b"]
    drawn = random_orders(names, 4, seed=1)
    assert drawn == random_orders(reversed(names), 4, seed=1)
    assert drawn[:2] == random_orders(names, 2, seed=1)
    assert len({tuple(order) for order in drawn}) == 4
    assert all(sorted(order) == ["a", "b", "c"] for order in drawn)
    assert len(random_orders(names, 100, seed=1)) == math.factorial(3)


def test_orders_share_their_subsets():
    assert subsets(ORDERS) == {
        "up": ["up"],
        "swap-up": ["swap", "up"],
        "third-up": ["third", "up"],
        "swap-third-up": ["swap", "third", "up"],
    }


def test_every_subset_is_scored_once(found, models):
    scores, _ = found
    settings = scores[["subset", "kind", "model"]].drop_duplicates()
    expected = [("up", "specialist", "up")]
    for subset in ("swap-up", "third-up", "swap-third-up"):
        expected += [(subset, "joint", "joint"), *((subset, "merge", name) for name in VARIANTS)]
    assert list(settings.itertuples(index=False, name=None)) == expected
    assert not scores.duplicated(["subset", "kind", "model", "image_id"]).any()


def test_scores_are_those_of_the_models(bench, found, models):
    scores, _ = found

    def logits(subset, kind):
        return scores[(scores["subset"] == subset) & (scores["kind"] == kind)]["logit"].to_numpy()

    for subset, kind in (("up", "specialist"), (PAIR, "joint")):
        tensors, _ = checkpoint.load(models[subset])
        np.testing.assert_allclose(logits(subset, kind), bench.scores(tensors, {})["logit"], atol=1e-6)
    mean = {
        key: bench.base[key] + (bench.task_vectors["swap"][key] + bench.task_vectors["up"][key]) / 2
        for key in bench.base
    }
    expected = bench.scores(mean, bench.only(["swap", "up"]).head())["logit"]
    averaged = scores.query("subset == @PAIR and model == 'weight_averaging'")["logit"]
    np.testing.assert_allclose(averaged, expected, atol=1e-4)


def test_scaling_is_chosen_on_val_of_the_generators_seen(bench, found):
    scores, _ = found
    method = registry.get("task_arithmetic")
    generators = ["swap", "up"]
    fakes, reals = rows_of(bench.inputs, generators, "val")
    means = []
    for scaling in GRID:
        tensors = bench.only(generators).merged(method, method.options(scaling=scaling))
        bench.detector.load_tensors({**tensors, **bench.head("base")})
        found_aucs = aucs(fakes, bench.predict(fakes), reals, bench.predict(reals))
        means.append(np.mean(list(found_aucs.values())))
    best = method.options(scaling=GRID[int(np.argmax(means))])
    expected = bench.scores(bench.only(generators).merged(method, best), bench.head("base"))["logit"]
    chosen = scores.query("subset == @PAIR and model == 'scaled'")["logit"]
    np.testing.assert_allclose(chosen, expected, atol=1e-4)


def test_costs_of_a_step(bench, found):
    _, steps = found
    val = {
        names: sum(len(rows) for rows in rows_of(bench.inputs, list(names), "val"))
        for names in (("swap",), ("up",), ("swap", "up"))
    }
    # Five steps of three pairs; a validation after steps 2, 4 and 5.
    specialist = {name: 5 * 2 * 3 + 3 * val[name,] for name in ("swap", "up")}
    joint = 7 * 2 * 3 + 4 * val["swap", "up"]
    rows = steps.query("order == 0 and k == 2").set_index("model")
    assert rows["arrived"].unique().tolist() == ["swap"]
    assert rows["generators"].unique().tolist() == ["swap up"]
    assert rows["training_images"].to_dict() == {
        "weight_averaging": specialist["swap"],
        "scaled": specialist["swap"],
        "joint": joint,
    }
    assert rows["tuning_images"].tolist() == [0, len(GRID) * val["swap", "up"], 0]
    assert rows["merging_seconds"].gt(0).tolist() == [True, True, False]
    first = steps.query("order == 0 and k == 1")
    assert set(first["training_images"]) == {specialist["up"]}
    assert set(first["tuning_images"]) == set(first["merging_seconds"]) == {0}
    assert set(steps["training_seconds"]) == {10}


def test_again_gives_the_same_scores(bench, found, models):
    trained = {name: composability.read_trained(path) for name, path in models.items()}
    again, steps = composability.composed(bench, trained, VARIANTS, ORDERS)
    pd.testing.assert_frame_equal(again, found[0], check_exact=True)
    assert steps["training_seconds"].isna().all()


LABELLED = {
    **CONTEXT,
    "generators": {
        **CONTEXT["generators"],
        "third": {"family": "FE"},
        "other": {"family": "FS", "role": "unseen"},
    },
}


def drawn_scores(random, subset, kind, model):
    """Scores of eight images of every generator in both splits."""
    return pd.DataFrame(
        [
            {
                **{"subset": subset, "kind": kind, "model": model, "domain": "drawn", "split": split},
                **{"label": int(generator != "real"), "generator": generator},
                "logit": random.normal(generator != "real"),
            }
            for split in ("val", "test")
            for generator in ("real", "swap", "up", "third", "other")
            for _ in range(8)
        ]
    )


def synthetic():
    """Scores of two orders of three generators, and what the steps cost; seconds of one are not known."""
    random = np.random.default_rng(0)
    scores, steps = {}, []
    for number, order in enumerate(ORDERS):
        for k, arrived in enumerate(order, start=1):
            there = {"order": number, "k": k, "arrived": arrived, "subset": subset_name(order[:k])}
            there["generators"] = " ".join(order[:k])
            for kind, model in (("merge", "r2m"), ("joint", "joint")):
                scored = ("specialist", there["subset"]) if k == 1 else (kind, model)
                scores[there["subset"], scored] = drawn_scores(random, there["subset"], *scored)
                images = {"training_images": 100 * k, "tuning_images": 10 * (kind == "merge")}
                training = math.nan if (number, k, kind) == (1, 2, "joint") else 5.0
                seconds = {"training_seconds": training, "merging_seconds": 1.0}
                steps.append({**there, "kind": kind, "model": model, **images, **seconds})
    return pd.concat(scores.values(), ignore_index=True), pd.DataFrame(steps)


@pytest.fixture
def written(tmp_path):
    scores, steps = synthetic()
    scores.to_parquet(tmp_path / "scores.parquet")
    steps.to_csv(tmp_path / "steps.csv", index=False)
    return tmp_path / "scores.parquet", scores, steps


def naive(scores, subset, kind, model, generators):
    """Mean test AUC on some generators, by the definition."""
    part = scores.query("subset == @subset and kind == @kind and model == @model and split == 'test'")
    reals = part[part["label"] == 0]["logit"].tolist()
    aucs = []
    for name in generators:
        fakes = part[part["generator"] == name]["logit"].tolist()
        aucs.append(roc_auc_score([0] * len(reals) + [1] * len(fakes), reals + fakes))
    return sum(aucs) / len(aucs)


def test_table_against_a_naive_computation(written):
    source, scores, _ = written
    frame = composability.table(source, EvaluationContext.model_validate(LABELLED)).frame
    assert frame["k"].tolist() == [1, 1, 2, 2, 3, 3]
    assert frame["method"].tolist() == ["R²M", "Joint retraining"] * 3
    row = frame.query("k == 2 and model == 'r2m'").iloc[0]
    seen = [naive(scores, subset_name(order[:2]), "merge", "r2m", order[:2]) for order in ORDERS]
    come = [naive(scores, subset_name(order[:2]), "merge", "r2m", order[2:]) for order in ORDERS]
    unseen = [naive(scores, subset_name(order[:2]), "merge", "r2m", ["other"]) for order in ORDERS]
    for part, values in (("seen", seen), ("to_come", come), ("unseen", unseen)):
        assert row[part] == pytest.approx(np.mean(values))
        assert row[f"{part}_low"] == pytest.approx(min(values))
        assert row[f"{part}_high"] == pytest.approx(max(values))
    first = frame[frame["k"] == 1]
    assert first["seen"].tolist() == pytest.approx(2 * [naive(scores, "up", "specialist", "up", ["up"])])
    assert frame[frame["k"] == 3]["to_come"].isna().all()
    images = frame.set_index(["k", "model"])["images"]
    assert images[1, "r2m"] == 110
    assert images[3, "r2m"] == 100 + 200 + 300 + 3 * 10
    assert images[3, "joint"] == 600


def test_unknown_seconds_stay_unknown(written):
    source, _, _ = written
    frame = composability.table(source, EvaluationContext.model_validate(LABELLED)).frame
    seconds = frame.set_index(["k", "model"])["seconds"]
    assert seconds[3, "r2m"] == 18
    assert seconds[1, "joint"] == 6
    assert math.isnan(seconds[2, "joint"])
    assert math.isnan(seconds[3, "joint"])


def test_table_needs_the_steps(written):
    source, _, steps = written
    (source.parent / "steps.csv").unlink()
    context = EvaluationContext.model_validate(LABELLED)
    with pytest.raises(R2MError, match=r"steps\.csv: expected the steps of composability"):
        composability.table(source, context)
    steps.drop(columns="kind").to_csv(source.parent / "steps.csv", index=False)
    with pytest.raises(R2MError, match=r"steps\.csv: expected the steps of composability"):
        composability.table(source, context)


def test_run_table_and_figure(bench_files, models, tmp_path):
    benchmark = tmp_path / "up.tsv"
    benchmark.write_text("s\tmax_rss\tcpu_time\n5.0\t10.0\t4.5\n")
    out, steps = tmp_path / "scores.parquet", tmp_path / "steps.csv"
    compute(
        "composability",
        bench_files,
        out,
        inputs={"models": models},
        outputs={"steps": steps},
        benchmarks={name: benchmark if name == "up" else tmp_path / "none.tsv" for name in models},
        orders=ORDERS,
        tuned=VARIANTS,
    )
    seconds = pd.read_csv(steps).set_index(["order", "k", "model"])["training_seconds"]
    assert seconds[0, 1, "joint"] == 4.5
    assert math.isnan(seconds[0, 2, "joint"])
    context = {**CONTEXT, "generators": {name: {"family": "FS"} for name in ("swap", "up")}}
    report("composability", out, tmp_path, context)
    table = pd.read_csv(tmp_path / "table.csv")
    assert len(table) == 3 * (len(VARIANTS) + 1)
    assert table["seen"].between(0, 1).all()


@pytest.mark.parametrize(
    ("order", "without", "message"),
    [
        (["up", "swap"], None, "order up,swap: expected each of swap, third, up once"),
        (["up", "swap", "third"], PAIR, "models: expected one of swap-up as well"),
    ],
)
def test_what_is_incomplete_is_refused(bench_files, models, tmp_path, order, without, message):
    with pytest.raises(R2MError, match=message):
        compute(
            "composability",
            bench_files,
            tmp_path / "scores.parquet",
            inputs={"models": {name: path for name, path in models.items() if name != without}},
            outputs={"steps": tmp_path / "steps.csv"},
            benchmarks={},
            orders=[order],
            tuned={"weight_averaging": MergeVariant()},
        )
    assert not list(tmp_path.iterdir())


def test_other_files_are_no_trained_models(bench_files):
    with pytest.raises(R2MError, match="expected a model of `r2m finetune`"):
        composability.read_trained(bench_files["parts"].task_vectors["up"])


LABELS = {
    "weight_averaging": "Weight averaging",
    "task_arithmetic": "Task arithmetic",
    "ties": "TIES",
    "r2m": "R²M, matrix space",
    "tsv_m": "TSV-M",
}


def drawn_table(count: int, merges: int) -> pd.DataFrame:
    """A table as it is read from CSV: what is missing is empty text."""
    random = np.random.default_rng(0)
    methods = [("merge", name, LABELS[name]) for name in list(LABELS)[:merges]]
    rows = []
    for k in range(1, count + 1):
        for kind, model, method in [*methods, ("joint", "joint", "Joint retraining")]:
            row: dict[str, object] = {"k": k, "kind": kind, "model": model, "method": method}
            for part in composability.PANELS:
                mean = random.uniform(0.6, 0.95)
                missing = part == "to_come" and k == count
                for suffix, value in (("", mean), ("_low", mean - 0.03), ("_high", mean + 0.02)):
                    row[f"{part}{suffix}"] = "" if missing else f"{value:.6f}"
            rows.append({**row, "images": 4600.0 * k * (k + 1 if kind == "joint" else 1), "seconds": ""})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("count", "merges"), [(2, 1), (4, 4), (6, 5), (40, 2)])
def test_layout(count: int, merges: int) -> None:
    check_layout(composability.figure(drawn_table(count, merges), EvaluationContext()))


def test_a_line_for_each_method_and_part() -> None:
    drawn = composability.figure(drawn_table(4, 4), EvaluationContext())
    assert [axes.get_title(loc="left") for axes in drawn.axes] == [
        *composability.PANELS.values(),
        "Images read",
    ]
    for axes in drawn.axes:
        colours = [line.get_color() for line in axes.lines]
        expected = [*(METHOD_COLOURS[name] for name in list(LABELS)[:4]), KIND_COLOURS["joint"]]
        assert sorted(colours) == sorted(expected)
    come = drawn.axes[1].lines[0].get_ydata()
    assert np.isfinite(come).tolist() == [True, True, True, False]


def test_variants_of_one_method_have_marks_of_their_own() -> None:
    rows = drawn_table(3, 4).replace({"model": {"ties": "r2m_task"}})
    lines = composability.figure(rows, EvaluationContext()).axes[0].lines
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 5
    assert [line.get_marker() for line in lines] == ["o", "o", "o", "D", "s"]
