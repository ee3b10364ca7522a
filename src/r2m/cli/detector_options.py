"""Options of commands that use a detector."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from r2m.errors import R2MError

base_option = click.option(
    "--base", type=click.Path(path_type=Path), help="Base weights, where the model is a specialist."
)
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", help="Where to compute."
)
faces_option = click.option(
    "--faces",
    type=click.Path(path_type=Path),
    default=Path("data/raw/faces"),
    show_default=True,
    help="Folder with the face detector, yunet.onnx; the default run fetches it.",
)
force_option = click.option("--force", is_flag=True, help="Replace OUT if it exists.")
model_option = click.option(
    "--model", type=click.Path(path_type=Path), required=True, help="A merged or trained detector."
)


@contextmanager
def loading() -> Iterator[None]:
    """Let what tells a caller in Python to give a base tell which option of the command does."""
    try:
        yield
    except R2MError as error:
        raise R2MError(str(error).replace("r2m.load(path, base=...)", "--base FILE")) from error
