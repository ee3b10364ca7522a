import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from detector_samples import BACKBONES, load_detector, session_of
from r2m.errors import R2MError
from r2m.models import checkpoint
from r2m.models.heads import initial_head
from r2m.seeding import derive
from r2m.train import finetune as module
from r2m.train import state
from r2m.train.finetune import finetune, learning_rate_factor, objective
from r2m.train.options import FinetuneOptions
from r2m.train.state import Progress
from r2m.train.validation import aucs
from r2m.trunk.inputs import Inputs
from r2m.trunk.options import AugmentOptions

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = FinetuneOptions(steps=6, pairs=3, lr=1e-3, validate_every=3, checkpoint_every=2)


class Recorder(Inputs):
    """Inputs that remember which images were asked for, and with which augmentation."""

    def __init__(self, *args):
        super().__init__(*args)
        self.asked = []

    def fetch(self, rows, options=None, seed=0):
        self.asked.append((rows, options, seed))
        return super().fetch(rows, options, seed)


@pytest.fixture
def trainer(image_sets, base_files, trunk_files, tmp_path):
    """Return a function that trains a small detector; it returns progress, detector and inputs."""

    def train(
        kind="vit", options=OPTIONS, generators=("swap",), fingerprint="f", classes=1, threads=1, **kwargs
    ):
        backbone = BACKBONES[kind]
        names = ("drawn", *generators)
        trunks = [trunk_files[name] for name in names] if kind == "vit" else []
        inputs = Recorder(image_sets.paths(*names), trunks, backbone, None, threads)
        detector = load_detector(base_files[kind], backbone)
        if classes > 1:
            detector.load_tensors(initial_head(detector.width, 0, classes))
        progress = finetune(
            session_of(detector, inputs),
            generators,
            options,
            None if trunks else AugmentOptions(),
            name="swap",
            seed=0,
            state_path=tmp_path / "state.safetensors",
            fingerprint=fingerprint,
            **kwargs,
        )
        return progress, detector, inputs

    return train


def same(first, second):
    """Whether two results of training are equal to the last bit."""
    (a, detector_a, _), (b, detector_b, _) = first, second
    tensors = [(a.best, b.best), (detector_a.state_dict(), detector_b.state_dict())]
    equal = all(x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x) for x, y in tensors)
    return equal and dataclasses.replace(a, best={}) == dataclasses.replace(b, best={})


class Interrupted(Exception):
    pass


def interrupt_at(monkeypatch, step):
    whole = module._step

    def until(detector, optimizer, batch, targets, options, at, precision):
        if at == step:
            raise Interrupted
        return whole(detector, optimizer, batch, targets, options, at, precision)

    monkeypatch.setattr(module, "_step", until)


@pytest.mark.parametrize(("kind", "threads"), [("vit", 1), ("convnet", 3)])
def test_interrupted_training_ends_bit_identically(trainer, monkeypatch, tmp_path, kind, threads):
    """Also in the middle of an epoch, and with other threads that read ahead: 3 pairs a step of 8 fakes."""
    whole = trainer(kind)
    path = tmp_path / "state.safetensors"
    assert whole[0].step == 6
    assert [row["step"] for row in whole[0].history] == [3, 6]
    for step in range(6):
        path.unlink(missing_ok=True)
        with monkeypatch.context() as patch:
            interrupt_at(patch, step)
            with pytest.raises(Interrupted):
                trainer(kind, threads=threads)
        assert path.exists() == (step >= 2)
        resumed = trainer(kind, threads=threads)
        assert same(resumed, whole)
        batches = sum(len(rows) == 2 * OPTIONS.pairs for rows, _, _ in resumed[2].asked)
        assert batches >= 6 - step // 2 * 2


def test_an_image_that_cannot_be_read_ends_the_training_at_its_step(trainer, monkeypatch):
    steps, fetch, step_of = [], Recorder.fetch, module._step

    def broken(self, rows, options=None, seed=0):
        if options is not None and seed == derive(0, "augment", "swap", "4"):
            raise R2MError("a.jpg: cannot be read")
        return fetch(self, rows, options, seed)

    monkeypatch.setattr(Recorder, "fetch", broken)
    monkeypatch.setattr(module, "_step", lambda *args: (steps.append(args[5]), step_of(*args))[1])
    with pytest.raises(R2MError, match=r"a\.jpg: cannot be read"):
        trainer("convnet", threads=2)
    assert steps == [0, 1, 2, 3]


def test_interrupted_twice_and_in_validation(trainer, monkeypatch):
    whole = trainer()
    for step in (3, 5):
        with monkeypatch.context() as patch:
            interrupt_at(patch, step)
            with pytest.raises(Interrupted):
                trainer(fingerprint="g")
    with monkeypatch.context() as patch:
        patch.setattr(module, "_validate", lambda *args: (_ for _ in ()).throw(Interrupted))
        with pytest.raises(Interrupted):
            trainer(fingerprint="g")
    assert same(trainer(fingerprint="g"), whole)


def test_state_of_another_training_is_ignored(trainer, monkeypatch, tmp_path):
    whole = trainer(options=OPTIONS.model_copy(update={"lr": 2e-3}))
    (tmp_path / "state.safetensors").unlink()
    with monkeypatch.context() as patch:
        interrupt_at(patch, 5)
        with pytest.raises(Interrupted):
            trainer()
    assert same(trainer(options=OPTIONS.model_copy(update={"lr": 2e-3}), fingerprint="other"), whole)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-100], lambda b: b"", lambda b: b"x" * 500, lambda b: b[:20]]
)
def test_corrupt_state_is_ignored(trainer, tmp_path, damage):
    whole = trainer()
    path = tmp_path / "state.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    assert same(trainer(), whole)


def test_state_holds_what_training_depends_on(trainer, tmp_path):
    trainer("convnet")
    tensors, metadata = checkpoint.load(tmp_path / "state.safetensors")
    assert metadata["fingerprint"] == "f"
    names = {name.split("/")[0] for name in tensors}
    assert names == {"model", "step", "exp_avg", "exp_avg_sq", "buffer", "best"}
    assert "buffer/backbone.bn1.running_var" in tensors


def test_parameter_without_gradient_is_resumed(tmp_path):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))

    model = Model()
    optimizer = torch.optim.AdamW(model.parameters())
    model.used.sum().backward()
    optimizer.step()
    state.save(tmp_path / "s", "f", Progress(step=1), model, optimizer)
    fresh = Model()
    loaded = state.load(tmp_path / "s", "f", fresh, torch.optim.AdamW(fresh.parameters()))
    assert loaded == Progress(step=1)
    assert torch.equal(fresh.used, model.used)


def test_training_learns_and_selects_on_val(trainer):
    options = FinetuneOptions(steps=60, pairs=8, lr=3e-3, validate_every=10, checkpoint_every=100)
    progress, _, inputs = trainer(options=options, generators=("swap", "up"))
    history = progress.history
    assert history[-1]["loss"] < history[0]["loss"] - 0.2
    best = max(history, key=lambda row: row["val_auc"])
    assert (progress.best_step, progress.best_auc) == (best["step"], best["val_auc"])
    assert progress.best_auc > 0.8
    asked = pd.concat([rows for rows, _, _ in inputs.asked])
    assert set(asked["split"]) == {"train", "val"}
    assert set(asked.loc[asked["split"] == "val", "label"]) == {0, 1}


def test_classes_are_learnt_by_generator(trainer, monkeypatch):
    asked = []

    def recorded(outputs, targets):
        asked.append(targets.tolist())
        return objective(outputs, targets)

    monkeypatch.setattr(module, "objective", recorded)
    _, detector, inputs = trainer(generators=("swap", "up"), classes=3)
    names = [list(rows["generator"]) for rows, *_ in inputs.asked if len(rows) == 2 * OPTIONS.pairs]
    classes = {"real": 0, "swap": 1, "up": 2}
    assert asked == [[classes[name] for name in batch] for batch in names[: len(asked)]]
    assert detector.head.out_features == 3


def test_objectives_are_the_textbook_ones():
    outputs = torch.tensor([[0.3, 1.2, -0.4], [2.0, 0.1, 0.5]])
    expected = -torch.log(outputs.exp()[[0, 1], [2, 0]] / outputs.exp().sum(1)).mean()
    torch.testing.assert_close(objective(outputs, torch.tensor([2, 0])), expected)
    logits = torch.tensor([[0.7], [-1.1]])
    expected = -(torch.log(torch.sigmoid(logits[0, 0])) + torch.log(1 - torch.sigmoid(logits[1, 0]))) / 2
    torch.testing.assert_close(objective(logits, torch.tensor([2, 0])), expected)


def test_best_tensors_are_those_of_the_best_step(trainer, monkeypatch):
    aucs = iter([0.5, 0.9, 0.9, 0.7])
    monkeypatch.setattr(module, "_validate", lambda *args: next(aucs))
    options = FinetuneOptions(steps=4, pairs=2, lr=1e-2, validate_every=1, checkpoint_every=10)
    progress, detector, _ = trainer(options=options)
    assert (progress.best_step, progress.best_auc) == (2, 0.9)
    assert not torch.equal(progress.best["head.weight"], detector.trainable_state()["head.weight"])
    assert "blocks.5.norm1.weight" in progress.best
    assert "blocks.3.norm1.weight" not in progress.best


def test_frozen_trunk_does_not_move(trainer, base_files):
    _, detector, _ = trainer()
    base, _ = checkpoint.load(base_files["vit"])
    for name, tensor in detector.backbone.state_dict().items():
        assert torch.equal(tensor, base[name]) != name.startswith(("blocks.4.", "blocks.5.", "norm."))


def test_val_auc_is_the_mean_over_generators(image_sets, base_files, trunk_files, monkeypatch):
    names = ("drawn", "swap", "up")
    inputs = Inputs(image_sets.paths(*names), [trunk_files[name] for name in names], BACKBONES["vit"])
    session = session_of(load_detector(base_files["vit"], BACKBONES["vit"]), inputs)
    monkeypatch.setattr(module, "generator_aucs", lambda *args: {"swap": 0.5, "up": 0.0})
    assert module._validate(session, ["swap", "up"]) == 0.25


def test_augmentation_in_training_only(trainer):
    _, _, inputs = trainer("convnet")
    seeds = {seed for rows, options, seed in inputs.asked if options is not None}
    assert len(seeds) == OPTIONS.steps
    assert all((options is None) == (rows["split"] == "val").all() for rows, options, _ in inputs.asked)


@pytest.mark.parametrize("kind", ["vit", "convnet"])
def test_divergence_is_an_error(trainer, kind):
    with pytest.raises(R2MError, match=r"swap: .* not finite after step|swap: the loss is (nan|inf) at step"):
        trainer(kind, options=OPTIONS.model_copy(update={"lr": 1e30, "warmup": 0.0}))


def test_loss_that_is_not_finite(trainer, monkeypatch):
    monkeypatch.setattr(module, "_step", lambda *args: float("nan"))
    with pytest.raises(R2MError, match=r"swap: the loss is nan at step 1; try a smaller finetune\.lr"):
        trainer()


def test_learning_rate_schedule():
    factors = np.array([learning_rate_factor(step, 100, 0.1) for step in range(100)])
    np.testing.assert_allclose(factors[:10], np.arange(1, 11) / 10)
    assert factors[10] == 1
    assert (np.diff(factors[10:]) < 0).all()
    assert 0 < factors[-1] < 0.001
    assert factors[55] == pytest.approx(0.5)
    assert learning_rate_factor(0, 1, 0) == 1


def test_optimizer_groups(base_files):
    detector = load_detector(base_files["vit"], BACKBONES["vit"])
    optimizer = module._optimizer(detector, OPTIONS)
    names = {parameter: name for name, parameter in detector.named_parameters()}
    seen = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            seen[names[parameter]] = (group["base_lr"], group["weight_decay"])
    assert seen["head.weight"] == (pytest.approx(2e-2), OPTIONS.weight_decay)
    assert seen["head.bias"] == (pytest.approx(2e-2), 0)
    assert seen["backbone.blocks.5.mlp.fc1.weight"] == (1e-3, OPTIONS.weight_decay)
    assert seen["backbone.norm.weight"] == (1e-3, 0)
    assert seen.keys() == {name for name, p in detector.named_parameters() if p.requires_grad}


def test_predict_does_not_depend_on_the_batch(image_sets, base_files, trunk_files):
    inputs = Inputs(image_sets.paths("swap"), [trunk_files["swap"]], BACKBONES["vit"])
    detector = load_detector(base_files["vit"], BACKBONES["vit"])
    session = session_of(detector, inputs)
    logits = session.predict(inputs.rows, batch_size=4)
    assert logits.shape == (len(inputs.rows),)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(session.predict(inputs.rows, 100), logits, atol=1e-5)
    assert session.predict(inputs.rows.iloc[:0]).shape == (0,)


def test_aucs_compare_within_the_domain():
    fakes = pd.DataFrame({"generator": ["a", "a", "b"], "domain": ["x", "x", "y"]})
    reals = pd.DataFrame({"domain": ["x", "y"]})
    found = aucs(fakes, np.array([2.0, 0.0, 3.0]), reals, np.array([1.0, 9.0]))
    assert found == {"a": 0.5, "b": 0.0}
    found = aucs(fakes, np.array([np.nan, 0.0, 3.0]), reals, np.array([1.0, 1.0]))
    assert np.isnan(found["a"])
    assert found["b"] == 1
