"""`r2m figure-pipeline`: the steps of one R²M merge, with the options that ran."""

from pathlib import Path

import click

from r2m.cli.json_type import Options
from r2m.evaluate.protocols import EvaluationContext


@click.command()
@click.option("--report", type=click.Path(path_type=Path), required=True, help="Report of the merge.")
@click.option("--tune", type=click.Path(path_type=Path), required=True, help="Chosen options of the variant.")
@click.option("--options", type=Options(EvaluationContext), required=True, help="As for `r2m tables`.")
@click.option("--title", default="", help="Heading, such as the name of the variant.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Path without .pdf, .svg, .png")
def command(report: Path, tune: Path, options: EvaluationContext, title: str, out: Path) -> None:
    """Draw the pipeline diagram of a merge by R²M."""
    from r2m.report.figures.pipeline import pipeline, read_merge_report, read_tuned
    from r2m.report.figures.style import save

    save(pipeline(read_merge_report(report), read_tuned(tune), options, title), out)
