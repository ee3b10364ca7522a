"""`r2m validate`: whether the files of an index are there, can be read, and leak nothing between splits."""

import logging
import os
import sys
from pathlib import Path

import click

from r2m.errors import R2MError

logger = logging.getLogger(__name__)


@click.command()
@click.argument("index", type=click.Path(path_type=Path))
@click.option(
    "--root", type=click.Path(path_type=Path), help="Where the files lie.  [default: where the index says]"
)
@click.option("--names-only", is_flag=True, help="Look for the files, but open none.")
@click.option("--allow-leakage", is_flag=True, help="A leak between splits is a warning.")
@click.option(
    "--tested",
    multiple=True,
    metavar="DOMAIN",
    help="A domain that is only tested on: of it, the split `test` alone is looked at.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of report.json and report.html.  [default: INDEX.validation]",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="Keeps what was found in the files.  [default: INDEX.contents.parquet]",
)
@click.option("--threads", type=click.IntRange(min=1), help="[default: the cores that there are]")
def command(
    index: Path,
    root: Path | None,
    names_only: bool,
    allow_leakage: bool,
    tested: tuple[str, ...],
    out: Path | None,
    cache: Path | None,
    threads: int | None,
) -> None:
    """Check an index: missing, damaged and duplicate files, wrong labels, leaks between splits.

    The exit code is 1 if there is an error, and 0 with warnings only. In the defaults, INDEX stands for the
    path of the index without its suffix.
    """
    from r2m.validate.stages import run, why_not_writable, write

    stem = index.with_suffix("")
    folder = out or stem.with_name(f"{stem.name}.validation")
    if reason := why_not_writable(folder / "report.json"):
        raise R2MError(f"--out {folder}: cannot be written ({reason}); expected another folder")
    kept = cache or stem.with_name(f"{stem.name}.contents.parquet")
    unwritable = None if names_only else why_not_writable(kept)
    if unwritable:
        logger.warning(
            "--cache %s: cannot be written (%s); what is found in files is not kept", kept, unwritable
        )
    report, html = run(
        index,
        root,
        contents=not names_only,
        allow_leakage=allow_leakage,
        cache=None if unwritable else kept,
        threads=threads or os.cpu_count() or 1,
        tested=tested,
    )
    write(report, html, folder)
    click.echo(report.as_text())
    click.echo(f"report in {folder / 'report.html'}")
    if report.found("error"):
        sys.exit(1)
