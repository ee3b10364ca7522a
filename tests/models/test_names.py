import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2m.models.names import correspondence

BODY = ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.1.attn.qkv.weight", "norm.weight")


def under(prefix, names=BODY):
    return [prefix + name for name in names]


PREFIXES = ["", "module.", "backbone.", "_orig_mod.", "model.image_encoder.", "visual.", "any.thing.at.all."]


@pytest.mark.parametrize("own", PREFIXES)
@pytest.mark.parametrize("base", PREFIXES)
@pytest.mark.parametrize("head", [None, "head.", "classifier_head."])
def test_a_prefix_on_either_side(base, own, head):
    name = f"{head or 'fc.'}weight"
    result = correspondence(under(base), [*under(own), name], head)
    assert result == dict(zip([*under(own), name], [*under(base), name], strict=True))


@pytest.mark.parametrize(
    "wrapped",
    [
        "backbone._orig_mod.{}",
        "module.backbone._orig_mod.{}",
        "_orig_mod.backbone.module.{}",
        "backbone._fsdp_wrapped_module.{}",
    ],
)
def test_wrappers_at_any_depth(wrapped):
    own = [wrapped.format(name) for name in BODY]
    expected = under("backbone.")
    assert list(correspondence(expected, own).values()) == expected
    assert list(correspondence(own, expected).values()) == own


def test_wrappers_inside_of_blocks():
    own = [name.replace("blocks.0.", "blocks.0._checkpoint_wrapped_module.") for name in BODY]
    assert list(correspondence(BODY, own).values()) == list(BODY)


@pytest.mark.parametrize(
    ("base", "own", "prefix", "expected"),
    [
        (BODY, "module.head.weight", "head.", "head.weight"),
        (BODY, "module.head.weight", "module.head.", "head.weight"),
        ([*BODY, "head.weight"], "module.head.weight", "module.head.", "head.weight"),
        ([*BODY, "head.weight"], "head.weight", None, "head.weight"),
        (BODY, "module.head.weight", None, "head.weight"),
        (BODY, "criterion.weight", None, "criterion.weight"),
    ],
)
def test_a_head_beside_a_prefix(base, own, prefix, expected):
    assert correspondence(base, [*under("module."), own], prefix)[own] == expected


@pytest.mark.parametrize("prefix", [None, "head.", "model.head."])
def test_a_head_below_the_prefix_of_the_base(prefix):
    base = [*under("model."), "model.head.weight"]
    assert correspondence(base, [*BODY, "head.weight"], prefix)["head.weight"] == "model.head.weight"


def test_names_that_agree_stay_whatever_stands_beside_them():
    names = [*BODY, *under("teacher."), "module.head.weight"]
    assert correspondence(BODY, names) == {name: name for name in names}


def test_a_part_of_the_tensors():
    own = ["backbone.blocks.1.attn.qkv.weight", "head.weight"]
    assert list(correspondence(BODY, own).values()) == ["blocks.1.attn.qkv.weight", "head.weight"]


def test_nothing_but_a_head():
    names = {"net.fc.weight": "fc.weight", "net.fc.bias": "fc.bias"}
    assert correspondence(list(names.values()), list(names)) == names


def test_another_architecture_stays_as_it_is():
    names = [
        "conv1.weight",
        "layer1.0.conv1.weight",
        "layer1.0.norm.weight",
        "layer1.1.norm.weight",
        "fc.weight",
    ]
    assert correspondence(BODY, names) == {name: name for name in names}
    assert correspondence([], names) == {name: name for name in names}


def test_two_copies_of_the_base():
    with pytest.raises(ValueError, match=r"several times, with the prefixes 'student\.' and 'teacher\.'"):
        correspondence(BODY, [*under("student."), *under("teacher.")])


def test_two_names_of_one_tensor():
    with pytest.raises(
        ValueError, match=r"'backbone\.norm\.weight' and 'norm\.weight' both correspond to 'norm"
    ):
        correspondence(BODY, [*under("backbone."), "norm.weight"])


NAMES = st.lists(
    st.lists(st.sampled_from(["a", "b", "c", "0", "1"]), min_size=1, max_size=3).map(".".join),
    min_size=1,
    max_size=6,
    unique=True,
)


@given(NAMES, st.sampled_from(["", "x.", "x.y.", "module."]), st.sampled_from(["", "z.", "z.y.", "module."]))
def test_any_prefixes_of_any_names(names, base, own):
    result = correspondence(under(base, names), under(own, names))
    assert result == dict(zip(under(own, names), under(base, names), strict=True))
