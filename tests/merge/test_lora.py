"""The update of a merge as a LoRA adapter: factors, their errors, files, and what reads them."""

import json
import math

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from r2m.cli import r2m as group
from r2m.errors import R2MError
from r2m.merge import recipe, stream
from r2m.merge.engine import Settings, merge_files
from r2m.merge.lora import Form, factorized, form
from r2m.models import adapter_files, checkpoint
from r2m.models.specialists import open_base, open_like
from r2m.models.weight_files import ADAPTER_CONFIG


class Model(nn.Module):
    """Every sort of layer that an adapter may or may not hold."""

    def __init__(self):
        super().__init__()
        self.word_embedding = nn.Embedding(20, 8)
        self.conv = nn.Conv2d(3, 6, 3)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6)
        self.blocks = nn.ModuleList([nn.ModuleDict({"fc1": nn.Linear(8, 12), "fc2": nn.Linear(12, 8)})])
        self.norm = nn.LayerNorm(8)
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 8))
        self.head = nn.Linear(8, 2)


MATRICES = {
    "word_embedding.weight": Form.EMBEDDING,
    "conv.weight": Form.CONVOLUTION,
    "blocks.0.fc1.weight": Form.LINEAR,
    "blocks.0.fc2.weight": Form.LINEAR,
}
FULL = 27  # the conv's longer side


def write_models(folder, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    base = {name: torch.randn(one.shape, generator=generator) for name, one in Model().state_dict().items()}
    for name in ("base", "a", "b"):
        change = 0.0 if name == "base" else 0.1
        tensors = {
            key: one + change * torch.randn(one.shape, generator=generator) for key, one in base.items()
        }
        save_file({key: one.to(dtype) for key, one in tensors.items()}, folder / f"{name}.safetensors")


@pytest.fixture
def folder(tmp_path):
    write_models(tmp_path)
    return tmp_path


def asked(folder, method="weight_averaging", out="m.safetensors", **fields):
    content = {
        "method": method,
        "base": folder / "base.safetensors",
        "specialists": {name: folder / f"{name}.safetensors" for name in "ab"},
        "out": folder / out,
        **fields,
    }
    return recipe.build(content, "test")


def merge(folder, rank, method="weight_averaging", force=True, threads=1, **fields):
    fields = {"out_lora": folder / "lora", "lora_rank": rank, "head_prefix": "head."} | fields
    return merge_files(asked(folder, method, **fields), Settings(force=force, threads=threads))["lora"]


def changes(folder, merged):
    """Return merged − base, of all tensors but the head's."""
    base = load_file(folder / "base.safetensors")
    return {
        key: one.float() - base[key].float() for key, one in merged.items() if not key.startswith("head.")
    }


def norm(tensors):
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([(5, 7), (7, 5), (6, 6), (1, 4), (4, 1)]),
    st.integers(1, 8),
    st.integers(0, 99),
    st.integers(0, 7),
)
def test_factors_are_the_nearest_of_their_rank(shape, rank, seed, own_rank):
    generator = torch.Generator().manual_seed(seed)
    update = torch.randn(shape[0], own_rank, generator=generator) @ torch.randn(
        own_rank, shape[1], generator=generator
    )
    factors = factorized(update, rank, Form.LINEAR)
    assert factors.rank == min(rank, *shape)
    lost = torch.linalg.svdvals(update.double())[rank:].square().sum().sqrt().item()
    assert factors.error == pytest.approx(lost, abs=1e-5 * max(1.0, factors.norm))
    assert factors.norm == pytest.approx(norm([update]))
    assert norm([update - factors.b @ factors.a]) == pytest.approx(factors.error, abs=1e-6)


def test_full_rank_is_the_update_itself():
    update = torch.randn(300, 280, generator=torch.Generator().manual_seed(0))
    update *= torch.logspace(0, -4, 280)
    factors = factorized(update, 1000, Form.LINEAR)
    assert factors.error < 3e-7 * factors.norm
    torch.testing.assert_close(factors.b @ factors.a, update, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("blocks.0.attn.qkv.weight", (9, 3), Form.LINEAR),
        ("patch_embed.proj.weight", (8, 3, 4, 4), Form.CONVOLUTION),
        ("stages.0.conv_dw.weight", (8, 1, 7, 7), None),
        ("text_model.embeddings.token_embedding.weight", (9, 3), Form.EMBEDDING),
        ("model.embed_tokens.weight", (9, 3), Form.EMBEDDING),
        ("norm.weight", (3,), None),
        ("fc.bias", (3,), None),
        ("visual.proj", (3, 4), None),
        ("attn.in_proj_weight", (9, 3), None),
        ("embeddings.position_embedding.weight", (5, 3), None),
    ],
)
def test_which_tensors_an_adapter_holds(name, shape, expected):
    assert form(name, shape) == expected


@pytest.mark.parametrize("method", ["weight_averaging", "ties", "tsv_m"])
@pytest.mark.parametrize("rank", [1, 4, FULL])
def test_an_adapter_read_again_gives_the_update_to_within_the_stated_errors(folder, rank, method):
    report = merge(folder, rank, method)
    merged = load_file(folder / "m.safetensors")
    updates = changes(folder, merged)
    with (
        open_base(folder / "base.safetensors") as base,
        open_like(folder / "lora", base) as weights,
    ):
        again = changes(folder, {key: weights.tensor(key) for key in weights.entries})
        assert torch.equal(weights.tensor("head.weight"), merged["head.weight"])
    assert report["tensors"].keys() == MATRICES.keys()
    for key, stated in report["tensors"].items():
        error = norm([again[key] - updates[key]]) / norm([updates[key]])
        assert error == pytest.approx(stated["relative_error"], abs=1e-5)
        assert stated["rank"] == min(rank, updates[key].flatten(1).shape[0], updates[key].flatten(1).shape[1])
        if rank == FULL:
            torch.testing.assert_close(again[key], updates[key], atol=2e-6, rtol=0)
    rest = updates.keys() - MATRICES.keys()
    assert report["left_out"] == {key: pytest.approx(norm([updates[key]]), rel=1e-4) for key in sorted(rest)}
    share = norm([updates[key] for key in rest]) / norm(updates.values())
    assert report["share_left_out"] == pytest.approx(share, rel=1e-4)
    of_matrices = norm([again[key] - updates[key] for key in MATRICES]) / norm(
        [updates[key] for key in MATRICES]
    )
    assert report["relative_error_of_matrices"] == pytest.approx(of_matrices, abs=1e-5)
    in_all = norm([again[key] - updates[key] for key in updates]) / norm(updates.values())
    assert report["relative_error"] == pytest.approx(in_all, abs=1e-5)
    assert report["whole"] == ["head.bias", "head.weight"]


def test_peft_makes_the_same_model_of_it(folder):
    from peft import PeftModel

    merge(folder, 4)
    model = Model()
    model.load_state_dict(load_file(folder / "base.safetensors"))
    loaded = PeftModel.from_pretrained(model, str(folder / "lora")).merge_and_unload().state_dict()
    with (
        open_base(folder / "base.safetensors") as base,
        open_like(folder / "lora", base) as weights,
    ):
        assert loaded.keys() == weights.entries.keys()
        for key, tensor in loaded.items():
            torch.testing.assert_close(tensor, weights.tensor(key), atol=1e-5, rtol=1e-5)


def test_lower_ranks_are_patterns(folder):
    merge(folder, 10)
    config = json.loads((folder / "lora" / ADAPTER_CONFIG).read_text())
    lower = {r"^blocks\.0\.fc1": 8, r"^blocks\.0\.fc2": 8, "^conv": 6, "^word_embedding": 8}
    assert (config["r"], config["lora_alpha"]) == (10, 10)
    assert config["rank_pattern"] == config["alpha_pattern"] == lower
    assert config["modules_to_save"] == ["head"]
    assert config["target_modules"] == sorted(key.removesuffix(".weight") for key in MATRICES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("wanted", [None, "bfloat16"])
def test_the_dense_output_is_the_same_beside_it(tmp_path, dtype, wanted):
    write_models(tmp_path, dtype)
    for method in ("weight_averaging", "tsv_m"):
        report = merge(tmp_path, FULL, method, dtype=wanted)
        beside = (tmp_path / "m.safetensors").read_bytes()
        request = asked(tmp_path, method, dtype=wanted, head_prefix="head.")
        assert "lora" not in merge_files(request, Settings(force=True))
        assert (tmp_path / "m.safetensors").read_bytes() == beside
        # Factors are of the update before it is rounded to the output's type.
        assert report["relative_error_of_matrices"] < 1e-6


def test_threads_and_pieces_change_nothing(folder, monkeypatch):
    merge(folder, 3)
    written = [(folder / "lora" / name).read_bytes() for name in recipe.ADAPTER_FILES]
    monkeypatch.setattr(stream, "PIECE_ENTRIES", 48)
    monkeypatch.setattr(stream, "LEAST_PIECE", 4)
    merge(folder, 3, threads=2)
    assert [(folder / "lora" / name).read_bytes() for name in recipe.ADAPTER_FILES] == written


def test_what_did_not_change_is_not_in_it(folder):
    base = load_file(folder / "base.safetensors")
    for name in "ab":
        kept = {key: one for key, one in base.items() if key.startswith(("conv", "norm", "head"))}
        save_file(load_file(folder / f"{name}.safetensors") | kept, folder / f"{name}.safetensors")
    report = merge(folder, 4, exclude=["blocks.0.fc1.*"])
    assert report["tensors"].keys() == MATRICES.keys() - {"conv.weight", "blocks.0.fc1.weight"}
    assert report["left_out"].keys() == {
        "blocks.0.fc2.bias",
        "depthwise.weight",
        "depthwise.bias",
        "pos_embed",
    }
    assert report["whole"] == []
    assert json.loads((folder / "lora" / ADAPTER_CONFIG).read_text())["modules_to_save"] is None


def test_modules_of_the_head_are_kept_whole(folder):
    """PEFT looks for all tensors of a module that it replaces."""
    base = load_file(folder / "base.safetensors")
    for name in "ab":
        own = load_file(folder / f"{name}.safetensors") | {"head.bias": base["head.bias"]}
        save_file(own, folder / f"{name}.safetensors")
    assert merge(folder, 4)["whole"] == ["head.bias", "head.weight"]
    assert merge(folder, 4, head="base")["whole"] == []


def test_an_adapter_states_its_base(folder):
    merge(folder, 4)
    metadata = checkpoint.read_metadata(folder / "lora/adapter_model.safetensors")
    assert metadata["base_hash"] == checkpoint.read_metadata(folder / "m.safetensors")["base_hash"]
    request = asked(folder, specialists={"m": folder / "lora"}, out="n.safetensors", head_prefix="head.")
    report = merge_files(request, Settings())
    assert report["inputs"]["m"]["notes"][-1].startswith("a LoRA adapter, applied to 4")
    base = load_file(folder / "base.safetensors")
    save_file(base | {"pos_embed": base["pos_embed"] + 1}, folder / "base.safetensors")
    with pytest.raises(R2MError, match="say that m was made from the base"):
        merge_files(request, Settings(force=True))


def test_values_that_are_not_finite(folder):
    tensors = load_file(folder / "a.safetensors")
    tensors["conv.weight"][0, 0, 0, 0] = math.inf
    tensors["norm.bias"][0] = math.nan
    save_file(tensors, folder / "a.safetensors")
    request = asked(folder, out_lora=folder / "lora", lora_rank=4)
    report = merge_files(request, Settings(allow_nonfinite=True))["lora"]
    assert report["nonfinite"] == ["conv.weight", "norm.bias"]
    assert "conv.weight" not in report["tensors"]
    assert "norm.bias" not in report["left_out"]
    assert math.isfinite(report["relative_error"])


def test_values_beyond_the_type_of_the_output(folder):
    for name in ("base", "a", "b"):
        tensors = load_file(folder / f"{name}.safetensors")
        save_file({key: one * 1e5 for key, one in tensors.items()}, folder / f"{name}.safetensors")
    messages = []
    for fields in ({}, {"out_lora": folder / "lora"}):
        with pytest.raises(R2MError, match=r"values are beyond torch\.float16") as caught:
            merge_files(asked(folder, dtype="float16", **fields), Settings())
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{name}.safetensors" for name in ("a", "b", "base")
    ]


def test_outputs_that_exist_and_folders_that_do_not(folder):
    merge(folder, 4, force=False)
    (folder / "m.safetensors").unlink()
    (folder / "m.json").unlink()
    with pytest.raises(R2MError, match=r"adapter_config\.json: exists; --force replaces it"):
        merge(folder, 4, force=False)
    with pytest.raises(R2MError, match="absent: no such folder"):
        merge(folder, 4, out_lora=folder / "absent/lora")
    with pytest.raises(R2MError, match=r"base\.safetensors: is a file; expected the name of a folder"):
        merge(folder, 4, out_lora=folder / "base.safetensors")
    with pytest.raises(R2MError, match="lora_rank: is that of an adapter; expected out_lora"):
        merge(folder, 4, out_lora=None)
    assert not (folder / "m.safetensors").exists()


def test_an_adapter_does_not_replace_one_that_is_merged(folder):
    merge(folder, 4)
    request = asked(folder, specialists={"m": folder / "lora"}, out_lora=folder / "lora", head_prefix="head.")
    with pytest.raises(R2MError, match=r"adapter_config\.json: is one of the inputs"):
        merge_files(request, Settings(force=True))


def test_nothing_that_an_adapter_can_hold(folder):
    for name in "ab":
        base, own = load_file(folder / "base.safetensors"), load_file(folder / f"{name}.safetensors")
        save_file(base | {"norm.bias": own["norm.bias"]}, folder / f"{name}.safetensors")
    with pytest.raises(R2MError, match="lora: the merge changes no tensor that a LoRA adapter can hold"):
        merge(folder, 4)
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{name}.safetensors" for name in ("a", "b", "base")
    ]


def test_a_failure_leaves_no_folder(folder, monkeypatch):
    def refused(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(adapter_files, "discard_left", refused)
    with pytest.raises(R2MError, match=r"adapter_config\.json: cannot be written"):
        merge(folder, 4)
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{name}.safetensors" for name in ("a", "b", "base")
    ]


def test_the_names_of_the_files():
    assert recipe.ADAPTER_FILES == (ADAPTER_CONFIG, adapter_files.ADAPTER_WEIGHTS)


def test_a_recipe_and_what_the_command_says(folder):
    (folder / "r.yaml").write_text(
        "method: weight_averaging\nbase: base.safetensors\n"
        "specialists: {a: a.safetensors, b: b.safetensors}\n"
        "head_prefix: head.\nout: m.safetensors\nout_lora: adapter\nlora_rank: 2\n"
    )
    result = CliRunner().invoke(group, ["merge", "--recipe", str(folder / "r.yaml"), "--lora-rank", "3"])
    assert result.exit_code == 0, result.output
    lora = json.loads((folder / "m.json").read_text())["lora"]
    assert lora["rank"] == 3
    line = result.output.splitlines()[-1]
    errors = [
        f"{lora[key]:.2g}" for key in ("relative_error_of_matrices", "share_left_out", "relative_error")
    ]
    assert line == (
        f"{folder / 'adapter'}: rank 3, relative error {errors[0]} of 4 matrices; left out:"
        f" {len(lora['left_out'])} other tensors with {errors[1]} of the update's norm; relative error in all"
        f" {errors[2]}"
    )
    assert sorted(path.name for path in (folder / "adapter").iterdir()) == list(recipe.ADAPTER_FILES)
