"""Snakemake and DVC agree: on what is up to date, in a clone, and on the results of a change."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from workflow_project import UP_TO_DATE, Project, finished, snakemake

pytestmark = pytest.mark.slow


@pytest.fixture
def committed(project: Project) -> Project:
    """A finished run, committed to git."""
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "Results")
    return project


def locked(project: Project) -> Any:
    """Return dvc.lock without the digests of what tells how long the run took."""
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    for one in lock["stages"]["report"]["outs"]:
        if one["path"] in ("results/pages", "results/model_card.md", "results/runtimes.csv"):
            del one["md5"], one["size"]
    return lock


def stages_run(output: str) -> set[str]:
    return set(re.findall(r"^Running stage '(.+)':$", output, flags=re.MULTILINE))


def test_run_leaves_dvc_up_to_date(project: Project, tmp_path: Path) -> None:
    assert UP_TO_DATE in project.dvc("status")
    assert UP_TO_DATE in project.dvc("repro")
    shown = project.dvc("metrics", "show", "--md")
    assert "results/tables/metrics.json" in shown
    assert "r2m_task" in shown
    project.dvc("plots", "show", "--out", str(tmp_path / "plots"))
    assert (tmp_path / "plots/index.html").is_file()


def test_git_commits_the_small_results_only(committed: Project) -> None:
    paths = committed.git("ls-files", "results").split()
    folders = {path.split("/")[1] for path in paths}
    records = {"data_card.md", "model_card.md", "settings.md", "runtimes.csv"}
    assert folders == {".gitignore", "validation", "tables", "figures", *records}
    assert "results/tables/auc.csv" in paths
    assert "results/figures/heatmap.svg" in paths
    assert committed.git("ls-files", "dvc.lock").split() == ["dvc.lock"]
    assert committed.git("status", "--porcelain") == ""
    ignored = committed.git("status", "--porcelain", "--ignored", "data", "results").split()
    assert "results/report.html" in ignored


@pytest.fixture
def clone(committed: Project, tmp_path: Path) -> Project:
    """A clone of a finished run that was pushed to a remote."""
    committed.dvc("remote", "add", "--default", "folder", str(tmp_path / "remote"))
    committed.git("commit", "--quiet", "--all", "--message", "Remote")
    committed.dvc("push", "--quiet")
    committed.git("clone", "--quiet", str(committed.root), str(tmp_path / "clone"))
    return Project(tmp_path / "clone")


def test_restored_clone_has_nothing_to_do(clone: Project, committed: Project) -> None:
    clone.run(sys.executable, "-m", "r2m", "restore")
    assert UP_TO_DATE in clone.dvc("status")
    assert not clone.jobs()
    assert UP_TO_DATE in clone.dvc("repro")
    assert clone.git("status", "--porcelain") == ""
    model = "results/merged/r2m/seed0/model.safetensors"
    assert (clone / model).read_bytes() == (committed / model).read_bytes()


def test_restore_refuses_results_of_other_params(clone: Project) -> None:
    clone.edit("generators.swap.finetune", {"lr": 5e-4})
    output = clone.run(sys.executable, "-m", "r2m", "restore", code=1)
    assert "r2m: error: `dvc status` finds results that do not belong" in output
    assert "Traceback" not in output
    assert clone.jobs(), "Snakemake was not told that they are current"


def test_restore_without_a_remote(bare_project: Project) -> None:
    output = bare_project.run(sys.executable, "-m", "r2m", "restore", code=1)
    assert "r2m: error: dvc pull failed" in output


def test_comment_in_the_code_reruns_no_stage_but_the_digests(project: Project) -> None:
    source = project / "src/r2m/train/finetune.py"
    source.write_text(source.read_text() + "\n\n# A remark.\n")
    assert stages_run(project.dvc("repro")) == {"code"}
    assert UP_TO_DATE in project.dvc("status")


def test_dvc_and_snakemake_make_the_same_of_a_change(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project.edit("generators.swap.finetune", {"lr": 5e-4})
    project.edit("experiments", {})  # some of them want the merges that go
    project.edit("merge.methods.weight_averaging", None)
    project.edit("merge.methods.r2m_task", None)
    project.run(sys.executable, "-m", "r2m", "prune", "--yes")
    before = (project / "results/tables/auc.csv").read_bytes()
    other = project.copy(tmp_path_factory.mktemp("other") / "project").alone()
    alone = other.start(*snakemake(cores=1))
    ran = stages_run(project.dvc("repro"))
    finished(alone)

    merges = ("ties", "r2m")
    assert ran == {
        *("code", "sources", "pool", "slices", "members"),  # of all generators
        *("specialist@swap", "specialist_scores@swap", "forge@swap", "report"),
        *(f"merge@{name}" for name in (*merges, "fisher")),  # whose stage is empty
        *(f"merge_scores@{name}" for name in merges),
    }
    results = [
        "results/specialists/swap/seed0/model.safetensors",
        *(f"results/merged/{name}/seed0/model.safetensors" for name in merges),
        *(f"results/scores/merge/{name}/seed0/scores.parquet" for name in merges),
        *(f"results/tables/{path.name}" for path in (project / "results/tables").iterdir()),
    ]
    assert [path for path in results if (project / path).read_bytes() != (other / path).read_bytes()] == []
    assert (project / "results/tables/auc.csv").read_bytes() != before
    assert locked(project) == locked(other)
    for one in (project, other):
        assert UP_TO_DATE in one.dvc("status")
        assert not one.jobs()
