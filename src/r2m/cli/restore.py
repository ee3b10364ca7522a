"""`r2m restore`: in a fresh clone, fetch the results from DVC's remote and let Snakemake accept them."""

from pathlib import Path

import click


@click.command()
def command() -> None:
    """Fetch the results of the commit that is checked out, so that neither DVC nor Snakemake runs anything.

    Snakemake compares times of files, which git and DVC do not keep. They are set anew, but only if DVC finds
    that every result belongs to the code, the params and the data that are there.
    """
    import subprocess
    import sys

    from r2m.errors import R2MError

    def run(module: str, *arguments: str) -> int:
        return subprocess.run([sys.executable, "-m", module, *arguments]).returncode

    click.echo("r2m: fetching the results from DVC's remote", err=True)
    if run("dvc", "pull", "--quiet"):
        raise R2MError(
            "dvc pull failed; expected a remote (`dvc remote list`) that the results were pushed to"
        )
    click.echo("r2m: comparing them with the code, params.yaml and the data here", err=True)
    if run("dvc", "status", "--quiet"):
        raise R2MError(
            "`dvc status` finds results that do not belong to the code, params.yaml or the data here;"
            " expected none. Check out the commit that the results belong to, or run `dvc repro`"
        )
    click.echo("r2m: setting their times for Snakemake", err=True)
    if run("snakemake", "--touch", "--forceall", "--cores", "1", "--quiet", "all"):
        raise R2MError("`snakemake --touch --forceall` failed; its message is above")
    files = [file for file in Path("results").rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    click.echo(f"restored: {len(files)} files ({size / 2**20:.1f} MiB) below results; nothing is left to run")
