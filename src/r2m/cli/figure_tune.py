"""`r2m figure-tune`: validation AUC of the candidates of every variant."""

from pathlib import Path

import click

from r2m.cli.json_type import Options
from r2m.cli.named_file import named_files
from r2m.evaluate.protocols import EvaluationContext


@click.command()
@named_files("--candidates", required=True, help="A variant's table of `r2m tune`.")
@click.option("--options", type=Options(EvaluationContext), required=True, help="As for `r2m tables`.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Path without .pdf, .svg, .png")
def command(candidates: dict[str, Path], options: EvaluationContext, out: Path) -> None:
    """Draw the tables of `r2m tune`, one file a variant."""
    from r2m.report.figures.style import save
    from r2m.report.figures.tune import read_candidates, tune

    save(tune({name: read_candidates(path) for name, path in candidates.items()}, options), out)
