"""One CLIP vision transformer under the names of Hugging Face, of OpenAI and open_clip, and of timm."""

import json
from functools import cache

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import checkpoint_filter_fn

from clip_samples import DEPTH, OUT, PATCH, WIDTH, openai_state, timm_model, timm_state
from r2m.cli import r2m as group
from r2m.errors import R2MError
from r2m.models.clip_names import HUGGING_FACE, OPENAI, TIMM, find_tower
from r2m.models.specialists import open_base, open_like


@cache
def hugging_face_model(seed=0):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=2,
        image_size=3 * PATCH,
        patch_size=PATCH,
        projection_dim=OUT,
        hidden_act="gelu",
    )
    model = CLIPVisionModelWithProjection(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.normal_(std=0.3, generator=generator)
    return model


TEXT = {
    "positional_embedding": (7, 6),
    "token_embedding.weight": (9, 6),
    "transformer.resblocks.0.attn.in_proj_weight": (18, 6),
    "ln_final.weight": (6,),
    "text_projection": (6, OUT),
    "logit_scale": (),
}


def hugging_face_state(seed=0):
    return {name: tensor.detach() for name, tensor in hugging_face_model(seed).state_dict().items()}


def under(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def write(path, tensors):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def converted(folder, own, base, **settings):
    """Return the tensors of `own` as specialists of `base`, and the notes."""
    with (
        open_base(write(folder / "base.safetensors", base)) as opened,
        open_like(write(folder / "own.safetensors", own), opened, **settings) as weights,
    ):
        for name in weights.entries:
            whole = weights.read(name)
            steps = range(0, len(whole), 7)
            pieces = [weights.read(name, start, min(start + 7, len(whole))) for start in steps]
            assert torch.equal(torch.cat(pieces) if pieces else whole, whole)
        return {name: weights.tensor(name) for name in weights.entries}, weights.notes


def assert_equal(tensors, expected):
    assert sorted(tensors) == sorted(expected)
    for name, tensor in expected.items():
        assert torch.equal(tensors[name], tensor), name


@pytest.mark.parametrize("classes", [0, OUT])
def test_hugging_faces_model_and_its_conversion_compute_the_same(tmp_path, classes):
    tensors, notes = converted(tmp_path, hugging_face_state(), timm_state(classes))
    model = timm_model(classes)
    model.load_state_dict(tensors)
    images = torch.randn(2, 3, 3 * PATCH, 3 * PATCH, generator=torch.Generator().manual_seed(1))
    own = hugging_face_model()
    with torch.no_grad():
        pooled = own.vision_model(images).pooler_output
        expected = own.visual_projection(pooled) if classes else pooled
        torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-4)
    (note,) = notes
    assert note.startswith("its names are Hugging Face's, mapped to timm's: 'vision_model.encoder.layers.0.")
    assert ("left out, since the base has no such tensors: 'visual_projection.weight'" in note) == (
        not classes
    )


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("classes", [0, OUT])
def test_openais_names_become_what_timms_converter_makes_of_them(tmp_path, classes, prefix):
    state = openai_state() | {name: torch.ones(shape) for name, shape in TEXT.items()}
    model = timm_model(classes)
    expected = checkpoint_filter_fn(dict(state), model)
    if not classes:
        expected = {name: one for name, one in expected.items() if not name.startswith("head.")}
    tensors, notes = converted(tmp_path, under(prefix, state), timm_state(classes))
    assert_equal(tensors, expected)
    model.load_state_dict(tensors)
    (note,) = notes
    assert "logit_scale" in note
    assert "'blocks.0.attn.qkv.weight'" in note


STATES = {
    "timm": (timm_state, TIMM),
    "openai": (openai_state, OPENAI),
    "hugging_face": (hugging_face_state, HUGGING_FACE),
}


@pytest.mark.parametrize("other", STATES)
@pytest.mark.parametrize("own", STATES)
def test_there_and_back(tmp_path, own, other):
    state, template = STATES[own][0](), STATES[other][0]()
    if own == "timm":
        state["head.bias"].zero_()
    assert find_tower(state).convention is STATES[own][1]
    there, notes = converted(tmp_path, state, template)
    assert sorted(there) == sorted(template)
    assert {name: tensor.shape for name, tensor in there.items()} == {
        name: tensor.shape for name, tensor in template.items()
    }
    back, _ = converted(tmp_path, there, state)
    assert_equal(back, state)
    assert bool(notes) == (own != other)


@pytest.mark.parametrize("base_prefix", ["", "backbone."])
@pytest.mark.parametrize("own_prefix", ["", "model.", "module.backbone."])
def test_prefixes_and_heads(tmp_path, own_prefix, base_prefix):
    head = torch.ones(2, WIDTH)
    own = under(own_prefix, hugging_face_state()) | {f"{own_prefix}head.weight": head}
    base = under(base_prefix, timm_state(0))
    tensors, _ = converted(tmp_path, own, base, head_prefix="head.")
    assert sorted(tensors) == sorted([*base, "head.weight"])
    plain, _ = converted(tmp_path, hugging_face_state(), timm_state(0))
    assert_equal(tensors, under(base_prefix, plain) | {"head.weight": head})


def test_the_tower_alone(tmp_path):
    """transformers' CLIPVisionModel names nothing before `embeddings`, and OpenAI's tower may be saved so."""
    tower = hugging_face_model().vision_model.state_dict()
    plain, _ = converted(tmp_path, hugging_face_state(), timm_state(0))
    assert_equal(converted(tmp_path, tower, timm_state(0))[0], plain)
    state = openai_state()
    plain, _ = converted(tmp_path, state, timm_state())
    bare = {name.removeprefix("visual."): tensor for name, tensor in state.items()}
    assert_equal(converted(tmp_path, bare, timm_state())[0], plain)


def test_the_same_convention_stays_as_it_is(tmp_path):
    state = hugging_face_state() | {"vision_model.embeddings.position_ids": torch.arange(10)[None]}
    tensors, notes = converted(tmp_path, under("model.", state), hugging_face_state(1))
    assert_equal(tensors, state)
    assert all("mapped" not in note for note in notes)


def test_a_classifier_is_no_projection(tmp_path):
    tensors, notes = converted(tmp_path, hugging_face_state(), timm_state(2))
    assert "head.weight" not in tensors
    assert "'visual_projection.weight'" in notes[0]
    tensors, _ = converted(tmp_path, timm_state(2), hugging_face_state())
    assert tensors["head.weight"].shape == (2, WIDTH)


def test_what_cannot_be_mapped(tmp_path):
    state = hugging_face_state()
    key = "vision_model.encoder.layers.1.self_attn.k_proj.weight"
    without = {name: tensor for name, tensor in state.items() if name != key}
    with pytest.raises(R2MError, match=r"own\.safetensors: has '.*q_proj\.weight', but lacks '.*k_proj"):
        converted(tmp_path, without, timm_state())
    with pytest.raises(R2MError, match=r"q_proj\.weight: expected square q, k and v of one size"):
        converted(tmp_path, state | {key: torch.ones(WIDTH, WIDTH + 1)}, timm_state())
    gram = timm_state(0) | {"blocks.0.attn.qkv.weight": torch.ones(WIDTH, WIDTH)}
    with pytest.raises(R2MError, match=r"blocks\.0\.attn\.qkv\.weight: expected square q, k"):
        converted(tmp_path, gram, state)
    with pytest.raises(R2MError, match=r"'head\.bias' is not zero, but the base's projection has no bias"):
        converted(tmp_path, timm_state(), openai_state())


def test_types_of_q_k_and_v_may_differ(tmp_path):
    state = hugging_face_state()
    key = "vision_model.encoder.layers.1.self_attn.k_proj.weight"
    tensors, _ = converted(tmp_path, state | {key: state[key].half()}, timm_state())
    assert tensors["blocks.1.attn.qkv.weight"].dtype == torch.float32
    k = tensors["blocks.1.attn.qkv.weight"][WIDTH : 2 * WIDTH]
    assert torch.equal(k, state[key].half().float())


def test_two_towers_are_none():
    state = hugging_face_state()
    assert find_tower([*under("teacher.", state), *under("student.", state)]) is None
    assert find_tower(["blocks.0.attn.qkv.weight", "patch_embed.proj.weight"]) is None


@pytest.mark.parametrize("own", [lambda: timm_state(0, 4), lambda: openai_state(grid=4)])
def test_positions_of_another_size(tmp_path, own):
    state, base = own(), timm_state(0)
    expected = (
        r"own\.safetensors: pos_embed is for 4 × 4 patches, but 3 × 3 patches in .*--resample-positions"
    )
    with pytest.raises(R2MError, match=expected):
        converted(tmp_path, state, base)
    tensors, notes = converted(tmp_path, state, base, resample_positions=True)
    name = "pos_embed" if "pos_embed" in state else "visual.positional_embedding"
    positions = resample_abs_pos_embed(state[name].reshape(1, -1, WIDTH), [3, 3])
    assert torch.equal(tensors["pos_embed"], positions)
    assert notes[-1] == "its 'pos_embed' is resampled from 4 × 4 patches to 3 × 3 patches"


def test_positions_of_no_square(tmp_path):
    state = timm_state(0) | {"pos_embed": torch.ones(1, 8, WIDTH)}
    with pytest.raises(R2MError, match=r"8 positions, no square of patches.*only square grids"):
        converted(tmp_path, state, timm_state(0), resample_positions=True)


def merge(folder, specialists, *more):
    named = [f"--specialist={name}={folder / name}.safetensors" for name in specialists]
    out = folder / "merged.safetensors"
    arguments = ["merge", "--method", "weight_averaging", "--base", folder / "base.safetensors", *named]
    result = CliRunner().invoke(group, [*map(str, arguments), "--out", str(out), "--force", *more])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return load_file(out), json.loads(out.with_suffix(".json").read_text())


@pytest.mark.usefixtures("one_thread")
def test_a_merge_of_three_conventions(tmp_path):
    states = {"t": timm_state(seed=1), "o": openai_state(2), "h": hugging_face_state(3)}
    states["t"]["head.bias"].zero_()
    in_timm = {}
    for name, state in states.items():
        in_timm[name], _ = converted(tmp_path, state, timm_state())
        write(tmp_path / f"{name}.safetensors", state)
    merged, report = merge(tmp_path, states)
    for key, tensor in merged.items():
        mean = torch.stack([one[key] for one in in_timm.values()]).mean(0)
        torch.testing.assert_close(tensor, mean, atol=1e-6, rtol=1e-5)
    assert report["inputs"]["t"]["notes"] == []
    assert "Hugging Face's, mapped to timm's" in report["inputs"]["h"]["notes"][0]
    assert "OpenAI's and open_clip's, mapped to timm's" in report["inputs"]["o"]["notes"][0]
    write(tmp_path / "h2.safetensors", in_timm["h"])
    _, other = merge(tmp_path, ["h2"])
    assert other["inputs"]["h2"]["digest"] == report["inputs"]["h"]["digest"]


@pytest.mark.usefixtures("one_thread")
def test_a_merge_that_resamples_positions(tmp_path):
    write(tmp_path / "base.safetensors", timm_state(0))
    for seed, name in enumerate("ab", start=1):
        write(tmp_path / f"{name}.safetensors", timm_state(0, 3 + seed, seed))
    with pytest.raises(R2MError, match=r"4 × 4 patches, but 3 × 3"):
        merge(tmp_path, "ab")
    merged, report = merge(tmp_path, "ab", "--resample-positions")
    positions = [load_file(tmp_path / f"{name}.safetensors")["pos_embed"] for name in "ab"]
    mean = sum(resample_abs_pos_embed(one, [3, 3]) for one in positions) / 2
    torch.testing.assert_close(merged["pos_embed"], mean)
    assert "resampled from 5 × 5 patches" in report["inputs"]["b"]["notes"][0]


@pytest.mark.parametrize("own", ["vision_model.", "model.vision_model.", ""])
def test_an_adapter_in_another_convention(tmp_path, own):
    """q and v of Hugging Face's names are rows of timm's qkv."""
    base, _ = converted(tmp_path, hugging_face_state(), timm_state(0))
    generator = torch.Generator().manual_seed(5)
    factors, changed = {}, dict(base)
    changed["blocks.1.attn.qkv.weight"] = changed["blocks.1.attn.qkv.weight"].clone()
    for index, part in ((0, "q_proj"), (2, "v_proj")):
        a, b = torch.randn(3, WIDTH, generator=generator), torch.randn(WIDTH, 3, generator=generator)
        module = f"base_model.model.{own}encoder.layers.1.self_attn.{part}"
        factors |= {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
        changed["blocks.1.attn.qkv.weight"][index * WIDTH : (index + 1) * WIDTH] += 2 * b @ a
    (tmp_path / "lora").mkdir()
    save_file(factors, tmp_path / "lora/adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 3, "lora_alpha": 6}
    (tmp_path / "lora/adapter_config.json").write_text(json.dumps(config))
    with (
        open_base(write(tmp_path / "base.safetensors", base)) as opened,
        open_like(tmp_path / "lora", opened) as weights,
    ):
        assert sorted(weights.entries) == sorted(base)
        for name, tensor in changed.items():
            torch.testing.assert_close(weights.tensor(name), tensor)
        assert weights.computed
        assert weights.digest_names == opened.digest_names
