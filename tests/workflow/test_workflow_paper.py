"""`snakemake paper`: the experiments run from a finished default run, each on its own."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from workflow_project import Project

from r2m import manifest

pytestmark = pytest.mark.slow

NAMES = (
    *("inversion", "similarity", "rationale", "heads", "ablation", "composability"),
    *("hostile", "robustness", "explanation", "families", "methods", "sources", "multiclass"),
)
HOSTILE = {
    f"hostile_{step} {attack}"
    for step in ("data", "trunk", "finetune", "task_vector")
    for attack in ("undertrained", "flipped", "backdoor")
}
TABLES = {f"{kind}_{name}" for kind in ("table", "figure") for name in NAMES}
# The specialists of `swap` and `up` are those of the main run; `inp` gets one, and the family that has two.
FAMILIES = {
    *("families_forge inp", "families_trunk inp", "families_joint", "families"),
    *(f"families_{rule} {name}" for rule in ("finetune", "task_vector") for name in ("inp", "EFS")),
}
# Trained with seeds 0 and 1, and with `inp` as a third generator; the main run has seed 0.
METHODS = {
    *(f"methods_{rule} {name}" for rule in ("finetune", "task_vector") for name in ("inp", "inp/1")),
    *(f"methods_{rule} {name}" for rule in ("finetune", "task_vector") for name in ("swap/1", "up/1")),
    *("methods_joint 3", "methods_joint 2/1", "methods_joint 3/1"),
    *("methods_merge weight_averaging", "methods_merge 1/weight_averaging"),
    *("methods_merge r2m", "methods_merge 1/r2m"),
    *("methods_references", "methods_references 1", "methods 1"),
}
SOURCES = {
    *("sources_faces", "sources_trunk faces/sketch", "two_sources"),
    *(f"sources_forge {name}" for name in ("swap", "up", "inp")),
    *(f"sources_trunk forged/{name}" for name in ("swap", "up", "inp")),
    *(f"sources_{rule} {name}" for rule in ("finetune", "task_vector") for name in ("swap", "up")),
}
JOBS = {
    *NAMES[1:],
    "multiclass_joint",
    "figure_explanation_sheet",
    *HOSTILE,
    *FAMILIES,
    *METHODS,
    *SOURCES,
    *TABLES,
} - {"sources"}


def images(project: Project, folder: str, split: str) -> dict[str, bytes]:
    """Image → its bytes, of one split of a generator's folder."""
    rows = manifest.read(project / f"{folder}/manifest.parquet")
    rows = rows[rows["split"] == split]
    return {
        name: (project / path).read_bytes() for name, path in zip(rows["image_id"], rows["path"], strict=True)
    }


def test_the_default_run_makes_no_experiment(finished_run: Project) -> None:
    assert not (finished_run / "results/experiments").exists()


def test_without_experiments_the_paper_is_the_default_run(bare_project: Project) -> None:
    for name in bare_project.params()["experiments"]:
        bare_project.edit(f"experiments.{name}.enabled", False)
    jobs = bare_project.jobs("--", "paper")
    assert jobs - Counter(["paper"]) == bare_project.jobs("--", "all")


def test_experiments_run_from_a_finished_run(project: Project) -> None:
    jobs = project.jobs("--", "paper")
    assert {name for name in jobs if name != "paper"} == JOBS
    project.snakemake("--", "paper")
    for name in NAMES:
        folder = project / f"results/experiments/{name}"
        found = {path.name for path in folder.iterdir() if path.is_file()}
        tables, figures = (
            {"table.csv", "table.md", "table.tex", "table.html"},
            {"figure.svg", "figure.png", "figure.pdf"},
        )
        assert found == tables | figures
    hostile = pd.read_csv(project / "results/experiments/hostile/table.csv")
    assert hostile["replacement"].tolist() == 3 * [
        *("honest", "undertrained", "flipped", "random", "scaled", "backdoor")
    ]
    assert np.isnan(hostile.loc[0, "singled_out"])  # of two specialists nobody can say
    table = pd.read_csv(project / "results/experiments/ablation/table.csv", keep_default_na=False)
    assert table[["factor", "value"]].agg(" ".join, axis=1).str.strip().tolist()[:3] == [
        *("as chosen", "core alone", "residual alone")
    ]
    whole = pd.read_csv(project / "results/tables/auc.csv").query("model == 'r2m' and domain == 'drawn'")
    mean = whole.query("protocol == 'in_distribution'")["auc"].mean()
    assert table.loc[0, "in_distribution"] == pytest.approx(mean, abs=1e-6)
    assert not project.jobs("--", "paper").keys() - {"paper"}
    report = (project / "results/report.html").read_text()
    assert "Experiments" in report
    check_families(project)
    check_methods(project)
    check_sources(project)

    project.edit("experiments.ablation.factors.norm_match", ["layer"])
    assert {name for name in project.jobs("--", "paper") if name != "paper"} == {
        *("ablation", "table_ablation", "figure_ablation", "settings", "pages")
    }
    project.edit("experiments.ablation.enabled", False)
    (project / "results/experiments/heads/figure.svg").unlink()
    project.snakemake("--", "paper")
    assert (project / "results/experiments/ablation/table.md").exists(), "deleted unasked"
    assert (project / "results/experiments/heads/table.md").exists()
    check_two_seeds(project)


def check_two_seeds(project: Project) -> None:
    for name in NAMES:
        project.edit(f"experiments.{name}.enabled", name in ("heads", "ablation"))
    before = pd.read_csv(project / "results/experiments/heads/table.csv")
    project.edit("seeds", [0, 1])
    project.snakemake("--", "paper")
    tables = [
        pd.read_csv(project / f"results/experiments/{name}/table.csv", keep_default_na=False)
        for name in ("heads", "ablation")
    ]
    assert all("val_auc_sd" in table for table in tables)
    assert tables[0]["head"].tolist() == before["head"].tolist()
    assert not np.allclose(tables[0]["val_auc"], before["val_auc"])
    # Two of the ratios are candidates of the merge: with either seed one of them is the chosen one.
    assert tables[1]["value"].tolist()[3:] == ["layer", "0.1", "0.3", "1.0"]


def check_families(project: Project) -> None:
    folder = "results/experiments/families/forged/inp"
    assert images(project, folder, "test") == images(project, "results/forged/inp", "test")
    assert len(images(project, folder, "train")) > 0
    table = pd.read_csv(project / "results/experiments/families/table.csv")
    assert table["specialists"].tolist() == [3, 2, 3, 3, 2, 3, 1]
    assert table["steps"].tolist() == [18, 12, 18, 18, 12, 18, 12]
    assert "unseen_generator" not in table, "the only unseen one is trained on"


def check_methods(project: Project) -> None:
    table = pd.read_csv(project / "results/experiments/methods/table.csv")
    assert table["specialists"].tolist() == [2] * 4 + [3] * 4
    assert "in_distribution_sd" in table, "of two seeds"
    # With the run's own seed the merge is that of the run.
    scores = pd.read_parquet(project / "results/experiments/methods/seed0/scores.parquet")
    own = scores[(scores["variant"] == "r2m") & (scores["specialists"] == 2)].set_index("image_id")["logit"]
    run = pd.read_parquet(project / "results/scores/merge/r2m/seed0/scores.parquet")
    run = run.set_index("image_id")["logit"]
    np.testing.assert_allclose(own[run.index], run, atol=1e-4)


def check_sources(project: Project) -> None:
    folder = project / "results/experiments/sources"
    before = manifest.read(project / "results/faces/sketch/manifest.parquet").set_index("image_id")
    after = manifest.read(folder / "faces/sketch/manifest.parquet").set_index("image_id")
    assert set(before["split"]) == {"test"}
    assert after["split"].value_counts().to_dict() == {"train": 3, "test": 3}
    pd.testing.assert_frame_equal(after.drop(columns="split"), before.drop(columns="split"))
    for name, splits in {"swap": {"train", "test"}, "inp": {"test"}}.items():
        fakes = manifest.read(folder / f"forged/{name}/manifest.parquet")
        fakes = fakes[fakes["domain"] == "sketch"]
        assert list(fakes["split"]) == list(after.loc[fakes["source_image"], "split"])
        assert set(fakes["split"]) == splits
    # The control's specialists and images of the training domain are those of the main run.
    scores = pd.read_parquet(folder / "seed0/scores.parquet")
    assert not scores[scores["split"] == "val"]["domain"].eq("sketch").any()
    chosen = pd.read_csv(project / "results/tables/auc.csv").query(
        "model == 'r2m_task' and domain == 'drawn'"
    )
    table = pd.read_csv(folder / "table.csv")
    control = table.query("training == 'A' and core == 'rank 1'")
    expected = chosen.query("protocol == 'in_distribution'")["auc"].mean()
    np.testing.assert_allclose(control["in_distribution"], expected, atol=1e-6)
