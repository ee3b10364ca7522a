"""Detectors as ONNX files."""

import json
import logging
import re
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

import r2m
from detector_samples import VIT, load_detector
from r2m.cli import r2m as group
from r2m.detection import export
from r2m.detection.export import export_onnx, logits_of
from r2m.detection.finding import FaceFinder
from r2m.errors import R2MError
from r2m.models import checkpoint

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def transformer(tmp_path_factory, base_files):
    """A vision transformer with all its tensors."""
    path = tmp_path_factory.mktemp("vit") / "model.safetensors"
    tensors, metadata = checkpoint.load(base_files["vit"])
    head = load_detector(base_files["vit"], VIT).trainable_state()
    checkpoint.save(path, tensors | {name: head[name] for name in head if name[:5] == "head."}, metadata)
    return path


def photographs(count, size):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.uint8)


@pytest.mark.parametrize("fixture", ["model", "transformer"])
def test_the_file_computes_what_torch_does(request, tmp_path, fixture):
    detector = r2m.load(request.getfixturevalue(fixture), device="cpu", precision="fp32")
    path = tmp_path / "model.onnx"
    assert export_onnx(detector, path) < 1e-4
    for count in (1, 5):
        images = photographs(count, detector.config.image_size)
        given = (images.transpose(0, 3, 1, 2) / 255).astype(np.float32)
        np.testing.assert_allclose(logits_of(path, given), detector.logits(images), atol=1e-4)
    file = onnx.load(path)
    told = {entry.key: entry.value for entry in file.metadata_props}
    assert json.loads(told["detector"]) == detector.config.model_dump(mode="json")
    assert [one.version for one in file.opset_import if not one.domain] == [export.OPSET]
    assert [output.name for output in file.graph.output] == ["logit", "probability"]


def test_eight_bits(transformer, tmp_path):
    detector = r2m.load(transformer, device="cpu", precision="fp32")
    export_onnx(detector, tmp_path / "whole.onnx")
    difference = export_onnx(detector, tmp_path / "small.onnx", int8=True)
    assert 0 < difference < 1, "most of this small model is no matrix"
    sizes = [(tmp_path / f"{name}.onnx").stat().st_size for name in ("whole", "small")]
    assert sizes[1] < 0.6 * sizes[0]


def test_the_file_tells_nothing_of_the_machine(transformer, tmp_path):
    export_onnx(r2m.load(transformer, device="cpu"), tmp_path / "a.onnx")
    content = (tmp_path / "a.onnx").read_bytes()
    for path in (export.__file__, torch.__file__):
        assert str(Path(path).parent).encode() not in content


def test_a_file_that_is_off_is_not_written(transformer, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "logits_of", lambda path, images: np.full(len(images), 9.0, np.float32))
    with pytest.raises(R2MError, match=r"model\.onnx: logits of the ONNX file are off by"):
        export_onnx(r2m.load(transformer, device="cpu"), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_cannot_be_written(transformer, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise torch.onnx.OnnxExporterError("no such operator\nwith many lines")

    monkeypatch.setattr(torch.onnx, "export", fail)
    detector = r2m.load(transformer, device="cpu")
    with pytest.raises(R2MError, match=r"model\.onnx: torch cannot write .* as ONNX: no such operator$"):
        export_onnx(detector, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_example_of_the_docs(transformer, tmp_path, monkeypatch, capsys):
    detector = r2m.load(transformer, device="cpu", precision="fp32")
    export_onnx(detector, tmp_path / "detector.onnx")
    cv2.imwrite(str(tmp_path / "crop.png"), photographs(1, 48)[0])
    page = (ROOT / "docs/detect.md").read_text()
    (code,) = (part for part in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "onnxruntime" in part)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    probability, is_fake = capsys.readouterr().out.split()
    (found,) = FaceFinder(detector.config, None, every=False, frames=1)(Path("crop.png")).faces
    assert float(probability) == pytest.approx(detector.probabilities(found.crop[..., ::-1])[0], abs=1e-4)
    assert is_fake == str(bool(float(probability) >= detector.config.threshold))


def test_the_command(transformer, specialists, tmp_path, caplog):
    def run(*arguments):
        return CliRunner().invoke(group, ["export", *map(str, arguments)], catch_exceptions=False)

    out = tmp_path / "made/model.onnx"
    with caplog.at_level(logging.INFO):
        result = run(transformer, "--onnx", out)
        logging.getLogger("onnxscript").info("told again")
    assert "MB, opset 18; logits within" in result.stdout
    told = [one for one in caplog.records if one.name.startswith(("onnx_ir", "onnxscript"))]
    assert [one.message for one in told if one.levelno < logging.WARNING] == ["told again"]
    with pytest.raises(R2MError, match=r"model\.onnx: exists; --force replaces it"):
        run(transformer, "--onnx", out)
    with pytest.raises(R2MError, match=r"is one of the inputs"):
        run(transformer, "--onnx", transformer, "--force")
    with pytest.raises(R2MError, match=r"gone: no such file"):
        run(tmp_path / "gone", "--onnx", tmp_path / "x.onnx")
    with pytest.raises(
        R2MError, match=r"--onnx: .*x\.onnx: cannot be written \(.*model\.onnx is no folder\)"
    ):
        run(transformer, "--onnx", out / "x.onnx")
    with pytest.raises(R2MError, match=r"give its base as well: --base FILE$"):
        run(specialists / "up/seed2/model.safetensors", "--onnx", tmp_path / "x.onnx")
