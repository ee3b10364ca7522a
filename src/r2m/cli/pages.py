"""`r2m pages`: tables and cards as pages of the report."""

from pathlib import Path

import click


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for NAME.html.")
def command(files: tuple[Path, ...], out: Path) -> None:
    """Write an HTML page for every Markdown and CSV file."""
    from r2m.report.pages import write_pages

    write_pages(files, out)
