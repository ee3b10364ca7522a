"""Generators that arrive one by one, with three of them: subsets of two are trained jointly on."""

import sys
from collections.abc import Callable

import pandas as pd
import pytest
from workflow_project import Project

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("composability")]

FOLDER = "results/experiments/composability"


@pytest.fixture(scope="module")
def three_generators(module_copy: Callable[[str], Project]) -> Project:
    """A finished run with a third trained generator and no other experiment; not to be changed."""
    project = module_copy("composability")
    project.edit("generators.lip", {"family": "FR", "forge": "lip"})
    for name in set(project.params()["experiments"]) - {"composability"}:
        project.edit(f"experiments.{name}.enabled", False)
    project.snakemake()
    jobs = project.jobs("--", "paper")
    subsets = {name.partition(" ")[2] for name in jobs if name.startswith("joint_subset ")}
    assert len(subsets) == 2
    assert {name.partition(" ")[0] for name in jobs} == {
        *("joint_subset", "composability", "table_composability", "figure_composability", "paper")
    }
    project.snakemake("--", "paper")
    return project


def scores(project: Project) -> pd.DataFrame:
    return pd.read_parquet(project / f"{FOLDER}/seed0/scores.parquet")


def test_both_ends_are_the_models_of_the_main_run(three_generators: Project) -> None:
    found = scores(three_generators)
    for subset, kind, model in (
        (None, "specialist", None),
        ("lip-swap-up", "joint", "joint"),
        ("lip-swap-up", "merge", "weight_averaging"),
        ("lip-swap-up", "merge", "r2m"),
    ):
        part = found[found["kind"] == kind]
        name = model or part["model"].iloc[0]
        part = part[(part["model"] == name) & (part["subset"] == (subset or name))]
        path = three_generators / f"results/scores/{kind}/{name}/seed0/scores.parquet"
        expected = pd.read_parquet(path).set_index("image_id")["logit"]
        assert part["logit"].to_numpy() == pytest.approx(expected[part["image_id"]].to_numpy(), abs=1e-4)


def test_steps_and_table(three_generators: Project) -> None:
    steps = pd.read_csv(three_generators / f"{FOLDER}/seed0/steps.csv")
    assert steps.groupby("order")["k"].max().tolist() == [3, 3]
    assert steps["training_images"].gt(0).all()
    # The options of joint training grow from a specialist's six steps to twelve; batches have eight images.
    joint = steps[(steps["kind"] == "joint") & (steps["order"] == 0)]
    assert (joint["training_images"].diff().dropna() > 3 * 8).all()
    table = pd.read_csv(three_generators / f"{FOLDER}/table.csv")
    assert len(table) == 3 * 3
    assert table["seen"].between(0, 1).all()
    assert table["to_come"].isna().sum() == 3


def test_again_gives_the_same_bytes(three_generators: Project) -> None:
    path = three_generators / f"{FOLDER}/seed0/scores.parquet"
    before = path.read_bytes()
    assert not three_generators.jobs("--", "paper").keys() - {"paper"}
    three_generators.alone().snakemake("--forcerun", "composability", "--", "paper")
    assert path.read_bytes() == before


def test_fewer_orders_train_nothing(three_generators: Project) -> None:
    folder = three_generators / f"{FOLDER}/seed0/joint"
    assert len(list(folder.iterdir())) == 2
    three_generators.edit("experiments.composability.orders", 1)
    jobs = three_generators.jobs("--", "paper")
    assert not [name for name in jobs if name.startswith(("joint_subset", "finetune", "joint"))]
    three_generators.snakemake("--", "paper")
    assert len(list(folder.iterdir())) == 2, "deleted unasked"
    three_generators.run(sys.executable, "-m", "r2m", "prune", "--yes")
    assert len(list(folder.iterdir())) == 1
