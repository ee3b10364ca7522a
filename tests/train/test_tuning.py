"""Tuning methods on small detectors: what they train, that a plain detector is left, and resuming."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from detector_samples import BACKBONES, VIT, load_detector, session_of
from r2m.errors import R2MError
from r2m.models import backbone as backbones
from r2m.models import checkpoint
from r2m.models.backbone import Detector
from r2m.train import finetune as training
from r2m.train.options import FinetuneOptions
from r2m.train.processes import ALONE
from r2m.train.reading import Batch, MicroBatch
from r2m.train.step import Classifier, accumulate_gradients
from r2m.train.tuning import registry
from r2m.train.tuning.options import TuningOptions
from r2m.train.tuning.subspace import SubspaceLinear
from r2m.train.tuning.tuned import tuned
from r2m.trunk.inputs import Inputs

pytestmark = pytest.mark.usefixtures("one_thread")

RANK = 2
TARGETS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
METHODS = {
    "full": "full",
    "norms": "norms",
    "lora": {"method": "lora", "rank": RANK},
    "effort": {"method": "effort", "rank": RANK},
}
WHOLE_VIT = VIT.model_copy(update={"trainable_blocks": "all"})


def tuning_options(given):
    return TuningOptions.model_validate(given)


def detector_of(base_files, options=VIT):
    return load_detector(base_files["vit"], options).eval()


def inputs_of(detector, count=4):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 3, 32, 32, generator=generator)
    return x if detector.first_trainable is None else detector.trunk(x).detach()


def take_steps(tuning, steps=3, lr=1e-2):
    """Train on noise, and return the layers' penalties before every step."""
    detector = tuning.detector
    parameters = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr)
    x, y = inputs_of(detector), torch.tensor([0.0, 1.0, 0.0, 1.0])
    penalties = []
    for _ in range(steps):
        loss = nn.functional.binary_cross_entropy_with_logits(detector(x), y)
        penalty = tuning.penalty()
        if penalty is not None:
            penalties.append(penalty.item())
            loss = loss + penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return penalties


def changes(base_files, method, options=VIT, **kwargs):
    """Return what training changed of every tensor."""
    detector = detector_of(base_files, options)
    before = {name: tensor.clone() for name, tensor in detector.trainable_state().items()}
    with tuned(detector, tuning_options(method), 0) as tuning:
        take_steps(tuning, **kwargs)
        after = tuning.state()
    return {name: after[name] - before[name] for name in before}


def layout(detector):
    """What tells a plain detector from one with other layers."""
    return (
        {name: type(module) for name, module in detector.named_modules()},
        {name: (p.requires_grad, p.shape) for name, p in detector.named_parameters()},
        list(detector.state_dict()),
        [vars(module).keys() for module in detector.modules()],
    )


def test_all_methods_are_tested():
    assert set(METHODS) == set(registry.names())
    for name in METHODS:
        assert registry.get(name).name == name


@pytest.mark.parametrize("options", [VIT, WHOLE_VIT], ids=["blocks", "all"])
@pytest.mark.parametrize("method", METHODS)
def test_nothing_changes_at_the_start(base_files, method, options):
    detector = detector_of(base_files, options)
    x = inputs_of(detector)
    before, logits = detector.trainable_state(), detector(x)
    before = {name: tensor.clone() for name, tensor in before.items()}
    with tuned(detector, tuning_options(METHODS[method]), 0) as tuning:
        torch.testing.assert_close(detector(x), logits, atol=1e-5, rtol=1e-5)
        state = tuning.state()
        penalty = tuning.penalty()
    assert list(state) == list(before)
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, before[name], atol=1e-5 if method == "effort" else 0, rtol=0)
        assert not tensor.requires_grad
    assert penalty is None if method != "effort" else penalty.item() < 1e-8


@pytest.mark.parametrize("options", [VIT, WHOLE_VIT], ids=["blocks", "all"])
@pytest.mark.parametrize("method", METHODS)
def test_a_plain_detector_is_left_with_what_was_trained(base_files, method, options):
    detector, fresh = detector_of(base_files, options), detector_of(base_files, options)
    expected, x = layout(detector), inputs_of(detector)
    with tuned(detector, tuning_options(METHODS[method]), 0) as tuning:
        take_steps(tuning)
        state, logits = tuning.state(), detector(x)
        assert {name: tensor.shape for name, tensor in state.items()} == {
            name: tensor.shape for name, tensor in fresh.trainable_state().items()
        }
    assert layout(detector) == expected
    fresh.load_tensors(state)
    for plain in (detector, fresh):
        torch.testing.assert_close(plain(x), logits, atol=1e-5, rtol=1e-5)
    for name, tensor in detector.trainable_state().items():
        assert torch.equal(tensor, state[name])


def test_a_detector_is_plain_after_an_error(base_files):
    detector = detector_of(base_files)
    expected = layout(detector)
    with pytest.raises(KeyError), tuned(detector, tuning_options(METHODS["lora"]), 0):
        raise KeyError
    assert layout(detector) == expected


@pytest.mark.parametrize("method", ["lora", "effort"])
def test_the_class_token_counts_what_is_trained(base_files, monkeypatch, method):
    detector = detector_of(base_files)
    assert backbones._reads_class_token_only(detector.backbone, detector.backbone.blocks[-1])
    x = inputs_of(detector)
    before = detector(x)
    with tuned(detector, tuning_options({**METHODS[method], "targets": ["5.attn.qkv"]}), 0) as tuning:
        take_steps(tuning)
        shortcut = detector.features(x)
        with monkeypatch.context() as patch:
            patch.setattr(backbones, "_reads_class_token_only", lambda vit, last: False)
            torch.testing.assert_close(detector.features(x), shortcut, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(detector(x), before, atol=1e-4)


def test_full_trains_everything(base_files):
    assert all(change.any() for change in changes(base_files, "full").values())


@pytest.mark.parametrize("options", [VIT, WHOLE_VIT], ids=["blocks", "all"])
def test_norms_and_head_alone(base_files, options):
    moved = {name for name, change in changes(base_files, "norms", options).items() if change.any()}
    assert moved == {name for name in moved if "norm" in name or name.startswith("head.")}
    assert {"norm.weight", "blocks.5.norm2.bias", "head.weight", "head.bias"} <= moved
    assert ("blocks.0.norm1.weight" in moved) == (options is WHOLE_VIT)


def test_norms_of_a_convolutional_network(base_files):
    detector = load_detector(base_files["convnet"], BACKBONES["convnet"])
    with tuned(detector, tuning_options("norms"), 0):
        trained = {name for name, p in detector.backbone.named_parameters() if p.requires_grad}
    modules = dict(detector.backbone.named_modules())
    assert trained
    assert all(isinstance(modules[name.rpartition(".")[0]], nn.BatchNorm2d) for name in trained)


@given(
    rank=st.integers(1, 5),
    alpha=st.floats(1, 64),
    targets=st.sets(st.sampled_from(TARGETS), min_size=1),
)
@settings(max_examples=8, deadline=None)
def test_lora_adds_an_update_of_its_rank(base_files, rank, alpha, targets):
    method = {"method": "lora", "rank": rank, "alpha": alpha, "targets": sorted(targets)}
    for name, change in changes(base_files, method).items():
        if any(name.endswith(f".{target}.weight") for target in targets):
            values = torch.linalg.svdvals(change.double())
            assert values[0] > 0
            assert (values[rank:] < 1e-5 * values[0]).all()
        else:
            assert change.any() == name.startswith("head.")


def test_lora_starts_from_the_seed_and_leaves_random_numbers_alone(base_files):
    detector = detector_of(base_files)

    def drawn(seed):
        with tuned(detector, tuning_options(METHODS["lora"]), seed):
            return [p.detach().clone() for n, p in detector.named_parameters() if "lora_A" in n]

    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = drawn(5)
    assert torch.equal(torch.rand(2), expected)
    assert len(first) == 4
    assert all(map(torch.equal, first, drawn(5)))
    assert not any(map(torch.equal, first, drawn(6)))


@pytest.mark.parametrize("rank", [1, 3])
def test_effort_keeps_the_principal_part(base_files, rank):
    detector = detector_of(base_files)
    before = {name: tensor.clone() for name, tensor in detector.trainable_state().items()}
    layers = [f"blocks.{block}.{target}" for block in (4, 5) for target in TARGETS]
    with tuned(detector, tuning_options({"method": "effort", "rank": rank}), 0) as tuning:
        split = {name: detector.backbone.get_submodule(name) for name in layers}
        frozen = {name: layer.layer.weight.clone() for name, layer in split.items()}
        take_steps(tuning, lr=1e-1)
        after = tuning.state()
        for name, layer in split.items():
            assert torch.equal(layer.layer.weight, frozen[name])
            trained = (layer.u * layer.s) @ layer.v
            torch.testing.assert_close(after[f"{name}.weight"], frozen[name] + trained)
    for name in layers:
        u, s, v = torch.linalg.svd(before[f"{name}.weight"].double(), full_matrices=False)
        principal = (u[:, :-rank] * s[:-rank]) @ v[:-rank]
        torch.testing.assert_close(frozen[name].double(), principal, atol=1e-5, rtol=0)
    moved = {name for name in before if not torch.allclose(after[name], before[name], atol=1e-5)}
    assert moved == {f"{name}.weight" for name in layers} | {"head.weight", "head.bias"}


def test_effort_penalises_as_the_formulas_say():
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(5, 7)
    weight = torch.randn(7, 5, generator=generator)
    layer.weight.data.copy_(weight)
    split = SubspaceLinear(layer, 2)
    assert split.orthogonality().item() < 1e-8
    assert split.norm_change().item() == 0
    for parameter in split.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    u, s, v = torch.linalg.svd(weight.double(), full_matrices=False)
    whole_u = torch.cat([u[:, :-2], split.u.detach().double()], 1)
    whole_v = torch.cat([v[:-2], split.v.detach().double()], 0)
    expected = (whole_u.T @ whole_u - torch.eye(5)).norm() ** 2 + (
        whole_v @ whole_v.T - torch.eye(5)
    ).norm() ** 2
    assert split.orthogonality().item() == pytest.approx(expected.item(), rel=1e-4)
    values = torch.cat([s[:-2], split.s.detach().double()])
    dense = whole_u @ torch.diag(values) @ whole_v
    change = abs(dense.norm() ** 2 - weight.double().norm() ** 2)
    assert split.norm_change().item() == pytest.approx(change.item(), rel=1e-4)


def test_weights_of_effort_scale_its_penalty(base_files):
    def penalties(**weights):
        detector = detector_of(base_files)
        with tuned(detector, tuning_options({"method": "effort", **weights}), 0) as tuning:
            return take_steps(tuning, steps=2)

    assert penalties(orthogonality=0.0, singular_values=0.0) == []
    both, first = penalties(), penalties(singular_values=0.0)
    second = penalties(orthogonality=0.0)
    assert both[1] == pytest.approx(first[1] + second[1], rel=1e-3)
    assert min(first[1], second[1]) > 0


# Training


class Interrupted(Exception):
    pass


@pytest.fixture
def train(image_sets, base_files, trunk_files, tmp_path):
    """Return a function that trains a small detector with a tuning method."""

    def run(method, steps=6, fingerprint="f"):
        names = ("drawn", "swap")
        inputs = Inputs(image_sets.paths(*names), [trunk_files[name] for name in names], VIT)
        detector = detector_of(base_files)
        options = FinetuneOptions(
            steps=steps, pairs=3, lr=1e-2, validate_every=3, checkpoint_every=2, tuning=tuning_options(method)
        )
        progress = training.finetune(
            session_of(detector, inputs),
            ["swap"],
            options,
            None,
            name="swap",
            seed=0,
            state_path=tmp_path / "state.safetensors",
            fingerprint=fingerprint,
        )
        return progress, detector

    return run


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_training_ends_bit_identically(train, monkeypatch, tmp_path, method):
    progress, detector = train(METHODS[method], fingerprint="whole")
    whole, path = training._step, tmp_path / "state.safetensors"

    def until(*args):
        if args[3].step == 5:
            raise Interrupted
        return whole(*args)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_step", until)
        with pytest.raises(Interrupted):
            train(METHODS[method])
    saved, _ = checkpoint.load(path)
    resumed, again = train(METHODS[method])
    assert (resumed.step, resumed.history, resumed.best_step) == (6, progress.history, progress.best_step)
    for first, second in ((resumed.best, progress.best), (again.state_dict(), detector.state_dict())):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
    # What the base gives is in no state: it would be as large as the model.
    shapes = {name: tensor.shape for name, tensor in detector.trainable_state().items()}
    assert {name.removeprefix("best/"): t.shape for name, t in saved.items() if "best/" in name} == shapes
    matrices = [name for name, tensor in saved.items() if tensor.ndim == 2 and min(tensor.shape) > RANK]
    assert all(name.startswith("best/") for name in matrices) == (method != "full")


@pytest.mark.parametrize("method", METHODS)
def test_training_learns(train, method):
    progress, _ = train(METHODS[method], steps=30)
    assert progress.best_auc > 0.7


def test_the_penalty_is_part_of_the_loss(base_files):
    """Once a batch, in however many parts it goes through the model."""
    detector = detector_of(base_files)
    images, targets = inputs_of(detector), torch.tensor([0, 1, 0, 1])
    parts = tuple(MicroBatch(images[i : i + 2], targets[i : i + 2]) for i in (0, 2))
    batch, cpu = Batch(0, 4, parts), torch.device("cpu")
    losses = [
        accumulate_gradients(Classifier(detector), batch, lambda p=p: p, cpu, "fp32", ALONE)
        for p in (None, torch.tensor(2.0))
    ]
    assert losses[1] - losses[0] == pytest.approx(2, abs=1e-5)


# Errors


def test_targets_that_match_nothing(base_files):
    detector = detector_of(base_files)
    for method in ("lora", "effort"):
        options = tuning_options({"method": method, "targets": ["qkv", "query"]})
        with pytest.raises(R2MError) as caught, tuned(detector, options, 0):
            pass
        assert str(caught.value) == (
            "params.yaml: finetune.tuning.targets: no linear layer that is trained is called 'query';"
            " expected some of fc1, fc2, proj, qkv"
        )
    convnet = load_detector(base_files["convnet"], BACKBONES["convnet"])
    options = tuning_options("lora")
    with pytest.raises(R2MError, match="is called 'qkv'; the backbone has none"), tuned(convnet, options, 0):
        pass


def test_a_rank_that_leaves_nothing_frozen(base_files):
    detector = detector_of(base_files)
    before = detector.backbone.blocks[5].mlp.fc1.weight.clone()
    options = tuning_options({"method": "effort", "rank": 64})
    expected = r"tuning\.rank: 64 leaves nothing frozen of blocks\.4\.attn\.qkv \(192, 64\); expected less"
    with pytest.raises(R2MError, match=expected), tuned(detector, options, 0):
        pass
    assert torch.equal(detector.backbone.blocks[5].mlp.fc1.weight, before)


def test_a_backbone_without_norms():
    detector = Detector(VIT)
    detector.backbone.norm = nn.Identity()
    for block in detector.backbone.blocks:
        block.norm1 = block.norm2 = nn.Identity()
    with pytest.raises(R2MError, match="`norms` trains normalization layers, and the backbone has none"):
        registry.get("norms").wrap(detector, tuning_options("norms"), 0)


def test_peft_is_missing(base_files, monkeypatch):
    options = tuning_options("lora")
    monkeypatch.setitem(sys.modules, "peft", None)
    expected = r"finetune\.tuning: `lora` needs the package peft.*run `pip install peft`"
    with pytest.raises(R2MError, match=expected):
        tuning_options("lora")
    with pytest.raises(R2MError, match=expected), tuned(detector_of(base_files), options, 0):
        pass
    tuning_options("norms")


def test_methods_are_known_without_torch():
    names = [registry.module_of(name) for name in registry.names()]
    code = (
        "import importlib, sys\n"
        f"for name in {names}:\n"
        "    importlib.import_module(name)\n"
        "    assert not {'torch', 'peft'} & set(sys.modules), name\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr.strip().splitlines()[-1]
