"""Every method for matrices, or with statistics, against a plain float64 transcription of its paper."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from r2m.errors import R2MError
from r2m.merge import registry, stream
from r2m.merge.merging import merge
from r2m.merge.methods import iso_cts, knots_ties

SHAPES = {
    "blocks.0.attn.qkv.weight": (18, 6),
    "blocks.0.norm1.bias": (6,),
    "blocks.1.mlp.fc2.weight": (6, 14),
    "blocks.2.attn.proj.weight": (7, 7),
    "head.weight": (2, 6),
    "patch_embed.proj.weight": (6, 2, 2, 2),
    "pos_embed": (5, 6),
    "row.weight": (1, 9),
}
CASES = [
    ("cart", {}),
    ("cart", {"rank_ratio": 0.5, "scaling": 0.3}),
    ("cart", {"rank_ratio": 1}),
    ("tsv_m", {}),
    ("tsv_m", {"scaling": 0.4}),
    ("iso_c", {}),
    ("iso_c", {"scaling": -0.4}),
    ("iso_cts", {}),
    ("iso_cts", {"common_ratio": 0.4, "scaling": 0.7}),
    ("iso_cts", {"common_ratio": 1}),
    ("knots_ties", {}),
    ("knots_ties", {"keep": 0.61, "scaling": 0.5}),
    ("knots_ties", {"keep": 1}),
    ("wudi", {}),
    ("wudi", {"steps": 40, "lr": 1e-3}),
    ("wudi", {"steps": 0}),
    ("score", {}),
    ("score", {"c": 1.96, "scaling": 0.6}),
    ("score", {"c": 1e6}),
    ("dc_merge", {}),
    ("dc_merge", {"keep": 0.2, "scaling": -0.5}),
    ("dc_merge", {"keep": 1}),
    ("subspace_boosting", {}),
    ("subspace_boosting", {"beta": 0.4, "scaling": 0.3}),
    ("subspace_boosting", {"beta": 1}),
    ("swudi", {}),
    ("swudi", {"filter": "exponential"}),
    ("swudi", {"filter": "exponential", "t": 2.5}),
    ("svc", {}),
    ("svc", {"alpha": 0.9}),
    ("svc", {"inner": {"method": "task_arithmetic", "scaling": 1.0}}),
    ("fisher", {}),
    ("regmean", {}),
    ("regmean", {"off_diagonal": 0}),
    ("regmean", {"off_diagonal": 1}),
]
METHODS = sorted({name for name, _ in CASES})
SCALED = ("tsv_m", "iso_c", "iso_cts", "score", "dc_merge", "subspace_boosting")
LAYERS = [key for key in SHAPES if len(SHAPES[key]) == 2 and key != "pos_embed"]


@pytest.fixture(autouse=True)
def _one_blas_thread():
    with threadpool_limits(1):
        yield


def random_task_vectors(count, seed=0, shapes=None):
    """Task vectors with entries of about 1 that share a part."""
    generator = torch.Generator().manual_seed(seed)
    shapes = shapes or SHAPES
    common = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    return {
        f"s{k}": {
            key: 0.5 * common[key] + (1 + k / count) * torch.randn(shape, generator=generator)
            for key, shape in shapes.items()
        }
        for k in range(count)
    }


def random_statistics(method, task_vectors, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def gram(size):
        inputs = torch.randn(3 * size, size, generator=generator)
        return inputs.T @ inputs

    if method == "fisher":
        return {
            name: {key: torch.rand(tensor.shape, generator=generator) ** 4 for key, tensor in tensors.items()}
            for name, tensors in task_vectors.items()
        }
    layers = LAYERS if method == "regmean" else []
    return {name: {key: gram(SHAPES[key][1]) for key in layers} for name in task_vectors}


def run(method, task_vectors, statistics=None, threads=1, **options):
    found = registry.get(method)
    if statistics is None:
        statistics = random_statistics(method, task_vectors)
    return merge(found, task_vectors, found.options(**options), statistics=statistics, threads=threads)[0]


def stacked(task_vectors):
    """Arrays (K, …) in float64 by name."""
    keys = next(iter(task_vectors.values()))
    return {key: np.stack([one[key].double().numpy() for one in task_vectors.values()]) for key in keys}


def svd(matrix):
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return left, values, right.T


def polar(matrix):
    left, _, right = svd(matrix)
    return left @ right.T


def naive_cart(tau, rank_ratio=0.08, scaling=1):
    total = tau.mean(0)
    rank = max(1, int(rank_ratio * min(tau.shape[1:])))
    for one in tau - tau.mean(0):
        left, values, right = svd(one)
        total = total + scaling * (left[:, :rank] * values[:rank]) @ right[:, :rank].T
    return total


def naive_tsv_m(tau, scaling=1):
    rank = int(min(tau.shape[1:]) / len(tau))
    if rank == 0:
        return np.zeros_like(tau[0])
    parts = [svd(one) for one in tau]
    left = np.hstack([u[:, :rank] for u, _, _ in parts])
    values = np.hstack([s[:rank] for _, s, _ in parts])
    right = np.hstack([v[:, :rank] for _, _, v in parts])
    return scaling * (polar(left) * values) @ polar(right).T


def naive_iso_c(tau, scaling=1):
    left, values, right = svd(tau.sum(0))
    return scaling * values.mean() * left @ right.T


def naive_iso_cts(tau, common_ratio=0.8, scaling=1):
    short, count = min(tau.shape[1:]), len(tau)
    # The cap is not in the authors' code, where the common size becomes negative.
    rest = min(round((short - int(short * common_ratio)) / count), short // count) * count
    common = short - rest
    left, values, right = svd(tau.sum(0))
    lefts, allvalues, rights = [left[:, :common]], [values[:common]], [right[:, :common]]
    for one in tau:
        u, s, v = svd(one - left[:, :common] @ left[:, :common].T @ one)
        lefts.append(u[:, : rest // count])
        allvalues.append(s[: rest // count])
        rights.append(v[:, : rest // count])
    return scaling * np.hstack(allvalues).mean() * polar(np.hstack(lefts)) @ polar(np.hstack(rights)).T


def naive_ties(rows, keep):
    size = rows.shape[1]
    trimmed = rows.copy()
    for row in trimmed:
        threshold = np.sort(np.abs(row))[max(0, size - int(keep * size) - 1)]
        row[np.abs(row) < threshold] = 0
    total = trimmed.sum(0)
    sign = np.sign(total)
    sign[sign == 0] = 1 if np.sign(trimmed.sum(0)).sum() > 0 else -1
    agreeing = np.where(trimmed * sign > 0, trimmed, 0)
    return agreeing.sum(0) / np.maximum((agreeing != 0).sum(0), 1)


def naive_knots_ties(tau, keep=0.2, scaling=1):
    frames, pieces = {}, {}
    for key in LAYERS:
        left, values, right = svd(np.hstack(list(tau[key])))
        kept = values > 1e-5
        frames[key] = left[:, kept]
        joined = (values * right)[:, kept].T
        pieces[key] = np.stack(np.split(joined, len(tau[key]), axis=1))
    flat = np.hstack([pieces[key].reshape(len(pieces[key]), -1) for key in LAYERS])
    merged = naive_ties(flat, keep)
    result = {key: np.zeros_like(value[0]) for key, value in tau.items()}
    for key in LAYERS:
        size = pieces[key][0].size
        result[key] = scaling * frames[key] @ merged[:size].reshape(pieces[key][0].shape)
        merged = merged[size:]
    return result


def naive_wudi(tau, steps=300, lr=1e-5):
    tau = torch.from_numpy(tau)
    update = tau.sum(0).clone().requires_grad_()
    optimizer = torch.optim.Adam([update], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = sum(((update - one) @ one.T).square().sum() / one.square().sum() for one in tau)
        loss.backward()
        optimizer.step()
    return update.detach().numpy()


def naive_basis(tau):
    """Leading triplets of every specialist, and the polar factors of their joined vectors."""
    rank = int(min(tau.shape[1:]) / len(tau))
    triplets = []
    for one in tau:
        left, values, right = svd(one)
        signs = np.sign(left[np.abs(left).argmax(0), np.arange(left.shape[1])])
        triplets.append(((left * signs)[:, :rank], values[:rank], (right * signs)[:, :rank]))
    left, right = (polar(np.hstack([one[side] for one in triplets])) for side in (0, 2))
    return rank, triplets, left, right


def naive_score(tau, c=None, scaling=1):
    if len(tau) > min(tau.shape[1:]):
        return np.zeros_like(tau[0])
    c = 1.96 / len(tau) if c is None else c
    _, _, left, right = naive_basis(tau)
    core = 0
    for one in tau:
        entries = left.T @ one @ right
        diagonal = np.diag(np.diag(entries))
        outside = entries - diagonal
        deviation = np.std(outside, ddof=1) if outside.size > 1 else 0
        core = core + diagonal + np.where(np.abs(outside - outside.mean()) <= c * deviation, outside, 0)
    return scaling * left @ core @ right.T


def naive_dc_merge(tau, keep=0.001, scaling=1):
    if len(tau) > min(tau.shape[1:]):
        return np.zeros_like(tau[0])
    rank, triplets, left, right = naive_basis(tau)
    rows = []
    for own_left, values, own_right in triplets:
        entries = left.T @ (own_left * values) @ own_right.T @ right
        least = np.sort(np.abs(entries).ravel())[-max(1, int(keep * entries.size))]
        rows.append(np.where(np.abs(entries) >= least, entries, 0))
    rows = np.stack(rows)
    sign = np.sign(rows.sum(0))
    agreeing = np.sign(rows) == sign
    mean = (rows * agreeing).sum(0) / np.maximum(agreeing.sum(0), 1)
    blocks = np.kron(np.eye(len(tau)), np.ones((rank, rank)))
    return scaling * left @ (mean * blocks) @ right.T


def naive_boosted(matrix, beta=0.01):
    left, values, right = svd(matrix)
    reached = np.cumsum(values) / values.sum() >= beta - 1e-12
    return (left * np.maximum(values, values[reached][0])) @ right.T


def naive_subspace_boosting(tau, beta=0.01, scaling=1):
    result = {key: scaling * one.mean(0) for key, one in tau.items()}
    for key in LAYERS:
        parts = np.split(tau[key].sum(0), 3 if "qkv" in key else 1)
        result[key] = scaling * np.vstack([naive_boosted(part, beta) for part in parts])
    return result


def naive_swudi(tau, filter="auto", t=300):
    weights = [1 / np.linalg.norm(one) ** 2 for one in tau]
    curvature = sum(weight * one.T @ one for weight, one in zip(weights, tau, strict=True))
    target = sum(weight * one @ one.T @ one for weight, one in zip(weights, tau, strict=True))
    values, vectors = np.linalg.eigh(curvature)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    place = np.arange(len(values))
    if filter == "auto":
        factors = (place < math.ceil(np.sqrt(values).sum() ** 2 / values.sum() - 1e-6)).astype(float)
    else:
        factors = (1 - np.exp(-t * values)) * (place < max(1, int(0.65 * len(values))))
    total = tau.sum(0)
    solved = target @ vectors * (factors / np.maximum(values, 1e-8))
    return total - total @ vectors * factors @ vectors.T + solved @ vectors.T


def naive_svc(tau, alpha=None, inner=None):
    scaling = (inner or {}).get("scaling", 0.3)
    result = {key: scaling * one.sum(0) for key, one in tau.items()}
    for key in LAYERS:
        left, values, right = svd(result[key])
        for r in range(len(values)):
            answer = left[:, r] @ result[key]
            own = [left[:, r] @ one for one in tau[key]]
            counts = [answer @ one / (one @ one) for one in own]
            values[r] /= np.mean([max(count, alpha or 1 / len(own)) for count in counts])
        result[key] = (left * values) @ right.T
    return result


def naive_fisher(tau, weights):
    return (weights * tau).sum(0) / weights.sum(0)


def naive_regmean(tau, grams, off_diagonal=0.95):
    softened = np.stack([off_diagonal * g + (1 - off_diagonal) * np.diag(np.diag(g)) for g in grams])
    # The paper's W is (in, out).
    weighted = sum(g @ one.T for g, one in zip(softened, tau, strict=True))
    return (np.linalg.inv(softened.sum(0)) @ weighted).T


def naive(method, task_vectors, **options):
    tau = stacked(task_vectors)
    if method == "knots_ties":
        return naive_knots_ties(tau, **options)
    statistics = stacked(random_statistics(method, task_vectors))
    function = globals()[f"naive_{method}"]
    scaling = options.get("scaling", 1) if method in SCALED else 1
    if method == "subspace_boosting":
        return naive_subspace_boosting(tau, **options)
    if method == "svc":
        return naive_svc(tau, **options)
    result = {}
    for key, one in tau.items():
        if method in ("fisher", "regmean") and key in statistics:
            result[key] = function(one, statistics[key], **options)
        elif key in LAYERS and (method != "wudi" or key.startswith("blocks")) and method != "fisher":
            result[key] = function(one, **options)
        else:
            result[key] = scaling * one.mean(0)
    return result


def assert_close(found, expected, tolerance=1e-5, size=1.0):
    assert found.keys() == expected.keys()
    for key in found:
        wanted = torch.as_tensor(expected[key]).double()
        assert found[key].dtype == torch.float32
        assert found[key].shape == wanted.shape, key
        scale = max(size, wanted.abs().max().item())
        assert torch.allclose(found[key].double(), wanted, atol=tolerance * scale, rtol=0), key


@pytest.mark.parametrize("count", [1, 2, 3, 40])
@pytest.mark.parametrize(("method", "options"), CASES)
def test_method_equals_its_definition(method, options, count):
    task_vectors = random_task_vectors(count)
    size = max(tensor.abs().max().item() for one in task_vectors.values() for tensor in one.values())
    assert_close(run(method, task_vectors, **options), naive(method, task_vectors, **options), size=size)


@pytest.mark.parametrize("shape", [(300, 280), (280, 420)])
@pytest.mark.parametrize("method", ["cart", "tsv_m", "iso_c", "iso_cts", "score", "dc_merge", "swudi"])
def test_larger_matrices(method, shape):
    task_vectors = random_task_vectors(2, shapes={"head.weight": shape})
    tau = stacked(task_vectors)["head.weight"]
    expected = globals()[f"naive_{method}"](tau)
    found = run(method, task_vectors)["head.weight"].double().numpy()
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("method", METHODS)
def test_pieces_and_threads_do_not_matter(method, monkeypatch):
    task_vectors = random_task_vectors(3)
    expected = run(method, task_vectors)
    assert all(torch.equal(one, expected[key]) for key, one in run(method, task_vectors, threads=2).items())
    monkeypatch.setattr(stream, "PIECE_ENTRIES", 28)
    monkeypatch.setattr(stream, "LEAST_PIECE", 1)
    monkeypatch.setattr(knots_ties, "CHUNK", 5)
    assert_close(run(method, task_vectors), expected, tolerance=1e-6)


@given(method=st.sampled_from(METHODS), seed=st.integers(0, 9), order=st.permutations(range(3)))
@settings(max_examples=30, deadline=None)
def test_order_of_specialists_does_not_matter(method, seed, order):
    task_vectors = random_task_vectors(3, seed)
    statistics = random_statistics(method, task_vectors)
    shuffled = [{f"s{k}": one[f"s{k}"] for k in order} for one in (task_vectors, statistics)]
    assert_close(run(method, *shuffled), run(method, task_vectors, statistics))


@given(
    method=st.sampled_from([one for one in METHODS if one != "wudi"]),
    seed=st.integers(0, 9),
    factor=st.sampled_from([-2.0, 0.25, 8.0]),
)
@settings(max_examples=30, deadline=None)
def test_scales_with_the_task_vectors(method, seed, factor):
    task_vectors = random_task_vectors(3, seed)
    scaled = {name: {key: factor * one[key] for key in one} for name, one in task_vectors.items()}
    expected = {key: factor * one for key, one in run(method, task_vectors).items()}
    assert_close(run(method, scaled), expected)


@given(seed=st.integers(0, 99), count=st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_identical_specialists(seed, count):
    one = random_task_vectors(1, seed)["s0"]
    alike = {f"s{k}": one for k in range(count)}
    for method in ("cart", "fisher", "regmean"):
        assert_close(run(method, alike), one)
    kept = run("knots_ties", alike, keep=1)
    for key in one:
        assert torch.allclose(kept[key], one[key] if key in LAYERS else torch.zeros(1), atol=1e-5)
    assert_close(
        run("iso_c", alike, scaling=1 / count), run("iso_c", {"s0": one}, scaling=1) | others(one, count)
    )
    merged = run("tsv_m", alike)
    for key in LAYERS:
        left, values, right = svd(one[key].double().numpy())
        rank = min(SHAPES[key]) // count
        truncated = (left[:, :rank] * values[:rank]) @ right[:, :rank].T
        assert np.allclose(merged[key], truncated, atol=1e-5)


def others(one, count):
    return {key: one[key] / count for key in one if key not in LAYERS}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_nothing_learnt_is_no_change(method, count):
    task_vectors = {f"s{k}": {key: torch.zeros(shape) for key, shape in SHAPES.items()} for k in range(count)}
    assert all(not one.any() for one in run(method, task_vectors).values())


@pytest.mark.parametrize("method", ["cart", "tsv_m", "knots_ties", "fisher", "regmean", "wudi"])
def test_one_specialist_is_kept(method):
    task_vectors = random_task_vectors(1)
    options = {"keep": 1} if method == "knots_ties" else {}
    merged = run(method, task_vectors, **options)
    keys = LAYERS if method == "knots_ties" else SHAPES
    tolerance = 0 if method == "wudi" else 1e-5
    assert_close(
        {key: merged[key] for key in keys}, {key: task_vectors["s0"][key] for key in keys}, tolerance
    )


def test_tsv_m_ignores_specialists_that_learnt_nothing():
    task_vectors = random_task_vectors(1)
    task_vectors["idle"] = {key: torch.zeros(shape) for key, shape in SHAPES.items()}
    merged = run("tsv_m", task_vectors)["blocks.2.attn.proj.weight"]
    left, values, right = svd(task_vectors["s0"]["blocks.2.attn.proj.weight"].double().numpy())
    assert np.allclose(merged, (left[:, :3] * values[:3]) @ right[:, :3].T, atol=1e-5)


def test_low_rank_specialists_stay_in_their_span():
    generator = torch.Generator().manual_seed(5)
    key = "blocks.0.attn.proj.weight"
    task_vectors = {
        f"s{k}": {key: torch.randn(20, 2, generator=generator) @ torch.randn(2, 12, generator=generator)}
        for k in range(2)
    }
    span = svd(np.hstack([one[key].double().numpy() for one in task_vectors.values()]))[0][:, :4]
    for method in ("cart", "tsv_m", "iso_c", "iso_cts", "knots_ties", "score", "dc_merge", "svc", "swudi"):
        merged = run(method, task_vectors)[key].double().numpy()
        assert np.abs(merged).max() > 0.1
        assert np.allclose(span @ (span.T @ merged), merged, atol=1e-5)


def test_iso_c_is_isotropic():
    merged = run("iso_c", random_task_vectors(3))
    for key in LAYERS:
        values = torch.linalg.svdvals(merged[key])
        assert values.max() - values.min() < 1e-5 * values.max()


@given(short=st.integers(1, 200), count=st.integers(1, 50), common_ratio=st.floats(0.01, 1))
@settings(max_examples=200, deadline=None)
def test_sizes_of_iso_cts(short, count, common_ratio):
    common, own = iso_cts.sizes(short, count, common_ratio)
    assert common >= 0
    assert own >= 0
    assert common + count * own == short
    wanted = (short - int(short * common_ratio)) / count
    assert own == round(wanted) or (own < round(wanted) and own == short // count)


def test_knots_drops_small_values():
    key = "head.weight"
    left = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1))).Q
    values = torch.tensor([1e-2, 1e-3, 4e-6])
    merged = run("knots_ties", {"s0": {key: left * values}}, keep=1)[key]
    assert torch.allclose(merged, left * values * torch.tensor([1, 1, 0]), atol=1e-7)


def test_knots_when_the_joined_side_is_the_shorter():
    shapes = {key: SHAPES[key] for key in LAYERS} | {"head.weight": (40, 6)}
    task_vectors = random_task_vectors(2, shapes=shapes)
    merged = run("knots_ties", task_vectors, keep=0.5)
    assert_close(merged, naive_knots_ties(stacked(task_vectors), keep=0.5))


def test_wudi_lowers_its_loss():
    task_vectors = random_task_vectors(3)
    key = "blocks.2.attn.proj.weight"
    tau = torch.stack([one[key] for one in task_vectors.values()])

    def loss(update):
        return sum(((update - one) @ one.T).square().sum() / one.square().sum() for one in tau).item()

    found = [loss(run("wudi", task_vectors, steps=steps, lr=0.01)[key]) for steps in (0, 30, 300)]
    assert found[0] > found[1] > found[2]


def test_fisher_takes_the_mean_where_nobody_has_weight():
    task_vectors = random_task_vectors(2)
    statistics = random_statistics("fisher", task_vectors)
    for one in statistics.values():
        one["head.weight"][0] = 0
        del one["row.weight"]
    merged, mean = run("fisher", task_vectors, statistics), run("weight_averaging", task_vectors)
    assert torch.allclose(merged["head.weight"][0], mean["head.weight"][0])
    assert not torch.allclose(merged["head.weight"][1], mean["head.weight"][1])
    assert torch.allclose(merged["row.weight"], mean["row.weight"])


def test_fisher_knows_tiny_weights():
    task_vectors = random_task_vectors(2)
    statistics = random_statistics("fisher", task_vectors)
    tiny = {name: {key: value * 1e-30 for key, value in one.items()} for name, one in statistics.items()}
    assert_close(run("fisher", task_vectors, tiny), run("fisher", task_vectors, statistics))


def test_regmean_fits_the_outputs_best():
    generator = torch.Generator().manual_seed(2)
    key = "blocks.0.attn.proj.weight"
    inputs = [torch.randn(50, 5, generator=generator) * (1 + k) for k in range(2)]
    task_vectors = {f"s{k}": {key: torch.randn(4, 5, generator=generator)} for k in range(2)}
    statistics = {f"s{k}": {key: x.T @ x} for k, x in enumerate(inputs)}
    merged = run("regmean", task_vectors, statistics, off_diagonal=1)[key]

    def error(update):
        pairs = zip(inputs, task_vectors.values(), strict=True)
        return sum((x @ (update - one[key]).T).square().sum() for x, one in pairs)

    for _ in range(5):
        assert error(merged) <= error(merged + 1e-2 * torch.randn(4, 5, generator=generator))


def test_regmean_takes_the_mean_for_dead_inputs():
    task_vectors = random_task_vectors(2)
    statistics = random_statistics("regmean", task_vectors)
    for one in statistics.values():
        one["head.weight"][2], one["head.weight"][:, 2] = 0, 0
    merged = run("regmean", task_vectors, statistics)["head.weight"]
    mean = run("weight_averaging", task_vectors)["head.weight"]
    assert torch.allclose(merged[:, 2], mean[:, 2])
    assert merged.isfinite().all()


def test_regmean_refuses_a_singular_sum():
    task_vectors = random_task_vectors(1)
    statistics = {"s0": {"head.weight": torch.ones(6, 6)}}
    with pytest.raises(R2MError, match=r"head\.weight.*singular.*off_diagonal"):
        run("regmean", task_vectors, statistics, off_diagonal=1)
    assert run("regmean", task_vectors, statistics)["head.weight"].isfinite().all()


@pytest.mark.parametrize("method", ["fisher", "regmean"])
def test_statistics_are_checked(method):
    task_vectors = random_task_vectors(3)
    key = "head.weight"
    with pytest.raises(R2MError, match=rf"{method}.*--statistics NAME=FILE"):
        run(method, task_vectors, {name: {} for name in task_vectors})
    for name in ("s0", "s2"):
        statistics = random_statistics(method, task_vectors)
        del statistics[name][key]
        with pytest.raises(R2MError, match=rf"head\.weight.*'{name}'"):
            run(method, task_vectors, statistics)
    for wrong in (torch.ones(4, 4), torch.full((2, 6) if method == "fisher" else (6, 6), math.nan)):
        statistics = random_statistics(method, task_vectors)
        statistics["s1"][key] = wrong
        with pytest.raises(R2MError, match=r"head\.weight.*'s1'"):
            run(method, task_vectors, statistics)


def test_fisher_refuses_negative_weights():
    task_vectors = random_task_vectors(2)
    statistics = random_statistics("fisher", task_vectors)
    statistics["s1"]["head.weight"][0, 0] = -1
    with pytest.raises(R2MError, match=r"head\.weight.*'s1'.*negative"):
        run("fisher", task_vectors, statistics)
