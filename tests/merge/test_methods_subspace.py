"""Special cases and invariances of the merges in shared and calibrated singular subspaces."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r2m.errors import R2MError
from r2m.merge import api, merging, registry
from r2m.merge.calibration import expanded
from r2m.merge.methods import dc_merge, score, swudi
from r2m.merge.recipe import resolve

KEY = "blocks.0.attn.proj.weight"
SUM = {"inner": {"method": "task_arithmetic", "scaling": 1.0}}
# As many options as let all of a single specialist, or of orthogonal ones, through.
WHOLE = {
    "score": {},
    "dc_merge": {"keep": 1},
    "subspace_boosting": {"beta": 1},
    "swudi": {},
    "svc": SUM,
}


def run(method, task_vectors, **options):
    chosen, complete = resolve(method, options)
    return merging.merge(chosen, task_vectors, complete)[0]


def of_matrices(matrices, key=KEY):
    return {f"s{k}": {key: one.float()} for k, one in enumerate(matrices)}


def merged(method, matrices, key=KEY, **options):
    return run(method, of_matrices(matrices, key), **options)[key].double()


def random_matrices(count, shape=(8, 12), seed=0):
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(shape, generator=generator)
    return [common + (1 + k) * torch.randn(shape, generator=generator) for k in range(count)]


def rotation(size, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q


def orthogonal_specialists(count=3, rank=2, shape=(8, 12), seed=0):
    """Specialists of rank `rank` whose column and row spaces are orthogonal to each other's."""
    left, right = rotation(shape[0], seed), rotation(shape[1], seed + 1)
    spans = [slice(rank * k, rank * (k + 1)) for k in range(count)]
    values = torch.linspace(3, 1, count * rank, dtype=torch.float64)
    return [left[:, span] * values[span] @ right[:, span].T for span in spans]


def truncated(matrix, rank):
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    return left[:, :rank] * values[:rank] @ right[:rank]


def close(found, expected, tolerance=1e-5):
    return torch.allclose(found, expected.double(), atol=tolerance * expected.abs().max().item(), rtol=0)


@pytest.mark.parametrize(("method", "options"), WHOLE.items())
@pytest.mark.parametrize("shape", [(8, 12), (12, 8), (7, 7), (1, 5)])
def test_one_specialist_is_kept(method, options, shape):
    (one,) = random_matrices(1, shape)
    assert close(merged(method, [one], **options), one)


@pytest.mark.parametrize(("method", "options"), [one for one in WHOLE.items() if one[0] != "svc"])
def test_orthogonal_specialists_add_up(method, options):
    matrices = orthogonal_specialists()
    assert close(merged(method, matrices, **options), sum(matrices))


@pytest.mark.parametrize("method", ["score", "dc_merge", "subspace_boosting"])
def test_scaling(method):
    matrices = random_matrices(3)
    assert not merged(method, matrices, scaling=0).any()
    assert close(merged(method, matrices, scaling=-0.5), -0.5 * merged(method, matrices))


@given(
    method=st.sampled_from(["dc_merge", "subspace_boosting", "swudi", "svc"]),
    seed=st.integers(0, 50),
    count=st.integers(1, 4),
)
@settings(max_examples=25, deadline=None)
def test_a_change_of_basis_does_not_matter(method, seed, count):
    matrices = random_matrices(count, seed=seed)
    left, right = rotation(8, seed + 1), rotation(12, seed + 2)
    options = {"keep": 0.3} if method == "dc_merge" else {}
    turned = merged(method, [left @ one.double() @ right for one in matrices], **options)
    assert close(turned, left @ merged(method, matrices, **options) @ right, 1e-4)


@given(seed=st.integers(0, 50), count=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_the_order_of_rows_and_columns_does_not_matter_to_score(seed, count):
    matrices = random_matrices(count, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.randperm(8, generator=generator), torch.randperm(12, generator=generator)
    shuffled = merged("score", [one[rows][:, columns] for one in matrices])
    assert close(shuffled, merged("score", matrices)[rows][:, columns])


@pytest.mark.parametrize("method", WHOLE)
def test_ranks_of_specialists_may_be_deficient(method):
    generator = torch.Generator().manual_seed(3)
    low = torch.randn(8, 1, generator=generator) @ torch.randn(1, 12, generator=generator)
    matrices = [low, 2 * low, torch.zeros(8, 12)]
    found = merged(method, matrices, **WHOLE[method])
    assert found.isfinite().all()
    assert close(found, found.mul(low).sum() / low.square().sum() * low), "in the span of what was learnt"
    assert not merged(method, [torch.zeros(8, 12)] * 2, **WHOLE[method]).any()


# SCORE


@given(seed=st.integers(0, 50), count=st.sampled_from([2, 3, 6]))
@settings(max_examples=15, deadline=None)
def test_score_that_keeps_everything_is_the_sum(seed, count):
    matrices = random_matrices(count, (6, 6), seed)
    assert close(merged("score", matrices, c=6), sum(matrices), 1e-4)


def test_score_of_identical_specialists():
    (one,) = random_matrices(1)
    assert close(merged("score", [one, one], c=8), 2 * truncated(one, 4))
    assert close(merged("score", [one, one], c=1e-9), truncated(one, 4)), "the diagonal alone"


def test_what_score_trims():
    matrix = torch.full((4, 4), 1.0, dtype=torch.float64)
    matrix[0, 3] = 9.0
    matrix.fill_diagonal_(50)
    expected = matrix.clone()
    expected[0, 3] = 0
    assert torch.equal(score.trimmed(matrix, 1.96), expected)
    assert torch.equal(score.trimmed(matrix, 4.0), matrix)
    assert torch.equal(score.trimmed(matrix, 1e-9), torch.diag(matrix.diagonal()))
    assert torch.equal(score.trimmed(matrix[:1, :1], 1.96), matrix[:1, :1])


# DC-Merge


@pytest.mark.parametrize("count", [2, 4])
def test_dc_merge_of_identical_specialists(count):
    (one,) = random_matrices(1)
    assert close(merged("dc_merge", [one] * count, keep=1), truncated(one, 8 // count) / count)


def test_dc_merge_of_opposite_specialists():
    (one,) = random_matrices(1)
    assert not merged("dc_merge", [one, -one], keep=1).any()


def test_dc_merge_keeps_the_greatest_entry_at_least():
    matrices = orthogonal_specialists()
    leading = sum(truncated(one, 1) for one in matrices)
    assert close(merged("dc_merge", matrices), leading)


def test_the_share_that_dc_merge_keeps():
    matrix = torch.tensor([[4.0, -3.0], [2.0, -1.0]], dtype=torch.float64)
    assert torch.equal(dc_merge.greatest(matrix, 0.5), torch.tensor([[4.0, -3.0], [0.0, 0.0]]).double())
    assert torch.equal(dc_merge.greatest(matrix, 0.01), torch.tensor([[4.0, 0.0], [0.0, 0.0]]).double())
    equal = torch.tensor([[1.0, 1.0 + 1e-9, 1e-9]], dtype=torch.float64)
    assert torch.equal(dc_merge.greatest(equal, 0.4), equal * torch.tensor([1, 1, 0]))
    assert torch.equal(dc_merge.greatest(equal, 1.0), equal * torch.tensor([1, 1, 0]))


def test_the_signs_that_dc_merge_elects():
    rows = torch.tensor([[3.0, -1.0, 2.0, 0.0], [1.0, -2.0, -2.0, 0.0], [-1.0, 1.5, 0.0, 0.0]]).double()
    assert torch.equal(dc_merge.elected(rows), torch.tensor([2.0, -1.5, 0.0, 0.0]).double())


# Subspace Boosting


@given(seed=st.integers(0, 99), beta=st.floats(0.01, 1), count=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_subspace_boosting_raises_the_small_values_alone(seed, beta, count):
    matrices = random_matrices(count, seed=seed)
    total = sum(one.double() for one in matrices)
    found = merged("subspace_boosting", matrices, beta=beta)
    left, values, right = torch.linalg.svd(total, full_matrices=False)
    boosted = left.T @ found @ right.T
    assert torch.allclose(boosted, torch.diag(boosted.diagonal()), atol=1e-4 * values[0].item())
    after = boosted.diagonal()
    floor = after.min()
    assert (after >= values * (1 - 1e-5)).all()
    assert torch.allclose(after, values.clamp(min=floor), rtol=1e-5)
    above = values[values > floor * (1 + 1e-5)].sum()
    assert above < beta * values.sum() * (1 + 1e-6)
    assert above + floor >= beta * values.sum() * (1 - 1e-5)


def test_the_least_share_makes_all_values_equal():
    matrices = random_matrices(2)
    values = torch.linalg.svdvals(merged("subspace_boosting", matrices, beta=1e-6))
    assert torch.allclose(values, torch.linalg.svdvals(sum(matrices).double())[0].expand(8), rtol=1e-5)


@pytest.mark.parametrize("key", ["blocks.0.attn.qkv.weight", "layers.1.attn.in_proj_weight"])
def test_queries_keys_and_values_are_boosted_one_by_one(key):
    matrices = random_matrices(2, (15, 5))
    found = merged("subspace_boosting", matrices, key, beta=0.5)
    for number in range(3):
        rows = slice(5 * number, 5 * number + 5)
        alone = merged("subspace_boosting", [one[rows] for one in matrices], beta=0.5)
        assert close(found[rows], alone)
    assert not close(found, merged("subspace_boosting", matrices, beta=0.5))
    wider = random_matrices(2, (18, 5))
    whole = merged("subspace_boosting", wider, beta=0.5)
    assert close(merged("subspace_boosting", wider, key, beta=0.5), whole), "no three squares"


# SWUDI


def loss(update, matrices):
    return sum(((update - one) @ one.T).square().sum() / one.square().sum() for one in matrices)


def low_rank(count, rank, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(8, rank, generator=generator, dtype=torch.float64)
        @ torch.randn(rank, 12, generator=generator, dtype=torch.float64)
        for _ in range(count)
    ]


def test_swudi_comes_to_the_minimum():
    matrices = low_rank(3, 2)
    found = merged("swudi", matrices, filter="exponential", t=1e6)
    least = loss(found, matrices)
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        direction = torch.randn(8, 12, generator=generator, dtype=torch.float64)
        assert least <= loss(found + 1e-3 * direction, matrices)
    assert least < loss(sum(matrices), matrices)


@pytest.mark.parametrize("t", [0.5, 3.0, 40.0])
def test_swudi_follows_gradient_flow(t):
    """Rank 7 of 12 directions: all that specialists know are among the leading 65 %."""
    matrices = low_rank(2, 3) + low_rank(1, 1, seed=5)
    curvature = sum(one.T @ one / one.square().sum() for one in matrices)
    target = sum(one @ one.T @ one / one.square().sum() for one in matrices)
    update, steps = sum(matrices), 300
    step = t / 2 / steps
    for _ in range(steps):  # Runge and Kutta's
        first = 2 * (target - update @ curvature)
        second = 2 * (target - (update + step / 2 * first) @ curvature)
        third = 2 * (target - (update + step / 2 * second) @ curvature)
        fourth = 2 * (target - (update + step * third) @ curvature)
        update = update + step / 6 * (first + 2 * second + 2 * third + fourth)
    assert close(merged("swudi", matrices, filter="exponential", t=t), update)


def test_swudi_of_identical_specialists():
    (one,) = low_rank(1, 5)
    assert close(merged("swudi", [one] * 3, filter="exponential", t=1e7), one)
    assert close(merged("swudi", [one] * 3, filter="exponential", t=1e-6), 3 * one, 1e-4)


@pytest.mark.parametrize(
    ("values", "rank"),
    [([2.0, 0.0, 0.0], 1), ([1.0, 1.0, 0.0], 2), ([1.0, 1.0, 1.0], 3), ([4.0, 1.0, 0.0], 2), ([0.0], 0)],
)
def test_the_effective_rank_of_swudi(values, rank):
    factors = swudi.filter_factors(torch.tensor(values, dtype=torch.float64), swudi.Options())
    assert torch.equal(factors, torch.ones(rank, dtype=torch.float64))


def test_the_exponential_filter_of_swudi():
    values = torch.tensor([1.0, 0.5, 0.1, 0.0], dtype=torch.float64)
    factors = swudi.filter_factors(values, swudi.Options(filter="exponential", t=2.0))
    assert torch.allclose(factors, 1 - torch.exp(-2 * values[:2]))


# SVC


def naive_svc(update, matrices, alpha=None):
    """The calibrated matrix by its definition, direction by direction."""
    left, values, right = np.linalg.svd(update.double().numpy(), full_matrices=False)
    for r in range(len(values)):
        answer = left[:, r] @ update.double().numpy()
        own = [left[:, r] @ one.double().numpy() for one in matrices]
        counts = [answer @ one / (one @ one) for one in own]
        values[r] /= np.mean([max(count, alpha or 1 / len(own)) for count in counts])
    return torch.from_numpy((left * values) @ right)


def test_svc_of_identical_specialists_is_one_of_them():
    (one,) = random_matrices(1)
    assert close(merged("svc", [one] * 4, **SUM), one)


def test_svc_of_orthogonal_specialists():
    matrices, alpha = orthogonal_specialists(3), 0.25
    found = merged("svc", matrices, alpha=alpha, **SUM)
    assert close(found, sum(matrices) * 3 / (1 + 2 * alpha))


def test_svc_with_a_great_alpha_is_a_scaled_sum():
    matrices = random_matrices(3)
    assert close(merged("svc", matrices, alpha=1e4, **SUM), sum(matrices) / 1e4)


def test_scalings_cancel_while_counts_are_above_alpha():
    matrices = [one + 5 * random_matrices(1, seed=7)[0] for one in random_matrices(3, seed=8)]
    found = [
        merged("svc", matrices, alpha=alpha, inner={"method": "task_arithmetic", "scaling": scaling})
        for alpha, scaling in ((0.02, 0.2), (0.1, 1.0), (0.3, 3.0))
    ]
    assert close(found[0], found[1])
    assert close(found[2], found[1])


def task_vectors_of(method, seed=0):
    shapes = {
        "blocks.0.mlp.fc1.weight": (20, 8),
        "blocks.1.attn.proj.weight": (6, 6),
        "blocks.1.norm1.bias": (6,),
        "patch_embed.proj.weight": (6, 2, 2, 2),
    }
    generator = torch.Generator().manual_seed(seed)
    common = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    return {
        f"s{k}": {key: one + torch.randn(one.shape, generator=generator) for key, one in common.items()}
        for k in range(method.most_specialists or 3)
    }


# Iso-C and Iso-CTS make all values equal, and their vectors arbitrary.
CALIBRATED = [
    name
    for name in registry.names()
    if registry.get(name).statistics is None and name not in ("svc", "iso_c", "iso_cts")
]


@pytest.mark.parametrize("name", CALIBRATED)
def test_any_method_may_be_calibrated(name):
    method = registry.get(name)
    task_vectors = task_vectors_of(method)
    base = {key: torch.ones_like(one) for key, one in task_vectors["s0"].items()}
    plain, _ = merging.merge(method, task_vectors, method.options(), base=base)
    chosen, options = resolve(name, {"calibrate": "svc"})
    found, _ = merging.merge(chosen, task_vectors, options, base=base)
    for key, update in plain.items():
        if update.ndim == 2:
            expected = naive_svc(update, [one[key] for one in task_vectors.values()])
            assert close(found[key].double(), expected, 1e-3), key
        else:
            assert torch.equal(found[key], update), key


def test_calibration_is_written_out():
    chosen, options = resolve("ties", {"calibrate": "svc", "keep": 0.4})
    assert chosen.name == "svc"
    assert options.model_dump() == {
        "alpha": None,
        "inner": {"method": "ties", "keep": 0.4, "scaling": 1.0},
    }
    assert resolve("svc", {"inner.method": "ties", "inner.keep": 0.4})[1] == options
    nested = {"calibrate": "svc", "residual": {"rank": {"ratio": 0.2}}}
    _, options = resolve("r2m", nested)
    inner, own = options.inner.resolved
    assert inner.name == "r2m"
    assert own == resolve("r2m", {"residual.rank.ratio": 0.2})[1]
    task_vectors = of_matrices(random_matrices(3))
    alike = [
        run("svc", task_vectors, alpha=1 / 3),
        run("svc", task_vectors),
        run("task_arithmetic", task_vectors, calibrate="svc"),
    ]
    assert all(torch.equal(one[KEY], alike[0][KEY]) for one in alike)


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        ("ties", {"calibrate": "svd"}, "calibrate: expected svc, got 'svd'"),
        ("ties", {"calibrate": True}, "calibrate: expected svc, got True"),
        ("svc", {"calibrate": "svc"}, "calibrate: svc calibrates already"),
        ("svc", {"inner.method": "svc"}, "inner: svc calibrates other methods"),
        ("svc", {"inner.method": "tis"}, "did you mean 'ties'"),
        ("svc", {"inner.method": 3}, "inner.method: expected text"),
        ("svc", {"inner": 3}, "inner: expected a mapping"),
        ("svc", {"alpha": 0.0}, "alpha: expected a number greater than 0"),
        ("ties", {"calibrate": "svc", "keep": 0}, "options of ties: keep: expected a number greater than 0"),
        ("ties", {"calibrate": "svc", "kep": 0.1}, "unknown key 'kep'; did you mean 'keep'"),
        ("ties", {"calibrate": "svc", "method": "dare"}, "options of ties: unknown key 'method'"),
    ],
)
def test_wrong_calibrations(method, options, expected):
    with pytest.raises(R2MError, match=expected):
        resolve(method, options)


def test_calibration_of_nothing():
    with pytest.raises(R2MError, match="svc: no tensor is a matrix"):
        run("svc", {"s0": {"blocks.0.norm1.bias": torch.ones(4)}})
    with pytest.raises(R2MError, match="slerp: expected 2 specialists, got 3"):
        run("slerp", of_matrices(random_matrices(3)), calibrate="svc")


def test_calibrated_methods_get_their_statistics():
    matrices = random_matrices(2)
    base = {KEY: torch.zeros(8, 12)}
    specialists = of_matrices(matrices)
    statistics = {name: {KEY: (1.0 + k) * torch.eye(12)} for k, name in enumerate(specialists)}
    plain = api.merge("regmean", base, specialists, statistics=statistics)
    found = api.merge("regmean", base, specialists, {"calibrate": "svc"}, statistics=statistics)
    assert close(found[KEY].double(), naive_svc(plain[KEY], matrices), 1e-4)
    assert resolve("regmean", {"calibrate": "svc"})[0].statistics is not None
    with pytest.raises(R2MError, match="regmean: no specialist has statistics"):
        api.merge("regmean", base, specialists, {"calibrate": "svc"})


def test_what_is_not_calibrated_stays():
    assert expanded("ties", {"keep": 0.1}) == ("ties", {"keep": 0.1})
    chosen, _ = resolve("ties", {})
    assert chosen is registry.get("ties")


def test_the_report_is_that_of_the_inner_method():
    task_vectors = task_vectors_of(registry.get("r2m"))
    chosen, options = resolve("r2m", {"calibrate": "svc"})
    _, described = merging.merge(chosen, task_vectors, options)
    _, plain = merging.merge(registry.get("r2m"), task_vectors, registry.get("r2m").options())
    assert described == plain
    assert math.isfinite(described["lambda"])
