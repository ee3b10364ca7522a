"""Depths told by the names of real models' tensors."""

import pytest
import timm
import torch

from r2m.errors import R2MError
from r2m.merge import api
from r2m.merge.kinds import depths

# Names of blocks in the order of a model's layers, and names that belong to none.
NAMES = {
    "vit": [f"blocks.{i}.attn.qkv.weight" for i in range(12)],
    "hf vit": [f"vit.encoder.layer.{i}.output.dense.weight" for i in range(12)],
    "hf clip": [f"vision_model.encoder.layers.{i}.mlp.fc1.weight" for i in range(12)],
    "open clip": [f"visual.transformer.resblocks.{i}.mlp.c_fc.weight" for i in range(12)],
    "gpt": [f"transformer.h.{i}.mlp.c_fc.weight" for i in range(12)],
    "convnext": [f"stages.{s}.blocks.{i}.mlp.fc1.weight" for s in range(4) for i in range((3, 3, 9, 3)[s])],
    "hf convnext": [
        f"encoder.stages.{s}.layers.{i}.dwconv.weight" for s in range(4) for i in range((3, 3, 11, 3)[s])
    ],
    "swin": [f"layers.{s}.blocks.{i}.attn.qkv.weight" for s in range(4) for i in range((2, 2, 18, 2)[s])],
    "resnet": [f"layer{s + 1}.{i}.conv1.weight" for s in range(4) for i in range((3, 4, 23, 3)[s])],
    "efficientnet": [
        f"blocks.{s}.{i}.conv_pw.weight" for s in range(7) for i in range((1, 2, 2, 3, 3, 4, 1)[s])
    ],
    "torchvision convnext": [
        f"features.{s}.{i}.block.0.weight" for s in range(1, 8, 2) for i in range((0, 3, 0, 3, 0, 9, 0, 3)[s])
    ],
    "vgg": [f"features.{i}.weight" for i in (0, 2, 5, 7, 10)],
}
TIMM = ("convnext", "resnet", "efficientnet", "vit", "maxvit", "coatnet", "mambaout", "byobnet", "nfnet")


@pytest.mark.parametrize("model", NAMES)
def test_depth_grows_from_the_first_block_to_the_last(model):
    names = NAMES[model]
    found = depths(sorted(names), "lines")
    values = [found[name] for name in names]
    assert values == sorted(set(values))
    assert values[-1] == 1
    assert model.startswith("torchvision") or values[0] == 0


def test_depths_are_evenly_spaced():
    for model in ("vit", "convnext", "swin", "resnet"):
        names = NAMES[model]
        expected = {name: i / (len(names) - 1) for i, name in enumerate(names)}
        assert depths(names, "lines") == pytest.approx(expected)


@pytest.mark.parametrize("model", TIMM)
def test_models_of_timm(model):
    names = list(timm.create_model(f"test_{model}", pretrained=False).state_dict())
    found = depths(names, "lines")
    # Parameters are registered in the order of the layers.
    values = [found[name] for name in names if name in found]
    assert values == sorted(values)
    assert {0.0, 1.0} <= set(values)
    assert not [
        name for name in found if name.startswith(("stem", "head", "conv_stem", "patch_embed", "norm"))
    ]


def test_tensors_of_a_stage_outside_its_blocks():
    names = ["stages.0.blocks.0.w", "stages.0.blocks.1.w", "stages.1.downsample.0.w", "stages.1.blocks.0.w"]
    assert depths(names, "lines") == pytest.approx(dict(zip(names, (0, 0.5, 1, 1), strict=True)))


def test_towers_are_counted_by_themselves():
    names = [f"visual.resblocks.{i}.w" for i in range(3)] + [f"transformer.resblocks.{i}.w" for i in range(2)]
    assert depths(names, "lines") == pytest.approx(dict(zip(names, (0, 0.5, 1, 0, 1), strict=True)))


def test_excluded_blocks_move_no_other():
    names = [f"blocks.{i}.w" for i in range(2, 5)]
    assert depths(names, "lines") == pytest.approx(dict(zip(names, (0.5, 0.75, 1), strict=True)))


@pytest.mark.parametrize("names", [["fc1.weight", "fc2.weight"], ["features.denseblock1.conv.weight"], []])
def test_names_that_tell_no_order(names):
    with pytest.raises(R2MError, match="lines: no tensor's name tells the block"):
        depths(names, "lines")


def test_lines_in_a_model_of_stages():
    names = NAMES["convnext"]
    base = {name: torch.zeros(4, 4) for name in names} | {"head.fc.weight": torch.zeros(2, 4)}
    specialists = {one: {key: torch.ones_like(tensor) for key, tensor in base.items()} for one in "ab"}
    merged = api.merge("lines", base, specialists, {"alpha": 0.25, "beta": 0.5})
    found = [merged[name][0, 0].item() / 2 for name in names]
    assert found == pytest.approx([0.25 + 0.5 * i / 17 for i in range(18)])
    assert merged["head.fc.weight"][0, 0] / 2 == 0.25
