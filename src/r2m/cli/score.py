"""`r2m score`: face crops scored with a detector of one file."""

import sys
from pathlib import Path

import click


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", type=click.Path(path_type=Path), required=True, help="A merged or trained detector.")
@click.option(
    "--base", type=click.Path(path_type=Path), help="Base weights, where the model is a specialist."
)
@click.option("--out", type=click.Path(path_type=Path), help="CSV to write; default: the terminal.")
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Images.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", help="Where to compute."
)
def command(
    paths: tuple[Path, ...], model: Path, base: Path | None, out: Path | None, batch_size: int, device: str
) -> None:
    """Score aligned face crops, files or whole folders, with one detector."""
    import pandas as pd

    from r2m.files import atomic_path
    from r2m.models.image_detector import load, score

    detector = load(model, base, device=device)
    table = pd.concat([score(path, detector, batch_size) for path in paths], ignore_index=True)
    if out is None:
        table.to_csv(sys.stdout, index=False, lineterminator="\n")
        return
    with atomic_path(out) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
