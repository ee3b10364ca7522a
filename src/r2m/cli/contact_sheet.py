"""`r2m contact-sheet`: some fakes of one generator beside their reals, as a figure."""

from pathlib import Path

import click

FILE = click.Path(path_type=Path)


@click.command()
@click.option("--manifest", "path", type=FILE, required=True, help="Manifest of the generator.")
@click.option(
    "--reals", type=FILE, required=True, multiple=True, help="Manifest of a domain; repeat the option."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=FILE, required=True, help="Path without suffix, for .pdf, .svg and .png.")
def command(path: Path, reals: tuple[Path, ...], seed: int, out: Path) -> None:
    """Draw some fakes of one generator, their reals and the differences."""
    from r2m.report.figures.contact_sheet import from_files
    from r2m.report.figures.style import save

    save(from_files(path, list(reals), seed), out)
