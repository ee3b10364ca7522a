"""Recorded outputs of blocks beside those of the blocks themselves."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from detector_samples import CONVNET, VIT, WEIGHTS, random_weights
from r2m.models.backbone import Detector
from r2m.models.blocks import recorded_blocks
from r2m.models.options import BackboneOptions

WHOLE = VIT.model_copy(update={"trainable_blocks": "all"})
AVERAGED = BackboneOptions(name="test_vit3", image_size=32, weights=WEIGHTS, trainable_blocks=2)


def detector_of(options) -> Detector:
    detector = Detector(options)
    detector.load_tensors(random_weights(options))
    return detector.eval()


@pytest.mark.parametrize("options", [VIT, WHOLE, AVERAGED])
def test_layers_are_the_pooled_outputs_of_the_blocks(options):
    detector = detector_of(options)
    vit = detector.backbone
    assert isinstance(vit, VisionTransformer)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    x = images if detector.first_trainable is None else detector.trunk(images)
    with torch.inference_mode(), recorded_blocks(detector) as recorded:
        detector.features(x)
        detector.features(x[:1])
    first = detector.first_trainable or 0
    assert list(recorded) == [f"blocks.{i}" for i in range(first, len(vit.blocks))]
    tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
    for index, block in enumerate(vit.blocks):
        tokens = block(tokens)
        if index >= first:
            batches = recorded[f"blocks.{index}"]
            assert [len(one) for one in batches] == [3, 1]
            torch.testing.assert_close(batches[0], vit.pool(tokens).detach(), atol=1e-4, rtol=1e-4)


def test_hooks_go_when_the_context_closes():
    detector = detector_of(VIT)
    with pytest.raises(ZeroDivisionError), recorded_blocks(detector) as recorded:
        raise ZeroDivisionError
    detector.features(torch.zeros(1, 17, detector.width))
    assert not any(recorded.values())


def test_convolutional_networks_have_no_layers():
    detector = detector_of(CONVNET)
    with recorded_blocks(detector) as recorded:
        assert detector.features(torch.zeros(1, 3, 32, 32)).shape[0] == 1
    assert recorded == {}
