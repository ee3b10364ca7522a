"""`r2m export`: a detector as one ONNX file."""

from pathlib import Path

import click

from r2m.cli.detector_options import base_option, loading
from r2m.cli.outputs import check_output, check_writable
from r2m.errors import R2MError


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--onnx", "out", type=click.Path(path_type=Path), required=True, help="File to write.")
@base_option
@click.option("--int8", is_flag=True, help="Matrices in 8 bits: a quarter of the size, other scores.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def command(model: Path, out: Path, base: Path | None, int8: bool, force: bool) -> None:
    """Write a detector as one ONNX file that computes probabilities of RGB images in [0, 1].

    Normalization, backbone, head and calibration are inside, and the batch may have any size. What is
    computed is compared with torch before anything is written.
    """
    if not model.is_file():
        raise R2MError(f"{model}: no such file")
    check_writable("--onnx", out)
    check_output(out, [model, *([base] if base is not None else [])], force)

    from r2m.detection.export import OPSET, export_onnx
    from r2m.files import written
    from r2m.models.image_detector import load

    with loading():
        detector = load(model, base, device="cpu", precision="fp32")
    with written("--onnx", out):
        difference = export_onnx(detector, out, int8=int8)
    megabytes = out.stat().st_size / 1e6
    click.echo(f"{out}: {megabytes:.0f} MB, opset {OPSET}; logits within {difference:.1e} of torch's")
