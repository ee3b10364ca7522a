"""Stages of every experiment: the table of what it computed, and the figure of the table."""

from collections.abc import Sequence
from pathlib import Path

from r2m.errors import R2MError
from r2m.evaluate.protocols import EvaluationContext, read_table
from r2m.experiments import registry
from r2m.files import write_text
from r2m.report.figures.style import save
from r2m.report.pages import page
from r2m.report.table import over_seeds


def table(*, experiment: str, sources: Sequence[Path], context: EvaluationContext, out: Path) -> None:
    """Write the table of an experiment's scores, one file a seed, as `out`.csv, .md, .tex and .html.

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
