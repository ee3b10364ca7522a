import os

import pytest
import torch

from r2m.errors import R2MError
from r2m.models import precision


def pretend(monkeypatch, cuda=False, mps=False, bf16=False):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": bf16})


def test_auto_takes_the_fastest_device(monkeypatch):
    for there, expected in [({}, "cpu"), ({"mps": True}, "mps"), ({"mps": True, "cuda": True}, "cuda")]:
        pretend(monkeypatch, **there)
        assert precision.resolve_device("auto").type == expected
        assert precision.resolve_device("cpu").type == "cpu"


def test_absent_device_is_an_error(monkeypatch):
    pretend(monkeypatch)
    with pytest.raises(R2MError, match=r"device: 'cuda' is not available here; expected auto or .*'cpu'"):
        precision.resolve_device("cuda")


@pytest.mark.parametrize(
    ("name", "bf16", "expected"),
    [
        ("fp32", True, torch.float32),
        ("auto", False, torch.float32),
        ("auto", True, torch.bfloat16),
        ("bf16", False, torch.bfloat16),
    ],
)
def test_autocast(monkeypatch, name, bf16, expected):
    pretend(monkeypatch, bf16=bf16)
    with precision.autocast(torch.device("cpu"), name):
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == expected


def test_only_cuda_needs_to_be_made_deterministic(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    precision.make_deterministic(torch.device("cpu"))
    assert not torch.are_deterministic_algorithms_enabled()
    try:
        precision.make_deterministic(torch.device("cuda"))
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
