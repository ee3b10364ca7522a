"""`r2m detect`: photographs and videos scored with a detector of one file."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from r2m.cli.detector_options import (
    base_option,
    device_option,
    faces_option,
    force_option,
    loading,
    model_option,
)
from r2m.cli.outputs import check_folder, check_output, check_readable, check_writable
from r2m.cli.process import Ended, Signals


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@model_option
@base_option
@faces_option
@click.option("--aligned", is_flag=True, help="PATHS are aligned face crops; encode those that are not.")
@click.option(
    "--specialists",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Specialists, which tell what a fake is most like: files, or a folder such as results/specialists.",
)
@click.option(
    "--compare",
    type=click.Path(path_type=Path),
    help="Scores of the model, scores.parquet: warn where PATHS differ from val's photographs.",
)
@click.option("--every", is_flag=True, help="Take every face, not the largest alone.")
@click.option(
    "--frames", type=click.IntRange(min=1), default=32, show_default=True, help="Of a video, at most."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Table to write: .csv, .jsonl, .json or .parquet."
)
@click.option(
    "--explain",
    type=click.Path(path_type=Path),
    help="Folder to write an image for every face to: what raises the logit of being fake, and where.",
)
@force_option
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Faces.")
@click.option("--threads", type=click.IntRange(min=1), help="[default: the cores that there are]")
@device_option
def command(
    paths: tuple[Path, ...],
    model: Path,
    base: Path | None,
    faces: Path,
    aligned: bool,
    specialists: tuple[Path, ...],
    compare: Path | None,
    every: bool,
    frames: int,
    out: Path | None,
    explain: Path | None,
    force: bool,
    batch_size: int,
    threads: int | None,
    device: str,
) -> None:
    """Find faces in photographs and videos, and tell whether they are forged.

    PATHS are files and folders. Faces are found, aligned and encoded as the detector was trained on them. Of
    a video, frames spread over all of it are scored and the face is followed through them: its probability is
    the mean over its frames. The table of --out has a row for every face and frame, and a file that cannot be
    scored has a row with the reason. --explain writes FOLDER/NAME-faceN.png, of a video the frame of the
    greatest probability.

    With --specialists, what is not called real has the name of the specialist that responds most. How often
    that is right, results/tables/closest.md says. --compare tells whether logits of PATHS, one per file, are
    distributed as those of the real photographs that thresholds were chosen on.

    The exit code is 0 if every file is scored, and 1 if one is not. Ctrl-C and SIGTERM end it with 130 and
    143; then the table holds what was done. A second one ends it at once.
    """
    # Imported here: torch takes seconds, and mistakes should not wait for it.
    from r2m.detection.listing import files_of, specialist_files

    files = files_of(paths)
    asked = specialist_files(specialists)
    if compare is not None:
        check_readable("--compare", compare)
    if out is not None:
        check_writable("--out", out)
        check_output(
            out, [*paths, *asked, *(one for one in (model, base, compare) if one is not None)], force
        )
    stems = {}
    if explain is not None:
        from r2m.detection.overlay import existing, overlay_stems

        stems = overlay_stems(files, explain)
        check_writable("--explain", explain)
        check_folder(explain, paths, (path for stem in stems.values() for path in existing(stem)), force)

    failed = 0
    logits: list[float] = []
    reals = None
    with _ending(len(files), out) as signals:
        from contextlib import ExitStack

        import numpy as np
        import torch
        from tqdm import tqdm

        from r2m.detection.detecting import seen_and_scored
        from r2m.detection.drift import drift, logit_of
        from r2m.detection.explanations import write_explanations
        from r2m.detection.finding import FaceFinder, face_network
        from r2m.detection.lines import drift_line, lines_of, shown, unfitted_line
        from r2m.detection.specialists import load_specialists
        from r2m.detection.tables import open_table, rows_of, table_type
        from r2m.files import written
        from r2m.models.decision import is_fitted
        from r2m.models.image_detector import load
        from r2m.models.precision import resolve_device

        if out is not None:
            table_type(out)
        resolve_device(device, "--device")
        cores = threads or torch.get_num_threads()
        torch.set_num_threads(cores)
        with loading():
            detector = load(model, base, device=device)
            loaded = load_specialists(asked, base, detector.config, device=device)
        if not is_fitted(detector.config):
            click.echo(f"r2m: {unfitted_line(model, detector.config)}", err=True)
        if compare is not None:
            from r2m.evaluate.val_reals import val_reals

            reals = val_reals(compare, detector.metadata)
        network = None if aligned else face_network(faces)
        finder = FaceFinder(detector.config, network, every=every, frames=frames)
        width = max(len(shown(file)) for file in files)
        with ExitStack() as stack:
            table = None if out is None else stack.enter_context(open_table(out, "--out"))
            bar = stack.enter_context(tqdm(total=len(files), unit="file", disable=None, leave=False))
            found = seen_and_scored(
                files, detector, finder, specialists=loaded, batch_size=batch_size, threads=cores
            )
            for seen, detection in signals.between(found):
                if explain is not None:
                    with written("--explain", explain):
                        write_explanations(seen, detection, detector, finder, stems[detection.path])
                failed += not detection.faces
                if detection.faces:
                    logits.append(logit_of(detection))
                if out is None or table is None:
                    for line in lines_of(detection, width):
                        tqdm.write(line)
                else:
                    with written("--out", out):
                        for row in rows_of(detection):
                            table.write(row)
                bar.update()
    if reals is not None:
        click.echo(f"r2m: {drift_line(drift(reals, np.array(logits)))}", err=True)
    if failed:
        click.echo(f"r2m: {failed} of {len(files)} files are not scored", err=True)
        sys.exit(1)


@contextmanager
def _ending(files: int, out: Path | None) -> Iterator[Signals]:
    """Let Ctrl-C and other signals end the command, and tell how many `files` are done and where."""
    signals = Signals(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    try:
        with signals:
            yield signals
    except Ended as end:
        told = f"{signals.done} of {files} files are done"
        if out is not None:
            told += f"; their table is {out}" if signals.done else "; no table is written"
        raise Ended(end.number, told) from None
