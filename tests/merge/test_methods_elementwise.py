"""Every elementwise or spherical method against a plain float64 transcription of its definition."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from r2m.errors import R2MError
from r2m.merge import registry, stream
from r2m.merge.merging import merge
from r2m.merge.methods import dare, model_stock, slerp
from r2m.merge.stream import MemorySource, TensorStream
from r2m.seeding import derive

ORACLES = Path(__file__).parents[1] / "oracles"

SHAPES = {
    "blocks.0.attn.qkv.weight": (18, 6),
    "blocks.0.norm1.bias": (6,),
    "blocks.1.mlp.fc2.weight": (6, 14),
    "blocks.2.attn.proj.weight": (6, 6),
    "head.weight": (2, 6),
    "patch_embed.proj.weight": (6, 2, 2, 2),
    "pos_embed": (1, 5, 6),
    "row.weight": (1, 9),
}
KEYS = sorted(SHAPES)
SIZES = [math.prod(SHAPES[key]) for key in KEYS]

# Several values of every option, the defaults first.
CASES = [
    *(("ties", options) for options in ({}, {"keep": 0.01}, {"keep": 0.77, "scaling": 0.3}, {"keep": 1})),
    *(("dare", options) for options in ({}, {"drop": 0.9, "scaling": 1, "seed": 3}, {"drop": 0})),
    *(
        ("breadcrumbs", options)
        for options in ({}, {"density": 0.3, "gamma": 0.2}, {"density": 1, "gamma": 0})
    ),
    *(("consensus", options) for options in ({}, {"mask_scale": 1, "min_tasks": 1}, {"min_tasks": 3})),
    *(("pcb", options) for options in ({}, {"ratio": 0.5, "scaling": 0.4}, {"ratio": 1})),
    *(("lines", options) for options in ({}, {"alpha": -0.1, "beta": 2})),
    ("model_stock", {}),
    ("karcher", {}),
]
SLERP = [{}, {"t": 0}, {"t": 0.3}, {"t": 1}]


def random_rows(count, seed=0, shared=0.5):
    """Task vectors of norm about 1 an entry, (K, P) in float32, that share a part."""
    generator = torch.Generator().manual_seed(seed)
    size = sum(SIZES)
    rows = torch.randn(count, size, generator=generator) + shared * torch.randn(size, generator=generator)
    return rows * torch.linspace(1, 1.5, count)[:, None]


def as_tensors(row):
    return {key: part.reshape(SHAPES[key]) for key, part in zip(KEYS, row.split(SIZES), strict=True)}


def as_task_vectors(rows, names=None):
    return {name: as_tensors(row) for name, row in zip(names or names_of(rows), rows, strict=True)}


def names_of(rows):
    return [f"s{index}" for index in range(len(rows))]


def random_base(seed=100):
    return torch.randn(sum(SIZES), generator=torch.Generator().manual_seed(seed))


def merged(name, rows, options=None, base=None, names=None, **settings_):
    """Merge rows (K, P) and return the update (P,) as an array."""
    method = registry.get(name)
    base = random_base() if base is None else base
    update, _ = merge(
        method,
        as_task_vectors(rows, names),
        method.options(**(options or {})),
        base=as_tensors(base),
        **settings_,
    )
    assert list(update) == KEYS
    assert {key: tuple(tensor.shape) for key, tensor in update.items()} == SHAPES
    assert all(tensor.dtype == torch.float32 for tensor in update.values())
    return torch.cat([update[key].reshape(-1) for key in KEYS]).numpy()


def per_tensor(function):
    """Apply a function of (key, rows (K, n), base (n,)) → (n,) tensor by tensor."""

    def apply(rows, base, options):
        ends = np.cumsum(SIZES)
        parts = zip(KEYS, np.split(rows, ends[:-1], axis=1), np.split(base, ends[:-1]), strict=True)
        return np.concatenate([function(key, part, part_base, options) for key, part, part_base in parts])

    return apply


def naive_ties(rows, base, options):
    count, size = rows.shape
    kept = int(options.keep * size)
    trimmed = np.zeros_like(rows)
    for k in range(count):
        threshold = sorted(abs(rows[k]))[max(0, size - kept - 1)]
        for p in range(size):
            if abs(rows[k, p]) >= threshold:
                trimmed[k, p] = rows[k, p]
    signs = np.sign(trimmed.sum(0))
    signs[signs == 0] = np.sign(signs.sum())
    update = np.zeros(size)
    for p in range(size):
        agreeing = [value for value in trimmed[:, p] if value != 0 and (value > 0) == (signs[p] > 0)]
        update[p] = sum(agreeing) / len(agreeing) if agreeing else 0.0
    return options.scaling * update


@per_tensor
def naive_dare(key, rows, base, options):
    update = np.zeros(rows.shape[1])
    for name, row in zip(names_of(rows), rows, strict=True):
        keep = dare.uniform(derive(options.seed, name, key), 0, len(row)) >= options.drop
        update += np.where(keep, row, 0) / (1 - options.drop)
    return options.scaling * update


@per_tensor
def naive_breadcrumbs(key, rows, base, options):
    size = rows.shape[1]
    top = int(options.gamma * size)
    update = np.zeros(size)
    for row in rows:
        rising = np.argsort(abs(row), kind="stable")[: size - top]
        stay = rising[max(0, len(rising) - int(options.density * size)) :]
        update[stay] += row[stay]
    return options.scaling * update


def naive_consensus(rows, base, options):
    total = rows.sum(0)
    multi = base + total
    masks = [abs(base - (base + row)) > options.mask_scale * abs(multi - (base + row)) for row in rows]
    return options.scaling * np.where(sum(mask.astype(int) for mask in masks) >= options.min_tasks, total, 0)


def naive_pcb(rows, base, options):
    """The authors' PCB_merge on a (K, P) matrix, with 0 in place of 0 / 0."""

    def clamp(x, least, most):
        ordered, size = np.sort(x, axis=1), x.shape[1]
        low, high = min(size - 1, int(size * least)), max(0, int(size * (1 - most) - 1))
        return np.clip(x, ordered[:, [low]], ordered[:, [high]])

    def normalize(x):
        low, high = x.min(1, keepdims=True), x.max(1, keepdims=True)
        return (x - low) / np.where(high > low, high - low, np.inf)

    magnitudes = clamp(abs(rows), 0.0001, 0.0001)
    intra = np.exp(len(rows) * normalize(magnitudes) ** 2)
    scores = intra * np.tanh(rows * rows.sum(0))
    weights = normalize(clamp(scores, 1 - options.ratio, 0))
    weighted = (weights * np.sign(rows) * magnitudes).sum(0)
    return options.scaling * weighted / np.maximum(weights.sum(0), 1e-12)


@per_tensor
def naive_lines(key, rows, base, options):
    layers = {"blocks.0": 0, "blocks.1": 0.5, "blocks.2": 1}
    return (options.alpha + options.beta * layers.get(key[:8], 0)) * rows.sum(0)


@per_tensor
def naive_model_stock(key, rows, base, options):
    count = len(rows)
    if count == 1:
        return rows[0]
    cosines = []
    for i in range(count):
        for j in range(i):
            norms = np.linalg.norm(rows[i]) * np.linalg.norm(rows[j])
            cosines.append(rows[i] @ rows[j] / norms if norms > 0 else 0.0)
    cosine = np.mean(cosines)
    return count * cosine / (1 + (count - 1) * cosine) * rows.mean(0)


@per_tensor
def naive_slerp(key, rows, base, options):
    first, second = base + rows[0], base + rows[1]
    angle = np.arccos(first @ second / np.linalg.norm(first) / np.linalg.norm(second))
    weights = np.sin((1 - options.t) * angle), np.sin(options.t * angle)
    return (weights[0] * first + weights[1] * second) / np.sin(angle) - base


@per_tensor
def naive_karcher(key, rows, base, options):
    """Steps of mergekit's karcher_merge_tensors on whole tensors, until they stop."""
    thetas = base + rows
    norms = np.linalg.norm(thetas, axis=1)
    units = thetas[norms > 0] / norms[norms > 0, None]
    mean = units.sum(0)
    mean /= np.linalg.norm(mean)
    for _ in range(200):
        tangent = np.zeros_like(mean)
        for unit in units:
            angle = np.arccos(np.clip(mean @ unit, -1, 1))
            if angle > 1e-9:
                tangent += angle / np.sin(angle) * (unit - np.cos(angle) * mean) / len(units)
        length = np.linalg.norm(tangent)
        if length < 1e-9:
            break
        mean = np.cos(length) * mean + np.sin(length) * tangent / length
        mean /= np.linalg.norm(mean)
    return norms.mean() * mean - base


NAIVE = {name.removeprefix("naive_"): one for name, one in globals().items() if name.startswith("naive_")}


def check_against_naive(name, rows, options=None, base=None):
    base = random_base() if base is None else base
    method = registry.get(name)
    expected = NAIVE[name](rows.double().numpy(), base.double().numpy(), method.options(**(options or {})))
    np.testing.assert_allclose(merged(name, rows, options, base), expected, rtol=0, atol=1e-5 * scale(rows))


def scale(rows):
    return max(1.0, rows.abs().max().item()) * max(1, len(rows) / 4)


def fits(name, options, count):
    """Whether a method takes so many specialists with these options."""
    return name != "consensus" or options.get("min_tasks", 2) <= count


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [(*case, count) for case in CASES for count in (1, 2, 3, 40) if fits(*case, count)],
)
def test_transcriptions(name, options, count):
    check_against_naive(name, random_rows(count, seed=count), options)


@pytest.mark.parametrize("options", SLERP)
def test_slerp_transcription(options):
    check_against_naive("slerp", random_rows(2), options)


@pytest.mark.parametrize(
    ("name", "oracle", "options"),
    [("ties", "ties_mean_k20_lam1", {"keep": 0.2, "scaling": 1.0})],
)
def test_reference_implementations(name, oracle, options):
    base = load_file(ORACLES / "base.safetensors")
    specialists = {f"s{index}": load_file(ORACLES / f"specialist{index}.safetensors") for index in range(3)}
    task_vectors = {
        name: {key: one[key] - base[key] for key in base if base[key].is_floating_point()}
        for name, one in specialists.items()
    }
    method = registry.get(name)
    update, _ = merge(method, task_vectors, method.options(**options))
    expected = load_file(ORACLES / f"{oracle}.safetensors")
    for key, tensor in update.items():
        torch.testing.assert_close(base[key] + tensor, expected[key], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["ties", "breadcrumbs", "consensus", "pcb", "model_stock"])
def test_repeated_and_zero_values(name):
    # Small whole numbers: magnitudes tie, sums cancel, tensors and task vectors are zero.
    generator = torch.Generator().manual_seed(4)
    for _ in range(10):
        rows = torch.randint(-2, 3, (4, sum(SIZES)), generator=generator).float()
        rows[1, : SIZES[0]] = 0
        rows[3] = 0
        check_against_naive(name, rows)


def test_ties_with_a_negative_and_without_a_majority():
    shapes = {"a": (2, 2), "b": (3,)}
    method = registry.get("ties")
    for b, expected in [([0, -3, -3], [-2, 0, 1, 0]), ([0, 3, 3], [2, 0, 1, 0]), ([0, -3, 0], [-2, 0, 1, 0])]:
        first = {"a": torch.tensor([[2.0, 0], [1, 0]]), "b": torch.tensor(b).float()}
        second = {"a": torch.tensor([[-2.0, 0], [1, 0]]), "b": torch.zeros(3)}
        update, _ = merge(method, {"s0": first, "s1": second}, method.options(keep=1))
        assert {key: tuple(tensor.shape) for key, tensor in update.items()} == shapes
        assert update["a"].reshape(-1).tolist() == expected


@pytest.mark.parametrize("name", [*dict.fromkeys(name for name, _ in CASES), "slerp"])
def test_pieces_and_threads_change_nothing(name, monkeypatch):
    rows = random_rows(2 if name == "slerp" else 3)
    whole = merged(name, rows)
    method = registry.get(name)
    monkeypatch.setattr(stream, "PIECE_ENTRIES", 48)
    monkeypatch.setattr(stream, "LEAST_PIECE", 5)
    np.testing.assert_allclose(merged(name, rows, threads=2), whole, atol=1e-6)
    if method.grain == "elements":
        source = MemorySource(as_task_vectors(rows), as_tensors(random_base()))
        cut, options = TensorStream(source, threads=2), method.options()
        state = method.prepare(cut, options) if method.prepare else None
        pieces = [
            update.reshape(-1)
            for _, updates in cut.map(lambda block: method.merge(block, options, state), "elements")
            for update in updates
        ]
        assert len(pieces) > 2 * len(KEYS)
        np.testing.assert_allclose(torch.cat(pieces).numpy(), whole, atol=1e-6)


@settings(deadline=None, max_examples=15)
@given(count=st.integers(2, 5), seed=st.integers(0, 1000), data=st.data())
@pytest.mark.parametrize("name", [*dict.fromkeys(name for name, _ in CASES)])
def test_order_of_specialists_does_not_matter(name, count, seed, data):
    rows = random_rows(count, seed)
    order = data.draw(st.permutations(range(count)))
    names = [names_of(rows)[index] for index in order]
    again = merged(name, rows[order], names=names)
    np.testing.assert_allclose(again, merged(name, rows), atol=1e-5 * scale(rows))


@settings(deadline=None, max_examples=10)
@given(count=st.integers(1, 4), seed=st.integers(0, 1000), factor=st.sampled_from([-4.0, 0.25, 1024.0]))
@pytest.mark.parametrize("name", ["ties", "dare", "breadcrumbs", "consensus", "lines", "model_stock"])
def test_updates_scale_with_the_task_vectors(name, count, seed, factor):
    assume(fits(name, {}, count))
    rows = random_rows(count, seed)
    np.testing.assert_allclose(merged(name, factor * rows), factor * merged(name, rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["karcher", "slerp"])
def test_spherical_means_scale_with_base_and_task_vectors(name):
    rows, base = random_rows(2), random_base()
    scaled = merged(name, 8 * rows, base=8 * base)
    np.testing.assert_allclose(scaled, 8 * merged(name, rows, base=base), atol=1e-5)


@settings(deadline=None, max_examples=10)
@given(count=st.integers(1, 6), seed=st.integers(0, 1000))
@pytest.mark.parametrize(
    ("name", "options", "factor"),
    [
        ("ties", {"keep": 1}, lambda count: 1.0),
        ("dare", {"drop": 0}, lambda count: 0.3 * count),
        ("breadcrumbs", {"density": 1, "gamma": 0}, lambda count: 0.3 * count),
        ("consensus", {"mask_scale": 0.1, "min_tasks": 1}, lambda count: 0.3 * count),
        ("lines", {"beta": 0}, lambda count: 0.2 * count),
        ("model_stock", {}, lambda count: 1.0),
        ("karcher", {}, lambda count: 1.0),
    ],
)
def test_identical_specialists(name, options, factor, count, seed):
    row = random_rows(1, seed)
    np.testing.assert_allclose(
        merged(name, row.expand(count, -1), options), factor(count) * row[0].numpy(), atol=2e-5
    )


@pytest.mark.parametrize("name", [*dict.fromkeys(name for name, _ in CASES), "slerp"])
def test_zero_task_vectors_change_nothing(name):
    rows = torch.zeros(2, sum(SIZES))
    np.testing.assert_allclose(merged(name, rows), np.zeros(sum(SIZES)), atol=1e-7)


@pytest.mark.parametrize("name", [*dict.fromkeys(name for name, _ in CASES), "slerp"])
def test_absent_tensors_count_as_zeros(name):
    rows = random_rows(2)
    zeroed = rows.clone()
    zeroed[1, : SIZES[0]] = 0
    method, base = registry.get(name), as_tensors(random_base())
    absent = as_task_vectors(rows)
    del absent["s1"][KEYS[0]]
    update, _ = merge(method, absent, method.options(), base=base)
    np.testing.assert_array_equal(
        torch.cat([update[k].reshape(-1) for k in KEYS]).numpy(), merged(name, zeroed)
    )


def test_dare_draws_are_one_stream():
    whole = dare.uniform(7, 0, 10_000)
    assert whole.min() >= 0
    assert whole.max() < 1
    assert abs((whole < 0.3).mean() - 0.3) < 0.02
    assert len(np.unique(whole)) > 9_900
    for start, stop in [(0, 1), (1, 9), (8, 24), (4096, 5000), (4097, 4098), (9999, 10_000)]:
        np.testing.assert_array_equal(dare.uniform(7, start, stop), whole[start:stop])
    assert not np.array_equal(dare.uniform(8, 0, 100), whole[:100])


def test_dare_drops_independently_of_other_specialists():
    rows = torch.ones(3, sum(SIZES))
    alone = [merged("dare", rows[:1], {"scaling": 1}, names=[name]) for name in names_of(rows)]
    np.testing.assert_allclose(merged("dare", rows, {"scaling": 1}), sum(alone), atol=1e-6)
    assert all(set(np.unique(one)) == {0.0, 2.0} for one in alone)
    assert not np.array_equal(alone[0], alone[1])
    assert not np.array_equal(alone[0], merged("dare", rows[:1], {"scaling": 1, "seed": 1}))


def test_dare_is_unbiased():
    row = torch.ones(1, sum(SIZES))
    mean = np.mean([merged("dare", row, {"drop": 0.8, "scaling": 1, "seed": s}) for s in range(30)])
    assert abs(mean - 1) < 5 * 2 / math.sqrt(30 * sum(SIZES))


@pytest.mark.parametrize("size", [1, 3, 99, 100, 101])
def test_breadcrumbs_keep_the_share(size):
    generator = torch.Generator().manual_seed(size)
    method = registry.get("breadcrumbs")
    for density, gamma in [(0.9, 0.01), (0.9, 0), (0.5, 0.5), (0.1, 0.3)]:
        vector = {"w": torch.randn(size, generator=generator)}
        update, _ = merge(method, {"s0": vector}, method.options(density=density, gamma=gamma))
        assert int((update["w"] != 0).sum()) == int(density * size)


def test_lines_with_one_block():
    method = registry.get("lines")
    task_vectors = {"s0": dict.fromkeys(["blocks.0.w", "head"], torch.ones(2))}
    update, _ = merge(method, task_vectors, method.options(alpha=0.25))
    assert all(tensor.tolist() == [0.25, 0.25] for tensor in update.values())


def test_model_stock_of_cancelling_and_of_orthogonal_task_vectors():
    method = registry.get("model_stock")
    for first, second, expected in [
        ([1, 0], [-1, 0], [0, 0]),
        ([1, 0], [0, 1], [0, 0]),
        ([3, 0], [1, 0], [2, 0]),
    ]:
        task_vectors = {"s0": {"w": torch.tensor(first).float()}, "s1": {"w": torch.tensor(second).float()}}
        update, _ = merge(method, task_vectors, method.options())
        torch.testing.assert_close(update["w"], torch.tensor(expected).float())
    assert model_stock.interpolation(6 * 0.5, 3) == pytest.approx(0.75)


@pytest.mark.parametrize("name", ["slerp", "karcher"])
def test_nearly_parallel_specialists(name):
    # Angles of 1e-7 … 1e-3: the arc and the chord differ by less than float32 can tell, and nothing blows up.
    rows, base = random_rows(2), random_base()
    for size in (0, 1e-9, 1e-7, 1e-5, 1e-3):
        update = merged(name, size * rows, base=base)
        np.testing.assert_allclose(update, size * rows.mean(0).numpy(), atol=3 * size**2 + 1e-3 * size)


@pytest.mark.parametrize("name", ["slerp", "karcher"])
def test_a_small_angle_against_high_precision(name):
    rows, base = 0.01 * random_rows(2), random_base()
    expected = NAIVE[name](rows.double().numpy(), base.double().numpy(), slerp.Options())
    np.testing.assert_allclose(merged(name, rows, base=base), expected, atol=1e-7)


@pytest.mark.parametrize("name", ["slerp", "karcher"])
@pytest.mark.parametrize("t", [0.25, 0.5])
def test_opposite_and_zero_tensors_are_merged_on_a_line(name, t):
    base, first = random_base(), random_rows(1)[0]
    weights = (1 - t, t) if name == "slerp" else (0.5, 0.5)
    options = {"t": t} if name == "slerp" else {}
    opposite = torch.stack([first - base, -first - base])
    expected = (weights[0] - weights[1]) * first - base
    np.testing.assert_allclose(merged(name, opposite, options, base), expected.numpy(), atol=1e-5)
    zeros = torch.stack([-base, -base])
    np.testing.assert_allclose(merged(name, zeros, options, base), -base.numpy(), atol=1e-6)


def test_a_zero_tensor_counts_for_the_mean_norm_only():
    base, rows = random_base(), random_rows(3)
    rows[1] = -base
    check_against_naive("karcher", rows, base=base)


def test_slerp_takes_exactly_two():
    with pytest.raises(R2MError, match="slerp: expected 2 specialists, got 3"):
        merged("slerp", random_rows(3))


def test_pcb_of_many_specialists_does_not_overflow():
    rows = random_rows(120)
    update = merged("pcb", rows)
    assert np.isfinite(update).all()
    assert (update != 0).any()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ties", {"keep": 0}, "greater than 0"),
        ("ties", {"keep": 1.1}, "less than or equal to 1"),
        ("dare", {"drop": 1}, "less than 1"),
        ("dare", {"drop": -0.1}, "greater than or equal to 0"),
        ("breadcrumbs", {"density": 0}, "greater than 0"),
        ("breadcrumbs", {"gamma": 1}, "less than 1"),
        ("breadcrumbs", {"density": 0.9, "gamma": 0.2}, "density \\+ gamma of at most 1"),
        ("consensus", {"min_tasks": 0}, "greater than 0"),
        ("consensus", {"mask_scale": -1}, "greater than or equal to 0"),
        ("pcb", {"ratio": 0}, "greater than 0"),
        ("slerp", {"t": 1.5}, "less than or equal to 1"),
        ("lines", {"gamma": 0.5}, "unknown key"),
        ("karcher", {"t": 0.5}, "unknown key"),
        ("model_stock", {"t": 0.5}, "unknown key"),
    ],
)
def test_wrong_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        registry.get(name).options(**options)


def test_defaults():
    defaults = {name: registry.get(name).options().model_dump() for name in [*NAIVE]}
    assert defaults == {
        "ties": {"keep": 0.2, "scaling": 1.0},
        "dare": {"drop": 0.5, "scaling": 0.3, "seed": 0},
        "breadcrumbs": {"density": 0.9, "gamma": 0.01, "scaling": 0.3},
        "consensus": {"mask_scale": 0.4, "min_tasks": 2, "scaling": 0.3},
        "pcb": {"ratio": 0.1, "scaling": 1.0},
        "lines": {"alpha": 0.2, "beta": 0.5},
        "model_stock": {},
        "slerp": {"t": 0.5},
        "karcher": {},
    }
