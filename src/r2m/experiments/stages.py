"""Stages of experiments: what they compute of merges, the table of it, and the figure of the table."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from r2m.errors import R2MError
from r2m.evaluate.protocols import EvaluationContext, read_table
from r2m.experiments import registry
from r2m.files import write_text
from r2m.report.figures.style import save
from r2m.report.pages import page
from r2m.report.table import over_seeds
from r2m.session_files import Compute, MergeParts, SessionFiles


def run(
    *,
    experiment: str,
    files: SessionFiles,
    parts: MergeParts,
    chosen: Sequence[Path],
    inputs: Mapping[str, Any],
    compute: Compute,
    values: Mapping[str, Any],
    scores: Path,
    outputs: Mapping[str, Path],
    threads: int,
) -> None:
    """Write what `run` of an experiment's module returns for a bench and the merges with `chosen` options.

    What it leaves in `attrs` of the frame is noted in the file.

    Raises:
        R2MError: a file is missing or damaged, or was made from another base.
    """
    # Tables and figures are made without torch.
    from r2m.evaluate.bench import open_bench
    from r2m.evaluate.scores import write
    from r2m.merge.stages import read_chosen

    variants = [read_chosen(path) for path in chosen]
    bench = open_bench(files, compute, parts, threads)
    module = import_module(f"r2m.experiments.{experiment}")
    frame = module.run(bench, variants, **inputs, **values, **outputs)
    names = {"variants": ",".join(variant.variant for variant in variants)} if variants else {}
    write(frame, {"experiment": experiment, **names, **frame.attrs}, scores)


def table(*, experiment: str, sources: Sequence[Path], context: EvaluationContext, out: Path) -> None:
    """Write the table of an experiment's scores, one file per seed, as `out`.csv, .md, .tex and .html.

    Raises:
        R2MError: no such experiment, or a file that is not what it computes.
    """
    tables = [registry.get(experiment).table(source, context) for source in sources]
    over_seeds(tables).write(out)
    write_text(out.with_suffix(".html"), page(out.with_suffix(".md")))


def figure(*, experiment: str, table: Path, context: EvaluationContext, out: Path) -> None:
    """Draw an experiment's table (CSV) as `out`.pdf, .svg and .png.

    Raises:
        R2MError: no such experiment, or the table of another one.
    """
    try:
        drawn = registry.get(experiment).figure(read_table(table), context)
    except KeyError as error:
        raise R2MError(
            f"{table}: expected the table of the experiment {experiment}; lacks {error}"
        ) from error
    save(drawn, out)
