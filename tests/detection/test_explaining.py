"""Relevance maps of detectors made by hand and of small networks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hand_made import GRID, PATCHES, SIZE, HandMade, LastChannels, attending, convolutional, detector_of
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import r2m
from detector_samples import BACKBONES, save_whole
from r2m.detection.explaining import relevance_maps
from r2m.errors import R2MError
from r2m.models.backbone import Detector

pytestmark = pytest.mark.usefixtures("one_thread")

BRIGHT = np.full((SIZE, SIZE, 3), 255, np.uint8)


@pytest.fixture(scope="module", params=list(BACKBONES))
def detector(request, tmp_path_factory, base_files):
    path = tmp_path_factory.mktemp("explained") / "model.safetensors"
    return r2m.load(save_whole(base_files[request.param], path), device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)


def cells(relevance):
    """Mean of a map on every patch."""
    side = SIZE // GRID
    return relevance.reshape(GRID, side, GRID, side).mean(axis=(1, 3))


@given(st.integers(0, PATCHES - 1))
@settings(max_examples=PATCHES, deadline=None)
@pytest.mark.parametrize("make", [convolutional, attending, lambda patch: attending(patch, "avg")])
def test_what_looks_at_one_patch_is_explained_by_it(make, patch):
    (relevance,) = relevance_maps(make(patch), BRIGHT)
    assert relevance.shape == (SIZE, SIZE)
    assert relevance.dtype == np.float32
    found = cells(relevance)
    assert found.argmax() == patch
    assert relevance.max() == 1
    # Between centres of patches the map is interpolated.
    row, column = divmod(patch, GRID)
    rows, columns = np.mgrid[:GRID, :GRID]
    is_far = np.maximum(abs(rows - row), abs(columns - column)) > 1
    assert found[is_far].max(initial=0) < 1e-5


def test_what_lowers_the_logit_is_not_shown():
    detector = convolutional(5)
    detector.model.head.weight.data.neg_()
    (relevance,) = relevance_maps(detector, BRIGHT)
    assert not relevance.any()


@given(st.floats(1e-3, 1e3))
@settings(max_examples=8, deadline=None)
def test_a_multiple_of_the_logit_has_the_same_map(detector, images, factor):
    options = BACKBONES["vit" if "vit" in detector.config.backbone else "convnet"]
    scaled = Detector(options.model_copy(update={"trainable_blocks": "all"}))
    scaled.load_state_dict(detector.model.state_dict())
    for tensor in scaled.head.parameters():
        tensor.data *= factor
    found = list(relevance_maps(replace(detector, model=scaled.eval()), images))
    np.testing.assert_allclose(found, list(relevance_maps(detector, images)), atol=1e-4)


def test_maps_do_not_depend_on_the_batch(detector, images):
    one = np.stack(list(relevance_maps(detector, images, batch_size=1)))
    assert one.min() >= 0
    assert one.max() <= 1
    np.testing.assert_allclose(list(relevance_maps(detector, images, batch_size=4)), one, atol=1e-4)


def test_the_detector_stays_as_it_is(detector, images):
    def looks():
        modules = list(detector.model.modules())
        return (
            [getattr(module, "fused_attn", None) for module in modules],
            [len(module._forward_hooks) for module in modules],
            [module.training for module in modules],
            [(tensor.requires_grad, tensor.grad is None) for tensor in detector.model.parameters()],
        )

    state = {name: tensor.clone() for name, tensor in detector.model.state_dict().items()}
    before, logits = looks(), detector.logits(images)
    list(relevance_maps(detector, images))
    assert looks() == before
    assert all(torch.equal(tensor, state[name]) for name, tensor in detector.model.state_dict().items())
    np.testing.assert_array_equal(detector.logits(images), logits)


@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        (nn.Flatten(), "Flatten"),
        (LastChannels(), "LastChannels"),
        (VisionTransformer(img_size=SIZE, patch_size=8, embed_dim=16, depth=1, num_heads=1, num_classes=0,
                           global_pool="map"), "VisionTransformer"),
    ],
)  # fmt: skip
def test_other_backbones_are_refused(backbone, name):
    detector = detector_of(HandMade(backbone, torch.ones(PATCHES)))
    with pytest.raises(R2MError, match=f"no explanations of a {name}; expected a vision transformer"):
        next(relevance_maps(detector, BRIGHT))
