import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest
import yaml

import r2m.cli
from cli_calls import invoke
from r2m.data.stages import members
from r2m.errors import R2MError

pytestmark = pytest.mark.usefixtures("one_thread")

REPOSITORY = Path(__file__).parents[1]
COMMANDS = [name for names in r2m.cli.SECTIONS.values() for name in names]


def run(*arguments, cwd, code=0):
    """Run the command in a process of its own; return what it printed."""
    command = [sys.executable, "-m", "r2m", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout + result.stderr


@pytest.fixture
def project(tmp_path):
    """A folder with the params of the workflow's tests, and the files that they name."""
    params = REPOSITORY / "tests/workflow/tiny.yaml"
    (tmp_path / "params.yaml").write_bytes(params.read_bytes())
    (tmp_path / "weights.safetensors").write_bytes(b"weights")
    return tmp_path


def test_every_command_is_found_and_has_help():
    listed = invoke("--help")
    for name in COMMANDS:
        text = invoke(name, "--help")
        assert text.startswith(f"Usage: r2m {name} [OPTIONS]")
        first = text.splitlines()[2].strip()
        assert len(first) > 10
        assert f"  {name} " in listed


def test_the_help_cuts_no_description_off():
    assert "..." not in invoke("--help").partition("Models:")[2]


def test_no_command_imports_torch_to_start():
    code = (
        "import importlib, sys\n"
        f"for name in {COMMANDS}: importlib.import_module('r2m.cli.' + name)\n"
        "print(sorted({'torch', 'timm', 'sklearn', 'matplotlib', 'onnx'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_checking_params_does_not_import_torch():
    code = (
        "import sys\n"
        "from r2m.params import load\n"
        "import r2m.input_files, r2m.digest\n"
        "load('params.yaml')\n"
        "print(sorted({'torch', 'pandas', 'timm', 'sklearn'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert result.stdout.strip() == "[]", result.stderr


def test_errors_are_one_line_and_exit_with_1(tmp_path):
    last = run("inspect", tmp_path / "a", cwd=tmp_path, code=1).strip().splitlines()[-1]
    assert last == f"r2m: error: {tmp_path / 'a'}: no such file"


def test_unknown_command_and_version():
    assert "No such command 'fintune'" in invoke("fintune", code=2)
    assert "No such command 'process'" in invoke("process", code=2)
    assert r2m.cli.__version__ in invoke("--version")


def test_schema():
    printed = invoke("schema")
    assert printed == (REPOSITORY / "workflow/schemas/params.schema.yaml").read_text(encoding="utf-8")
    schema = yaml.safe_load(printed)
    jsonschema.Draft202012Validator.check_schema(schema)
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(params, schema)
    with pytest.raises(jsonschema.ValidationError, match="stepz"):
        jsonschema.validate(params | {"finetune": {"stepz": 3}}, schema)


def test_prune_lists_first_and_removes_when_asked(project):
    asked_for = ("faces/drawn/images/a.jpg", "tables/auc.csv", "specialists/swap/seed0/model.safetensors")
    unmanaged = ("logs/faces/old.log", "benchmarks/old.tsv", ".gitignore")
    gone = ("faces/old/manifest.parquet", "specialists/swap/seed7/model.safetensors", "notes.txt")
    for name in (*asked_for, *unmanaged, *gone):
        path = project / "results" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (project / "results/faces/link").symlink_to(project / "weights.safetensors")
    listed = run("prune", cwd=project)
    names = {f"results/{name}" for name in (*gone, "faces/link")}
    assert {line for line in listed.splitlines() if line.startswith("results/")} == names
    assert "4 files (0.0 MiB)" in listed
    assert "`r2m prune --yes` removes them" in listed
    assert (project / "results" / gone[0]).exists()
    run("prune", "--yes", cwd=project)
    left = {path for path in (project / "results").rglob("*") if path.is_file() or path.is_symlink()}
    assert left == {project / "results" / name for name in (*asked_for, *unmanaged)}
    assert not (project / "results/faces/old").exists()
    assert (project / "weights.safetensors").exists(), "the link was followed"
    assert "0 files" in run("prune", cwd=project)


def test_prune_names_the_params_and_counts_what_git_tracks(project):
    (project / "params.yaml").rename(project / "other.yaml")
    for name in ("a.txt", "b.txt"):
        (project / "results").mkdir(exist_ok=True)
        (project / "results" / name).write_text("x")
    asked = ("prune", "--params", "other.yaml")
    expected = "that other.yaml does not ask for; `r2m prune --params other.yaml --yes` removes them"
    assert f"2 files (0.0 MiB) {expected}" in run(*asked, cwd=project)
    for command in (["init", "-q"], ["add", "results/a.txt"]):
        subprocess.run(["git", *command], cwd=project, check=True)
    assert f"2 files (0.0 MiB), 1 of them tracked by git, {expected}" in run(*asked, cwd=project)
    assert "2 files (0.0 MiB), 1 of them tracked by git, removed" in run(*asked, "--yes", cwd=project)


def test_restore_tells_what_it_does(project, monkeypatch):
    monkeypatch.chdir(project)
    (project / "results").mkdir()
    (project / "results/a.txt").write_text("x")
    called, returned = [], []

    def call(command):
        called.append(command[2])
        return subprocess.CompletedProcess(command, returned.pop(0))

    monkeypatch.setattr(subprocess, "run", call)
    returned[:] = [0, 0, 0]
    lines = invoke("restore").splitlines()
    assert called == ["dvc", "dvc", "snakemake"]
    assert [line.split()[1] for line in lines] == ["fetching", "comparing", "setting", "1"]
    assert lines[-1] == "restored: 1 files (0.0 MiB) below results; nothing is left to run"
    returned[:] = [0, 1]
    with pytest.raises(R2MError, match="do not belong to the code"):
        invoke("restore")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["job", "finetoon"], "unknown stage 'finetoon'; did you mean 'finetune'?"),
        (["job", "finetune", "swop"], "finetune: no job for 'swop'; did you mean 'swap'?"),
        (["finetune", "swap", "--seed", 3], "finetune: no job with specialist=swap, seed=3"),
        (["finetune", "swap"], "results/faces/drawn/manifest.parquet: no such file; `snakemake"),
        (["job", "score", "--params", "other.yaml"], "other.yaml: cannot be read"),
    ],
)
def test_jobs_that_cannot_run_say_why(project, arguments, message):
    assert f"r2m: error: {message}" in run(*arguments, cwd=project, code=1)


def test_a_job_runs_by_hand(project):
    rng = np.random.default_rng(0)
    for place in range(24):
        folder = project / "drawn" / f"p{place // 2:02}"
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(os.fspath(folder / f"{place}.png"), rng.integers(0, 255, (64, 64, 3), np.uint8))
    run("job", "faces", "drawn", cwd=project)
    assert (project / "results/faces/drawn/manifest.parquet").exists()
    assert not (project / "results/faces/sketch").exists()


def test_members(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"a")
    (tmp_path / "m").write_bytes(b"m")

    def digests():
        members(models={"swap": [tmp_path / "m", folder], "up": [folder]}, out=tmp_path / "out")
        return [json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in ("swap", "up")]

    swap, up = digests()
    assert swap.keys() == {str(tmp_path / "m"), str(folder)}
    assert up[str(folder)] == swap[str(folder)]
    assert digests() == [swap, up]
    (folder / "a.jpg").rename(folder / "b.jpg")
    assert digests()[1] != up
