"""One finished run of the workflow in a temporary repository, and copies of it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from workflow_project import FORK_SERVER, Project, create, wait_for

MadeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def prepared(made_once: MadeOnce) -> Project:
    """The repository before any run; not to be changed."""
    return Project(made_once("prepared", lambda folder: create(folder / "project")) / "project")


@pytest.fixture(scope="session")
def finished_run(prepared: Project, made_once: MadeOnce) -> Project:
    """The repository after one run of everything; not to be changed."""
    return Project(made_once("run", lambda folder: prepared.copy(folder / "project").snakemake()) / "project")


@pytest.fixture(scope="session")
def fork_server() -> Iterator[str | None]:
    """The address of a server that starts commands by forking; none where libraries do not allow that."""
    if sys.platform != "linux":
        yield None
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    with TemporaryDirectory() as folder:
        address = Path(folder) / "socket"
        command = [sys.executable, "-P", str(FORK_SERVER / "serve.py"), str(address)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as server:
            wait_for(address.exists, server)
            yield str(address)


@pytest.fixture
def project(finished_run: Project, fork_server: str | None, tmp_path: Path) -> Project:
    """A copy of the finished run that a test may change."""
    return replace(finished_run, fork_server=fork_server).copy(tmp_path / "project")


@pytest.fixture
def bare_project(prepared: Project, fork_server: str | None, tmp_path: Path) -> Project:
    """A copy of the repository without results."""
    return replace(prepared, fork_server=fork_server).copy(tmp_path / "project")


@pytest.fixture(scope="module")
def module_copy(
    finished_run: Project, fork_server: str | None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Project]:
    """Return a function that makes copies for fixtures of a module, whose tests are an `xdist_group`."""
    project = replace(finished_run, fork_server=fork_server)
    return lambda name: project.copy(tmp_path_factory.mktemp(name) / "project")
