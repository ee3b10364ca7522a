"""Digest of the code that a command runs, so that a workflow reruns what a change of code affects."""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parent

# They check and carry values that the rules pass in full, so a change there cannot change a result by itself.
_CARRIERS = frozenset(
    {
        "r2m.errors",
        "r2m.options",
        "r2m.core_params",
        "r2m.params",
        "r2m.merge.variants",
        "r2m.cli.json_type",
        *(
            f"r2m.{package}.options"
            for package in ("data", "forge", "models", "trunk", "train", "evaluate", "experiments")
        ),
    }
)


def code_digest(modules: Iterable[str]) -> str:
    """Return a digest of the syntax trees of `modules` and of every r2m module that they import.

    Imports inside functions count; comments, blank lines and layout do not.
    """
    digest = hashlib.sha256()
    for name in sorted(closure(modules)):
        digest.update(f"{name}:{_tree(name)[0]}\n".encode())
    return digest.hexdigest()[:16]


def closure(modules: Iterable[str]) -> set[str]:
    """Return `modules` and the r2m modules that they import, transitively.

    Raises:
        FileNotFoundError: one of `modules` does not exist.
    """
    pending, found = list(modules), set[str]()
    for name in pending:
        if _file(name) is None:
            raise FileNotFoundError(f"no module {name}")
    while pending:
        name = pending.pop()
        if name not in found and name not in _CARRIERS:
            found.add(name)
            pending.extend(_tree(name)[1])
    return found


@cache
def _tree(name: str) -> tuple[str, tuple[str, ...]]:
    """Return the digest of one module's syntax tree, and the r2m modules it imports."""
    file = _file(name)
    assert file is not None
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imported: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    _drop_docstrings(tree)
    digest = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    return digest, tuple(one for one in imported if one.startswith("r2m.") and _file(one))


def _drop_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            del node.body[0]


def _file(name: str) -> Path | None:
    """Return the source file of the module or package `name`, None if there is none."""
    path = SOURCE.joinpath(*name.split(".")[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None
