"""`r2m members`: digests of the images that each model is trained on."""

import functools
import hashlib
import json
from pathlib import Path

import click

from r2m.cli.compute import FILE
from r2m.cli.named_file import named_files
from r2m.files import write_text


@click.command()
@named_files("--model", required=True, help="Files and folders, separated by commas.")
@click.option("--out", type=FILE, required=True, help="Folder for NAME.json.")
def command(model: dict[str, Path], out: Path) -> None:
    """Write the SHA-256 of the files that each model is trained on, so that DVC sees what it depends on."""
    digest = functools.cache(_digest)
    for name, paths in model.items():
        digests = {path: digest(Path(path)) for path in str(paths).split(",")}
        write_text(out / f"{name}.json", json.dumps(digests, indent=2, sort_keys=True) + "\n")


def _digest(path: Path) -> str:
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        digest.update(f"{file.as_posix()}:{found}\n".encode())
    return digest.hexdigest()
