import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detector_samples import CONVNET, VIT, load_detector, session_of
from r2m.errors import R2MError
from r2m.models.options import BackboneOptions
from r2m.train.second_moments import STATISTICS, compute, draw
from r2m.trunk.inputs import Inputs

pytestmark = pytest.mark.usefixtures("one_thread")

GENERATORS = ["swap", "up"]
WHOLE_VIT = BackboneOptions(**VIT.model_dump() | {"trainable_blocks": "all"})


@pytest.fixture
def vit(image_sets, trunk_files, base_files):
    """A small ViT with a trunk, and its inputs; the head is large enough for predictions that are not 1/2."""
    names = ("drawn", *GENERATORS)
    detector = load_detector(base_files["vit"], VIT)
    detector.head.weight.data.mul_(50)
    return detector, Inputs(image_sets.paths(*names), [trunk_files[name] for name in names], VIT)


@pytest.fixture
def whole_vit(image_sets, base_files):
    inputs = Inputs(image_sets.paths("drawn", *GENERATORS), [], WHOLE_VIT)
    return load_detector(base_files["vit"], WHOLE_VIT), inputs


def statistics(kind, detector, inputs, images=6):
    rows = draw(inputs, GENERATORS, images, 0, "a")
    return compute(kind, session_of(detector, inputs), rows), rows


def naive_fisher(detector, batch):
    """Mean over images of E_y[(∂ log p(y))²], both labels taken by autograd, one image at a time."""
    named = {name: one for name, one in detector.backbone.named_parameters() if one.requires_grad}
    total = {name: torch.zeros(one.shape, dtype=torch.float64) for name, one in named.items()}
    for image in batch:
        for label in (0.0, 1.0):
            logit = detector(image[None])
            loss = F.binary_cross_entropy_with_logits(logit, torch.tensor([label]))
            gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            for name, gradient in zip(named, gradients, strict=True):
                if gradient is not None:
                    total[name] += math.exp(-loss.item()) * gradient.double().square()
    return {name: one / len(batch) for name, one in total.items()}


@pytest.mark.parametrize("setting", ["vit", "whole_vit"])
def test_fisher_equals_squared_gradients_of_both_labels(setting, request):
    detector, inputs = request.getfixturevalue(setting)
    found, rows = statistics("fisher", detector, inputs)
    expected = naive_fisher(detector, inputs.fetch(rows))
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-3, atol=1e-12)
    assert found["blocks.5.attn.qkv.weight"].max() > 0


def test_fisher_covers_what_training_can_change(vit):
    detector, inputs = vit
    found, _ = statistics("fisher", detector, inputs, images=2)
    trained = detector.trainable_state()
    assert found.keys() == {name for name in trained if not name.startswith("head.")}
    assert all(found[name].shape == trained[name].shape for name in found)


def test_fisher_of_a_convolutional_network(image_sets, base_files):
    inputs = Inputs(image_sets.paths("drawn", *GENERATORS), [], CONVNET)
    detector = load_detector(base_files["convnet"], CONVNET)
    found, rows = statistics("fisher", detector, inputs, images=2)
    expected = naive_fisher(detector.eval(), inputs.fetch(rows))
    for name, tensor in found.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize(("setting", "first"), [("vit", 4), ("whole_vit", 0)])
def test_regmean_equals_products_of_plain_inputs(setting, first, request, monkeypatch):
    detector, inputs = request.getfixturevalue(setting)
    monkeypatch.setattr("r2m.train.second_moments.BATCH", 4)  # the last batch is a part of one
    found, rows = statistics("regmean", detector, inputs)
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert list(found) == [f"blocks.{i}.{layer}.weight" for i in range(first, 6) for layer in layers]
    seen: dict[str, torch.Tensor] = {}
    for block in range(first, 6):
        for layer in layers:
            name = f"blocks.{block}.{layer}"
            keep = partial(lambda name, _, args: seen.update({name: args[0]}), name)
            detector.backbone.get_submodule(name).register_forward_pre_hook(keep)
    batch = inputs.fetch(rows)
    with torch.inference_mode():
        detector.backbone.blocks[first:](batch) if first else detector.backbone(batch)
    for name, gram in found.items():
        x = seen[name.removesuffix(".weight")].double()
        x = x.reshape(-1, x.shape[-1])
        assert len(x) == len(rows) * 5, "every token of every image"
        torch.testing.assert_close(gram.double(), x.T @ x / len(x), rtol=1e-4, atol=1e-5)


def test_regmean_leaves_no_hooks_and_changes_nothing(vit):
    detector, inputs = vit
    batch = inputs.fetch(inputs.rows[:2])
    before = detector.eval()(batch)
    statistics("regmean", detector, inputs, images=2)
    assert not any(module._forward_pre_hooks for module in detector.modules())
    torch.testing.assert_close(detector(batch), before, rtol=0, atol=0)


def test_layers_that_are_not_called_as_modules_are_told(vit, caplog):
    detector, inputs = vit
    layer = detector.backbone.blocks[4].mlp.fc1

    class Direct(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = layer

        def forward(self, x):
            return F.linear(x, self.inner.weight, self.inner.bias)

    detector.backbone.blocks[4].mlp.fc1 = Direct()
    found, _ = statistics("regmean", detector, inputs, images=2)
    assert "blocks.4.mlp.fc1.inner.weight" not in found
    assert "blocks.4.mlp.fc1.inner.weight: its layer is not called as a module" in caplog.text


def test_drawn_images_are_balanced_seeded_and_of_the_training_split(vit):
    _, inputs = vit
    rows = draw(inputs, GENERATORS, 6, 0, "a")
    assert rows["label"].value_counts().to_dict() == {0: 3, 1: 3}
    assert set(rows["split"]) == {"train"}
    assert rows["image_id"].is_unique
    assert draw(inputs, GENERATORS, 6, 0, "a").equals(rows)
    assert not draw(inputs, GENERATORS, 6, 1, "a").equals(rows)
    assert not draw(inputs, GENERATORS, 6, 0, "b").equals(rows)
    assert len(draw(inputs, GENERATORS, 1, 0, "a")) == 2
    every = draw(inputs, GENERATORS, 1000, 0, "a")
    assert every["label"].value_counts().to_dict() == {0: 8, 1: 8}, "as many fakes as there are reals"


@pytest.mark.parametrize("kind", STATISTICS)
def test_a_specialist_that_broke_down_is_refused(vit, kind):
    detector, inputs = vit
    detector.backbone.blocks[4].norm1.weight.data[0] = math.nan
    with pytest.raises(R2MError, match=rf"blocks\.4\..*: the {kind} statistics are not finite"):
        statistics(kind, detector, inputs, images=2)
