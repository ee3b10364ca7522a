"""DELLA, SCE and NuSLERP against plain float64 transcriptions of their definitions, and special cases."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r2m.errors import R2MError
from r2m.merge import api, registry, rows
from r2m.merge.merging import merge
from r2m.merge.methods import dare, nuslerp, sce
from r2m.merge.recipe import resolve
from r2m.seeding import derive

SHAPES = {
    "blocks.0.attn.qkv.weight": (18, 6),
    "blocks.0.norm1.bias": (7,),
    "column.weight": (5, 1),
    "patch_embed.proj.weight": (6, 2, 2, 2),
    "pos_embed": (1, 5, 6),
    "row.weight": (1, 9),
    "scale": (),
}
CASES = [
    *(("della", options) for options in ({}, {"drop": 0.8, "eps": 0.1, "scaling": 0.3, "seed": 5})),
    *(("della", options) for options in ({"drop": 0, "eps": 0}, {"drop": 0.2, "eps": 0.4})),
    *(("sce", options) for options in ({}, {"keep": 0.5}, {"keep": 0.99}, {"keep": 1})),
]
SPHERICAL = [{"t": t, "vectors": vectors} for t in (0, 0.3, 1) for vectors in ("tensor", "rows", "columns")]


def random_task_vectors(count, seed=0, shared=0.5):
    """Task vectors with entries of about 1 that share a part."""
    generator = torch.Generator().manual_seed(seed)
    common = {key: torch.randn(shape, generator=generator) for key, shape in SHAPES.items()}
    return {
        f"s{k}": {
            key: shared * common[key] + (1 + k / count) * torch.randn(shape, generator=generator)
            for key, shape in SHAPES.items()
        }
        for k in range(count)
    }


def run(name, task_vectors, **options):
    method = registry.get(name)
    update, _ = merge(method, task_vectors, method.options(**options))
    assert {key: tuple(tensor.shape) for key, tensor in update.items()} == dict(sorted(SHAPES.items()))
    assert all(tensor.dtype == torch.float32 for tensor in update.values())
    return update


def naive_della(key, tau, drop=0.5, eps=0.3, scaling=1, seed=0):
    pruned = []
    for number, one in enumerate(tau):
        draws = dare.uniform(derive(seed, f"s{number}", key), 0, one.size)
        matrix = one.reshape(1, -1) if one.ndim < 2 else one.reshape(len(one), -1)
        result = np.zeros_like(matrix)
        for i, row in enumerate(matrix):
            for rank, j in enumerate(np.argsort(abs(row), kind="stable")):
                share = rank / (len(row) - 1) if len(row) > 1 else 0.5
                probability = np.float32(drop + eps / 2 - share * eps)
                if draws[i * len(row) + j] >= probability:
                    result[i, j] = row[j] / (1 - probability)
        pruned.append(result.reshape(-1))
    merged = np.zeros(tau[0].size)
    for j in range(merged.size):
        entries = [one[j] for one in pruned]
        agreeing = [entry for entry in entries if entry * sum(entries) > 0]
        merged[j] = sum(agreeing) / len(agreeing) if agreeing else 0
    return scaling * merged.reshape(tau[0].shape)


def naive_sce(key, tau, keep=0.1):
    flat = tau.reshape(len(tau), -1)
    mean = [sum(column) / len(column) for column in flat.T]
    variance = np.array([sum((x - m) ** 2 for x in column) for column, m in zip(flat.T, mean, strict=True)])
    selected = np.argsort(-variance, kind="stable")[: int(keep * (variance > 0).sum())]
    if keep == 1:
        selected = np.arange(flat.shape[1])
    weights = (flat[:, selected] ** 2).sum(1)
    merged = np.zeros(flat.shape[1])
    for j in selected:
        pairs = [(w, x) for w, x in zip(weights, flat[:, j], strict=True) if x * flat[:, j].sum() > 0]
        merged[j] = sum(w * x for w, x in pairs) / sum(w for w, _ in pairs) if pairs else 0
    return merged.reshape(tau[0].shape)


def naive_arc(first, second, t):
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    if lengths == 0 or first.size == 1:
        return (1 - t) * first + t * second
    angle = np.arccos(np.clip(np.vdot(first, second) / lengths, -1, 1))
    return (np.sin((1 - t) * angle) * first + np.sin(t * angle) * second) / np.sin(angle)


def naive_nuslerp(key, tau, t=0.5, vectors="tensor"):
    if vectors == "tensor" or tau[0].ndim < 2:
        return naive_arc(*tau, t)
    first, second = (one.reshape(len(one), -1) for one in tau)
    if vectors == "columns":
        first, second = first.T, second.T
    turned = np.stack([naive_arc(*pair, t) for pair in zip(first, second, strict=True)])
    return (turned.T if vectors == "columns" else turned).reshape(tau[0].shape)


def check_against_naive(name, task_vectors, **options):
    for key, found in run(name, task_vectors, **options).items():
        tau = np.stack([one[key].double().numpy() for one in task_vectors.values()])
        expected = globals()[f"naive_{name}"](key, tau, **options)
        scale = max(1.0, abs(tau).max(initial=0))
        np.testing.assert_allclose(found.double().numpy(), expected, rtol=0, atol=1e-5 * scale, err_msg=key)


@pytest.mark.parametrize("count", [1, 2, 3, 40])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_transcriptions(name, options, count):
    check_against_naive(name, random_task_vectors(count, seed=count), **options)


@pytest.mark.parametrize("options", [{}, *SPHERICAL])
def test_nuslerp_transcription(options):
    check_against_naive("nuslerp", random_task_vectors(2), **options)


@pytest.mark.parametrize("name", ["della", "sce"])
def test_repeated_and_zero_values(name):
    # Small whole numbers: magnitudes and variances tie, sums cancel, tensors and task vectors are zero.
    generator = torch.Generator().manual_seed(4)
    for _ in range(10):
        task_vectors = {
            f"s{k}": {
                key: torch.randint(-2, 3, shape, generator=generator).float() for key, shape in SHAPES.items()
            }
            for k in range(4)
        }
        task_vectors["s1"]["row.weight"].zero_()
        task_vectors["s3"] = {key: torch.zeros(shape) for key, shape in SHAPES.items()}
        check_against_naive(name, task_vectors)


@pytest.mark.parametrize("name", ["della", "sce", "nuslerp"])
def test_parts_and_threads_change_nothing(name, monkeypatch):
    method, task_vectors = registry.get(name), random_task_vectors(2)
    whole = run(name, task_vectors)
    monkeypatch.setattr(rows, "ENTRIES", 24)
    update, _ = merge(method, task_vectors, method.options(), threads=2)
    for key, tensor in update.items():
        torch.testing.assert_close(tensor, whole[key], atol=1e-6, rtol=0)
        assert name != "della" or torch.equal(tensor, whole[key])


@pytest.mark.parametrize(
    ("shape", "count", "expected"),
    [((6, 4), 2, [8, 8, 8]), ((6, 40), 2, [40] * 6), ((100,), 2, [100]), ((3, 2, 2), 1, [12]), ((), 3, [1])],
)
def test_parts_hold_whole_rows(shape, count, expected, monkeypatch):
    monkeypatch.setattr(rows, "ENTRIES", 16)
    source = rows_source(shape, count)
    parts = list(rows.row_parts(source))
    assert [part.stop - part.start for part in parts] == expected
    assert parts[0].start == 0
    assert all(first.stop == second.start for first, second in itertools.pairwise(parts))


def rows_source(shape, count):
    from r2m.merge.stream import MemorySource, TensorStream

    return TensorStream(MemorySource({f"s{k}": {"w": torch.ones(shape)} for k in range(count)})).whole("w")


@settings(deadline=None, max_examples=15)
@given(count=st.integers(2, 5), seed=st.integers(0, 1000), data=st.data())
@pytest.mark.parametrize("name", ["della", "sce"])
def test_order_of_specialists_does_not_matter(name, count, seed, data):
    task_vectors = random_task_vectors(count, seed)
    order = data.draw(st.permutations(sorted(task_vectors)))
    expected = run(name, task_vectors)
    # What DELLA drops depends on the names, by which a merge takes its specialists.
    names = sorted(task_vectors) if name == "sce" else order
    shuffled = {new: task_vectors[one] for new, one in zip(names, order, strict=True)}
    for key, tensor in run(name, shuffled).items():
        torch.testing.assert_close(tensor, expected[key], atol=1e-6, rtol=1e-6)


@settings(deadline=None, max_examples=15)
@given(count=st.integers(1, 4), seed=st.integers(0, 1000), factor=st.sampled_from([-4.0, 0.25, 2.0**-40]))
@pytest.mark.parametrize("name", ["della", "sce", "nuslerp"])
def test_updates_scale_with_the_task_vectors(name, count, seed, factor):
    task_vectors = random_task_vectors(2 if name == "nuslerp" else count, seed)
    scaled = {
        name: {key: factor * one for key, one in tensors.items()} for name, tensors in task_vectors.items()
    }
    expected = run(name, task_vectors)
    for key, tensor in run(name, scaled).items():
        torch.testing.assert_close(tensor, factor * expected[key], atol=1e-5 * abs(factor), rtol=1e-5)


@settings(deadline=None, max_examples=10)
@given(count=st.integers(1, 6), seed=st.integers(0, 1000))
@pytest.mark.parametrize(
    ("name", "options"), [("della", {"drop": 0, "eps": 0}), ("sce", {"keep": 1}), ("nuslerp", {})]
)
def test_identical_specialists_are_kept(name, options, count, seed):
    (one,) = random_task_vectors(1, seed).values()
    merged = run(name, {f"s{k}": one for k in range(2 if name == "nuslerp" else count)}, **options)
    for key, tensor in merged.items():
        torch.testing.assert_close(tensor, one[key], atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["della", "sce", "nuslerp"])
def test_nothing_learnt_is_no_change(name):
    zeros = {f"s{k}": {key: torch.zeros(shape) for key, shape in SHAPES.items()} for k in range(2)}
    assert all(not tensor.any() for tensor in run(name, zeros).values())


# DELLA


def test_della_is_bit_identical_and_depends_on_its_seed():
    task_vectors = random_task_vectors(3)
    first, again, other = (run("della", task_vectors, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in SHAPES)
    assert not torch.equal(first["pos_embed"], other["pos_embed"])


def test_della_drops_independently_of_other_tensors_and_specialists():
    # Of specialists whose entries do not meet, the merge holds each one's.
    generator = torch.Generator().manual_seed(1)
    one = {key: torch.randn(shape, generator=generator) for key, shape in SHAPES.items()}
    zeros = {key: torch.zeros(shape) for key, shape in SHAPES.items()}
    alone, beside = run("della", {"s1": one}), run("della", {"s0": zeros, "s1": one, "s2": zeros})
    method = registry.get("della")
    key = "pos_embed"
    by_itself, _ = merge(method, {"s1": {key: one[key]}}, method.options())
    assert torch.equal(alone[key], beside[key])
    assert torch.equal(alone[key], by_itself[key])
    renamed = run("della", {"other": one})
    assert not torch.equal(alone[key], renamed[key])


def test_tied_tensors_stay_equal():
    base = {key: torch.zeros(3, 40) for key in ("a.weight", "b.weight")}
    generator = torch.Generator().manual_seed(2)
    tied = [torch.randn(3, 40, generator=generator) for _ in range(2)]
    specialists = {f"s{k}": dict.fromkeys(base, one) for k, one in enumerate(tied)}
    merged = api.merge("della", base, specialists)
    assert torch.equal(merged["a.weight"], merged["b.weight"])


def test_della_drops_small_entries_more_often_and_is_unbiased():
    size, seeds = 400, 60
    row = torch.linspace(1, 2, size)
    method = registry.get("della")
    kept = torch.stack(
        [
            merge(method, {"s0": {"w": row[None]}}, method.options(drop=0.6, eps=0.6, seed=seed))[0]["w"][0]
            for seed in range(seeds)
        ]
    )
    share = (kept != 0).double().mean(0)
    expected = torch.linspace(0.1, 0.7, size, dtype=torch.float64)
    assert (share.reshape(8, -1).mean(1) - expected.reshape(8, -1).mean(1)).abs().max() < 0.05
    # The greatest 1 / (1 - p) here is 10, so that a mean over so many has a standard error below 0.03.
    assert abs((kept / row).double().mean().item() - 1) < 0.1
    assert abs(kept[:, -1][kept[:, -1] != 0].mean().item() - 2 / 0.7) < 1e-5


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"drop": 0}, "drop - eps / 2 of at least 0"),
        ({"drop": 0.9}, r"drop \+ eps / 2 below 1, got 0.9 and 0.3"),
        ({"drop": 1, "eps": 0}, "drop: expected a number less than 1"),
    ],
)
def test_della_refuses_probabilities_beyond_0_and_1(options, text):
    with pytest.raises(R2MError, match=text):
        resolve("della", options)


# SCE


def test_sce_selects_exactly_the_share():
    generator = torch.Generator().manual_seed(3)
    for size in (1, 9, 10, 11, 1000):
        first, second = torch.rand(2, size, generator=generator) + 1
        second[: size // 3] = first[: size // 3]
        differing = size - size // 3
        method = registry.get("sce")
        for keep in (0.1, 0.5, 0.999):
            update, _ = merge(method, {"s0": {"w": first}, "s1": {"w": second}}, method.options(keep=keep))
            assert int((update["w"] != 0).sum()) == int(keep * differing)


def test_sce_selects_the_first_of_equal_deviations():
    deviations = torch.tensor([1.0, 2, 1, 0, 1, 3])
    assert sce.selected(deviations, 0.8).tolist() == [True, True, True, False, False, True]
    assert sce.selected(deviations, 0.1).tolist() == [False] * 6
    assert sce.selected(deviations, 1).tolist() == [True] * 6


def test_sce_of_specialists_without_difference_is_no_change_unless_all_is_kept():
    (one,) = random_task_vectors(1).values()
    for count in (1, 3, 7):
        assert all(
            not tensor.any()
            for tensor in run("sce", {f"s{k}": one for k in range(count)}, keep=0.99).values()
        )


def test_sce_weighs_by_squares_however_small():
    for size in (1.0, 1e-6, 1e-12):
        first, second = torch.tensor([3.0, 1.0]) * size, torch.tensor([1.0, 2.0]) * size
        method = registry.get("sce")
        update, _ = merge(method, {"s0": {"w": first}, "s1": {"w": second}}, method.options(keep=1))
        expected = (10 * first.double() + 5 * second.double()) / 15
        torch.testing.assert_close(update["w"].double(), expected, rtol=1e-6, atol=0)


# NuSLERP


def test_ends_of_the_arc_are_the_task_vectors():
    task_vectors = random_task_vectors(2)
    for vectors in ("tensor", "rows", "columns"):
        for t, name in ((0.0, "s0"), (1.0, "s1")):
            for key, tensor in run("nuslerp", task_vectors, t=t, vectors=vectors).items():
                torch.testing.assert_close(tensor, task_vectors[name][key], atol=1e-6, rtol=1e-6)


@given(t=st.floats(0, 1), angle=st.floats(1e-6, 3.1), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_arc_is_walked_at_constant_speed(t, angle, seed):
    frame = torch.linalg.qr(torch.randn(12, 2, generator=torch.Generator().manual_seed(seed)).double()).Q
    first, second = frame[:, 0], math.cos(angle) * frame[:, 0] + math.sin(angle) * frame[:, 1]
    squares = torch.stack([first.square(), second.square(), (first - second).square()]).sum(1, keepdim=True)
    weights = nuslerp.angles_to_weights(squares, t)[:, 0]
    turned = weights[0] * first + weights[1] * second
    expected = math.cos(t * angle) * frame[:, 0] + math.sin(t * angle) * frame[:, 1]
    torch.testing.assert_close(turned, expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("factor", [2.0, -1.0, -0.3, 0.0])
def test_parallel_opposite_and_zero_task_vectors_are_merged_on_a_line(factor):
    (one,) = random_task_vectors(1).values()
    both = {"s0": one, "s1": {key: factor * tensor for key, tensor in one.items()}}
    for vectors in ("tensor", "rows", "columns"):
        for key, tensor in run("nuslerp", both, t=0.25, vectors=vectors).items():
            torch.testing.assert_close(tensor, (0.75 + 0.25 * factor) * one[key], atol=1e-6, rtol=1e-5)


def test_nuslerp_takes_exactly_two():
    with pytest.raises(R2MError, match="nuslerp: expected 2 specialists, got 3"):
        run("nuslerp", random_task_vectors(3))
