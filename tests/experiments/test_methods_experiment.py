"""All merges for two numbers of specialists, against the same sums; the plan, the table and the figure."""

import copy

import numpy as np
import pandas as pd
import pytest
from reported import compute, report
from sklearn.metrics import roc_auc_score

from layout import check_layout, texts
from r2m.errors import R2MError
from r2m.evaluate.experiment_means import set_aucs
from r2m.evaluate.protocols import KEPT, EvaluationContext
from r2m.experiments import methods, registry, stages
from r2m.experiments.methods import ENSEMBLE, JOINT, MethodsPlan
from r2m.models import checkpoint
from r2m.options import read_yaml
from r2m.params import parse
from r2m.train.deciding import platt
from r2m.workflow import Workflow

SCALINGS = [0.2, 1.0, 3.0]
SEVERAL = [["swap"], ["swap", "up"]]
PLAN = MethodsPlan.model_validate(
    {
        "generators": SEVERAL,
        "variants": {
            "weight_averaging": {},
            "wide": {"method": "task_arithmetic", "tune": {"scaling": SCALINGS}},
            "r2m": {"real": {"space": "matrix"}},
        },
    }
)
NONE = PLAN.model_copy(update={"variants": {}})
LABELS = {"weight_averaging": "Averaging", "wide": "A wide one", "r2m": "R²M"}
NOTES = {"experiment": "methods", "reference": "r2m", "trained": "swap swap,up"}
CONTEXT = {
    "generators": {"swap": {"family": "FS"}, "up": {"family": "EFS", "role": "unseen"}},
    "domains": {"drawn": {"role": "train"}, "sketch": {"role": "test"}},
    "resamples": 50,
}


def rows(scores, variant, number):
    return scores[(scores["variant"] == variant) & (scores["specialists"] == number)].reset_index(drop=True)


def scaled_sum(bench, names, scaling):
    return {
        key: scaling * sum(bench.task_vectors[name][key] for name in names)
        for key in bench.task_vectors["swap"]
    }


def val_mean(bench, names, scaling, context):
    """Mean AUC on the val images of the generators `names`."""
    head = bench.only(names).head()
    scores = bench.scores(bench.updated(scaled_sum(bench, names, scaling)), head).assign(row=0)
    aucs = set_aucs(scores[scores["split"] == "val"], ["row"], context)
    return aucs.loc[aucs["generator"].isin(names), "auc"].mean()


def test_each_number_of_specialists_is_tuned_and_merged_by_itself(bench, context):
    scores = methods.run(bench, [], plan=PLAN)
    assert scores.columns.tolist() == [*methods.SETTING, *KEPT, "logit"]
    assert scores["variant"].unique().tolist() == list(PLAN.variants)
    for names in SEVERAL:
        best = max(SCALINGS, key=lambda scaling: val_mean(bench, names, scaling, context))
        for variant, scaling, tuned in (
            ("weight_averaging", 1 / len(names), ""),
            ("wide", best, f"scaling {best}"),
        ):
            wanted = bench.scores(bench.updated(scaled_sum(bench, names, scaling)), bench.only(names).head())
            found = rows(scores, variant, len(names))
            assert found["image_id"].tolist() == wanted["image_id"].tolist()
            np.testing.assert_allclose(found["logit"], wanted["logit"], atol=1e-4)
            assert set(found["tuned"]) == {tuned}
    assert scores.groupby("variant")["method"].first().to_dict() == {
        **{"weight_averaging": "weight_averaging", "wide": "task_arithmetic", "r2m": "r2m"}
    }
    assert scores["cpu_seconds"].gt(0).all()
    assert scores.groupby(["variant", "specialists"])["cpu_seconds"].nunique().eq(1).all()


@pytest.fixture
def joint(bench, tmp_path):
    """A trained model for each number of specialists."""
    paths = []
    for name in ("up", "third"):
        paths.append(tmp_path / f"{name}.safetensors")
        tensors = {**bench.updated(bench.task_vectors[name]), **bench.heads[name]}
        checkpoint.save(paths[-1], tensors, {})
    return paths


def test_joint_training_and_the_ensemble_stand_beside_the_merges(bench, joint):
    scores = methods.run(bench, [], plan=NONE, joint=joint)
    assert scores["variant"].unique().tolist() == [JOINT, ENSEMBLE]
    assert scores["cpu_seconds"].isna().all()
    alone = {}
    for name in ("swap", "up", "third"):
        own = bench.scores(bench.updated(bench.task_vectors[name]), bench.heads[name])
        alone[name] = own.assign(logit=own["logit"].astype(float))
    for number, name in ((1, "up"), (2, "third")):
        assert rows(scores, JOINT, number)["logit"].tolist() == alone[name]["logit"].tolist()
    scaled = []
    for name in ("swap", "up"):
        val = alone[name][alone[name]["split"] == "val"]
        real, fake = val[val["generator"] == "real"], val[val["generator"] == name]
        slope, offset = platt([(real["logit"].to_numpy(), fake["logit"].to_numpy())])
        scaled.append(slope * alone[name]["logit"] + offset)
    np.testing.assert_allclose(rows(scores, ENSEMBLE, 1)["logit"], scaled[0])
    np.testing.assert_allclose(rows(scores, ENSEMBLE, 2)["logit"], (scaled[0] + scaled[1]) / 2)


def test_run_table_and_figure(bench_files, joint, tmp_path):
    parts = []
    for name, own, models in (("merges", PLAN, []), ("references", NONE, joint)):
        parts.append(tmp_path / f"{name}.parquet")
        compute("methods", bench_files, parts[-1], inputs={"joint": models}, plan=own)
    out = tmp_path / "scores.parquet"
    methods.gather(parts=parts, labels=LABELS, notes=NOTES, scores=out)
    report("methods", out, tmp_path, CONTEXT)
    found = pd.read_csv(tmp_path / "table.csv")
    names = ["Averaging", "A wide one", "R²M", "Joint training", "Ensemble of the specialists"]
    assert found["merge"].tolist() == 2 * names
    assert found["specialists"].tolist() == [1] * 5 + [2] * 5
    assert found["part"].unique().tolist() == [
        *("1 specialists", "1 specialists, for reference"),
        *("2 specialists", "2 specialists, for reference"),
    ]
    # Of two specialists, both generators are trained on.
    assert found["unseen_generator"].isna().tolist() == [False] * 5 + [True] * 5
    scores = pd.read_parquet(out)
    test = rows(scores[scores["split"] == "test"], "wide", 2)
    drawn = test[test["domain"] == "drawn"]
    mean = np.mean(
        [
            roc_auc_score(pair["label"], pair["logit"])
            for name in ("swap", "up")
            for pair in [drawn[drawn["generator"].isin(["real", name])]]
        ]
    )
    assert found.loc[6, "in_distribution"] == pytest.approx(mean, abs=1e-6)
    assert (found["in_distribution_low"] <= found["in_distribution"]).all()
    assert (found["in_distribution"] <= found["in_distribution_high"]).all()
    gain = found.loc[6, "in_distribution"] - found.loc[7, "in_distribution"]
    assert found.loc[6, "in_distribution_gain"] == pytest.approx(gain, abs=2e-6)
    assert found["better"].isna().tolist() == 2 * [False, False, True, False, False]
    text = (tmp_path / "table.md").read_text()
    assert "| *2 specialists, for reference* |" in text
    assert "that of R²M by DeLong's" in text
    with pytest.raises(R2MError, match="expected the scores of the experiment methods"):
        methods.table(parts[0], EvaluationContext.model_validate(CONTEXT))


def synthetic(strengths, seed=0, people=40):
    """Scores of merges on two generators; `strengths` holds variant → how far fakes are from reals."""
    rng = np.random.default_rng(seed)
    units = [
        {
            **{"image_id": f"{split}/{generator}{person}", "set": generator, "domain": "drawn"},
            **{"split": split, "label": label, "generator": generator, "identity": f"p{split}{person}"},
            "video": None,
        }
        for split in ("val", "test")
        for label, generator in ((0, "real"), (1, "swap"), (1, "up"))
        for person in range(people)
    ]
    frame = pd.DataFrame(units)
    noise = rng.normal(size=len(frame))
    parts = [
        frame.assign(
            **{"variant": name, "method": name, "merge": name.upper(), "specialists": 2, "tuned": ""},
            **{"cpu_seconds": rng.uniform(), "logit": noise + strength * frame["label"]},
        )
        for name, strength in strengths.items()
    ]
    return pd.concat(parts, ignore_index=True)


def test_better_and_worse_count_test_sets(tmp_path):
    scores = synthetic({"r2m": 1.5, "good": 4.0, "bad": 0.2, "alike": 1.5})
    context = EvaluationContext.model_validate(CONTEXT)
    found = methods.of_number(scores, ["swap", "up"], "r2m", context, tmp_path).set_index("variant")
    assert found["test_sets"].unique().tolist() == [2]
    assert found["better"].tolist()[1:] == [2, 0, 0]
    assert found["worse"].tolist()[1:] == [0, 2, 0]
    assert found.loc["good", "in_distribution_gain_low"] > 0 > found.loc["bad", "in_distribution_gain_high"]
    assert found.loc["alike", "in_distribution_gain"] == 0
    assert np.isnan(found.loc["r2m", "in_distribution_gain"])


def test_several_trainings_give_means_and_deviations(tmp_path):
    from r2m.evaluate.scores import write

    context = EvaluationContext.model_validate(CONTEXT)
    notes = {"experiment": "methods", "reference": "r2m", "trained": "swap,up"}
    sources = []
    for seed in range(2):
        sources.append(tmp_path / f"{seed}.parquet")
        write(synthetic({"r2m": 1.5, "good": 4.0, JOINT: 3.0}, seed), notes, sources[-1])
    stages.table(experiment="methods", sources=sources, context=context, out=tmp_path / "table")
    found = pd.read_csv(tmp_path / "table.csv")
    each = [methods.table(source, context).frame for source in sources]
    for name in ("in_distribution", "in_distribution_low", "cpu_seconds", "better"):
        both = np.array([frame[name] for frame in each])
        np.testing.assert_allclose(found[name], both.mean(0), atol=1e-6)
    assert found.loc[1, "in_distribution_sd"] > 0
    text = (tmp_path / "table.md").read_text()
    assert " ± " in text
    assert "over 2 seeds of training" in text


# The plan


@pytest.fixture
def config(request, tmp_path, monkeypatch):
    (tmp_path / "weights.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    config = read_yaml(request.config.rootpath / "tests/workflow/tiny.yaml")
    tuned = {"drop": [0.2, 0.5], "scaling": [0.2, 0.4]}
    config["merge"]["methods"]["dare"] = {"enabled": False, "tune": tuned}
    return changed(config, variants=["weight_averaging", "dare", "r2m"])


def changed(config, **options):
    config = copy.deepcopy(config)
    config["experiments"]["methods"].update(options)
    return config


def instances(run, stage):
    return [tuple(one.values()) for one in run.experiments[stage].instances]


def test_what_the_run_has_trained_is_used_again(config):
    run = Workflow(parse(config))
    assert run.plan.seeds == ["0"]
    assert set(instances(run, "methods_finetune")) == {
        *(("inp", "0"), ("inp", "1"), ("swap", "1"), ("up", "1"))
    }
    assert instances(run, "methods_task_vector") == instances(run, "methods_finetune")
    assert set(instances(run, "methods_joint")) == {("2", "1"), ("3", "0"), ("3", "1")}
    job = run.experiments["methods_merge"].job(variant="dare", seed="0")
    read = set(job.reads)
    own = "results/experiments/methods/specialists"
    assert {
        "results/specialists/up/seed0/task_vector.safetensors",
        f"{own}/inp/seed0/head.safetensors",
    } <= read
    other = set(run.experiments["methods_merge"].job(variant="dare", seed="1").reads)
    assert f"{own}/up/seed1/task_vector.safetensors" in other
    assert job.modules[1:] == ["r2m.merge.methods.dare"], "which is switched off in the run"
    models = run.experiments["methods_references"].job(seed="0").inputs["inputs"]["joint"]
    assert list(map(str, models)) == [
        "results/joint/seed0/model.safetensors",
        "results/experiments/methods/joint/3/seed0/model.safetensors",
    ]
    # The training is that of the main run but for its seed and its files.
    main = run.main["finetune"].job(specialist="up", seed="0").record
    again = run.experiments["methods_finetune"].job(generator="up", seed="1").record
    same = set(main) - {"seed", "model", "history", "state"}
    assert {key: main[key] for key in same} == {key: again[key] for key in same}
    assert run.experiments["table_methods"].job().inputs["sources"] == [
        run.experiments["methods"].paths(seed=seed)["scores"] for seed in ("0", "1")
    ]


def test_without_more_generators_or_seeds_nothing_is_trained(config):
    run = Workflow(parse(changed(config, generators=[], seeds=[])))
    for stage in ("methods_finetune", "methods_task_vector", "methods_joint"):
        assert instances(run, stage) == []
    assert instances(run, "families_forge") == [("inp",)], "those of the other experiment stay"
    assert instances(run, "methods") == [("0",)]


def test_specialists_of_families_are_trained_by_generator(config):
    config["generators"]["inp"]["role"] = "train"
    config["specialists"] = {"per": "family"}
    config["experiments"] = {"methods": config["experiments"]["methods"] | {"generators": []}}
    run = Workflow(parse(config))
    assert run.plan.members == {"FS": ["swap"], "EFS": ["up", "inp"]}
    own = {("swap", "1"), *((name, seed) for name in ("up", "inp") for seed in ("0", "1"))}
    assert set(instances(run, "methods_finetune")) == own
    read = run.experiments["methods_merge"].job(variant="r2m", seed="0").reads
    assert "results/specialists/FS/seed0/head.safetensors" in read


def test_fakes_are_made_once_for_two_experiments(config):
    params = parse(config)
    plan = Workflow(params).plan
    shared = {"families_forge": "inp", "families_trunk": "inp"}
    made = {}
    for name in ("families", "methods"):
        own = registry.get(name).stages(plan, params.experiments.of(name))
        made[name] = {stage.name: stage for stage in own if stage.name in shared}
        assert made[name].keys() == shared.keys()
    for stage, one in made["families"].items():
        other = made["methods"][stage]
        assert (one.instances, one.outputs, one.place) == (other.instances, other.outputs, other.place)
        for wildcards in one.instances:
            assert one.job(**wildcards) == other.job(**wildcards)


def test_a_new_name_or_method_leaves_other_merges_as_they_are(config):
    def records(config):
        run = Workflow(parse(config))
        return {
            (name, *one.values()): run.experiments[name].job(**one).record
            for name in ("methods_merge", "methods_references", "methods")
            for one in run.experiments[name].instances
        }

    before = records(config)
    config["merge"]["methods"]["dare"]["label"] = "Drop and rescale"
    config["experiments"]["methods"]["variants"].append("ties")
    after = records(config)
    assert {key for key in before if before[key] != after[key]} == {("methods", "0"), ("methods", "1")}


def test_all_merges_that_fit_by_default(config):
    config["merge"]["methods"] |= {
        "slerp": {"enabled": False},
        "wide": {"method": "r2m", "enabled": False, "real": {"rank": 3}},
        "of_up": {"method": "ties", "enabled": False, "head": "specialist:up"},
    }
    params = parse(changed(config, variants=[]))
    names = methods.merged_variants(params, params.experiments.of("methods"))
    assert names == ["weight_averaging", "ties", "r2m_task", "r2m", "dare"]
    assert methods.reference_of(params, names) == "r2m"
    assert methods.reference_of(params, ["ties", "r2m_task"]) == "r2m_task"
    assert methods.reference_of(params, ["ties", "dare"]) == "ties"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generators": ["swap"]}, "generators: 'swap' is no unseen generator; expected one of"),
        ({"generators": ["more"]}, "generators: experiments.families.generators are others (inp); expected"),
        ({"variants": ["tise"]}, "variants: no merge is called 'tise'; did you mean 'ties'"),
        ({"variants": ["fisher"]}, "variants: 'fisher' needs statistics of the training data"),
        (
            {"variants": ["slerp"]},
            "variants: 'slerp': slerp: expected 2 specialists, got 3",
        ),
        ({"variants": ["wide"]}, "variants: 'wide': real.rank 3 exceeds the number of specialists"),
        (
            {"variants": ["of_up"]},
            "variants: 'of_up' takes the head of a specialist that is not in every merge",
        ),
        ({"seeds": [1, 1]}, "seeds: 1 stands there twice"),
    ],
)
def test_mistakes_in_the_options(config, options, message):
    config["generators"]["more"] = {"family": "FE", "role": "unseen", "forge": "attr"}
    config["merge"]["methods"] |= {
        "slerp": {"enabled": False},
        "wide": {"method": "r2m", "enabled": False, "real": {"rank": 3}},
        "of_up": {"method": "ties", "enabled": False, "head": "specialist:up"},
    }
    with pytest.raises(R2MError) as error:
        parse(changed(config, **options))
    assert f"experiments.methods.{message}" in str(error.value)


def test_merges_that_readers_could_not_tell_apart(config):
    for name in ("dare", "r2m"):
        config["merge"]["methods"][name]["label"] = "The same"
    with pytest.raises(R2MError, match=r"merge\.methods\.r2m\.label: 'The same' stands for"):
        parse(config)


# The figure


def drawn_table(count, numbers, protocols=("in_distribution", "unseen_generator")):
    names = [f"merge_{place}" for place in range(count - 1)] + ["r2m"]
    titles = ["A merging method with quite a long name"] + [f"Method {place}" for place in range(1, count)]
    merges = list(zip(names, titles, names, strict=True))
    merges += [(name, title, "") for name, title in methods.REFERENCES.items()]
    return pd.DataFrame(
        [
            {
                **{"variant": name, "merge": title, "method": method, "specialists": number},
                **{"reference": "r2m"},
                **{
                    f"{protocol}{limit}": 0.95 - place / 60 - 0.2 * (protocol != "in_distribution") + shift
                    for protocol in protocols
                    for limit, shift in (("", 0), ("_low", -0.02), ("_high", 0.015))
                },
            }
            for number in numbers
            for place, (name, title, method) in enumerate(merges)
        ]
    )


@pytest.mark.parametrize("count", [2, 12])
@pytest.mark.parametrize("numbers", [[4], [4, 12]])
def test_methods_layout(count, numbers):
    figure = methods.figure(drawn_table(count, numbers), EvaluationContext())
    check_layout(figure)
    shown = [text.get_text() for text in texts(figure)]
    assert shown.count("A merging method with quite a long name") == 1
    assert shown.count("Ensemble of the specialists") == 1
    for number in numbers:
        assert f"{number} specialists" in shown
    assert shown.count("0.950") == len(numbers)


def test_a_protocol_that_there_is_not_is_left_out():
    table = drawn_table(3, [2])
    table["unseen_generator"] = ""
    check_layout(methods.figure(table, EvaluationContext()))
    figure = methods.figure(drawn_table(3, [2], ["in_distribution"]), EvaluationContext())
    check_layout(figure)
    assert "unseen" not in [text.get_text() for text in texts(figure)]
