"""Detectors as ONNX beside torch, on drawn faces."""

import json
from pathlib import Path

import pytest

import r2m
from detector_samples import save_whole
from r2m import manifest
from r2m.errors import R2MError
from r2m.evaluate import onnx_parity
from r2m.evaluate.stages import onnx
from r2m.manifest import concat

NAMES = ("drawn", "swap", "up")


@pytest.fixture(scope="module")
def model(tmp_path_factory, base_files):
    return save_whole(base_files["convnet"], tmp_path_factory.mktemp("whole") / "model.safetensors")


@pytest.fixture
def images(image_sets):
    return concat(manifest.read(path) for path in image_sets.paths(*NAMES))


def test_the_sample_is_of_val_and_balanced(images):
    rows = onnx_parity.val_sample(images, seed=0, most=2)
    assert set(rows["split"]) == {"val"}
    assert (rows.groupby(["label", "generator"], observed=True).size() == 2).all()
    assert set(rows["generator"]) == set(images["generator"])
    assert rows.equals(onnx_parity.val_sample(images, seed=0, most=2))
    everything = onnx_parity.val_sample(images, seed=0, most=10**6)
    assert sorted(everything["image_id"]) == sorted(images.loc[images["split"] == "val", "image_id"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_stage(model, image_sets, images, tmp_path):
    out = tmp_path / "onnx.json"
    onnx(model=model, manifests=image_sets.paths(*NAMES), seed=0, out=out)
    told = json.loads(out.read_text())
    assert told["images"] == len(onnx_parity.val_sample(images, 0))
    torch, fp32, int8 = (told["formats"][name] for name in ("torch", "fp32", "int8"))
    assert torch["difference"] == 0
    assert fp32["difference"] < 1e-4
    assert fp32["auc"] == pytest.approx(torch["auc"], abs=0.01)
    assert int8["megabytes"] == pytest.approx(fp32["megabytes"], rel=0.05), "hardly any of it is a matrix"


def test_what_cannot_be_written_is_told(model, images, monkeypatch):
    def fail(detector, path: Path, *, int8: bool = False):
        raise R2MError(f"{path}: torch cannot write this network as ONNX: why")

    monkeypatch.setattr(onnx_parity, "export_onnx", fail)
    detector = r2m.load(model, device="cpu")
    told = onnx_parity.onnx_parity(detector, onnx_parity.val_sample(images, 0))
    assert told == {"opset": 18, "reason": "torch cannot write this network as ONNX: why"}
