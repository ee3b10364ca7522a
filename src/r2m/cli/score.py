"""`r2m score`: face crops scored with a detector of one file."""

import sys
from pathlib import Path

import click

from r2m.cli.detector_options import base_option, device_option, force_option, loading, model_option
from r2m.cli.outputs import check_output
from r2m.errors import R2MError


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@model_option
@base_option
@click.option("--out", type=click.Path(path_type=Path), help="CSV to write; default: the terminal.")
@force_option
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Images.")
@device_option
def command(
    paths: tuple[Path, ...],
    model: Path,
    base: Path | None,
    out: Path | None,
    force: bool,
    batch_size: int,
    device: str,
) -> None:
    """Score aligned face crops, files or whole folders, with one detector.

    A fake is what has at least the probability that the detector itself says, its threshold: the column
    `label` tells. An image that cannot be scored has the reason in the column `error`,
    which is empty for all others; a warning counts them. The exit code is 0 if at least one image is scored,
    and 1, without a table, if none is.
    """
    for path in paths:
        if not path.exists():
            raise R2MError(f"{path}: no such file or folder")
    if out is not None:
        check_output(out, [*paths, model, *([base] if base is not None else [])], force)

    from r2m.files import atomic_path
    from r2m.models.image_detector import failures, load, score
    from r2m.models.precision import resolve_device

    resolve_device(device, "--device")
    with loading():
        detector = load(model, base, device=device)
    table = score(paths, detector, batch_size)
    if told := failures(table):
        click.echo(f"r2m: warning: {told}", err=True)
    if out is None:
        table.to_csv(sys.stdout, index=False, lineterminator="\n")
        return
    with atomic_path(out) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
