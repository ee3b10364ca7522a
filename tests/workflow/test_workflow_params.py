"""Mistakes in params.yaml are told before anything runs: the key, what was expected, and no traceback."""

import os
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from workflow_project import REPOSITORY, Project, draw

from r2m.errors import R2MError
from r2m.input_files import check_inputs
from r2m.options import combinations
from r2m.params import load

FORGED = {"family": "FR", "forge": "tps"}


def message(project: Project) -> str:
    """Dry-run; return the error's text, and check that it is one and that nothing was made."""
    output = project.snakemake("--dry-run", "--quiet", "rules", code=1)
    assert "Traceback" not in output
    assert sorted(path.name for path in (project / "results").iterdir()) == [".gitignore", "validation"]
    _, found, text = output.partition("WorkflowError")
    assert found, output
    return text


THROUGH_SNAKEMAKE = [
    ("finetune.step", 5, ["finetune", "unknown key 'step'", "did you mean 'steps'"]),
    ("finetune.steps", "many", ["finetune.steps", "expected an integer, not text", "'many'"]),
    ("finetune.lr", -1.0, ["finetune.lr", "greater than 0", "-1.0"]),
    ("seed", True, ["params.yaml: seed: expected an integer (got True)"]),
    (
        "domains.drawn.images.folder",
        "nowhere",
        ["domains.drawn.images.folder", "nowhere", "no such folder"],
    ),
    ("generators.drawn", FORGED, ["generators.drawn", "taken"]),
    ("generators.swap.forge", "swop", ["generators.swap.forge", "'swop'", "did you mean 'swap'"]),
    ("merge.methods.tise", {}, ["merge.methods.tise", "unknown method 'tise'", "did you mean 'ties'"]),
    ("merge.methods.ties.tune.keep", [0.2], ["merge.methods.ties.tune", "2 candidates", "expected 4"]),
    ("merge.methods.fisher.imags", 4, ["merge.methods.fisher", "'imags'", "did you mean 'images'"]),
    ("backbone.weights.file", "none.pt", ["backbone.weights.file", "none.pt", "no such file"]),
]
BY_THE_SAME_CHECK = [
    ("finetunes", {}, ["unknown key 'finetunes'", "did you mean 'finetune'"]),
    ("backbone.trainable_blocks", 0, ["backbone.trainable_blocks", "greater than 0"]),
    ("faces.split.train", 0.9, ["faces.split", "sum to 1", "1.4"]),
    ("faces.crop_size", 24, ["faces.crop_size", "32"]),
    ("faces.jpeg_quality", [95, 70], ["faces.jpeg_quality", "lowest", "[95, 70]"]),
    ("domains.sketch.identity", "cluster", ["domains.sketch.identity", "faces.detector", "`file`"]),
    ("domains.sketch.role", "train", ["domains", "exactly one", "drawn", "sketch"]),
    ("generators.joint", FORGED, ["generators.joint", "taken"]),
    ("generators.Swap", FORGED, ["generators", "Swap", "lower-case letters"]),
    ("generators.swap.family", "GAN", ["generators.swap.family", "'FS'", "'GAN'"]),
    ("generators.swap.images", "drawn", ["generators.swap", "exactly one", "forge", "images"]),
    ("evaluate.resamples", 20, ["evaluate.resamples", "of at least 100"]),
    ("evaluate.reference", "r2n", ["evaluate.reference", "'r2n'", "did you mean 'r2m'"]),
    ("evaluate.reference", "fisher", ["evaluate.reference", "'fisher' is switched off"]),
    ("merge.methods.ties.tune.keep", [0.2, 0.2], ["merge.methods.ties.tune.keep", "0.2", "twice"]),
    ("merge.methods.fisher.tune", {"images": [1, 2, 3, 4]}, ["merge.methods.fisher.tune", "`images`"]),
    ("merge.methods.slerp", {"t": 2}, ["merge.methods.slerp.t", "of at most 1"]),
    ("experiments.heads.variants", ["r2n"], ["experiments.heads.variants", "'r2n'", "'r2m'"]),
    ("experiments.ablation.variants", ["ties"], ["experiments.ablation.variants", "'ties'", "r2m"]),
    ("experiments.ablation.factors", {"real.rnk": [2]}, ["experiments.ablation.factors.real.rnk", "rnk"]),
    ("experiments.families.generators", ["swap"], ["experiments.families.generators", "'swap'", "inp"]),
    ("experiments.families.generators", [], ["experiments.families.generators", "no family has two"]),
    ("experiments.families.variants", ["fisher"], ["experiments.families.variants", "'fisher'"]),
    ("experiments.sources.domain", "drawn", ["experiments.sources.domain", "`role: test`", "sketch"]),
    ("experiments.sources.cores", {"r2n": {}}, ["experiments.sources.cores", "'r2n'", "'r2m'"]),
    ("experiments.sources.cores", {"ties": {"keep": [0.1]}}, ["cores.ties.keep", "tunes this option"]),
    ("experiments.sources.cores", {"r2m": {"real.rnk": [2]}}, ["sources.cores.r2m", "rnk"]),
    ("experiments.hats", {}, ["experiments", "unknown key 'hats'"]),
    ("merge.methods.ties.keeping", 0.2, ["merge.methods.ties", "keeping"]),
    ("merge.methods.ties.tune.keep", [0.2, 2.0], ["merge.methods.ties.keep", "1"]),
    ("merge.methods.ties.head", "specialist:inp", ["merge.methods.ties.head", "'inp'", "swap"]),
    ("backbone.weights.file", "params.yaml", ["backbone.weights.file", ".safetensors"]),
]


@pytest.mark.parametrize(("key", "value", "expected"), THROUGH_SNAKEMAKE)
def test_mistake_is_told(bare_project: Project, key: str, value: Any, expected: list[str]) -> None:
    bare_project.edit(key, value)
    text = message(bare_project)
    assert [part for part in expected if part not in text] == [], text


@pytest.mark.parametrize(("key", "value", "expected"), BY_THE_SAME_CHECK)
def test_mistake_is_found(
    bare_project: Project, key: str, value: Any, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bare_project.edit(key, value)
    monkeypatch.chdir(bare_project.root)
    with pytest.raises(R2MError) as error:
        check_inputs(load("params.yaml"))
    assert [part for part in [*expected, "params.yaml: "] if part not in str(error.value)] == [], error.value


def test_key_given_twice(bare_project: Project) -> None:
    bare_project.replace("params.yaml", "  up: {", "  swap: {family: FS, forge: sbi}\n  up: {")
    lines = (bare_project / "params.yaml").read_text().splitlines()
    (_, second) = [number for number, line in enumerate(lines, 1) if line.startswith("  swap: {")]
    assert f"params.yaml: line {second}: the key 'swap' stands here twice" in message(bare_project)


def test_not_yaml(bare_project: Project) -> None:
    bare_project.replace("params.yaml", "seed: 0", "seed: [0")
    text = message(bare_project)
    assert "params.yaml: not valid YAML" in text
    assert "line 2" in text


def test_too_few_images(bare_project: Project) -> None:
    (bare_project / "empty").mkdir()
    bare_project.edit("generators.own", {"family": "FS", "images": "empty"})
    assert "generators.own.images: empty: 0 images; expected at least 8" in message(bare_project)
    draw(bare_project / "empty", ["a", "b"], np.random.default_rng(1))
    assert "generators.own.images: empty: 2 images; expected at least 8" in message(bare_project)


def test_number_without_a_dot_is_a_number(project: Project) -> None:
    project.replace("params.yaml", "lr: 1.0e-3", "lr: 1e-3")
    assert not project.jobs()


def test_weights_that_do_not_fit_stop_the_run_before_training(bare_project: Project) -> None:
    weights = load_file(bare_project / "weights.safetensors")
    weights["blocks.0.attn.proj.weight"] = torch.zeros(3, 5)
    save_file(weights, bare_project / "weights.safetensors")
    old = bare_project / "results/logs/old.log"
    old.parent.mkdir()
    old.write_text("r2m: error: of an earlier run\n")
    os.utime(old, (0, 0))
    output = bare_project.snakemake("--", "results/base/base.safetensors", code=1)
    assert "results/logs/base.log: r2m: error: weights for test_vit" in output
    assert "of an earlier run" not in output
    log = (bare_project / "results/logs/base.log").read_text()
    assert "r2m: error: weights for test_vit" in log
    assert "blocks.0.attn.proj.weight has shape (3, 5), expected (64, 64)" in log
    assert "Traceback" not in log
    assert not list((bare_project / "results/base").glob("*"))


def test_unreadable_image_is_skipped_and_named(bare_project: Project) -> None:
    (bare_project / "sketch/broken.png").write_bytes(b"no image")
    bare_project.snakemake("--", "results/faces/sketch/manifest.parquet")
    assert "broken.png" in (bare_project / "results/faces/sketch/skipped.csv").read_text()


def test_params_of_the_repository() -> None:
    params = load(REPOSITORY / "params.yaml")
    assert {generator.family for generator in params.generators.values()} == {"FS", "FR", "EFS", "FE"}
    tried = {len(combinations(variant.tune)) for variant in params.merge.methods.values()}
    assert tried == {1, params.merge.candidates}
