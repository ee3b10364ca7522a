"""The workflow's sources: schema, style, and dvc.yaml against Snakemake's rules."""

import re
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest
import yaml
from workflow_project import REPOSITORY, Project

from r2m.experiments.options import ExperimentsOptions

RULES = REPOSITORY / "workflow/rules"


def rules_by_file() -> dict[str, set[str]]:
    """File of rules → the names of its rules."""
    found = {}
    for path in RULES.glob("*.smk"):
        names = re.findall(
            r"^(?:rule (\w+):|use rule \w+ as (\w+) with:)", path.read_text(), flags=re.MULTILINE
        )
        found[path.stem] = {one or other for one, other in names}
    return found


def files_by_digest() -> dict[str, list[str]]:
    """File below results/code → the files of rules that it digests, as dvc.smk has it."""
    text = (RULES / "dvc.smk").read_text()
    found = re.findall(r'"([a-z]+)(?:-\{name\})?": digest\(\s*"([a-z ]+)"', text)
    return {name: files.split() for name, files in found}


STAGES: dict[str, dict[str, Any]] = {
    name: stage.get("do", stage)
    for name, stage in yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"].items()
}


@pytest.mark.parametrize("name", [name for name in STAGES if name != "code"])
def test_stage_depends_on_the_code_of_the_rules_that_it_allows(name: str) -> None:
    stage = STAGES[name]
    command = re.search(r"\$\{run\} (.*?) -- (\S+)$", " ".join(stage["cmd"].split()))
    assert command
    *rules, target = command[1].split()
    assert target == command[2], "the target is allowed to run too"
    assert target.startswith("stage_")
    digests = [
        dep.removeprefix("results/code/").partition("-$")[0] for dep in stage["deps"] if "/code/" in dep
    ]
    covered = {file for digest in digests for file in files_by_digest()[digest]}
    by_file = rules_by_file()
    assert set(rules) <= set().union(*by_file.values()), "no such rule"
    assert {file for file, names in by_file.items() if names & set(rules)} == covered


def test_every_rule_belongs_to_a_stage() -> None:
    allowed = {word for stage in STAGES.values() for word in re.findall(r"\w+", stage["cmd"])}
    # The experiments of the paper are Snakemake's alone.
    experiments = {"experiments", "two_sources", *ExperimentsOptions.model_fields} - {"sources"}
    found = {file: rules for file, rules in rules_by_file().items() if file not in experiments}
    assert set().union(*found.values()) - allowed == set()


def test_stages_read_sections_that_params_have() -> None:
    """DVC refuses to run where a section that a stage depends on is left out."""
    sections = {one.partition(".")[0] for stage in STAGES.values() for one in stage["params"]}
    for path in ("params.yaml", "tests/workflow/tiny.yaml"):
        assert sections <= set(yaml.safe_load((REPOSITORY / path).read_text())), path


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
