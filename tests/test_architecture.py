"""What may import what, read from the syntax trees."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import r2m
from r2m.digest import closure

SOURCE = Path(r2m.__file__).parent
# Every package imports from those before it, and never from those after it.
ORDER = [
    "data",
    "forge",
    "models",
    "trunk",
    "train",
    "merge",
    "evaluate",
    "report",
    "experiments",
    "tables",
    "figures",
    "params",
    "cli",
]
# Beside the packages; these know no package.
SHARED = {
    "errors",
    "files",
    "seeding",
    "digest",
    "manifest",
    "options",
    "__main__",
    "__init__",
}
# Modules of `merge` that read and write weights; the others are functions on tensors.
FILES_OF_MERGES = {"engine", "files", "inspection", "stages"}
MODULES = sorted(SOURCE.rglob("*.py"))
METHODS = [path for path in MODULES if path.match("merge/methods/[a-z]*.py")]


def name_of(path):
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(("r2m", *parts))


def imports(path):
    """Yield the modules that a file imports, wherever it does."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "r2m":
                yield from (f"r2m.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_backwards(path):
    own = path.relative_to(SOURCE).with_suffix("").parts[0]
    for imported in imports(path):
        if not imported.startswith("r2m."):
            continue
        other = imported.split(".")[1]
        if own in SHARED:
            allowed = other not in ORDER or own == "__main__"
        else:
            allowed = other not in ORDER or ORDER.index(other) <= ORDER.index(own)
        assert allowed, f"{name_of(path)} imports {imported}"


def test_every_package_is_in_the_order():
    packages = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert packages == set(ORDER)
    assert {path.stem for path in SOURCE.glob("*.py")} == SHARED


def test_packages_hold_a_docstring_only():
    for path in SOURCE.rglob("__init__.py"):
        if path.parent not in (SOURCE, SOURCE / "cli", SOURCE / "params"):
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
        if path.stem in {"__init__", *FILES_OF_MERGES}:
            continue
        found = closure([name_of(path)])
        knows = [one for one in found if one.startswith(("r2m.models", "r2m.files", "r2m.merge.stages"))]
        assert not knows, f"{name_of(path)} imports {knows}"


def test_merging_methods_know_no_files():
    files = {f"r2m.merge.{name}" for name in FILES_OF_MERGES}
    for path in METHODS:
        assert not closure([name_of(path)]) & files, path


def test_methods_are_declared_without_torch():
    """params.yaml is checked against the options of all methods before every run."""
    code = (
        "import importlib, sys\n"
        f"for name in {[name_of(path) for path in METHODS]}:\n"
        "    importlib.import_module(name)\n"
        "    assert not {'torch', 'scipy', 'pandas'} & set(sys.modules), name\n"
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
