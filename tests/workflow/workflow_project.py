"""A temporary repository with the workflow in it: drawn faces, a small random ViT, git and DVC."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

REPOSITORY = Path(__file__).parents[2]
TINY = Path(__file__).with_name("tiny.yaml")
FORK_SERVER = Path(__file__).with_name("fork_server")
TRACKED = (
    "Snakefile",
    "dvc.yaml",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvcignore",
    ".gitignore",
    "workflow",
    "src",
    "data/sources.txt",
    "data/.gitignore",
    "results/.gitignore",
    "results/validation/.gitignore",
)
UP_TO_DATE = "Data and pipelines are up to date."


@dataclass(frozen=True)
class Project:
    """A folder that the workflow runs in; with the address of a fork server its commands start faster."""

    root: Path
    fork_server: str | None = None

    def __truediv__(self, path: str) -> Path:
        return self.root / path

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a shell with the environment activated, and nothing of the user's configuration."""
        own = self.root.parent / f"{self.root.name}.environment"
        own.mkdir(exist_ok=True)
        return {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join([str(self / "src"), str(FORK_SERVER)]),
            # Then the workflow need not start a server of its own.
            **({"FORK_SERVER": self.fork_server, "R2M_WARM": ""} if self.fork_server else {}),
            "OMP_NUM_THREADS": "1",
            "DVC_SITE_CACHE_DIR": str(own),
            "DVC_GLOBAL_CONFIG_DIR": str(own),
            "DVC_SYSTEM_CONFIG_DIR": str(own),
            "DVC_NO_ANALYTICS": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            **{f"GIT_{who}_NAME": "Test" for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": "test@example.org" for who in ("AUTHOR", "COMMITTER")},
        }

    def start(self, *command: str) -> "subprocess.Popen[str]":
        """Start a command in a process group of its own."""
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, code: int = 0) -> str:
        """Run a command, check its exit code and return what it printed."""
        return finished(self.start(*command), code)

    def snakemake(self, *arguments: str, code: int = 0, cores: int = 2) -> str:
        return self.run(*snakemake(*arguments, cores=cores), code=code)

    def dvc(self, *arguments: str, code: int = 0) -> str:
        return self.run(sys.executable, "-m", "dvc", *arguments, code=code)

    def git(self, *arguments: str) -> str:
        return self.run("git", *arguments)

    def jobs(self, *arguments: str) -> "Counter[str]":
        """Return the jobs that would run, as `rule` or `rule wildcard/wildcard`, without the target rule.

        The first seed, 0, is not told.
        """
        found: Counter[str] = Counter()
        for block in re.split(r"\n(?=(?:local)?rule )", self.snakemake("--dry-run", *arguments)):
            rule = re.match(r"(?:local)?rule (\w+):", block)
            if rule and rule[1] != "all":
                wildcards = re.search(r"^    wildcards: (.*)$", block, flags=re.MULTILINE)
                pairs = wildcards[1].split(", ") if wildcards else []
                values = [one.partition("=")[2] for one in pairs if one != "seed=0"]
                found[" ".join([rule[1], *(["/".join(values)] if values else [])])] += 1
        return found

    def params(self) -> dict[str, Any]:
        return yaml.safe_load((self / "params.yaml").read_text())

    def edit(self, key: str, value: Any) -> None:
        """Set one dotted key of params.yaml; None removes it."""
        params = self.params()
        *parents, last = key.split(".")
        section = reduce(lambda section, name: section.setdefault(name, {}), parents, params)
        section.pop(last, None) if value is None else section.__setitem__(last, value)
        (self / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False, allow_unicode=True))

    def replace(self, path: str, old: str, new: str) -> None:
        """Replace the one occurrence of a text in a file."""
        text = (self / path).read_text()
        assert text.count(old) == 1, f"{path}: {text.count(old)} times {old!r}"
        (self / path).write_text(text.replace(old, new))

    def copy(self, root: Path) -> "Project":
        """Copy the folder with all times."""
        shutil.copytree(self.root, root, symlinks=True)
        return replace(self, root=root)

    def alone(self) -> "Project":
        """Return the project with processes of its own, which import everything and have other hash seeds."""
        return replace(self, fork_server=None)


def snakemake(*arguments: str, cores: int = 2) -> list[str]:
    """Return Snakemake's command line."""
    return [sys.executable, "-m", "snakemake", "--cores", str(cores), *arguments]


def finished(process: "subprocess.Popen[str]", code: int = 0) -> str:
    """Wait for a command, check its exit code and return what it printed."""
    try:
        output, _ = process.communicate(timeout=1800)
    finally:
        kill(process)
    assert process.returncode == code, f"{process.args} returned {process.returncode}:\n{output}"
    return output


def kill(process: "subprocess.Popen[str]") -> None:
    """End a command and everything that it started, as a power cut would."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]", seconds: float = 600) -> None:
    """Wait until a condition holds; fail if the process ends before."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"ended too early:\n{process.stdout and process.stdout.read()}"
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def create(root: Path) -> Project:
    """Make a repository with the workflow, the tiny params, drawn faces and random weights."""
    import timm
    import torch
    from safetensors.torch import save_file

    for name in TRACKED:
        source, target = REPOSITORY / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy2(source, target)
    shutil.copy2(TINY, root / "params.yaml")
    rng = np.random.default_rng(0)
    draw(root / "drawn", [f"p{i // 2:02}/{i:02}" for i in range(24)], rng)
    draw(root / "sketch", [f"{i:02}" for i in range(6)], rng)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vit = timm.create_model("test_vit", pretrained=False, num_classes=0, img_size=32)
    save_file(
        {key: value.contiguous() for key, value in vit.state_dict().items()}, root / "weights.safetensors"
    )
    project = Project(root)
    project.git("init", "--quiet")
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "The workflow, photographs and weights")
    return project


def draw(folder: Path, names: list[str], rng: np.random.Generator) -> None:
    """Write drawn faces as PNG files."""
    for name in names:
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), face(rng))


def face(rng: np.random.Generator, size: int = 64) -> NDArray[np.uint8]:
    """Draw an aligned face: oval, eyes, nose and mouth on a plain ground."""
    image = np.full((size, size, 3), rng.integers(60, 200, 3), np.uint8)
    skin = [int(value) for value in rng.integers(120, 230, 3)]
    cv2.ellipse(image, (32, 34), (22, 28), 0, 0, 360, skin, -1)
    for x in (23, 41):
        cv2.circle(image, (x, 28), 4, (30, 30, 30), -1)
    cv2.line(image, (32, 32), (32, 40), (80, 80, 90), 2)
    cv2.ellipse(image, (32, 48), (9, 4), 0, 0, 360, (60, 50, 160), -1)
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
