"""Validation as a stage of the workflow, and as a user runs it by hand."""

import logging
import os
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from tempfile import TemporaryFile

from r2m.errors import R2MError
from r2m.files import atomic_paths, discard
from r2m.validate.page import page
from r2m.validate.report import Report, compose, first_example
from r2m.validate.rows import examine, root_of
from r2m.validate.thumbnails import draw, samples

logger = logging.getLogger(__name__)


def validate(
    *,
    index: Path,
    root: Path | None,
    contents: bool,
    allow_leakage: bool,
    cache: Path,
    name: str,
    out: Path,
    threads: int,
    tested: Collection[str] = (),
) -> None:
    """Write `out`/report.json and report.html on the data set `name`, unless there is an error in it.

    With an error, both are written beside the cache, as `cache`.report.json and .html, until it is mended.
    Of the domains that are only `tested` on, the split `test` alone is looked at.

    Raises:
        R2MError: names the index, the check, how often it failed and the first example; or no index, no root;
            or a file that cannot be written, before any is read.
    """
    for path in (cache, out / "report.json"):
        if reason := why_not_writable(path):
            raise R2MError(f"datasets.{name}: {path}: cannot be written ({reason})")
    report, html = run(
        index,
        root,
        contents=contents,
        allow_leakage=allow_leakage,
        cache=cache,
        threads=threads,
        tested=tested,
    )
    kept = [cache.with_name(f"{cache.name}.report{suffix}") for suffix in (".json", ".html")]
    if errors := report.found("error"):
        # Snakemake removes the outputs of a failed job, and the page is needed then.
        json_path, html_path = kept
        _write({json_path: report.as_json(), html_path: html})
        first = errors[0]
        assert first.finding is not None
        others = [result.check.name for result in errors[1:]]
        again = command_line(index, root, contents=contents, allow_leakage=allow_leakage, tested=tested)
        raise R2MError(
            f"datasets.{name}: {index}: {first.check.name}: {first.check.title.lower()}: {first.amount},"
            f" such as {first_example(first.finding)}. {first.advice}"
            + (f" There are errors of {', '.join(others)}, too." if others else "")
            + f" All is in {html_path}; `{again}` makes it again"
        )
    for path in kept:
        discard(path)
    for result in report.found("warning"):
        logger.warning("%s: %s: %s", name, result.check.title, result.amount)
    write(report, html, out)


def run(
    index: Path,
    root: Path | None,
    *,
    contents: bool,
    allow_leakage: bool,
    cache: Path | None,
    threads: int,
    tested: Collection[str] = (),
) -> tuple[Report, str]:
    """Return the report on an index, and its page; raises R2MError like `examine`.

    Without `cache` what was found in the files is not kept.
    """
    folder = root_of(index, root)
    frame = examine(index, folder, contents=contents, cache=cache, threads=threads, tested=tested)
    report = compose(frame, str(index), str(folder), has_contents=contents, allow_leakage=allow_leakage)
    shown = samples(frame) if contents else frame.head(0)
    pictures = draw(folder, frame, report, shown) if contents else {}
    return report, page(report, pictures, shown)


def command_line(
    index: Path, root: Path | None, *, contents: bool, allow_leakage: bool, tested: Collection[str] = ()
) -> str:
    """Return the command that looks at an index in the same way by hand."""
    words = ["r2m", "validate", str(index)]
    words += [] if root is None else ["--root", str(root)]
    words += [] if contents else ["--names-only"]
    words += ["--allow-leakage"] if allow_leakage else []
    words += [word for domain in tested for word in ("--tested", domain)]
    return shlex.join(words)


def why_not_writable(path: Path) -> str | None:
    """Return why the file `path`, in folders that may be missing, cannot be written; None if it can."""
    if path.is_dir():
        return "a folder is there"
    folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    try:
        with TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)


def write(report: Report, html: str, out: Path) -> None:
    """Write report.json and report.html to the folder `out`, both or none."""
    json_path, html_path = _files(out)
    _write({json_path: report.as_json(), html_path: html})


def _files(out: Path) -> tuple[Path, Path]:
    return out / "report.json", out / "report.html"


def _write(texts: Mapping[Path, str]) -> None:
    """Write texts to their paths, all or none."""
    with atomic_paths(*texts) as temporaries:
        for temporary, text in zip(temporaries, texts.values(), strict=True):
            temporary.write_text(text, encoding="utf-8")
