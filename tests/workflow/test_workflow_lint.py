"""The workflow's sources: schema, style, and dvc.yaml against Snakemake's rules."""

import re
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest
import yaml
from workflow_project import REPOSITORY, Project

from r2m.options import FAMILIES, read_yaml
from r2m.params import parse
from r2m.plan.tracking import Tracked
from r2m.workflow import Workflow

RULES = REPOSITORY / "workflow/rules"
PARAMS = read_yaml(REPOSITORY / "params.yaml")
PARAMS["datasets"] = {"df40": {"index": "data/df40.parquet"}, "unused": {"index": "data/unused.parquet"}}
PARAMS["domains"]["cdf"] = {"dataset": "df40", "role": "test"}
PARAMS["generators"]["simswap"] = {"family": "FS", "dataset": "df40"}
RUN = Workflow(parse(PARAMS))
KEYS = {
    "${datasets}": RUN.params.datasets,
    "${domains}": RUN.plan.domains,
    "${generators}": RUN.plan.generators,
    "${families}": FAMILIES,
    "${merge.methods}": list(RUN.params.merge.methods),
}


def expanded() -> dict[str, tuple[Tracked, dict[str, Any]]]:
    """Name in dvc.yaml → what the plan has of the stage, and what dvc.yaml has, with the key filled in."""
    stages = {}
    for name, stage in yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"].items():
        for key in KEYS[stage["foreach"]] if "foreach" in stage else [""]:
            text = yaml.safe_dump(stage.get("do", stage)).replace("${key}", key).replace("${item}", key)
            filled = yaml.safe_load(text)
            target = re.search(r"stage_\w+$", filled["cmd"])
            if target is None:
                assert name == "code"
                continue
            (tracked,) = (
                one for known, one in RUN.tracked.items() if f"stage_{known.replace('-', '_')}" == target[0]
            )
            stages[f"{name}@{key}" if key else name] = tracked, filled
    return stages


STAGES = expanded()


@pytest.mark.parametrize("name", STAGES)
def test_stage_of_dvc_is_that_of_the_plan(name: str) -> None:
    tracked, stage = STAGES[name]
    command = re.search(r"\$\{run\} (.*?) -- (\S+)$", " ".join(stage["cmd"].split()))
    assert command
    *rules, target = command[1].split()
    assert target == command[2], "the target is allowed to run too"
    assert {job.name for job, _ in tracked.jobs} <= set(rules) <= set(RUN.main)
    assert f"results/code/{target.removeprefix('stage_')}" in {dep.replace("-", "_") for dep in stage["deps"]}
    outs = [next(iter(out)) if isinstance(out, dict) else out for out in stage["outs"]]
    assert [file for file in tracked.files if not file.startswith(tuple(outs))] == []


def test_every_job_belongs_to_one_stage_of_dvc() -> None:
    jobs = [
        (job.name, *wildcards.values()) for tracked, _ in STAGES.values() for job, wildcards in tracked.jobs
    ]
    planned = [(stage.name, *one.values()) for stage in RUN.main.values() for one in stage.instances]
    assert sorted(jobs) == sorted(planned)
    assert len(set(jobs)) == len(jobs)


def test_stages_read_sections_that_params_have() -> None:
    """DVC refuses to run where a section that a stage depends on is left out."""
    sections = {param.partition(".")[0] for _, stage in STAGES.values() for param in stage["params"]}
    for path in ("params.yaml", "tests/workflow/tiny.yaml"):
        assert sections <= set(yaml.safe_load((REPOSITORY / path).read_text())), path


def test_slurm_profile_names_rules_of_the_workflow() -> None:
    profile = yaml.safe_load((REPOSITORY / "workflow/profiles/slurm/config.yaml").read_text())
    assert {*profile["set-threads"], *profile["set-resources"]} <= set(RUN.main)


def test_schema_is_that_of_the_models() -> None:
    made = subprocess.run([sys.executable, "-m", "r2m", "schema"], capture_output=True, text=True, check=True)
    assert (REPOSITORY / "workflow/schemas/params.schema.yaml").read_text() == made.stdout


def test_lint(bare_project: Project) -> None:
    assert "Congratulations" in bare_project.snakemake("--lint")


@pytest.mark.skipif(find_spec("snakefmt") is None, reason="snakefmt is not installed: pip install -e .[lint]")
def test_format() -> None:
    files = [str(path) for path in [REPOSITORY / "Snakefile", *sorted(RULES.glob("*.smk"))]]
    checked = subprocess.run(
        [sys.executable, "-m", "snakefmt.snakefmt", "--check", *files], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
