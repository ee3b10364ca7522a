"""LoRA adapters that PEFT itself saves, read as PEFT itself merges them."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn

from r2m.errors import R2MError
from r2m.merge.files import FileSource
from r2m.models import adapters
from r2m.models.specialists import open_base, open_like


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.v, self.fc = nn.Linear(10, 10), nn.Linear(10, 10), nn.Linear(10, 14)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 10)
        self.conv = nn.Conv2d(3, 6, 3)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(10, 2)


TARGETS = ["embedding", "conv", "q", "v", "fc"]


def saved(folder, **settings):
    """Save a model and an adapter of it, both drawn at random; return the merged model's tensors."""
    torch.manual_seed(0)
    model = Model()
    save_file({name: one.clone() for name, one in model.state_dict().items()}, folder / "base.safetensors")
    config = LoraConfig(**({"r": 4, "lora_alpha": 12, "target_modules": TARGETS} | settings))
    tuned = get_peft_model(model, config)
    with torch.no_grad():
        for tensor in tuned.parameters():
            if tensor.requires_grad:
                tensor.normal_()
    tuned.save_pretrained(folder / "lora")
    return tuned.merge_and_unload().state_dict()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lora_alpha": 1, "r": 3},
        {"use_rslora": True},
        {"rank_pattern": {"blocks.0.q": 2, "v": 5}, "alpha_pattern": {r"blocks\.1\..*": 7, "conv": 3}},
        {"rank_pattern": {"^blocks.1.fc": 1}, "alpha_pattern": {"fc": 5}, "use_rslora": True},
        {"modules_to_save": ["head"]},
        {"bias": "all", "target_modules": ["q", "v"]},
        {"bias": "lora_only", "target_modules": ["q", "conv"]},
        {"target_modules": r".*\.(q|fc)"},
    ],
    ids=str,
)
def test_as_peft_merges_it(tmp_path, settings):
    expected = saved(tmp_path, **settings)
    with open_base(tmp_path / "base.safetensors") as base, open_like(tmp_path / "lora", base) as weights:
        assert weights.entries.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(weights.tensor(name), tensor, atol=1e-5, rtol=1e-5)


def test_dora_is_refused_by_name(tmp_path):
    saved(tmp_path, use_dora=True, target_modules=["q"])
    with open_base(tmp_path / "base.safetensors") as base, pytest.raises(R2MError, match="use_dora: DoRA"):
        open_like(tmp_path / "lora", base)


def test_products_are_made_piece_by_piece(tmp_path, monkeypatch):
    """Opening computes nothing, and a piece of a task vector costs no whole tensor."""
    saved(tmp_path, target_modules=["q", "fc"])
    filled = []
    fill = adapters.Adapted.fill

    def noted(self, view, start):
        filled.append(len(view))
        fill(self, view, start)

    monkeypatch.setattr(adapters.Adapted, "fill", noted)
    with open_base(tmp_path / "base.safetensors") as base, open_like(tmp_path / "lora", base) as weights:
        key = "blocks.0.q.weight"
        source = FileSource(base, {"a": weights}, tuple(base.entries), torch.device("cpu"), tmp_path)
        assert filled == []
        pieces = [source.task_vectors(key, start, start + 20).clone() for start in range(0, 100, 20)]
        assert filled == [20] * 5
        change = weights.tensor(key) - base.tensor(key)
        torch.testing.assert_close(torch.cat(pieces, dim=1).reshape(10, 10), change)
