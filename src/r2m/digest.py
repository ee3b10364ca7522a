"""Digest of the code that a job runs, so that a workflow reruns what a change of code affects."""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeGuard

SOURCE = Path(__file__).parent

# Their classes carry and check values that rules pass in full, and change no result by themselves.
_CARRIERS = frozenset(
    {
        *(
            "r2m.errors",
            "r2m.options",
            "r2m.core_params",
            "r2m.params",
            "r2m.session_files",
            "r2m.merge.variants",
        ),
        *(
            f"r2m.{package}.options"
            for package in ("data", "datasets", "forge", "models", "trunk", "train", "evaluate")
        ),
    }
)

# What a module calls a package whose modules it finds by name at run time: it counts as using all of them.
_PLUG_INS = "PLUG_INS"


def code_digest(targets: Iterable[str]) -> str:
    """Return a digest of the syntax trees of `targets` and of every definition of r2m that they use.

    A target is a module, or `module:name` for one function or class of it. Imports inside functions count;
    comments, docstrings, blank lines and layout do not.
    """
    return _digest(tuple(targets))


@cache
def _digest(targets: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for node in sorted(closure(targets)):
        digest.update(f"{node}:{_definition_digest(*node.split(':'))}\n".encode())
    return digest.hexdigest()[:16]


def closure(targets: Iterable[str]) -> set[str]:
    """Return the definitions `module:name` that `targets` use, transitively.

    Statements of a module that define nothing stand as `module:`; they count with any of its definitions.

    Raises:
        FileNotFoundError: one of `targets` does not exist.
    """
    pending: list[str] = []
    for target in targets:
        module, _, name = target.partition(":")
        if _file(module) is None or (name and name not in _parsed(module).definitions):
            raise FileNotFoundError(f"no module {module}" if not name else f"no {name} in {module}")
        pending += [target] if name else _whole(module)
    reached = set[str]()
    while pending:
        node = pending.pop()
        module, _, name = node.partition(":")
        if node in reached or module == __name__:  # whatever a digest is made by, equal ones mean equal code
            continue
        if module in _CARRIERS and _parsed(module).is_class(name):
            continue
        reached.add(node)
        pending += [f"{module}:", *_uses(module, name)]
    return reached


def modules_of(targets: Iterable[str]) -> set[str]:
    """Return the modules that `closure` reaches into."""
    return {node.partition(":")[0] for node in closure(targets)}


@dataclass(frozen=True)
class _Module:
    """The syntax tree of one module by its definitions; `imports` are the names that top-level imports bind.

    Under the empty name stand all other statements.
    """

    name: str
    definitions: Mapping[str, list[ast.stmt]]
    imports: Mapping[str, str]

    def is_class(self, name: str) -> bool:
        """Whether a definition is a class."""
        return any(isinstance(node, ast.ClassDef) for node in self.definitions.get(name, []))

    def uses(self, name: str) -> Iterator[str]:
        """Yield the definitions that one of this module refers to."""
        for statement in self.definitions.get(name, []):
            attributes = [node for node in ast.walk(statement) if isinstance(node, ast.Attribute)]
            roots = {id(node.value) for node in attributes if isinstance(node.value, ast.Name)}
            for node in ast.walk(statement):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    for _, target in _bound(node):
                        yield from _resolved(target)
                elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    if node.value.id in self.imports:
                        yield from _resolved(f"{self.imports[node.value.id]}.{node.attr}")
                    elif node.value.id in self.definitions:
                        yield f"{self.name}:{node.value.id}"
                elif isinstance(node, ast.Name) and name == _PLUG_INS and node.id in self.imports:
                    yield from _whole_package(self.imports[node.id])
                elif isinstance(node, ast.Name) and id(node) not in roots:
                    if node.id in self.definitions:
                        yield f"{self.name}:{node.id}"
                    elif node.id in self.imports:
                        yield from _resolved(self.imports[node.id])


@cache
def _definition_digest(module: str, name: str) -> str:
    text = "".join(map(ast.dump, _parsed(module).definitions.get(name, [])))
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _uses(module: str, name: str) -> tuple[str, ...]:
    return tuple(_parsed(module).uses(name))


@cache
def _parsed(name: str) -> _Module:
    """Parse one module, without its docstrings."""
    file = _file(name)
    assert file is not None
    tree = ast.parse(file.read_text(encoding="utf-8"))
    _drop_docstrings(tree)
    definitions: dict[str, list[ast.stmt]] = {"": []}
    imports: dict[str, str] = {}
    for statement in _run(tree.body):
        if isinstance(statement, ast.ImportFrom) or _is_alias(statement):
            imports |= dict(_bound(statement))
            continue
        names = _defined(statement)
        for defined in names or [""]:
            definitions.setdefault(defined, []).append(statement)
    return _Module(name, definitions, imports)


def _run(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run: not those for type checkers alone."""
    for statement in statements:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            yield from statement.orelse
        else:
            yield statement


def _is_alias(statement: ast.stmt) -> TypeGuard[ast.Import]:
    """Whether a statement is `import … as …` alone; a plain `import r2m.module` counts as using all of it."""
    return isinstance(statement, ast.Import) and all(alias.asname for alias in statement.names)


def _defined(statement: ast.stmt) -> list[str]:
    """Return the names that a function, a class or an assignment defines; none for other statements."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names = [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
        return names if all(isinstance(target, ast.Name | ast.Tuple) for target in targets) else []
    return []


def _bound(statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    """Yield the names that an import binds, with the `r2m.module` or `r2m.module.name` they stand for."""
    for alias in statement.names:
        whole = alias.name if isinstance(statement, ast.Import) else f"{statement.module}.{alias.name}"
        if whole.startswith("r2m."):
            yield alias.asname or alias.name, whole


def _resolved(dotted: str) -> list[str]:
    """Return the definitions that `r2m.module.name` stands for: one, or all of a module."""
    if _file(dotted) is not None:
        return _whole(dotted)
    module, _, name = dotted.rpartition(".")
    if _file(module) is None:
        return _resolved(module) if module else []
    return [f"{module}:{name}"] if name in _parsed(module).definitions else _reexported(module, name)


def _reexported(module: str, name: str) -> list[str]:
    """Return what a name that a module imports itself stands for; all of the module where it does not say."""
    imports = _parsed(module).imports
    return _resolved(imports[name]) if name in imports else _whole(module)


def _whole(module: str) -> list[str]:
    return [f"{module}:{name}" for name in _parsed(module).definitions]


def _whole_package(package: str) -> list[str]:
    initial = _file(package)
    assert initial is not None
    names = sorted(path.stem for path in initial.parent.glob("*.py") if path != initial)
    return _whole(package) + [part for name in names for part in _whole(f"{package}.{name}")]


def _drop_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            del node.body[0]


@cache
def _file(name: str) -> Path | None:
    """Return the source file of the module or package `name`, None if there is none."""
    path = SOURCE.joinpath(*name.split(".")[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None
