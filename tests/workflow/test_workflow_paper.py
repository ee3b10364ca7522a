"""`snakemake paper`: the experiments run from a finished default run, each on its own."""

from collections import Counter

import pandas as pd
import pytest
from workflow_project import Project

pytestmark = pytest.mark.slow

NAMES = (
    *("inversion", "similarity", "rationale", "heads", "ablation", "composability"),
    *("hostile", "robustness"),
)
HOSTILE = {f"hostile_{step}" for step in ("data", "trunk", "finetune", "task_vector")}
TABLES = {f"{kind}_{name}" for kind in ("table", "figure") for name in NAMES}
JOBS = {*NAMES[1:], *HOSTILE, *TABLES}


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
    assert hostile.loc[0, "singled_out"] == 0  # of two specialists nobody can say
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

    project.edit("experiments.ablation.factors.norm_match", ["layer"])
    assert {name for name in project.jobs("--", "paper") if name != "paper"} == {
        *("ablation", "table_ablation", "figure_ablation", "settings", "pages")
    }
    project.edit("experiments.ablation.enabled", False)
    (project / "results/experiments/heads/figure.svg").unlink()
    project.snakemake("--", "paper")
    assert not (project / "results/experiments/ablation").exists()
    assert (project / "results/experiments/heads/table.md").exists()
