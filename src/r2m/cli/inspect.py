"""`r2m inspect`: what is in weights files."""

from pathlib import Path

import click

from r2m.cli.json_text import as_json


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--base", type=click.Path(path_type=Path), help="Look at differences from these weights.")
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option("--json", "in_json", is_flag=True, help="As JSON.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
def command(files: tuple[Path, ...], base: Path | None, tensors: bool, in_json: bool, threads: int) -> None:
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
    click.echo(as_json(found) if in_json else as_text(found))
