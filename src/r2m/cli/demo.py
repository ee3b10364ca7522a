"""`r2m demo`: a local page that scores photographs and videos."""

from importlib.util import find_spec
from pathlib import Path

import click

from r2m.cli.detector_options import base_option, device_option, faces_option, loading, model_option
from r2m.errors import R2MError

PACKAGES = ("starlette", "uvicorn")


@click.command()
@model_option
@base_option
@faces_option
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0: any.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; others are for all to see."
)
@click.option(
    "--max-megabytes",
    type=click.FloatRange(min=0, min_open=True),
    default=100.0,
    show_default=True,
    help="Of a file.",
)
@click.option(
    "--max-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="To decode and score a file.",
)
@device_option
def command(
    model: Path,
    base: Path | None,
    faces: Path,
    port: int,
    host: str,
    max_megabytes: float,
    max_seconds: float,
    device: str,
) -> None:
    """Serve a page on this machine that takes photographs and videos and tells whether faces are forged.

    It shows boxes around faces, decisions and probabilities, of a video the curve over time, and if wanted
    what the detector looks at. Files are scored as by `r2m detect`, one at a time, and nothing is kept.
    Without --host nobody else can reach it.
    """
    for package in PACKAGES:
        if find_spec(package) is None:
            raise R2MError(
                f'{package} is not installed; expected pip install -c constraints.txt -e ".[demo]"'
            )
    if not model.is_file():
        raise R2MError(f"{model}: no such file")

    from r2m.demo.app import Limits
    from r2m.demo.guard import LOOPBACK
    from r2m.demo.server import serve
    from r2m.demo.worker import ScorerOptions

    if host not in LOOPBACK:
        click.echo(f"r2m: warning: whoever reaches {host} can use the page; there is no password", err=True)
    with loading():
        serve(
            ScorerOptions(model, base, faces, device),
            Limits(max_megabytes, max_seconds),
            host,
            port,
            lambda address: click.echo(f"{address} (Ctrl-C ends it)"),
        )
