import json

import pytest
import torch

from detector_samples import CONVNET, VIT, random_weights
from r2m.data.options import FacesOptions
from r2m.errors import R2MError
from r2m.models import checkpoint
from r2m.models.heads import initial_head
from r2m.models.stages import base

pytestmark = pytest.mark.usefixtures("one_thread")


def run(folder, name="a", backbone=VIT, encodes=True):
    base(
        weights=folder / "w.pt",
        backbone=backbone,
        faces=FacesOptions(crop_size=160, margin=1.5),
        precision="fp32",
        encodes=encodes,
        seed=3,
        base=folder / f"{name}.base",
        head=folder / f"{name}.head",
    )


@pytest.fixture
def folder(tmp_path):
    torch.save({"state_dict": random_weights(VIT, size=160)}, tmp_path / "w.pt")
    return tmp_path


def test_base(folder):
    for name in ("a", "b"):
        run(folder, name)
    tensors, metadata = checkpoint.load(folder / "a.base")
    assert tensors["pos_embed"].shape == (1, 5, 64)
    assert metadata["base_hash"] == checkpoint.digest(tensors)
    assert checkpoint.read_metadata(folder / "a.head")["base_hash"] == metadata["base_hash"]
    for suffix in ("base", "head"):
        assert (folder / f"a.{suffix}").read_bytes() == (folder / f"b.{suffix}").read_bytes()
    head = checkpoint.load(folder / "a.head")[0]
    assert torch.equal(head["head.weight"], initial_head(64, 3)["head.weight"])


def test_weights_of_another_model_are_refused(folder):
    with pytest.raises(R2MError, match="do not fit the backbone"):
        run(folder, backbone=CONVNET)
    assert [path.name for path in folder.iterdir()] == ["w.pt"]


def test_a_base_describes_the_detectors_made_from_it(folder):
    run(folder)
    assert json.loads(checkpoint.read_metadata(folder / "a.base")["detector"]) == {
        "backbone": "test_vit",
        "blocks": "all",
        "head": "linear",
        "image_size": 32,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "crop_size": 160,
        "margin": 1.5,
        "precision": "fp32",
        "labels": ["real", "fake"],
        "jpeg_quality": 82,
        "slope": 1.0,
        "offset": 0.0,
        "threshold": 0.5,
        "operating_points": [],
    }


def test_a_base_says_that_images_of_training_are_not_encoded(folder):
    run(folder, encodes=False)
    assert json.loads(checkpoint.read_metadata(folder / "a.base")["detector"])["jpeg_quality"] is None
