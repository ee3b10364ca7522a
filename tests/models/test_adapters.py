import json
import math

import pytest
import torch
from safetensors.torch import save_file

from r2m.errors import R2MError
from r2m.models import adapters
from r2m.models.specialists import open_base, open_like

ROOT = "base_model.model."
SHAPES = {
    "blocks.0.q.weight": (12, 10),
    "blocks.0.q.bias": (12,),
    "blocks.1.q.weight": (12, 10),
    "square.weight": (6, 6),
    "conv.weight": (6, 3, 3, 3),
    "point.weight": (4, 6, 1, 1),
    "line.weight": (5, 3, 2),
    "embedding.weight": (20, 8),
    "head.weight": (2, 12),
}


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture
def base(tmp_path):
    tensors = {name: random(*shape) for name, shape in SHAPES.items()} | {"steps": torch.tensor([3])}
    save_file(tensors, tmp_path / "base.safetensors")
    with open_base(tmp_path / "base.safetensors") as opened:
        yield opened


def factors(module, rank=4, shape=None, form=".lora_{}.weight"):
    out, *rest = shape or SHAPES[f"{module}.weight"]
    a, b = random(rank, *rest), random(out, rank, *(1 for _ in rest[1:]))
    return {ROOT + module + form.format(side): one for side, one in (("A", a), ("B", b))}


def write(folder, tensors, suffix="safetensors", **config):
    folder.mkdir(exist_ok=True)
    path = folder / f"adapter_model.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(tensors, path)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 12, **config}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return path


def product(tensors, module):
    a, b = (tensors[f"{ROOT}{module}.lora_{side}.weight"] for side in "AB")
    return torch.einsum("or,r...->o...", b.flatten(1), a)


def expected(base, changes):
    return {name: base.tensor(name) + changes.get(name, 0) for name in base.entries}


def assert_gives(adapter, base, tensors):
    with open_like(adapter, base) as weights:
        assert list(weights.entries) == sorted(tensors)
        for name, tensor in tensors.items():
            torch.testing.assert_close(weights.tensor(name), tensor)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("module", ["blocks.0.q", "square", "conv", "point", "line"])
def test_base_plus_scaled_product(tmp_path, base, module, suffix):
    tensors = factors(module)
    path = write(tmp_path / "lora", tensors, suffix)
    for adapter in (path, path.parent):
        assert_gives(adapter, base, expected(base, {f"{module}.weight": 3 * product(tensors, module)}))


def test_several_targets_by_patterns(tmp_path, base):
    tensors = factors("blocks.0.q", rank=2) | factors("blocks.1.q", rank=3) | factors("square")
    settings = {"rank_pattern": {"blocks.0.q": 2, "1.q": 3}, "alpha_pattern": {r"blocks\.\d+\.q": 6}}
    path = write(tmp_path / "lora", tensors, **settings)
    scales = {"blocks.0.q": 3, "blocks.1.q": 2, "square": 3}
    changes = {f"{module}.weight": scale * product(tensors, module) for module, scale in scales.items()}
    assert_gives(path, base, expected(base, changes))


def test_rank_stabilized(tmp_path, base):
    tensors = factors("square")
    path = write(tmp_path / "lora", tensors, use_rslora=True)
    assert_gives(
        path, base, expected(base, {"square.weight": 12 / math.sqrt(4) * product(tensors, "square")})
    )


def test_transposed_layers(tmp_path, base):
    tensors = factors("square") | factors("blocks.0.q", shape=(10, 12))
    path = write(tmp_path / "lora", tensors, fan_in_fan_out=True)
    changes = {f"{module}.weight": 3 * product(tensors, module).T for module in ("square", "blocks.0.q")}
    assert_gives(path, base, expected(base, changes))


def test_embeddings(tmp_path, base):
    a, b = random(4, 20), random(8, 4)
    name = f"{ROOT}embedding.lora_embedding_"
    path = write(tmp_path / "lora", {f"{name}A": a, f"{name}B": b})
    assert_gives(path, base, expected(base, {"embedding.weight": 3 * (b @ a).T}))


def test_names_of_a_state_dict_of_peft(tmp_path, base):
    tensors = factors("square", form=".lora_{}.default.weight")
    tensors |= {
        f"{ROOT}head.modules_to_save.default.weight": random(2, 12),
        f"{ROOT}head.original_module.weight": torch.zeros(2, 12),
    }
    path = write(tmp_path / "lora", tensors, "bin")
    a, b = (tensors[f"{ROOT}square.lora_{side}.default.weight"] for side in "AB")
    changed = expected(base, {"square.weight": 3 * b @ a}) | {"head.weight": random(2, 12)}
    assert_gives(path, base, changed)


def test_tensors_that_are_stored_whole(tmp_path, base):
    tensors = factors("blocks.0.q")
    whole = {"blocks.0.q.bias": torch.ones(12), "head.weight": torch.ones(2, 12), "head.bias": torch.ones(2)}
    names = {"blocks.0.q.bias": "blocks.0.q.base_layer.bias"}
    stored = {ROOT + names.get(name, name): tensor for name, tensor in whole.items()}
    path = write(tmp_path / "lora", tensors | stored)
    changes = {"blocks.0.q.weight": 3 * product(tensors, "blocks.0.q")}
    assert_gives(path, base, expected(base, changes) | whole)


def test_names_under_another_prefix(tmp_path):
    save_file(
        {f"backbone.{name}": random(6, 6) for name in ("a.weight", "b.weight")}, tmp_path / "base.safetensors"
    )
    tensors = factors("a", shape=(6, 6)) | factors("b", shape=(6, 6))
    path = write(tmp_path / "lora", tensors)
    with open_base(tmp_path / "base.safetensors") as base:
        changes = {f"backbone.{module}.weight": 3 * product(tensors, module) for module in "ab"}
        assert_gives(path, base, expected(base, changes))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_sums_are_in_float32(tmp_path, dtype):
    save_file({"square.weight": random(6, 6).to(dtype)}, tmp_path / "base.safetensors")
    tensors = {name: tensor.to(dtype) for name, tensor in factors("square").items()}
    path = write(tmp_path / "lora", tensors)
    with open_base(tmp_path / "base.safetensors") as base, open_like(path, base) as weights:
        a, b = (one.float() for one in tensors.values())
        assert weights.tensor("square.weight").dtype == torch.float32
        torch.testing.assert_close(
            weights.tensor("square.weight"), random(6, 6).to(dtype).float() + 3 * b @ a
        )
        assert weights.entries["square.weight"].dtype == torch.float32


@pytest.mark.parametrize("tile", [1, 25, 2**16])
@pytest.mark.parametrize("module", ["blocks.0.q", "conv"])
def test_pieces_of_any_size_are_the_same(tmp_path, base, monkeypatch, module, tile):
    monkeypatch.setattr(adapters, "TILE_ENTRIES", tile)
    path = write(tmp_path / "lora", factors(module))
    with open_like(path, base) as weights:
        name = f"{module}.weight"
        whole = weights.read(name)
        for step in (1, 7, 10, 33):
            pieces = [weights.read(name, i, min(i + step, len(whole))) for i in range(0, len(whole), step)]
            assert torch.equal(torch.cat(pieces), whole)


def test_notes_and_files(tmp_path, base):
    path = write(tmp_path / "lora", factors("square") | {f"{ROOT}head.weight": torch.ones(2, 12)})
    with open_like(path.parent, base) as weights:
        assert weights.notes == [
            "weights taken from the folder's adapter_model.safetensors",
            "a LoRA adapter, applied to 1 of the base's tensors; 1 are its own",
        ]
        assert path in weights.files


@pytest.mark.parametrize(
    ("more", "config", "message"),
    [
        ({}, {"use_dora": True}, "says use_dora: DoRA"),
        ({}, {"lora_bias": True}, "says lora_bias"),
        ({}, {"init_lora_weights": "pissa_niter_4"}, "'pissa_niter_4', which changes the base too"),
        ({}, {"peft_type": "LOHA"}, "says 'LOHA'; expected peft_type 'LORA'"),
        ({}, {"r": 8}, r"lora_A\.weight' has rank 4, but adapter_config\.json says 8"),
        (
            {f"{ROOT}square.lora_magnitude_vector.weight": torch.ones(6)},
            {},
            r"its tensor '.*lora_magnitude_vector.*' is of DoRA",
        ),
        ({f"{ROOT}square.lora_B.bias": torch.ones(6)}, {}, r"its tensor '.*square\.lora_B\.bias'"),
        ({f"{ROOT}square.lora_E": torch.ones(4, 1)}, {}, r"its tensor '.*square\.lora_E'"),
        ({f"{ROOT}square.hada_w1_a": torch.ones(6, 2)}, {}, r"its tensor '.*hada_w1_a'"),
        ({f"{ROOT}square.ia3_l": torch.ones(6, 1)}, {}, r"its tensor '.*ia3_l'"),
        (
            {f"{ROOT}conv.lora_A.weight": torch.ones(4, 3, 3, 3)},
            {},
            r"'.*conv\.lora_A\.weight' lacks the other",
        ),
        (factors("square", form=".lora_{}.second.weight"), {}, "are two adapters"),
        ({f"{ROOT}square.base_layer.weight": torch.ones(6, 6)}, {}, "is there whole and as factors"),
        (
            factors("absent", shape=(6, 6)),
            {},
            r"base\.safetensors lacks 'absent\.weight', which '.*absent\.lora_A",
        ),
        (factors("conv", shape=(6, 3, 1, 1)), {}, r"factors of conv have shapes .* of shape \(6, 3, 3, 3\)"),
        (factors("steps", shape=(1, 1)), {}, "steps"),
    ],
)
def test_what_cannot_be_applied(tmp_path, base, more, config, message):
    path = write(tmp_path / "lora", factors("square") | more, **config)
    with pytest.raises(
        R2MError, match=rf"adapter_model\.safetensors: a LoRA adapter .*{message}.*merge_and_unload"
    ):
        open_like(path, base)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "expected a mapping"),
        ('{"peft_type": "LORA"}', "lora_alpha: expected a number, got None"),
        ('{"peft_type": "LORA", "lora_alpha": "8"}', "lora_alpha: expected a number, got '8'"),
        ('{"peft_type": "LORA", "lora_alpha": 8, "alpha_pattern": {"q": null}}', "q: expected a number"),
        ('{"peft_type": "LORA", "lora_alpha": 8, "rank_pattern": {"(": 3}}', r"'\(' is no pattern"),
    ],
)
def test_configs_that_say_nothing(tmp_path, base, config, message):
    path = write(tmp_path / "lora", factors("square"))
    (tmp_path / "lora/adapter_config.json").write_text(config)
    with pytest.raises(R2MError, match=rf"adapter_config\.json: {message}"):
        open_like(path, base)


def test_without_a_config_the_scale_is_unknown(tmp_path, base):
    path = write(tmp_path / "lora", factors("square"))
    (tmp_path / "lora/adapter_config.json").unlink()
    with pytest.raises(R2MError, match=r"a LoRA adapter .* without adapter_config\.json beside it"):
        open_like(path, base)


def test_factors_of_other_scripts(tmp_path, base):
    names = ("lora_unet_square.lora_down.weight", "lora_unet_square.lora_up.weight")
    save_file({name: torch.ones(4, 6) for name in names}, tmp_path / "k.safetensors")
    with pytest.raises(R2MError, match="a LoRA adapter"):
        open_like(tmp_path / "k.safetensors", base)


def test_an_adapter_is_no_base(tmp_path):
    path = write(tmp_path / "lora", factors("square"))
    with pytest.raises(
        R2MError, match=r"a LoRA adapter .* expected the weights of a whole model as the base"
    ):
        open_base(path)
