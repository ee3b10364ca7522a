"""`r2m figure-spectra`: singular values of the task vectors and residuals of one variant."""

from pathlib import Path

import click

from r2m.cli.json_type import Options
from r2m.evaluate.protocols import EvaluationContext


@click.command()
@click.argument("reports", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--options", type=Options(EvaluationContext), required=True, help="As for `r2m tables`.")
@click.option("--title", default="", help="Heading, such as the name of the variant.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Path without .pdf, .svg, .png")
def command(reports: tuple[Path, ...], options: EvaluationContext, title: str, out: Path) -> None:
    """Draw the spectra in the reports of `r2m residual`, one file a specialist, named after it."""
    from r2m.report.figures.spectra import read_report, spectra
    from r2m.report.figures.style import save

    save(spectra({path.stem: read_report(path) for path in reports}, options, title), out)
