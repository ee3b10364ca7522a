"""Training in several processes: the same result as in one."""

import numpy as np
import pytest
import torch
from torch import multiprocessing

from detector_samples import BACKBONES
from r2m.errors import R2MError
from r2m.models import checkpoint
from r2m.models.heads import initial_head
from r2m.session_files import Compute, SessionFiles
from r2m.train import processes
from r2m.train.options import FinetuneOptions
from r2m.train.stages import finetune
from r2m.trunk.options import AugmentOptions

OPTIONS = FinetuneOptions(steps=6, pairs=4, lr=1e-4, validate_every=3, checkpoint_every=2)
GENERATORS = ["swap", "up"]


@pytest.fixture
def train(image_sets, base_files, trunk_files, tmp_path):
    """Return a function that runs the stage and returns the tensors, the metadata and the history."""
    head = tmp_path / "head.safetensors"
    checkpoint.save(head, initial_head(64, 0, 1), {"content": "head"})

    def run(kind="vit", lr=1e-4, **options):
        names = ("drawn", *GENERATORS)
        trunks = tuple(trunk_files[name] for name in names) if kind == "vit" else ()
        paths = {name: tmp_path / name for name in ("model", "history", "state")}
        finetune(
            files=SessionFiles(tuple(image_sets.paths(*names)), trunks, base_files[kind]),
            initial_head=head,
            name="swap",
            generators=GENERATORS,
            options=OPTIONS.model_copy(update={**options, "lr": lr}),
            augment=AugmentOptions(),
            objective="binary",
            seed=0,
            compute=Compute(BACKBONES[kind], "cpu", "fp32"),
            threads=2,
            **paths,
        )
        tensors, metadata = checkpoint.load(paths["model"])
        return tensors, metadata, np.genfromtxt(paths["history"], delimiter=",", names=True)

    return run


@pytest.mark.slow
def test_two_processes_train_what_one_trains(train):
    alone, metadata, history = train()
    shared, _, shared_history = train(processes=2, accumulate=2)
    assert metadata["name"] == "swap"
    for column in history.dtype.names:
        np.testing.assert_allclose(shared_history[column], history[column], atol=1e-5)
    assert alone.keys() == shared.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(shared[name], tensor, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_error_of_a_process_is_told_in_one_line(train, tmp_path):
    with pytest.raises(R2MError, match=r"^swap: .*; try a smaller finetune\.lr$"):
        train(processes=2, lr=1e30)
    assert not (tmp_path / "model").exists()
    assert not multiprocessing.active_children()


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(R2MError, match=r"finetune\.processes: expected at most 2, the number of GPUs"):
        processes._join("cuda", 2)


def test_alone_unless_launched(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert not processes.are_launched()
    with processes.world("cpu") as world:
        assert world == processes.ALONE
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert processes.are_launched()


def test_one_process_of_torchrun(monkeypatch):
    """A world of one is what torchrun makes with `--nproc-per-node 1`."""
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not processes.are_launched()
