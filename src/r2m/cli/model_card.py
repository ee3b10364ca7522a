"""`r2m model-card`: what a merged detector is, how well it does and how to load it."""

from pathlib import Path

import click

from r2m.cli.compute import FILE
from r2m.cli.json_type import Options
from r2m.cli.named_file import named_files
from r2m.data.options import FacesOptions
from r2m.report.data_card import CardContext


@click.command()
@click.option("--model", type=FILE, required=True, help="The merged model.")
@click.option("--report", type=FILE, required=True, help="Report of the merge.")
@click.option("--tune", type=FILE, required=True, help="Chosen options of the variant.")
@click.option("--base", type=FILE, required=True, help="Base weights.")
@named_files("--specialist", required=True, help="A specialist.")
@click.option("--manifest", "manifests", type=FILE, multiple=True, required=True, help="Of a training set.")
@click.option("--receipt", "receipts", type=FILE, multiple=True, help="Of a package that it is made from.")
@click.option("--table", type=FILE, required=True, help="auc.csv")
@click.option("--models", type=FILE, required=True, help="models.csv")
@click.option("--intervals", type=FILE, required=True, help="intervals.csv")
@click.option("--benchmarks", type=FILE, required=True, help="Folder of Snakemake's benchmark files.")
@click.option("--faces", type=Options(FacesOptions), required=True, help="Section `faces` of params.yaml.")
@click.option("--options", type=Options(CardContext), required=True, help="As for `r2m data-card`.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", help="Of scores."
)
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", help="Of scores.")
@click.option("--label", required=True, help="Name of the model as a reader sees it.")
@click.option("--out", type=FILE, required=True, help="Markdown file.")
def command(
    model: Path,
    report: Path,
    tune: Path,
    base: Path,
    specialist: dict[str, Path],
    manifests: tuple[Path, ...],
    receipts: tuple[Path, ...],
    table: Path,
    models: Path,
    intervals: Path,
    benchmarks: Path,
    faces: FacesOptions,
    options: CardContext,
    device: str,
    precision: str,
    label: str,
    out: Path,
) -> None:
    """Write the model card of one merge of the workflow."""
    from r2m.models.precision import resolve_device
    from r2m.report.model_card import Files, write_model_card
    from r2m.report.settings import is_reduced

    files = Files(
        model,
        report,
        tune,
        base,
        specialist,
        manifests,
        receipts,
        auc=table,
        models=models,
        intervals=intervals,
        benchmarks=benchmarks,
    )
    write_model_card(files, faces, label, options, is_reduced(resolve_device(device), precision), out)
