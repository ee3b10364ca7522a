"""`r2m inspect`: what is in weights files."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--base", type=click.Path(path_type=Path), help="Look at differences from these weights.")
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
def command(files: tuple[Path, ...], base: Path | None, tensors: bool, as_json: bool, threads: int) -> None:
    """Show tensors, shapes, norms and provenance of weights files, and the cosines between several.

    With --base the files are specialists, and norms and cosines are those of their task vectors; without it
    they are taken as they are (task vectors, say).
    """
    import torch

    from r2m.merge.inspection import as_text, inspect

    torch.set_num_threads(1)
    found = inspect(files, base, threads)
    if not tensors:
        for one in found["files"]:
            del one["tensors"]
    click.echo(json.dumps(_finite(found), indent=2, allow_nan=False) if as_json else as_text(found))


def _finite(value: Any) -> Any:
    """Return nested `value` with null for numbers that JSON has not."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
