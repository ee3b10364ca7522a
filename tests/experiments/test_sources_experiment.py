"""Two sources of reals: spectrum, settings, and intervals over people."""

import numpy as np
import pandas as pd
import pytest
import torch
from reported import compute, report
from sklearn.metrics import roc_auc_score

from layout import check_layout, texts
from r2m.errors import R2MError
from r2m.evaluate.protocols import EvaluationContext
from r2m.evaluate.spectrum import eigenvalue_shares, mean_cosine
from r2m.experiments import sources
from r2m.experiments.sources import SourcesPlan
from r2m.merge import merging, registry

PLAN = SourcesPlan.model_validate(
    {
        "domain": "sketch",
        "generators": ["swap", "up"],
        "variants": {
            "weight_averaging": {},
            "r2m": {"real": {"space": "task"}, "tune": {"scale.relative": [0.5, 2.0]}},
        },
        "cores": {"r2m": {"real.rank": [1, 2]}},
    }
)


@pytest.fixture
def two(bench):
    generator = torch.Generator().manual_seed(9)
    return {
        "task_vectors": {
            name: {key: one + 0.02 * torch.randn(one.shape, generator=generator) for key, one in tau.items()}
            for name, tau in bench.task_vectors.items()
        },
        "heads": bench.heads,
    }


def flat(task_vectors):
    return np.stack(
        [np.concatenate([tau[key].double().numpy().ravel() for key in sorted(tau)]) for tau in task_vectors]
    )


def test_shares_and_cosine_are_those_of_stacked_vectors(bench, two):
    one, other = flat(bench.task_vectors.values()), flat(two["task_vectors"].values())
    squares = np.linalg.svd(one, compute_uv=False) ** 2
    np.testing.assert_allclose(eigenvalue_shares(bench.task_vectors), squares / squares.sum(), atol=1e-9)
    a, b = one.mean(0), other.mean(0)
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert mean_cosine(bench.task_vectors, two["task_vectors"]) == pytest.approx(cosine, abs=1e-6)


def test_shares_and_cosine_at_the_edge():
    same = {"w": torch.ones(2, 3)}
    np.testing.assert_allclose(eigenvalue_shares({"a": same, "b": same}), [1, 0], atol=1e-12)
    np.testing.assert_allclose(eigenvalue_shares({"a": same}), [1, 0])
    np.testing.assert_allclose(eigenvalue_shares({"a": {"w": torch.zeros(2)}}), [0, 0])
    other = {"v": torch.ones(2)}
    assert mean_cosine({"a": same}, {"a": other}) == 0
    assert np.isnan(mean_cosine({"a": same}, {"a": {"w": torch.zeros(2, 3)}}))


def test_every_setting_is_merged_with_its_core(bench, two):
    scores = sources.source_scores(bench, two, PLAN)
    settings = list(dict.fromkeys(map(tuple, scores[sources.BY].to_numpy())))
    assert settings == [
        *(("weight_averaging", training, "") for training in ("A", "A+B")),
        *(("r2m", training, core) for training in ("A", "A+B") for core in ("rank 1", "rank 2")),
    ]
    method = registry.get("r2m")
    head = bench.head("average")
    for training, task_vectors in (("A", bench.task_vectors), ("A+B", two["task_vectors"])):
        found = scores[(scores["training"] == training) & (scores["core"] == "rank 2")]
        relative = float(found["tuned"].iloc[0].removeprefix("relative "))
        options = method.options.model_validate({"real": {"rank": 2}, "scale": {"relative": relative}})
        update, _ = merging.merge(method, task_vectors, options)
        expected = bench.scores(bench.updated(update), head)
        np.testing.assert_allclose(found["logit"], expected["logit"], atol=1e-3)
        shares = eigenvalue_shares(task_vectors)[:2]
        np.testing.assert_allclose(found[["first_share", "second_share"]].iloc[0].tolist(), shares)
    assert scores.loc[scores["training"] == "A", "mean_cosine"].to_numpy() == pytest.approx(1)


def synthetic(people=6, seed=0):
    """Two trainings with two cores each on reals and fakes of some people of the domain sketch."""
    random = np.random.default_rng(seed)
    rows = [
        {
            **{"variant": "r2m", "training": training, "core": core, "domain": "sketch", "split": "test"},
            **{"label": label, "generator": generator, "identity": f"p{person}", "video": None},
            "image_id": f"{generator}/{person}/{image}",
            "logit": random.normal(loc=label * (1 + (core == "rank 2"))),
        }
        for training in ("A", "A+B")
        for core in ("rank 1", "rank 2")
        for label, generator in ((0, "real"), (1, "swap"), (1, "up"))
        for person in range(people)
        for image in range(2)
    ]
    return pd.DataFrame(rows)


def naive_means(scores, drawn):
    """Mean AUC over generators of every setting, with people repeated as they were drawn."""
    means = []
    for _, part in scores.groupby(sources.BY, sort=False):
        resampled = pd.concat([part[part["identity"] == f"p{person}"] for person in drawn])
        aucs = [
            roc_auc_score(pair["label"], pair["logit"])
            for name in ("swap", "up")
            for pair in [resampled[resampled["generator"].isin(["real", name])]]
        ]
        means.append(np.mean(aucs))
    return np.array(means)


def test_intervals_over_people_are_those_of_repeated_rows(context):
    people, resamples = 6, 100
    scores = synthetic(people)
    found = sources.second_intervals(scores, "sketch", context, resamples, seed=0)
    whole = naive_means(scores, range(people))
    np.testing.assert_allclose(found["b"], whole)
    from r2m.evaluate.bootstrap import resample

    counts = np.concatenate(list(resample(["sketch"] * people, resamples, 0)))
    drawn = np.array([naive_means(scores, np.repeat(np.arange(people), one)) for one in counts])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    np.testing.assert_allclose(found["b_low"], np.minimum(low, whole))
    np.testing.assert_allclose(found["b_high"], np.maximum(high, whole))
    # Settings stand as (A, 1), (A, 2), (A+B, 1), (A+B, 2).
    gain = drawn[:, 3] - drawn[:, 2]
    assert found.loc[3, "core_gain"] == pytest.approx(whole[3] - whole[2])
    assert found.loc[3, "core_gain_low"] == pytest.approx(min(np.quantile(gain, 0.025), whole[3] - whole[2]))
    assert found.loc[3, "source_gain"] == pytest.approx(whole[3] - whole[1])
    assert found["core_gain"].isna().tolist() == [True, False, True, False]
    assert found["source_gain"].isna().tolist() == [True, True, False, False]


def test_run_table_and_figure(bench_files, tmp_path, context):
    out = tmp_path / "scores.parquet"
    inputs = {"two": bench_files["parts"]}
    compute("sources", bench_files, out, inputs=inputs, plan=PLAN, resamples=100, seed=0)
    report("sources", out, tmp_path)
    found = pd.read_csv(tmp_path / "table.csv", keep_default_na=False)
    one, both = "drawn", "drawn and sketch"
    assert found["reals"].tolist() == [one, both, one, one, both, both]
    assert found["core"].tolist() == ["", "", "rank 1", "rank 2", "rank 1", "rank 2"]
    # The same specialists in both groups: nothing changes.
    changes = pd.to_numeric(found.loc[found["training"] == "A+B", "source_gain"])
    assert changes.tolist() == [0, 0, 0]
    assert "3 reals of 3 people" in (tmp_path / "table.md").read_text()
    pd.read_parquet(out).to_parquet(out)
    with pytest.raises(R2MError, match="expected the scores of the experiment sources"):
        sources.table(out, context)


def test_sources_layout_and_intervals() -> None:
    rows = [
        {
            **{"merge": "R²M, task space", "training": training, "reals": reals, "core": core},
            **{"val_auc": 0.9, "in_distribution": 0.88, "b": 0.6, "b_low": 0.4, "b_high": 0.75},
            **{"first_share": 0.5, "second_share": 0.25},
        }
        for training, reals in (("A", "CelebA"), ("A+B", "CelebA and ORL"))
        for core in ("rank 1", "rank 2")
    ]
    figure = sources.figure(pd.DataFrame(rows), EvaluationContext())
    check_layout(figure)
    assert "CelebA and ORL, rank 2" in [text.get_text() for text in texts(figure)]
    low, high = figure.axes[0].get_xlim()
    assert low < 0.4
    assert high > 0.9
    spans = [line for one in figure.axes[0].collections for line in one.get_segments()]
    assert [line[:, 0].tolist() for line in spans] == [[0.4, 0.75]] * 4
