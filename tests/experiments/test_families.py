"""Merges by generator, by family and in two levels, against the same sums written out."""

import numpy as np
import pandas as pd
import pytest
from reported import compute, report

from layout import check_layout, texts
from r2m.errors import R2MError
from r2m.evaluate.experiment_means import set_aucs
from r2m.evaluate.protocols import EvaluationContext
from r2m.evaluate.scores import write
from r2m.experiments import families
from r2m.experiments.families import FamiliesPlan, table
from r2m.merge.heads import merge_heads
from r2m.models import checkpoint
from r2m.options import read_yaml
from r2m.params import parse

SCALINGS = [0.2, 1.0, 3.0]
VARIANTS = {
    "weight_averaging": {},
    "task_arithmetic": {"tune": {"scaling": SCALINGS}},
}
# Two generators of one family, whose specialist is `third`; and a family of one.
PAIR = FamiliesPlan.model_validate(
    {
        "families": {"FS": ["swap", "up"]},
        "specialists": {"FS": "third"},
        "trainings": {
            name: {"steps": n} for name, n in {"swap": 6, "up": 6, "third": 9, "joint": 12}.items()
        },
        "variants": VARIANTS,
    }
)
SINGLE = PAIR.model_copy(
    update={"families": {"FS": ["swap"], "EFS": ["up"]}, "specialists": {"FS": "swap", "EFS": "third"}}
)


def rows(scores, variant, strategy):
    return scores[(scores["variant"] == variant) & (scores["strategy"] == strategy)].reset_index(drop=True)


def scaled_sum(bench, names, scaling):
    return {
        key: scaling * sum(bench.task_vectors[name][key] for name in names)
        for key in bench.task_vectors["swap"]
    }


def val_mean(bench, update, head, context):
    scores = bench.scores(bench.updated(update), head).assign(row=0)
    aucs = set_aucs(scores[scores["split"] == "val"], ["row"], context)
    return aucs["auc"].mean()


def best(bench, names, head, context, factor=1.0):
    """The scaling with the greatest val AUC, the first of equals."""
    means = [val_mean(bench, scaled_sum(bench, names, factor * one), head, context) for one in SCALINGS]
    return SCALINGS[int(np.argmax(means))]


def test_each_strategy_merges_what_it_says(bench, context):
    scores = families.run(bench, [], PAIR)
    pair = bench.only(["swap", "up"]).head()
    inner = best(bench, ["swap", "up"], pair, context)
    outer = best(bench, ["swap", "up"], pair, context, inner)
    expected = {
        ("weight_averaging", "generators"): (scaled_sum(bench, ["swap", "up"], 0.5), pair, ""),
        ("weight_averaging", "families"): (bench.task_vectors["third"], bench.heads["third"], ""),
        ("weight_averaging", "both"): (scaled_sum(bench, ["swap", "up"], 0.5), pair, ""),
        ("task_arithmetic", "generators"): (
            *(scaled_sum(bench, ["swap", "up"], inner), pair),
            f"scaling {inner}",
        ),
        ("task_arithmetic", "both"): (
            *(scaled_sum(bench, ["swap", "up"], inner * outer), pair),
            f"FS: scaling {inner}; across: scaling {outer}",
        ),
    }
    for (variant, strategy), (update, head, tuned) in expected.items():
        found = rows(scores, variant, strategy)
        wanted = bench.scores(bench.updated(update), head)
        assert found["image_id"].tolist() == wanted["image_id"].tolist()
        np.testing.assert_allclose(found["logit"], wanted["logit"], atol=1e-4)
        assert set(found["tuned"]) == {tuned}
    counts = scores.groupby("strategy")[["specialists", "steps"]].first()
    assert counts.T.to_dict("list") == {"generators": [2, 12], "families": [1, 9], "both": [2, 12]}


def test_families_of_one_generator_are_not_merged_first(bench):
    scores = families.run(bench, [], SINGLE)
    for variant in VARIANTS:
        one, two = rows(scores, variant, "generators"), rows(scores, variant, "both")
        assert one["logit"].tolist() == two["logit"].tolist()
    assert rows(scores, "task_arithmetic", "both")["tuned"].str.startswith("across: scaling ").all()
    assert rows(scores, "weight_averaging", "families")["specialists"].eq(2).all()


def test_a_joint_model_is_scored_as_it_is(bench, tmp_path):
    joint = {**bench.updated(bench.task_vectors["up"]), **merge_heads(bench.heads, "specialist:swap")}
    checkpoint.save(tmp_path / "joint.safetensors", joint, {})
    plan = PAIR.model_copy(update={"variants": {}})
    scores = families.run(bench, [], plan, tmp_path / "joint.safetensors")
    wanted = bench.scores(bench.updated(bench.task_vectors["up"]), bench.heads["swap"])
    assert scores["logit"].tolist() == wanted["logit"].tolist()
    assert scores[["variant", "strategy", "specialists", "steps"]].drop_duplicates().values.tolist() == [
        ["joint", "joint", 1, 12]
    ]


def test_the_table_counts_what_was_trained_on_as_in_distribution(bench, context, tmp_path):
    path = tmp_path / "scores.parquet"
    scores = families.run(bench, [], PAIR)
    one, all_ = tmp_path / "one.parquet", path
    write(scores, {"experiment": "families", "trained": "swap"}, one)
    write(scores, {"experiment": "families", "trained": "swap,up"}, all_)
    assert "unseen_generator" in table(one, context).frame
    whole = table(all_, context).frame
    assert "unseen_generator" not in whole
    aucs = set_aucs(scores, ["variant", "strategy"], context)
    first = aucs[(aucs["variant"] == "weight_averaging") & (aucs["strategy"] == "generators")]
    drawn = first[(first["split"] == "test") & (first["domain"] == "drawn")]["auc"].mean()
    assert whole.loc[0, "in_distribution"] == pytest.approx(drawn)
    assert whole["merge"].tolist() == ["Averaging"] * 3 + ["task_arithmetic"] * 3
    scores.to_parquet(path)
    with pytest.raises(R2MError, match="expected the scores of the experiment families"):
        table(path, context)


def test_run_table_and_figure(bench_files, bench, tmp_path):
    joint, out = tmp_path / "joint.safetensors", tmp_path / "scores.parquet"
    checkpoint.save(joint, {**bench.updated(bench.task_vectors["up"]), **bench.heads["up"]}, {})
    compute("families", bench_files, out, inputs={"joint": joint}, plan=PAIR)
    report("families", out, tmp_path)
    found = pd.read_csv(tmp_path / "table.csv")
    assert found["merge"].tolist()[-1] == "Joint training"
    assert found["steps"].tolist() == [12, 9, 12, 12, 9, 12, 12]


def test_specialists_of_the_main_run_are_used_again(request):
    config = read_yaml(request.config.rootpath / "params/classical.yaml")
    experiment = {"enabled": True, "generators": ["poisson", "tps", "ae", "attr"]}

    def read(**changes):
        params = parse(config | {"experiments": {"families": experiment}} | changes)
        return params, params.experiments.of("families")

    made = read()
    assert families.family_generators(*made) == {
        "FS": ["swap", "poisson"],
        "FR": ["lip", "tps"],
        "EFS": ["up", "ae"],
        "FE": ["inp", "attr"],
    }
    assert families.reused(*made) == {name: name for name in ("swap", "lip", "up", "inp")}
    assert set(families.family_members(*made)) - set(families.reused(*made)) == {
        *("poisson", "tps", "ae", "attr"),
        *("FS", "FR", "EFS", "FE"),
    }
    experiment["generators"] = ["poisson"]
    assert set(families.family_members(*read())) == {"swap", "lip", "up", "inp", "poisson", "FS"}
    # A family of one generator has that one's specialist, whatever its name.
    by_family = read(specialists={"per": "family"})
    assert families.reused(*by_family) == {"swap": "FS", "lip": "FR", "up": "EFS", "inp": "FE"}
    experiment["steps_factor"] = 2
    assert families.finetune_options(*read(), "FS").steps == 240
    assert families.finetune_options(*read(), "poisson").steps == 120


@pytest.mark.parametrize("merges", [["R²M"], ["Weight averaging", "A merge with quite a long name", "R²M"]])
def test_families_layout(merges: list[str]) -> None:
    training = ["a specialist a generator", "a specialist a family", "within families, then across"]
    rows = [
        {
            "merge": merge,
            "training": one,
            "specialists": 40,
            "val_auc": 0.8 + place / 50,
            "cross_dataset": 0.7,
        }
        for merge in merges
        for place, one in enumerate(training)
    ]
    figure = families.figure(pd.DataFrame(rows), EvaluationContext())
    check_layout(figure)
    shown = [text.get_text() for text in texts(figure)]
    assert shown.count("a specialist a family (40)") == len(merges)
    assert shown.count("0.820") == len(merges)
