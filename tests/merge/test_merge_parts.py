import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_samples import flatten, random_task_vectors

from r2m.errors import R2MError
from r2m.merge.heads import merge_heads
from r2m.merge.kinds import Kind, kind
from r2m.merge.tensors import apply, as_matrix, check, dot, norm, takes_part, task_vector

BASE = {
    "w": torch.arange(6.0).reshape(2, 3),
    "b": torch.zeros(2),
    "half": torch.ones(3).half(),
    "count": torch.tensor(7),
}
HEADS = {
    "swap": {"head.weight": torch.full((1, 3), 1.0), "head.bias": torch.tensor([0.0])},
    "lip": {"head.weight": torch.full((1, 3), 4.0), "head.bias": torch.tensor([3.0])},
}


def test_what_takes_part():
    assert takes_part(torch.zeros(1).bfloat16())
    assert not takes_part(torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("blocks.0.attn.qkv.weight", (2, 3), Kind.MATRIX),
        ("patch_embed.proj.weight", (4, 3, 2, 2), Kind.CONVOLUTION),
        ("pos_embed", (1, 5, 6), Kind.VECTOR),
        ("embeddings.position_embedding.weight", (5, 6), Kind.VECTOR),
        ("norm.weight", (5,), Kind.VECTOR),
    ],
)
def test_what_is_a_matrix(name, shape, expected):
    assert kind(name, shape) == expected


def test_convolutions_as_matrices():
    assert as_matrix(torch.zeros(4, 3, 2, 2)).shape == (4, 12)
    assert as_matrix(torch.zeros(0, 3)).shape == (0, 3)


@given(st.integers(0, 40000), st.integers(0, 9))
@settings(deadline=None, max_examples=20)
def test_inner_products(size, seed):
    one, other = torch.randn(2, size, generator=torch.Generator().manual_seed(seed))
    assert dot(one, other) == pytest.approx((one.double() @ other.double()).item(), rel=1e-9, abs=1e-12)
    assert norm([one, 1e30 * other]) == pytest.approx(
        torch.cat([one.double(), (1e30 * other).double()]).norm().item()
    )


def test_norm():
    assert norm([torch.full((3,), 2.0), torch.full((1, 1), 2.0)]) == pytest.approx(4)
    assert norm([]) == 0


def test_only_changed_floating_tensors():
    specialist = {**BASE, "w": BASE["w"] + 1, "count": torch.tensor(9)}
    changes = task_vector(BASE, specialist)
    assert list(changes) == ["w"]
    assert torch.equal(changes["w"], torch.ones(2, 3))
    assert torch.equal(task_vector(BASE, {"w": BASE["w"] + 1})["w"], torch.ones(2, 3))
    assert task_vector(BASE, BASE) == {}


def test_apply_gives_the_specialist_back():
    specialist = {**BASE, "w": BASE["w"] + 1.5, "half": (2 * torch.ones(3)).half()}
    merged = apply(BASE, task_vector(BASE, specialist))
    assert list(merged) == sorted(BASE)
    for key in BASE:
        assert merged[key].dtype == BASE[key].dtype
        assert torch.equal(merged[key], specialist[key])


@pytest.mark.parametrize("function", [task_vector, apply])
def test_tensors_that_do_not_fit(function):
    with pytest.raises(R2MError, match=r"w: shape \(3, 2\) in the \w+, but \(2, 3\) in the base"):
        function(BASE, {"w": torch.zeros(3, 2)})
    with pytest.raises(R2MError, match=r"other: the \w+ has this tensor, the base has not"):
        function(BASE, {"other": torch.zeros(3, 2)})


def test_task_vector_must_be_finite():
    with pytest.raises(R2MError, match="b: the specialist or the base holds NaN"):
        task_vector(BASE, {"b": torch.tensor([0.0, float("nan")])})


def test_check_returns_the_union():
    zeros = check({"a": {"y": torch.ones(2)}, "b": {"x": torch.ones(3, 1)}})
    assert {key: tuple(zero.shape) for key, zero in zeros.items()} == {"x": (3, 1), "y": (2,)}
    assert list(zeros) == ["x", "y"]
    assert not flatten(zeros).any()
    many = random_task_vectors(2)
    assert check(many).keys() == many["s0"].keys()


def test_average_head():
    merged = merge_heads(HEADS, "average")
    assert torch.equal(merged["head.weight"], torch.full((1, 3), 2.5))
    assert torch.equal(merged["head.bias"], torch.tensor([1.5]))


def test_other_heads():
    initial = {"head.weight": torch.zeros(1, 3), "head.bias": torch.zeros(1)}
    assert merge_heads(HEADS, "base", initial)["head.bias"] == 0
    assert merge_heads(HEADS, "specialist:lip")["head.bias"] == 3


@pytest.mark.parametrize(
    ("heads", "rule", "message"),
    [
        (HEADS, "base", "expected the initial head"),
        (HEADS, "specialist:fomm", "expected one of the specialists lip, swap"),
        (HEADS, "median", "expected average, base or specialist:NAME"),
        ({**HEADS, "up": {"head.weight": torch.zeros(2, 3)}}, "average", r"head.weight: shape \(2, 3\)"),
        (
            {**HEADS, "up": {"head.weight": torch.zeros(1, 3)}},
            "average",
            "head of 'up': expected the tensors",
        ),
    ],
)
def test_wrong_heads(heads, rule, message):
    with pytest.raises(R2MError, match=message):
        merge_heads(heads, rule)
