import hashlib
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from r2m.errors import R2MError
from r2m.options import parse_yaml
from r2m.params import Params, load, parse
from r2m.report.settings import git_commit, versions
from r2m.report.stages import settings

ROOT = Path(__file__).parents[2]


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def as_run(params: Params) -> dict[str, Any]:
    return params.model_dump(mode="json", exclude_none=True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights" * 100_000)
    return path


def test_params_and_digests(model: Path, tmp_path: Path) -> None:
    params = load(ROOT / "params.yaml")
    base = tmp_path / "base.safetensors"
    base.write_bytes(b"base")
    settings(models=[base, model], params=as_run(params), out=tmp_path / "settings.md")
    text = (tmp_path / "settings.md").read_text(encoding="utf-8")
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert f"| `{model}` | `{digest}` | 0.7 |" in text
    assert text.index(f"`{base}`") < text.index(f"`{model}`")
    found = re.search(r"```yaml\n(.*)```", text, re.DOTALL)
    assert found
    assert parse(parse_yaml(found[1], "settings.md")) == params
    assert "null" not in found[1]
    assert "| arithmetic | " in text


def test_versions_are_of_all_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.split(r"[<>=]", line)[0] for line in project["dependencies"]}
    found = dict(versions())
    assert found.keys() <= wanted | {"r2m"}
    assert {"torch", "timm", "snakemake", "numpy"} <= found.keys()
    assert all(re.match(r"\d", version) for version in found.values())


def test_git_commit(tmp_path: Path) -> None:
    assert git_commit(tmp_path) == "none: not in a git repository"
    git(tmp_path, "init", "--quiet")
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "Params")
    assert re.fullmatch(r"`[0-9a-f]{40}`", git_commit(tmp_path))
    (tmp_path / "results.csv").write_text("made\n")
    assert "uncommitted" not in git_commit(tmp_path), "a result is no source"
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    assert git_commit(tmp_path).endswith("`, with uncommitted changes")


def test_missing_model(tmp_path: Path) -> None:
    with pytest.raises(R2MError, match=r"gone\.safetensors: cannot be read \(No such file"):
        settings(
            models=[tmp_path / "gone.safetensors"],
            params=as_run(load(ROOT / "params.yaml")),
            out=tmp_path / "settings.md",
        )
    assert not (tmp_path / "settings.md").exists()


def test_params_of_a_small_run(model: Path, tmp_path: Path) -> None:
    params = load(ROOT / "tests/workflow/tiny.yaml")
    settings(models=[model], params=as_run(params), out=tmp_path / "settings.md")
    assert "name: test_vit" in (tmp_path / "settings.md").read_text(encoding="utf-8")
