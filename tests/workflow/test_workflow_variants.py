"""A run without a trunk, with specialists per family, on folders of one's own fakes."""

import re
import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from workflow_project import Project, draw

from r2m import manifest
from r2m.models import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("variants")]

SCORES = "results/scores/merge/weight_averaging/seed0/scores.parquet"
CARD = "results/model_card.md"


@pytest.fixture(scope="module")
def run(module_copy: Callable[[str], Project]) -> Project:
    """All blocks trained; families FS (a forgery, and a folder named like the reals) and EFS (own videos)."""
    project = module_copy("families")
    rng = np.random.default_rng(2)
    draw(project / "own/named", [f"p{i // 2:02}/{i:02}" for i in range(24)], rng)
    draw(project / "own/fakes", [f"{i:02}/{frame}" for i in range(18) for frame in (0, 9)], rng)
    draw(project / "own/reals", [f"{i:02}/{frame}" for i in range(18) for frame in (0, 9)], rng)
    draw(project / "own/others", [f"{i:02}/{frame}" for i in range(22) for frame in (0, 5)], rng)
    project.edit("backbone.trainable_blocks", "all")
    project.edit("specialists.per", "family")
    project.edit("generators.up", None)
    project.edit("generators.inp", None)
    project.edit("generators.named", {"family": "FS", "images": "own/named"})
    project.edit("generators.apart", {"family": "EFS", "images": "own/fakes", "reals": "own/reals"})
    others = {"role": "unseen", "images": "own/others", "reals": "own/reals"}
    project.edit("generators.others", {"family": "EFS", **others})
    project.edit("merge.methods", {"weight_averaging": {}})
    project.edit("experiments", {})
    project.snakemake("--", "results/tables/auc.csv", SCORES, CARD, "results/data_card.md")
    return project


def rows(project: Project, generator: str) -> pd.DataFrame:
    return manifest.read(project / f"results/forged/{generator}/manifest.parquet")


def test_no_trunk_is_made(run: Project) -> None:
    assert not list((run / "results/logs/trunk").rglob("named.log"))
    assert not (run / "results/trunk/forged/named/activations.safetensors").exists()


def test_every_block_is_trained_with_augmentation(run: Project) -> None:
    tensors, metadata = checkpoint.load(run / "results/specialists/FS/seed0/model.safetensors")
    base, _ = checkpoint.load(run / "results/base/base.safetensors")
    assert set(tensors) == set(base) | {"head.weight", "head.bias"}
    changed = {key for key in base if not tensors[key].equal(base[key])}
    assert {key for key in changed if key.startswith("blocks.0.")}
    assert '"rotate": 10.0' in metadata["augment"]


def test_specialists_are_of_families(run: Project) -> None:
    members = {
        path.parents[1].name: checkpoint.read_metadata(path)["generators"]
        for path in (run / f"results/specialists/{name}/seed0/model.safetensors" for name in ("FS", "EFS"))
    }
    assert members == {"FS": '["swap", "named"]', "EFS": '["apart"]'}
    asked_for = {path.split("/")[2] for path in run.snakemake("--summary").split() if "/specialists/" in path}
    assert asked_for == {"EFS", "FS"}
    gone = run.run(sys.executable, "-m", "r2m", "prune")
    assert "results/specialists/swap/seed0/model.safetensors" in gone
    assert "results/specialists/FS" not in gone


def test_own_fakes_take_the_split_of_the_real_of_their_name(run: Project) -> None:
    reals = manifest.read(run / "results/faces/drawn/manifest.parquet").set_index("image_id")
    fakes = rows(run, "named")
    assert len(fakes) == 24
    assert set(fakes["domain"]) == {"drawn"}
    sources = reals.loc[fakes["source_image"]]
    assert list(sources["split"]) == list(fakes["split"])
    assert list(sources["identity"]) == list(fakes["identity"])


def test_own_reals_are_a_domain_of_their_own(run: Project) -> None:
    own = rows(run, "apart")
    assert set(own["domain"]) == {"apart"}
    assert own["label"].value_counts().to_dict() == {0: 36, 1: 36}
    people = own.groupby("identity")["split"].nunique()
    assert (people == 1).all(), "a person is in two splits"


def test_nobody_that_is_trained_on_is_unseen(run: Project) -> None:
    trained, unseen = rows(run, "apart"), rows(run, "others")
    assert set(unseen["split"]) == {"test"}
    splits = pd.concat([trained, unseen]).groupby("identity")["split"].nunique()
    assert (splits == 1).all()
    assert {f"{i:02}" for i in range(18, 22)} < set(unseen["video"])
    card = (run / "results/data_card.md").read_text()
    assert card.split("## The same file in several splits")[1].split("##")[0].strip() == "None."


def test_videos_have_metrics_of_their_own(run: Project) -> None:
    table = pd.read_csv(run / "results/tables/video.csv", keep_default_na=False)
    assert set(table["test_set"]) == {"apart/apart", "others/others"}
    assert (table["frames_most"] == 2).all()


def test_table_has_the_own_generators(run: Project) -> None:
    table = pd.read_csv(run / "results/tables/auc.csv", keep_default_na=False)
    assert set(table["model"]) == {"base", "FS", "EFS", "joint", "weight_averaging"}
    own = {"drawn/named", "apart/apart", "others/others"}
    assert set(table["test_set"]) == {"drawn/swap", "sketch/swap", *own}
    protocols = table.drop_duplicates("test_set").set_index("test_set")["protocol"].to_dict()
    assert protocols["apart/apart"] == protocols["drawn/named"] == "in_distribution"


def test_scores_hold_the_own_reals(run: Project) -> None:
    scores = pd.read_parquet(run / SCORES)
    assert set(scores.loc[scores["domain"] == "apart", "label"]) == {0, 1}
    assert set(scores["set"]) == {"drawn", "sketch", "swap", "named", "apart", "others"}


def test_model_card_is_of_the_only_merge(run: Project) -> None:
    card = (run / CARD).read_text()
    assert card.startswith("# Model card: weight_averaging\n")
    assert re.search(
        r"\| specialist FS \| \d+ fakes of swap, \d+ fakes of named, \d+ reals of drawn \|", card
    )
    assert re.search(r"\| specialist EFS \| \d+ fakes of apart, \d+ reals of apart \|", card)
    assert "λ =" not in card
    assert "| finetune | 2 |" in card


def test_new_own_image_is_seen(run: Project) -> None:
    draw(run / "own/named", ["p00/another"], np.random.default_rng(3))
    draw(run / "sketch", ["another"], np.random.default_rng(4))
    jobs = run.jobs("--", SCORES)
    assert {job for job in jobs if job.startswith(("forge", "faces"))} >= {"forge named", "faces sketch"}
