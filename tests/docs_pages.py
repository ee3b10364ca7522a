"""The pages of the documentation, their examples, and the program that generates parts of them."""

import importlib.util
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}


def module_from(path: Path, name: str) -> ModuleType:
    """Import a file as the module `name`."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def generator() -> ModuleType:
    """Return docs/generate.py as a module."""
    return module_from(ROOT / "docs" / "generate.py", "docs_generate")


def fences(page: str, language: str) -> list[str]:
    """Return the code blocks of a language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGES[page], re.DOTALL | re.MULTILINE)


def example(page: str, language: str, start: str) -> str:
    """Return the one code block of a page that starts with a text."""
    (text,) = [block for block in fences(page, language) if block.startswith(start)]
    return text


def commands(page: str) -> list[str]:
    """Return the shell commands of a page, continued lines joined and comments removed."""
    lines = "\n".join(fences(page, "sh")).replace("\\\n", " ").splitlines()
    return [text for line in lines if (text := line.partition(" #")[0].strip())]


def code_spans(page: str) -> list[str]:
    """Return what stands between single backticks."""
    outside = re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", outside)


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", outside, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def updated(params: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested `params` with `changes` put in; a source of images or weights is replaced whole."""
    result = dict(params)
    for key, value in changes.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping) and "package" not in old
        result[key] = updated(old, value) if both else value
    return result
