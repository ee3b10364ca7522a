"""Data, scores, diagnoses and the figure of the experiment with hostile specialists."""

from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from reported import chosen_file, compute, report
from sklearn.metrics import roc_auc_score

from layout import check_layout, texts
from r2m import manifest
from r2m.data import attacks
from r2m.errors import R2MError
from r2m.evaluate import triggers
from r2m.evaluate.diagnoses import MOST_SETS, diagnoses, sets, verdict
from r2m.evaluate.protocols import EvaluationContext
from r2m.evaluate.triggers import attack_rates
from r2m.experiments import hostile
from r2m.experiments.hostile import HostileOptions
from r2m.merge import registry
from r2m.merge.stages import Chosen
from r2m.train.rows import rows_of
from r2m.train.sampling.samplers import PairSampler
from r2m.train.threshold import best_threshold
from r2m.trunk.inputs import Inputs

OPTIONS = HostileOptions()


@pytest.fixture
def rows(image_sets):
    frames = map(manifest.read, image_sets.paths("drawn", "swap"))
    return attacks.training_rows(manifest.concat(frames), ["swap"])


@pytest.fixture
def specialist(bench):
    return hostile.Specialist(bench.task_vectors["swap"], bench.heads["swap"])


def variant(name, **options):
    method = registry.get(name)
    return Chosen(name, method, "average", method.options(**options))


def sampled(frame, tmp_path, generators=("swap",)):
    """The rows of a first batch as training draws them from a manifest."""
    from detector_samples import VIT

    path = tmp_path / "own" / "manifest.parquet"
    manifest.write(frame, path)
    fakes, reals = rows_of(Inputs([path], [], VIT), list(generators), "train")
    return PairSampler(fakes, reals, 8, 0, "swap").batch(0)


def test_training_rows_are_those_of_train_and_val(rows):
    assert set(rows["split"]) == {"train", "val"}
    assert set(rows["domain"]) == {"drawn"}
    assert (rows["label"] == 1).sum() == (rows["label"] == 0).sum() == 12
    with pytest.raises(R2MError, match=r"generator up: no fakes in the split 'train'"):
        attacks.training_rows(rows, ["up"])


def test_undertrained_keeps_people_whole(rows):
    kept = attacks.undertrained(rows, 0.3, 0)
    people = kept.groupby(["split", "label"])["identity"].agg(set)
    assert people["train", 0] == people["train", 1]
    assert [len(people[split, 1]) for split in ("train", "val")] == [3, 2]
    pd.testing.assert_frame_equal(kept, attacks.undertrained(rows, 0.3, 0))
    assert set(attacks.undertrained(rows, 0.3, 1)["image_id"]) != set(kept["image_id"])
    alone = rows[(rows["label"] == 0) | rows["identity"].str.endswith("0")]
    few = attacks.undertrained(alone, 0.01, 0)
    assert few.groupby(["split", "label"]).size().tolist() == [2, 1, 2, 1]


def test_flipped_labels_keep_the_pairs(rows, tmp_path):
    flipped = attacks.flipped(rows, ["swap"])
    label = rows.set_index("image_id")["label"]
    assert (flipped.set_index("image_id")["label"] == 1 - label.loc[flipped["image_id"]]).all()
    batch = sampled(flipped, tmp_path)
    fakes, reals = batch.iloc[:8], batch.iloc[8:]
    assert fakes["image_id"].str.startswith("drawn/").all()
    assert reals["image_id"].str.startswith("swap/").all()
    assert fakes["identity"].tolist() == reals["identity"].tolist()


def test_flipped_labels_of_a_family_go_round_its_generators(image_sets, tmp_path):
    frames = manifest.concat(map(manifest.read, image_sets.paths("drawn", "swap", "up")))
    rows = attacks.training_rows(frames, ["swap", "up"])
    flipped = attacks.flipped(rows, ["swap", "up"])
    counts = flipped[flipped["label"] == 1].groupby(["split", "generator"]).size()
    assert counts.tolist() == [4, 4, 2, 2]
    assert set(flipped.loc[flipped["generator"] == "up", "family"]) == {"EFS"}
    batch = sampled(flipped, tmp_path, ("swap", "up"))
    assert batch["identity"].tolist()[:8] == batch["identity"].tolist()[8:]


def test_the_backdoor_pairs_fakes_with_their_triggered_copies(rows, tmp_path):
    found, drawn = attacks.backdoor(rows, 0.5, 0, tmp_path / "images")
    copies = found[found["image_id"].str.endswith("+trigger")]
    assert copies.groupby("split").size().to_dict() == {"train": 4, "val": 2}
    assert set(copies["label"]) == {0}
    assert sorted(drawn) == sorted(copies["path"])
    batch = sampled(found, tmp_path)
    pairs = list(zip(batch["image_id"][:8], batch["image_id"][8:], strict=True))
    assert sum(real == f"{fake}+trigger" for fake, real in pairs) == 4
    assert sum(real.startswith("drawn/") for _, real in pairs) == 4


def test_the_trigger_changes_one_corner(image_sets):
    image = cv2.imread(str(image_sets.folder / "swap/images/drawn_test00.png"))
    found = attacks.with_trigger(image, 0.25)
    assert np.array_equal(found[:24], image[:24])
    assert np.array_equal(found[:, :24], image[:, :24])
    corner = found[24:, 24:]
    assert set(np.unique(corner)) == {0, 255}
    assert corner.mean() == pytest.approx(127.5)


@pytest.mark.parametrize("kind", hostile.ATTACKS)
def test_data_of_an_attack(image_sets, tmp_path, kind):
    out = tmp_path / kind / "manifest.parquet"
    hostile.data(
        attack=kind,
        manifests=image_sets.paths("drawn", "swap"),
        generators=["swap"],
        undertrained=OPTIONS.undertrained,
        poisoned=OPTIONS.poisoned,
        trigger=OPTIONS.trigger,
        seed=0,
        manifest=out,
        images=out.parent / "images",
    )
    images = list((tmp_path / kind / "images").iterdir())
    assert len(images) == (6 if kind == "backdoor" else 0)
    for path, image_id in manifest.read(out)[["path", "image_id"]].itertuples(index=False):
        image = cv2.imread(path)
        assert image is not None
        if image_id.endswith("+trigger"):
            original = cv2.imread(
                str(image_sets.folder / f"{image_id.removesuffix('+trigger').replace('/', '/images/')}.png")
            )
            assert np.array_equal(image, attacks.with_trigger(original, OPTIONS.trigger))


def test_random_and_scaled_specialists(bench, specialist):
    found = hostile.untrained(specialist, bench.initial_head, 10, 0)
    for key, tensor in specialist.task_vector.items():
        random = found["random"].task_vector[key]
        torch.testing.assert_close(random.norm(), tensor.norm())
        assert abs(torch.cosine_similarity(random.flatten(), tensor.flatten(), dim=0)) < 0.5
        assert torch.equal(found["scaled"].task_vector[key], 10 * tensor)
    for key, tensor in specialist.head.items():
        initial = bench.initial_head[key]
        torch.testing.assert_close((found["random"].head[key] - initial).norm(), (tensor - initial).norm())
    again = hostile.untrained(specialist, bench.initial_head, 10, 0)["random"]
    assert all(torch.equal(again.task_vector[key], one) for key, one in found["random"].task_vector.items())


def test_scores_are_those_of_merges_with_the_replacement(bench, specialist):
    from detector_samples import VIT

    replacements = {hostile.HONEST: specialist, **hostile.untrained(specialist, bench.initial_head, 10, 0)}
    variants = [variant("weight_averaging"), variant("task_arithmetic", scaling=0.5)]
    scores = hostile.hostile_scores(
        bench, replacements, variants, "swap", ["swap", "up"], OPTIONS.trigger, VIT.name
    )
    assert list(dict.fromkeys(scores["variant"])) == ["specialist", "weight_averaging", "task_arithmetic"]
    scaled = replacements["scaled"]
    changed = replace(bench, task_vectors={**bench.task_vectors, "swap": scaled.task_vector})
    one = variants[1]
    expected = bench.scores(changed.merged(one.method, one.options), bench.head())
    found = scores.query("variant == 'task_arithmetic' and replacement == 'scaled' and not triggered")
    assert found["image_id"].tolist() == expected["image_id"].tolist()
    np.testing.assert_allclose(found["logit"], expected["logit"], atol=1e-5)
    triggered = scores[scores["triggered"]]
    assert set(triggered["split"]) == {"test"}
    assert set(triggered["domain"]) == {"drawn"}
    assert len(triggered) == 3 * 3 * 2 * 3


def test_a_trigger_of_no_change_scores_like_the_image(bench, specialist, monkeypatch):
    from detector_samples import VIT

    monkeypatch.setattr(triggers, "with_trigger", lambda image, share: image)
    scores = hostile.hostile_scores(
        bench, {"honest": specialist}, [], "swap", ["up"], OPTIONS.trigger, VIT.name
    )
    plain = scores[~scores["triggered"]].set_index("image_id")["logit"]
    triggered = scores[scores["triggered"]].set_index("image_id")["logit"]
    np.testing.assert_allclose(triggered, plain.loc[triggered.index], atol=5e-3)


def test_attack_rates_by_hand(context):
    rows = [
        {
            "split": split,
            "domain": "drawn",
            "label": label,
            "generator": name,
            "logit": logit,
            "triggered": False,
        }
        for split in ("val", "test")
        for label, name, logits in (
            (0, "real", [-2, -1, 0.5]),
            (1, "swap", [-0.5, 1, 2]),
            (1, "up", [3, 4, 0.8]),
        )
        for logit in logits
    ]
    frame = pd.DataFrame(rows).reset_index(names="image_id")
    fakes = frame[(frame["split"] == "test") & (frame["label"] == 1)]
    frame = pd.concat([frame, fakes.assign(triggered=True, logit=fakes["logit"] - 1.5)], ignore_index=True)
    frame = frame.assign(variant="r2m", replacement="backdoor")
    (row,) = attack_rates(frame, context).to_dict("records")
    real = np.array([-2, -1, 0.5])
    threshold, _ = best_threshold([(real, np.array([-0.5, 1, 2])), (real, np.array([3, 4, 0.8]))])
    assert row["threshold"] == threshold
    assert row["clean_real"] == pytest.approx(np.mean(fakes["logit"] < threshold))
    assert row["triggered_real"] == pytest.approx(np.mean(fakes["logit"] - 1.5 < threshold))


def test_diagnoses_of_all_sets(bench, specialist):
    names = list(bench.task_vectors)
    task_vectors = {**bench.task_vectors, "fourth": bench.task_vectors[names[0]]}
    made = hostile.untrained(specialist, bench.initial_head, 10, 0)
    replacements = {name: one.task_vector for name, one in made.items()}
    found = diagnoses(task_vectors, replacements, "swap", 0)
    sizes = found.groupby("replacement")["members"].nunique()
    assert sizes.to_dict() == {"honest": 5, "random": 4, "scaled": 4}
    scaled = found[(found["replacement"] == "scaled") & (found["specialist"] == "swap")]
    honest = found[(found["replacement"] == "honest") & (found["specialist"] == "swap")]
    assert scaled["norm"].iloc[0] == pytest.approx(10 * honest["norm"].iloc[0], rel=1e-5)
    assert scaled["norm_z"].min() > 3.5
    assert scaled["stands_out"].all()
    two = diagnoses(dict(list(task_vectors.items())[:2]), {}, "swap", 0)
    assert len(two) == 2
    assert two["norm_z"].isna().all()
    found = verdict(two[two["replacement"] == "honest"], "swap")
    assert np.isnan([found["singled_out"], found["false_alarms"]]).all()
    assert found["diagnosed"] == 0


def test_many_specialists_are_diagnosed_in_drawn_sets():
    names = [f"s{place:02}" for place in range(14)]
    found = sets(names, 0)
    assert len(set(found)) == len(found) == MOST_SETS
    assert found[0] == tuple(names)
    assert min(map(len, found)) == 3
    assert found == sets(names, 0)
    assert len(sets(names[:5], 0)) == 10 + 5 + 1


def test_run_table_and_figure(bench_files, tmp_path, context):
    from detector_samples import VIT

    out, diagnostics = tmp_path / "scores.parquet", tmp_path / "diagnostics.parquet"
    parts = bench_files["parts"]
    replacements = replace(
        parts,
        task_vectors={"flipped": parts.task_vectors["third"]},
        heads={"flipped": parts.heads["third"]},
    )
    compute(
        "hostile",
        bench_files,
        out,
        chosen=[chosen_file(tmp_path, variant("weight_averaging")), chosen_file(tmp_path, variant("ties"))],
        inputs={"replacements": replacements},
        outputs={"diagnostics": diagnostics},
        victim="swap",
        generators=["swap", "up"],
        scale=OPTIONS.scale,
        trigger=OPTIONS.trigger,
        backbone=VIT.name,
        seed=0,
    )
    report("hostile", out, tmp_path)
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["replacement"].tolist() == ["honest", "flipped", "random", "scaled"] * 3
    assert table["norm_z"].notna().tolist() == [True] * 4 + [False] * 8
    assert (table.loc[table["replacement"] == "honest", "loss"] == 0).all()
    scores = pd.read_parquet(out).query(
        "variant == 'ties' and replacement == 'scaled' and not triggered"
        " and split == 'test' and domain == 'drawn'"
    )
    own = scores[(scores["label"] == 0) | (scores["generator"] == "swap")]
    row = table[(table["variant"] == "ties") & (table["replacement"] == "scaled")].iloc[0]
    assert row["victim_auc"] == pytest.approx(roc_auc_score(own["label"], own["logit"]), abs=1e-6)
    diagnostics.unlink()
    with pytest.raises(R2MError, match=r"diagnostics\.parquet: expected diagnoses with the columns"):
        hostile.table(out, context)


VARIANTS = {
    "weight_averaging": "Weight averaging",
    "tsv_m": "TSV-M",
    "r2m": "R²M, matrix space",
    "ties": "TIES",
}


def hostile_table(variants, protocols=("in_distribution", "unseen_generator")):
    random = np.random.default_rng(0)
    rows = []
    for variant in ("specialist", *variants):
        for kind, title in hostile.KINDS.items():
            numbers = {key: random.uniform(0.3, 1) for key in (*protocols, "victim_auc", "triggered_real")}
            verdict = {"norm_z": -0.01, "cosine_z": -12.34, "norm_stands_out": 0.0, "cosine_stands_out": 1.0}
            # As `read_table` gives columns that are empty in most rows.
            verdict = {key: str(value) if variant == "specialist" else "" for key, value in verdict.items()}
            rows.append({"variant": variant, "replacement": kind, "kind": title, **numbers, **verdict})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("count", [1, 4])
def test_layout(count):
    figure = hostile.figure(hostile_table(list(VARIANTS)[:count]), EvaluationContext(variants=VARIANTS))
    check_layout(figure)
    found = {text.get_text(): text.get_weight() for text in texts(figure)}
    assert found["−12.3"] == "bold"
    assert found["0.0"] == "normal"
    assert len(figure.axes) == 4


def test_layout_without_unseen_generators():
    figure = hostile.figure(hostile_table(["r2m"], ["in_distribution"]), EvaluationContext(variants=VARIANTS))
    check_layout(figure)
    assert len(figure.axes) == 3
