"""What may import what, read from the syntax trees."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import r2m
from r2m.digest import modules_of

SOURCE = Path(r2m.__file__).parent
# Single modules that know no package, and packages and modules that import from those before them only.
GROUND = {"errors", "files", "seeding", "digest", "manifest", "options", "declared", "version", "terminal"}
ORDER = [
    "data",
    "video",
    "index",
    "validate",
    "datasets",
    "forge",
    "models",
    "detection",
    "demo",
    "trunk",
    "session_files",
    "session",
    "train",
    "merge",
    "evaluate",
    "report",
    "core_params",
    "input_files",
    "plan",
    "experiments",
    "params",
    "workflow",
    "cli",
]
TOP = {"__init__", "__main__"}
# Modules of `merge` that read and write weights; the others are functions on tensors.
FILES_OF_MERGES = {"difference", "files", "engine", "inspection", "specialist_files", "stages"}
MODULES = sorted(SOURCE.rglob("*.py"))
METHODS = [path for path in MODULES if path.match("merge/methods/[a-z]*.py")]
EXPERIMENTS = [path for path in MODULES if path.match("experiments/[a-z]*.py") and path.stem != "stages"]


def name_of(path):
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(("r2m", *parts)).removesuffix(".__init__")


NAMES = {name_of(path): path for path in MODULES}


def imports(path):
    """Yield the modules that a file imports, wherever it does."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            whole = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in NAMES else node.module for name in whole)


def own_imports(path):
    """Return the modules of r2m that a file imports."""
    return {name for name in imports(path) if name in NAMES}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_backwards(path):
    own = path.relative_to(SOURCE).with_suffix("").parts[0]
    if own in TOP:
        return
    for imported in own_imports(path) - {"r2m"}:
        other = imported.split(".")[1]
        if own in GROUND:
            assert other in GROUND, f"{name_of(path)} imports {imported}"
        else:
            is_before = other in GROUND or ORDER.index(other) <= ORDER.index(own)
            assert is_before, f"{name_of(path)} imports {imported}"


def test_there_is_no_circle():
    graph = {name: own_imports(path) for name, path in NAMES.items()}
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_every_module_has_its_floor():
    packages = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    modules = {path.stem for path in SOURCE.glob("*.py")}
    assert packages | modules == {*GROUND, *ORDER, *TOP}


def test_packages_hold_a_docstring_only():
    for path in SOURCE.rglob("__init__.py"):
        if path.parent not in (SOURCE, SOURCE / "cli"):
            body = ast.parse(path.read_text(encoding="utf-8")).body
            assert len(body) == 1, path
            assert isinstance(body[0], ast.Expr), path


def test_only_safe_loading_knows_pickle():
    importing = {name_of(path) for path in MODULES for one in imports(path) if one.split(".")[0] == "pickle"}
    assert importing <= {"r2m.models.pickles"}
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        called = [ast.unparse(node.func) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        assert "torch.save" not in called
        assert "allow_pickle" not in text
        assert text.count("torch.load(") == text.count("weights_only=True")


def test_click_at_the_edge_only():
    importing = {name_of(path) for path in MODULES for one in imports(path) if one.split(".")[0] == "click"}
    assert all(name.startswith("r2m.cli") for name in importing)


def test_the_algebra_of_merging_knows_no_files():
    for path in (SOURCE / "merge").glob("*.py"):
        if path.stem not in {"__init__", *FILES_OF_MERGES}:
            reached = modules_of([name_of(path)])
            knows = [
                name for name in reached if name.startswith(("r2m.models", "r2m.files", "r2m.merge.stages"))
            ]
            assert not knows, f"{name_of(path)} imports {knows}"


def test_merging_methods_know_no_files():
    files = {f"r2m.merge.{name}" for name in FILES_OF_MERGES}
    for path in METHODS:
        assert not modules_of([name_of(path)]) & files, path


def test_plans_and_plug_ins_are_read_without_torch():
    """params.yaml is checked, and the jobs are planned, before every run."""
    names = [*map(name_of, (*METHODS, *EXPERIMENTS)), "r2m.params", "r2m.workflow"]
    code = (
        "import importlib, sys\n"
        f"for name in {names}:\n"
        "    importlib.import_module(name)\n"
        "    assert not {'torch', 'scipy', 'matplotlib', 'sklearn'} & set(sys.modules), name\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr.strip().splitlines()[-1]


def test_no_prints_and_no_star_imports():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", path
            if isinstance(node, ast.ImportFrom):
                assert node.names[0].name != "*", path
