"""One finished run of the workflow in a temporary repository, and copies of it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from workflow_project import Project, create

MadeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Return a function that gives the folder of a name, filled by the process that asks for it first."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def folder(name: str, fill: Callable[[Path], object]) -> Path:
        path, done = shared / name, shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                assert not path.exists(), f"another process failed to make {path}"
                path.mkdir()
                fill(path)
                done.touch()
        return path

    return folder


@pytest.fixture(scope="session")
def prepared(made_once: MadeOnce) -> Project:
    """The repository before any run; not to be changed."""
    return Project(made_once("prepared", lambda folder: create(folder / "project")) / "project")


@pytest.fixture(scope="session")
def finished_run(prepared: Project, made_once: MadeOnce) -> Project:
    """The repository after one run of everything; not to be changed."""
    return Project(made_once("run", lambda folder: prepared.copy(folder / "project").snakemake()) / "project")


@pytest.fixture
def project(finished_run: Project, tmp_path: Path) -> Project:
    """A copy of the finished run that a test may change."""
    return finished_run.copy(tmp_path / "project")


@pytest.fixture
def bare_project(prepared: Project, tmp_path: Path) -> Project:
    """A copy of the repository without results."""
    return prepared.copy(tmp_path / "project")


@pytest.fixture(scope="module")
def module_copy(finished_run: Project, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Project]:
    """Return a function that makes copies for fixtures of a module, whose tests are an `xdist_group`."""
    return lambda name: finished_run.copy(tmp_path_factory.mktemp(name) / "project")
