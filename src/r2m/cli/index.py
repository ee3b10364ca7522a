"""`r2m index`: data sets on disk as one table, without opening an image."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from r2m.errors import R2MError
from r2m.files import atomic_paths
from r2m.options import FAMILIES

# Domain → the data set that its reals are in.
SOURCES = {"ff": "FaceForensics++", "cdf": "Celeb-DF-v2"}

_PATH = click.Path(path_type=Path)


def _pairs(ctx: click.Context, param: click.Parameter, words: tuple[str, ...]) -> dict[str, str]:
    """Return words of the form A=B as a mapping."""
    pairs: dict[str, str] = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not (name and separator and value):
            raise click.BadParameter(f"expected {param.metavar}, got {word!r}", ctx, param)
        if name in pairs:
            raise click.BadParameter(f"{name!r} is given twice", ctx, param)
        pairs[name] = value
    return pairs


def _families(ctx: click.Context, param: click.Parameter, words: tuple[str, ...]) -> dict[str, str]:
    families = _pairs(ctx, param, words)
    for name, family in families.items():
        if family not in FAMILIES:
            raise click.BadParameter(
                f"{name}: expected one of {', '.join(FAMILIES)}, got {family!r}", ctx, param
            )
    return families


def _out(ctx: click.Context, param: click.Parameter, path: Path) -> Path:
    """Return the path of an index to write, at which there is nothing or an index."""
    from r2m.index import table

    if path.suffix != ".parquet":
        raise click.BadParameter(f"expected a file that ends in .parquet, got {path}", ctx, param)
    if path.is_dir():
        raise click.BadParameter(f"{path} is a folder; expected a file to write", ctx, param)
    if path.exists():
        try:
            table.metadata(path)
        except R2MError as error:
            raise R2MError(f"--out {path}: in the way; name another file, or remove it ({error})") from error
    return path


def _option(flag: str, metavar: str, callback: Callable[..., Any], text: str) -> Callable[..., Any]:
    return click.option(flag, multiple=True, metavar=metavar, callback=callback, help=text)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@click.option("--out", type=_PATH, required=True, callback=_out, help="Index to write (.parquet).")
@click.option("--layout", metavar="NAME", help="Layout of all folders  [default: recognized]")
@click.option("--root", type=_PATH, help="Folder that files lie below  [default: that of all PATHs]")
@click.option("--splits", type=_PATH, multiple=True, help="Folder with official lists, such as train.json.")
@_option("--column", "NAME=THEIRS", _pairs, "Column of your table that is the index's column NAME.")
@_option("--family", "METHOD=FAMILY", _families, "Family of a method of your own: FS, FR, EFS or FE.")
@click.option(
    "--compression",
    "compressions",
    type=click.Choice(["c0", "c23", "c40"]),
    multiple=True,
    help="Level to take  [default: all]",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of splits.")
@click.option("--params", "as_params", is_flag=True, help="Print sections of params.yaml for what there is.")
def command(
    paths: tuple[Path, ...],
    out: Path,
    layout: str | None,
    root: Path | None,
    splits: tuple[Path, ...],
    column: dict[str, str],
    family: dict[str, Any],
    compressions: tuple[str, ...],
    seed: int,
    as_params: bool,
) -> None:
    """Index DF40, DeepfakeBench, FaceForensics++, Celeb-DF, DFDC, folders and tables of your own.

    PATHs are folders, which are recognized some levels deep, or files: index JSON of DeepfakeBench, CSV or
    Parquet of your own. What cannot be used is listed in OUT's NAME.skipped.csv. Where no official split is
    known, people are split by seed; people whom OUT holds already keep their split.

    \b
    r2m index DF40 FaceForensics++ Celeb-DF-v2 --out data/df40.parquet
    """
    from r2m.index import build, summary

    request = build.Request(
        paths=paths,
        layout=layout,
        root=root,
        splits=splits,
        columns=column,
        families=family,
        compressions=compressions,
        seed=seed,
        earlier=build.earlier_people(out, seed),
    )
    built = build.build(request)
    skipped = out.with_suffix(".skipped.csv")
    try:
        with atomic_paths(out, skipped) as (index, rest):
            build.write(built, index)
            summary.write_skipped(built.skipped, rest)
    except OSError as error:
        raise R2MError(f"{error.filename}: cannot be written ({error.strerror})") from error
    click.echo(summary.contents(built.placed), err=as_params)
    if text := summary.left_out(built.skipped):
        click.echo(f"\n{text}\nall of them: {skipped}", err=as_params)
    for domain, count in summary.without_reals(built.placed).items():
        if domain in built.other_levels:
            levels = ", ".join(built.other_levels[domain])
            hint = f"; there are some of {levels}, left out by --compression"
        else:
            hint = f"; index {SOURCES[domain]} with it" if domain in SOURCES else ""
        click.echo(f"r2m: warning: {domain}: {count} fakes and no real{hint}", err=True)
    for text in summary.without_split(built.placed):
        hint = "index more people, or name another --seed where splits are by identity"
        click.echo(f"r2m: warning: {text}; {hint}", err=True)
    if as_params:
        click.echo(summary.params(built.placed, out), nl=False)
