"""The record of a run: commit, machine, versions, digests of all models and the params."""

import hashlib
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from r2m.errors import R2MError
from r2m.models.precision import autocast, resolve_device
from r2m.options import as_yaml
from r2m.report.table import markdown_table
from r2m.version import __version__

# What results depend on; a change elsewhere in the working tree is none of the run's.
SOURCES = ("Snakefile", "workflow", "src", "params.yaml", "data/sources.txt")


def compose_settings(models: Sequence[Path], params: Mapping[str, Any]) -> str:
    """Compose the record of the run that made `models` as Markdown.

    `params` are those that ran, as by pydantic's `model_dump(mode="json", exclude_none=True)`.

    Raises:
        R2MError: a model that cannot be read, or a device that is not here.
    """
    sections = [
        ["# Settings", "", *markdown_table(["what", "value"], origin(params), "ll")],
        ["## Versions", "", *markdown_table(["package", "version"], versions(), "ll")],
        ["## Models", "", *markdown_table(["file", "SHA-256", "MB"], map(file_row, models), "llr")],
        ["## Params", "", "```yaml", *as_yaml(params, flow=True).splitlines(), "```"],
    ]
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def origin(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return commit, versions of r2m and Python, machine, device and arithmetic, as (name, value)."""
    device = resolve_device(params["device"])
    reduced = is_reduced(device, params["precision"])
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return [
        ("r2m", __version__),
        ("git commit", git_commit()),
        ("Python", platform.python_version()),
        ("machine", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"),
        ("device", name),
        ("arithmetic", "bf16 autocast, weights in fp32" if reduced else "fp32"),
    ]


def is_reduced(device: torch.device, precision: str) -> bool:
    """Tell whether `precision` (auto | fp32 | bf16) means bf16 autocast on a device."""
    with autocast(device, precision):
        return torch.is_autocast_enabled(device.type)


def git_commit(folder: str | Path = ".") -> str:
    """Return the commit of the repository that `folder` is in, and whether its sources are as committed."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--", *SOURCES)
    except (OSError, subprocess.CalledProcessError):
        return "none: not in a git repository"
    return f"`{commit}`{', with uncommitted changes' if changed else ''}"


def versions() -> list[tuple[str, str]]:
    """Return the installed versions of all packages that r2m depends on, by name."""
    wanted = [line for line in metadata.requires("r2m") or () if "extra ==" not in line]
    names = [re.match(r"[\w.-]+", line) for line in wanted]
    return sorted((name[0], metadata.version(name[0])) for name in names if name)


def file_row(path: Path) -> tuple[str, str, str]:
    """Return a file's path, the SHA-256 of its bytes and its size in MB; raises R2MError if it is missing."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise R2MError(f"{path}: cannot be read ({error.strerror})") from error
    return f"`{path}`", f"`{digest}`", f"{path.stat().st_size / 1e6:.1f}"
