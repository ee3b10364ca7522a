import pytest
import timm
import torch

from detector_samples import CONVNET, SIZE, VIT, load_detector, random_weights
from r2m.errors import R2MError
from r2m.merge.tensors import task_vector
from r2m.models import backbone
from r2m.models.backbone import Detector, create_backbone, resized_base
from r2m.models.heads import initial_head

pytestmark = pytest.mark.usefixtures("one_thread")

VITS = ["test_vit", "test_vit2", "test_vit3", "test_vit4"]


def images(n=3, size=32, seed=0):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def randomized(options, seed=0):
    """A detector none of whose tensors are left at zeros or ones."""
    torch.manual_seed(seed)
    detector = Detector(options)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return detector.eval()


def gradients(detector, x):
    detector.zero_grad()
    detector(x).square().sum().backward()
    return {name: p.grad for name, p in detector.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("blocks", [1, 2, 6])
def test_class_token_block_equals_the_whole_block(monkeypatch, blocks):
    detector = randomized(VIT.model_copy(update={"trainable_blocks": blocks}))
    assert backbone._reads_class_token_only(detector.backbone, detector.backbone.blocks[-1])
    x = detector.trunk(images()).detach().requires_grad_()
    logits, short = detector(x), gradients(detector, x)
    short_x = x.grad.clone()
    x.grad = None
    monkeypatch.setattr(backbone, "_reads_class_token_only", lambda vit, last: False)
    plain, whole = detector(x), gradients(detector, x)
    torch.testing.assert_close(logits, plain, rtol=0, atol=1e-5)
    torch.testing.assert_close(short_x, x.grad, rtol=1e-4, atol=1e-5)
    assert short.keys() == whole.keys()
    for name in short:
        torch.testing.assert_close(short[name], whole[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", VITS)
@pytest.mark.parametrize("blocks", [1, 3])
def test_trunk_and_top_make_the_whole_model(name, blocks):
    detector = randomized(VIT.model_copy(update={"name": name, "trainable_blocks": blocks}))
    x = images()
    with torch.no_grad():
        expected = detector.head(detector.backbone(x)).squeeze(1)
        torch.testing.assert_close(detector(detector.trunk(x)), expected, rtol=0, atol=1e-5)


def test_all_blocks_leave_a_trunk_of_the_embedding():
    detector = randomized(VIT.model_copy(update={"trainable_blocks": 6}))
    assert detector.first_trainable == 0
    assert detector.trunk(images()).shape == (3, 5, 64)


def test_what_is_trainable():
    detector = Detector(VIT)
    trainable = {name for name, p in detector.named_parameters() if p.requires_grad}
    assert {name.split(".")[2] for name in trainable if "blocks" in name} == {"4", "5"}
    assert {"backbone.norm.weight", "head.weight", "head.bias"} <= trainable
    assert not {"backbone.pos_embed", "backbone.cls_token"} & trainable
    state = set(detector.trainable_state())
    assert state == {name.removeprefix("backbone.") for name in trainable}


def test_whole_convnet_with_its_buffers():
    detector = randomized(CONVNET)
    assert detector.first_trainable is None
    assert detector(images()).shape == (3,)
    state = detector.trainable_state()
    assert {"bn1.running_mean", "bn1.num_batches_tracked", "head.bias"} <= state.keys()
    base = {name: t.clone() for name, t in detector.backbone.state_dict().items()}
    detector.train()
    detector(images(8))
    changed = {n: t for n, t in detector.trainable_state().items() if not n.startswith("head.")}
    tau = task_vector(base, changed)
    assert tau
    assert all(name.endswith(("running_mean", "running_var")) for name in tau)


def test_head_of_a_convnet_that_widens_after_pooling():
    options = CONVNET.model_copy(update={"name": "mobilenetv3_small_050"})
    assert Detector(options).eval()(images(2)).shape == (2,)


@pytest.mark.parametrize("name", ["test_resnet", "vit_relpos_small_patch16_224"])
def test_a_trunk_needs_a_plain_vit(name):
    options = VIT.model_copy(update={"name": name})
    with pytest.raises(R2MError, match=rf"backbone.trainable_blocks: .*{name} is a \w+; expected `all`"):
        Detector(options)


def test_too_many_blocks():
    with pytest.raises(R2MError, match=r"trainable_blocks: 7 exceeds the 6 blocks of test_vit"):
        Detector(VIT.model_copy(update={"trainable_blocks": 7}))


def test_blocks_above_those_kept_are_left_out():
    weights = random_weights(VIT)
    options = VIT.model_copy(update={"blocks": 4})
    kept = resized_base(weights, options)
    assert {name.split(".")[1] for name in kept if name.startswith("blocks.")} == set("0123")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in kept.items())
    assert resized_base(kept, options).keys() == kept.keys(), "a base that lacks them from the start"
    detector = Detector(options)
    detector.load_tensors(kept)
    whole = create_backbone(VIT)
    whole.load_state_dict(weights)
    with torch.no_grad():
        x = images()
        tokens = whole.eval().blocks[:4](whole.norm_pre(whole._pos_embed(whole.patch_embed(x))))
        found = detector.eval().features(detector.trunk(x))
    torch.testing.assert_close(found, whole.norm(tokens)[:, 0])
    assert detector.first_trainable == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": 7}, r"backbone\.blocks: 7 exceeds the 6 blocks of test_vit"),
        ({"blocks": 1}, r"backbone\.trainable_blocks: 2 exceeds the 1 blocks that are kept of test_vit"),
        (
            {"blocks": 2, "name": "test_resnet"},
            r"backbone\.blocks: .* test_resnet is a ResNet; expected `all`",
        ),
    ],
)
def test_blocks_that_there_are_not(changes, message):
    with pytest.raises(R2MError, match=message):
        Detector(VIT.model_copy(update=changes))


def test_unknown_model():
    with pytest.raises(
        R2MError, match=r"backbone.name: timm has no model 'test_vitt'; did you mean .*test_vit"
    ):
        create_backbone(VIT.model_copy(update={"name": "test_vitt"}))
    with pytest.raises(R2MError, match=r"backbone.name: timm has no model '0'$"):
        create_backbone(VIT.model_copy(update={"name": "0"}))


def test_impossible_size(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("Image size must be divisible by window size")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(R2MError, match=r"backbone.image_size: 32 does not fit test_vit: Image size must be"):
        create_backbone(VIT)


def test_load_tensors_names_what_does_not_fit():
    detector = Detector(VIT)
    with pytest.raises(R2MError, match=r"do not fit the backbone: unexpected blocks.9.x \(1,\)"):
        detector.load_tensors({"blocks.9.x": torch.zeros(1)})
    with pytest.raises(R2MError, match=r"norm.weight has shape \(3,\), expected \(64,\)"):
        detector.load_tensors({"norm.weight": torch.zeros(3)})
    with pytest.raises(R2MError, match=r"do not fit the head: weight has shape \(1, 3\), expected \(1, 64\)"):
        detector.load_tensors({"head.weight": torch.zeros(1, 3)})
    detector.load_tensors({"norm.weight": torch.full((64,), 2.0), "head.bias": torch.tensor([5.0])})
    assert detector.backbone.norm.weight[0] == 2
    assert detector.head.bias.item() == 5


def test_initial_head_depends_on_the_seed_only():
    first, again, other = initial_head(64, 1), initial_head(64, 1), initial_head(64, 2)
    assert first["head.weight"].shape == (1, 64)
    assert torch.equal(first["head.weight"], again["head.weight"])
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert not first["head.bias"].any()
    torch.testing.assert_close(initial_head(10_000, 0)["head.weight"].std().item(), 0.02, rtol=0.05, atol=0)


def test_a_head_of_classes_replaces_that_of_one_output(base_files):
    detector = load_detector(base_files["convnet"], CONVNET)
    images = torch.rand(3, 3, SIZE, SIZE)
    head = initial_head(detector.width, 1, outputs=3)
    assert head["head.weight"].shape == (3, detector.width)
    detector.load_tensors(head)
    detector.eval()
    outputs = detector.class_logits(images)
    expected = torch.log(outputs[:, 1].exp() + outputs[:, 2].exp()) - outputs[:, 0]
    torch.testing.assert_close(detector(images), expected)
    probabilities = outputs.softmax(1)[:, 1:].sum(1)
    torch.testing.assert_close(detector(images).sigmoid(), probabilities)


def test_base_of_the_same_size_is_kept():
    weights = random_weights(VIT)
    state = resized_base(weights | {"head.weight": torch.zeros(10, 64), "fc.bias": torch.zeros(3)}, VIT)
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[name], weights[name]) for name in weights)


def test_position_embedding_is_resampled():
    native = timm.get_pretrained_cfg("test_vit").input_size[-1]
    weights = random_weights(VIT, size=native)
    state = resized_base(weights, VIT)
    assert weights["pos_embed"].shape == (1, 101, 64)
    assert state["pos_embed"].shape == (1, 5, 64)
    assert torch.equal(state["pos_embed"][:, 0], weights["pos_embed"][:, 0])
    assert all(torch.equal(state[name], weights[name]) for name in weights if name != "pos_embed")
    constant = resized_base(weights | {"pos_embed": torch.ones(1, 101, 64)}, VIT)
    torch.testing.assert_close(constant["pos_embed"], torch.ones(1, 5, 64))
    detector = Detector(VIT)
    detector.load_tensors(state)


def test_base_weights_that_do_not_fit():
    weights = random_weights(VIT)
    wrong = {name: tensor for name, tensor in weights.items() if name != "norm.bias"}
    wrong |= {"visual.proj": torch.zeros(2, 3), "norm.weight": torch.zeros(7)}
    with pytest.raises(R2MError) as caught:
        resized_base(wrong, VIT)
    assert str(caught.value) == (
        "weights for test_vit do not fit the backbone: unexpected visual.proj (2, 3);"
        " norm.weight has shape (7,), expected (64,); missing norm.bias (64,)"
    )
    with pytest.raises(R2MError, match=r"unexpected a0 .*; unexpected a1 .*; unexpected a2 .* and \d+ more$"):
        resized_base({f"a{i}": torch.zeros(1) for i in range(5)}, VIT)
    odd = weights | {"pos_embed": torch.zeros(1, 50, 64)}
    with pytest.raises(R2MError, match=r"pos_embed has shape \(1, 50, 64\), expected \(1, 101, 64\)"):
        resized_base(odd, VIT)


def test_weights_of_a_convnet_take_any_size():
    weights = random_weights(CONVNET)
    state = resized_base(weights, CONVNET.model_copy(update={"image_size": 48}))
    assert all(torch.equal(state[name], weights[name]) for name in weights)


def test_loaded_base_gives_the_same_features(base_files):
    first, second = load_detector(base_files["vit"], VIT), load_detector(base_files["vit"], VIT)
    with torch.no_grad():
        x = images()
        assert torch.equal(first.eval().trunk(x), second.eval().trunk(x))
