"""One finished run of the workflow in a temporary repository, and copies of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from workflow_project import Project, create


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The repository before any run; not to be changed."""
    return create(tmp_path_factory.mktemp("prepared") / "project")


@pytest.fixture(scope="session")
def finished_run(prepared: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The repository after one run of everything; not to be changed."""
    project = prepared.copy(tmp_path_factory.mktemp("run") / "project")
    project.snakemake()
    return project


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
    """Return a function that makes copies for fixtures shared by a module."""
    return lambda name: finished_run.copy(tmp_path_factory.mktemp(name) / "project")
