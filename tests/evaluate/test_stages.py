"""The stages from fine-tuning to scores, on small detectors."""

import csv
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

import r2m
from detector_samples import VIT
from r2m.errors import R2MError
from r2m.evaluate import stages as evaluating
from r2m.evaluate.bench import open_bench
from r2m.merge import stages as merging
from r2m.merge.variants import MergeVariant
from r2m.models import checkpoint
from r2m.models.config import read_config
from r2m.models.decision import Decision
from r2m.models.heads import initial_head
from r2m.session_files import Compute, MergeParts, SessionFiles
from r2m.train import stages as training
from r2m.train.deciding import decide
from r2m.train.options import FinetuneOptions
from r2m.trunk.options import AugmentOptions
from r2m.trunk.stages import trunk

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("swap", "up")
COMPUTE = Compute(VIT, "cpu", "fp32")
OPTIONS = FinetuneOptions(steps=4, pairs=4, lr=1e-3, validate_every=2, checkpoint_every=2)


@dataclass(frozen=True)
class Trained:
    """Two specialists' files, and the images that both are trained on."""

    folder: Path
    files: SessionFiles
    initial_head: Path

    @property
    def parts(self) -> MergeParts:
        task_vectors, heads = ({name: self.folder / f"{name}.{s}" for name in NAMES} for s in ("tau", "head"))
        return MergeParts(task_vectors, heads, self.initial_head)


def files_of(image_sets, trunk_files, base, *names):
    return SessionFiles(tuple(image_sets.paths(*names)), tuple(trunk_files[name] for name in names), base)


def finetune(folder, files, initial_head, name, generators, **changes):
    training.finetune(
        **{
            "files": files,
            "initial_head": initial_head,
            "name": name,
            "generators": generators,
            "options": OPTIONS,
            "augment": AugmentOptions(),
            "objective": "binary",
            "seed": 0,
            "compute": COMPUTE,
            "state": folder / f"{name}.state",
            "model": folder / name,
            "history": folder / f"{name}.csv",
            "threads": 1,
            **changes,
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory, image_sets, trunk_files, base_files):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained")
    base = base_files["vit"]
    head = base.parent / "initial_head.safetensors"
    for name in NAMES:
        finetune(folder, files_of(image_sets, trunk_files, base, "drawn", name), head, name, [name])
        subtract(base, folder, name, folder / f"{name}.head")
    return Trained(folder, files_of(image_sets, trunk_files, base, "drawn", *NAMES), head)


def subtract(base, folder, name, head):
    merging.task_vector(base=base, specialist=folder / name, task_vector=folder / f"{name}.tau", head=head)


def score(files, model, out, **changes):
    described = {"kind": "base", "name": "m", "label": "M", "method": None, "seed": None, "batch_size": 64}
    evaluating.score(
        **{"files": files, "model": model, "compute": COMPUTE, "scores": out, **described, **changes}
    )


def tune(trained, folder, variant, options, statistics=None, **changes):
    given = {"files": trained.files, "parts": trained.parts, "compute": COMPUTE, "generators": list(NAMES)}
    evaluating.tune(
        statistics=statistics or {},
        variant=variant,
        options=options,
        candidates=folder / "c.csv",
        chosen=folder / "c.json",
        **given | changes,
    )
    return json.loads((folder / "c.json").read_text())


def statistics(trained, out, name="swap", method="fisher", **changes):
    given = {"files": trained.files, "specialist": trained.folder / name, "compute": COMPUTE, "images": 4}
    training.statistics(
        name=name, method=method, generators=[name], seed=0, statistics=out, **given | changes
    )


def test_finetune_writes_model_and_history(trained):
    tensors, metadata = checkpoint.load(trained.folder / "swap")
    assert {name.split(".")[0] for name in tensors} == {"blocks", "norm", "head"}
    assert json.loads(metadata["generators"]) == ["swap"]
    assert json.loads(metadata["augment"]) is None
    with open(trained.folder / "swap.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4"]
    selected = json.loads(metadata["selected"])
    assert selected["val_auc"] == max(float(row["val_auc"]) for row in rows)
    assert not (trained.folder / "swap.state").exists()


def test_what_is_trained_describes_its_detector(trained, tmp_path):
    base = read_config(checkpoint.read_metadata(trained.files.base), trained.files.base)
    for name in ("swap", "swap.tau", "swap.head"):
        config = read_config(checkpoint.read_metadata(trained.folder / name), trained.folder / name)
        fitted = {key: getattr(config, key) for key in Decision.model_fields}
        assert config == base.model_copy(update=fitted)
        assert [point.fpr for point in config.operating_points] == [0.01, 0.05]
    finetune(tmp_path, trained.files, trained.initial_head, "joint", list(NAMES), objective="multiclass")
    tensors, metadata = checkpoint.load(tmp_path / "joint")
    assert tensors["head.weight"].shape == (3, 64)
    assert read_config(metadata, tmp_path / "joint").labels == ("real", "swap", "up")


def val_decision(scores_file, generators):
    val = pd.read_parquet(scores_file).query("split == 'val'")
    logits = {name: part["logit"].to_numpy(float) for name, part in val.groupby("generator")}
    return decide([(logits["real"], logits[name]) for name in generators])


def check_decision(found, expected):
    assert (found.slope, found.offset) == pytest.approx((expected.slope, expected.offset), rel=1e-3, abs=1e-4)
    cuts = [
        [one.threshold, *(point.threshold for point in one.operating_points)] for one in (found, expected)
    ]
    assert cuts[0] == pytest.approx(cuts[1], abs=1e-4)


def test_decisions_are_those_of_the_val_split(trained, tmp_path):
    score(trained.files, trained.folder / "swap", tmp_path / "s.parquet")
    metadata = checkpoint.read_metadata(trained.folder / "swap")
    check_decision(read_config(metadata, tmp_path), val_decision(tmp_path / "s.parquet", ["swap"]))
    training.probe(files=trained.files, generators=list(NAMES), compute=COMPUTE, head=tmp_path / "head")
    score(trained.files, tmp_path / "head", tmp_path / "s.parquet")
    config = read_config(checkpoint.read_metadata(tmp_path / "head"), tmp_path)
    check_decision(config, val_decision(tmp_path / "s.parquet", NAMES))


def test_an_unknown_objective_is_refused(trained, tmp_path):
    with pytest.raises(R2MError, match="objective 'focal': expected binary or multiclass"):
        finetune(tmp_path, trained.files, trained.initial_head, "swap", ["swap"], objective="focal")


def test_a_detector_with_a_cosine_head_goes_all_the_way(trained, tmp_path):
    compute = Compute(VIT.model_copy(update={"head": "cosine"}), "cpu", "fp32")
    _, metadata = checkpoint.load(trained.initial_head)
    checkpoint.save(tmp_path / "head", initial_head(64, 0, head="cosine"), metadata)
    parts = {"task_vectors": {}, "heads": {}}
    for name in NAMES:
        finetune(tmp_path, trained.files, tmp_path / "head", name, [name], compute=compute)
        parts["task_vectors"][name], parts["heads"][name] = tmp_path / f"{name}.tau", tmp_path / f"{name}.h"
        subtract(trained.files.base, tmp_path, name, parts["heads"][name])
    assert "head.scale" in checkpoint.load(tmp_path / "swap")[0]
    training.probe(files=trained.files, generators=list(NAMES), compute=compute, head=tmp_path / "probe")
    score(trained.files, tmp_path / "probe", tmp_path / "s.parquet", compute=compute)
    bench = open_bench(trained.files, compute, MergeParts(**parts, initial_head=tmp_path / "head"))
    average = bench.head()["head.weight"]
    unit = [head["head.weight"] / head["head.weight"].norm() for head in bench.heads.values()]
    torch.testing.assert_close(average, sum(unit) / 2)
    assert bench.scores(bench.updated({}), bench.head())["logit"].notna().all()


def test_probe_and_score(trained, tmp_path):
    training.probe(files=trained.files, generators=list(NAMES), compute=COMPUTE, head=tmp_path / "head")
    assert set(checkpoint.load(tmp_path / "head")[0]) == {"head.weight", "head.bias"}
    score(trained.files, tmp_path / "head", tmp_path / "s.parquet")
    frame = pd.read_parquet(tmp_path / "s.parquet")
    assert set(frame["split"]) == {"val", "test"}
    assert set(frame["generator"]) == {"real", "swap", "up"}


def test_scores_of_what_is_no_model_are_refused(trained, tmp_path):
    with pytest.raises(R2MError, match=r"swap\.tau: holds no head \(head\.weight\)"):
        score(trained.files, trained.folder / "swap.tau", tmp_path / "s.parquet")
    files = trained.files
    twice = SessionFiles((*files.manifests, files.manifests[0]), (*files.trunks, files.trunks[0]), files.base)
    with pytest.raises(R2MError, match="expected each manifest once"):
        score(twice, trained.initial_head, tmp_path / "s.parquet")
    assert not (tmp_path / "s.parquet").exists()


@pytest.mark.parametrize("stage", ["probe", "score", "statistics", "finetune", "tune", "bench", "trunk"])
def test_base_without_a_tensor_of_the_backbone_is_refused(trained, tmp_path, stage):
    """What the file does not give would stay as it was drawn."""
    tensors, metadata = checkpoint.load(trained.files.base)
    del tensors["blocks.0.attn.qkv.weight"]
    checkpoint.save(tmp_path / "base", tensors, metadata)
    files = dataclasses.replace(trained.files, base=tmp_path / "base")
    out = tmp_path / "out"
    run = {
        "probe": lambda: training.probe(files=files, generators=["swap"], compute=COMPUTE, head=out),
        "score": lambda: score(files, trained.initial_head, out),
        "statistics": lambda: statistics(trained, out, files=files),
        "finetune": lambda: finetune(
            tmp_path, files, trained.initial_head, "swap", ["swap"], model=out, history=out, state=out
        ),
        "tune": lambda: tune(trained, out, "weight_averaging", MergeVariant(), files=files),
        "bench": lambda: open_bench(files, COMPUTE, trained.parts),
        "trunk": lambda: trunk(
            manifest=files.manifests[0],
            base=files.base,
            backbone=VIT,
            device="cpu",
            precision="fp32",
            activations=out,
        ),
    }
    with pytest.raises(R2MError, match=r"base: tensors do not fit .* missing blocks.0.attn.qkv.weight"):
        run[stage]()
    assert not out.exists()


def merged(trained, folder, statistics=None):
    parts = trained.parts
    merging.merge(
        chosen=folder / "c.json",
        base=trained.files.base,
        task_vectors=parts.task_vectors,
        core=None,
        residuals={},
        statistics=statistics or {},
        heads=parts.heads,
        initial_head=trained.initial_head,
        seed=0,
        model=folder / "m",
        report=folder / "m.json",
        threads=1,
    )


def test_tune_and_merge_agree(trained, tmp_path):
    variant = MergeVariant(method="ties", tune={"keep": [0.2, 0.5], "scaling": [1.0, 2.0]})
    chosen = tune(trained, tmp_path, "mine", variant)
    rows = pd.read_csv(tmp_path / "c.csv")
    assert list(rows) == ["candidate", "keep", "scaling", "val_auc", "val_auc.swap", "val_auc.up", "chosen"]
    assert chosen["method"] == "ties"
    assert chosen["tuned"] == chosen["options"]
    assert chosen["val_auc"] == rows["val_auc"].max()
    parts = trained.parts
    swapped = dataclasses.replace(parts, task_vectors=dict(reversed(parts.task_vectors.items())))
    assert tune(trained, tmp_path, "mine", variant, parts=swapped) == chosen
    merged(trained, tmp_path)
    score(trained.files, tmp_path / "m", tmp_path / "s.parquet", kind="merge", name="mine", method="ties")
    fitted = Decision.model_validate(chosen["decision"])
    check_decision(fitted, val_decision(tmp_path / "s.parquet", NAMES))
    scores = pd.read_parquet(tmp_path / "s.parquet")
    val = scores[scores["split"] == "val"]
    aucs = [
        roc_auc_score(part["label"], part["logit"])
        for part in (val[val["generator"].isin(["real", name])] for name in NAMES)
    ]
    assert sum(aucs) / 2 == pytest.approx(chosen["val_auc"])
    detector = r2m.load(tmp_path / "m", device="cpu")
    assert {key: getattr(detector.config, key) for key in Decision.model_fields} == dict(fitted)
    rows = scores.merge(pd.concat(map(pd.read_parquet, trained.files.manifests))[["image_id", "path"]])
    table = r2m.score(rows["path"].tolist(), detector)
    assert table["logit"].to_numpy() == pytest.approx(rows["logit"].to_numpy(), abs=5e-3)


@pytest.mark.parametrize("method", ["fisher", "regmean", "esm"])
def test_methods_that_need_statistics(trained, tmp_path, method):
    known = {name: tmp_path / name for name in NAMES}
    for name, path in known.items():
        statistics(trained, path, name, method)
    tensors, metadata = checkpoint.load(tmp_path / "swap")
    specialist, specialist_metadata = checkpoint.load(trained.folder / "swap")
    assert set(tensors) < set(specialist)
    assert metadata["kind"] == method
    assert metadata["count"] == "4"
    assert metadata["base_hash"] == specialist_metadata["base_hash"]
    assert metadata["specialist_hash"] == checkpoint.digest(specialist)
    tune(trained, tmp_path, method, MergeVariant(), known, generators=["swap"])
    merged(trained, tmp_path, known)
    key = "blocks.4.mlp.fc1.weight"
    average = (specialist[key] + checkpoint.load(trained.folder / "up")[0][key]) / 2
    assert not checkpoint.load(tmp_path / "m")[0][key].allclose(average, atol=1e-7)
    with pytest.raises(R2MError, match="takes statistics of every specialist"):
        merged(trained, tmp_path)
    with pytest.raises(R2MError, match="statistics: expected those of swap, up, got swap"):
        merged(trained, tmp_path, {"swap": known["swap"]})


def test_statistics_that_no_method_takes(trained, tmp_path):
    with pytest.raises(R2MError, match="'ties' takes no statistics; expected fisher or regmean or esm"):
        statistics(trained, tmp_path / "s", method="ties")
    assert not (tmp_path / "s").exists()


def test_statistics_of_a_specialist_of_another_base(trained, tmp_path):
    tensors, _ = checkpoint.load(trained.folder / "swap")
    checkpoint.save(tmp_path / "other", tensors, {"base_hash": "other"})
    with pytest.raises(R2MError, match="other: made from base other, expected"):
        statistics(trained, tmp_path / "s", specialist=tmp_path / "other")


def test_a_trunk_of_another_base_is_refused(trained, tmp_path):
    tensors, _ = checkpoint.load(trained.files.base)
    checkpoint.save(tmp_path / "base", tensors, {"base_hash": "other"})
    files = dataclasses.replace(trained.files, base=tmp_path / "base")
    with pytest.raises(R2MError, match="was made with other base weights; make it again"):
        training.probe(files=files, generators=["swap"], compute=COMPUTE, head=tmp_path / "x")
