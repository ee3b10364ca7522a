import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_samples import (
    component_of,
    flatten,
    random_task_vectors,
    real_component,
    real_part,
    stream_of,
    truncated_residual,
)

from r2m.errors import R2MError
from r2m.merge import passes, real_aware
from r2m.merge.gram import grams
from r2m.merge.options import RealOptions, ResidualOptions
from r2m.merge.tensors import as_matrix, check, norm

WEIGHTS = ["none", "frobenius", "frobenius_sqrt_size"]
EVERY = [
    RealOptions(rank=rank, center=center, scope=scope, block_weight=weight)
    for rank in (1, 2)
    for center in (False, True)
    for scope in ("model", "layer")
    for weight in WEIGHTS
] + [RealOptions(space="matrix", core_ratio=ratio) for ratio in (0.02, 0.4, 1.0)]

task_options = st.builds(
    RealOptions,
    rank=st.integers(1, 4),
    scope=st.sampled_from(["model", "layer"]),
    block_weight=st.sampled_from(WEIGHTS),
)
seeds = st.integers(0, 2**16)


def part(component, task_vectors, name):
    return {key: real_part(component, task_vectors, name, key) for key in component.core}


def mean(task_vectors):
    return {
        key: torch.stack([one[key] for one in task_vectors.values()]).double().mean(0)
        for key in next(iter(task_vectors.values()))
    }


def weights(task_vectors, rule):
    zeros = check(task_vectors)
    inner = grams(stream_of(task_vectors))
    return {key: real_aware.block_weight(inner[key], zero.numel(), rule) for key, zero in zeros.items()}


def naive_part(task_vectors, options):
    """R (K, P) by an explicit basis of the row space, γ-weighted: the textbook route."""
    gammas = weights(task_vectors, options.block_weight)
    keys = sorted(gammas)
    groups = [keys] if options.scope == "model" else [[key] for key in keys]
    result = {name: {} for name in task_vectors}
    for group in groups:
        plain = torch.stack([flatten({key: one[key] for key in group}) for one in task_vectors.values()])
        gamma = flatten({key: torch.full(check(task_vectors)[key].shape, gammas[key]) for key in group})
        weighted = plain * gamma
        fitted = weighted - weighted.mean(0) if options.center else weighted
        right = torch.linalg.svd(fitted, full_matrices=False).Vh[: options.rank]
        projected = (weighted @ right.T @ right) / gamma
        for name, row in zip(task_vectors, projected, strict=True):
            start = 0
            for key in group:
                size = check(task_vectors)[key].numel()
                result[name][key] = row[start : start + size].reshape(check(task_vectors)[key].shape)
                start += size
    return result


@pytest.mark.parametrize("options", [one for one in EVERY if one.space == "task"])
def test_task_space_is_the_projection_on_the_row_space(options):
    task_vectors = random_task_vectors(4)
    component = real_component(task_vectors, options)
    expected = naive_part(task_vectors, options)
    for name in task_vectors:
        assert torch.allclose(
            flatten(part(component, task_vectors, name)), flatten(expected[name]), rtol=1e-6, atol=1e-10
        )
    core = torch.stack([flatten(one) for one in expected.values()]).mean(0)
    assert torch.allclose(flatten(component.core), core, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("ratio", [0.02, 0.34, 0.5])
def test_matrix_space_is_the_truncated_mean(ratio):
    task_vectors = random_task_vectors(3)
    component = real_component(task_vectors, RealOptions(space="matrix", core_ratio=ratio))
    for key, average in mean(task_vectors).items():
        if average.ndim in (2, 4):
            matrix = as_matrix(average)
            left, values, right = torch.linalg.svd(matrix, full_matrices=False)
            rank = max(1, round(ratio * min(matrix.shape)))
            left, values, right = left[:, :rank], values[:rank], right[:rank]
            expected = ((left * values) @ right).reshape(average.shape)
            one = as_matrix(task_vectors["s1"][key]).double()
            projected = (left @ left.T @ one @ right.T @ right).reshape(average.shape)
        else:
            expected = projected = average
        assert torch.allclose(component.core[key].double(), expected, rtol=1e-5, atol=1e-9)
        found = real_part(component, task_vectors, "s1", key)
        assert torch.allclose(found, projected, rtol=1e-6, atol=1e-12)


@given(task_options, st.integers(1, 5), seeds)
@settings(deadline=None, max_examples=40)
def test_real_parts_and_residuals_are_orthogonal(options, count, seed):
    task_vectors = random_task_vectors(count, seed)
    component = real_component(task_vectors, options)
    gammas = weights(task_vectors, options.block_weight)
    for one in task_vectors:
        for other in task_vectors:
            total = size = 0.0
            for key, gamma in gammas.items():
                along = real_part(component, task_vectors, one, key)
                rest = task_vectors[other][key] - real_part(component, task_vectors, other, key)
                total += gamma**2 * (along * rest).sum().item()
                size += gamma**2 * (task_vectors[one][key].norm() * task_vectors[other][key].norm()).item()
            assert abs(total) <= 1e-9 * size


@given(st.floats(0.01, 1), st.integers(1, 4), seeds)
@settings(deadline=None, max_examples=40)
def test_matrix_space_is_orthogonal_per_matrix(ratio, count, seed):
    task_vectors = random_task_vectors(count, seed)
    component = real_component(task_vectors, RealOptions(space="matrix", core_ratio=ratio))
    for key in (key for key, how in component.how.items() if isinstance(how, real_aware.Frame)):
        for one in task_vectors:
            for other in task_vectors:
                along = real_part(component, task_vectors, one, key)
                rest = task_vectors[other][key] - real_part(component, task_vectors, other, key)
                size = task_vectors[one][key].norm() * task_vectors[other][key].norm()
                assert abs((along * rest).sum()) <= 1e-9 * size


@given(task_options, st.integers(1, 5), seeds)
@settings(deadline=None, max_examples=40)
def test_core_is_no_longer_than_the_mean(options, count, seed):
    task_vectors = random_task_vectors(count, seed)
    component = real_component(task_vectors, options)
    gammas = weights(task_vectors, options.block_weight)
    core = norm(gammas[key] * component.core[key] for key in gammas)
    average = norm(gammas[key] * tensor for key, tensor in mean(task_vectors).items())
    assert core <= average * (1 + 1e-6)


@pytest.mark.parametrize("scope", ["model", "layer"])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_rank_k_gives_the_mean(task_vectors, scope, weight):
    for rank in (3, 7):
        options = RealOptions(rank=rank, scope=scope, block_weight=weight)
        component = real_component(task_vectors, options)
        assert torch.allclose(flatten(component.core), flatten(mean(task_vectors)), rtol=1e-5, atol=1e-9)


def test_core_ratio_one_gives_the_mean_and_square_residuals_of_zero(task_vectors):
    component = real_component(task_vectors, RealOptions(space="matrix", core_ratio=1))
    assert torch.allclose(flatten(component.core), flatten(mean(task_vectors)), rtol=1e-5, atol=1e-9)
    key = "blocks.1.attn.proj.weight"
    for name in task_vectors:
        found = real_part(component, task_vectors, name, key)
        assert torch.allclose(found, task_vectors[name][key].double(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("options", EVERY)
def test_order_does_not_matter(options):
    task_vectors = random_task_vectors(4, seed=5)
    backwards = dict(reversed(task_vectors.items()))
    one, other = (real_component(given, options) for given in (task_vectors, backwards))
    assert torch.allclose(flatten(one.core), flatten(other.core), rtol=1e-5, atol=1e-9)
    # The task vectors may come in another order than the component was made with.
    for name in task_vectors:
        assert torch.allclose(
            flatten(part(one, backwards, name)), flatten(part(one, task_vectors, name)), atol=1e-15
        )


@pytest.mark.parametrize("options", EVERY)
@pytest.mark.parametrize("factor", [-1.0, 1e-4, 250.0])
def test_scaling_scales_the_core(options, factor):
    task_vectors = random_task_vectors(4, seed=5)
    scaled = {
        name: {key: factor * tensor for key, tensor in one.items()} for name, one in task_vectors.items()
    }
    one, other = (real_component(given, options) for given in (task_vectors, scaled))
    assert torch.allclose(factor * flatten(one.core), flatten(other.core), rtol=1e-4, atol=abs(factor) * 1e-9)


@pytest.mark.parametrize("center", [False, True])
def test_one_specialist(center):
    task_vectors = random_task_vectors(1)
    component = real_component(task_vectors, RealOptions(center=center))
    assert torch.allclose(flatten(component.core), flatten(task_vectors["s0"]), rtol=1e-6)


@pytest.mark.parametrize("scope", ["model", "layer"])
def test_centred_equal_task_vectors_are_all_core(scope):
    one = random_task_vectors(1)["s0"]
    component = real_component({"a": one, "b": one, "c": one}, RealOptions(center=True, scope=scope))
    assert torch.allclose(flatten(component.core), flatten(one), rtol=1e-5, atol=1e-9)


def test_centred_pair_of_equal_norms_has_no_core():
    left, right = random_task_vectors(2, seed=3).values()
    ratio = norm(left.values()) / norm(right.values())
    right = {key: tensor * ratio for key, tensor in right.items()}
    component = real_component({"a": left, "b": right}, RealOptions(center=True))
    assert norm(component.core.values()) < 1e-5 * norm(left.values())


def test_a_new_specialist_leaves_the_gram_entries():
    four = random_task_vectors(4)
    three = {name: four[name] for name in ("s0", "s1", "s2")}
    old, new = (grams(stream_of(given)) for given in (three, four))
    for key in old:
        assert torch.allclose(new[key][:3, :3], old[key], rtol=1e-12)


def test_block_weights():
    gram = torch.diag(torch.tensor([9.0, 16.0], dtype=torch.float64))
    assert real_aware.block_weight(gram, 100, "none") == 1
    assert real_aware.block_weight(gram, 100, "frobenius") == pytest.approx(0.2)
    assert real_aware.block_weight(gram, 100, "frobenius_sqrt_size") == pytest.approx(2.0)
    assert real_aware.block_weight(0 * gram, 100, "frobenius") == 1


@pytest.mark.parametrize("options", EVERY)
def test_a_tensor_that_one_specialist_did_not_change(options):
    task_vectors = random_task_vectors(3)
    key = "blocks.0.attn.qkv.weight"
    explicit = {**task_vectors, "s1": {**task_vectors["s1"], key: torch.zeros(18, 6)}}
    absent = {name: dict(one) for name, one in task_vectors.items()}
    del absent["s1"][key]
    one, other = (real_component(given, options) for given in (explicit, absent))
    assert torch.equal(flatten(one.core), flatten(other.core))
    assert torch.equal(flatten(part(one, explicit, "s1")), flatten(part(other, absent, "s1")))


@pytest.mark.parametrize("options", EVERY)
def test_zero_task_vectors(options):
    zero = {"a.weight": torch.zeros(4, 3), "a.bias": torch.zeros(4)}
    component = real_component({"a": zero, "b": zero}, options)
    assert not flatten(component.core).any()
    some = random_task_vectors(2, shapes={"a.weight": (4, 3), "a.bias": (4,)})
    component = real_component({**some, "zero": zero}, options)
    assert torch.isfinite(flatten(component.core)).all()


@pytest.mark.parametrize("options", EVERY)
def test_round_trip_through_tensors(options):
    task_vectors = random_task_vectors(3)
    component = real_component(task_vectors, options)
    again = component_of(passes.RealComponent(component.names, dict(component.made.store), {}))
    assert again.core.keys() == component.core.keys()
    for name in task_vectors:
        assert torch.equal(
            flatten(part(again, task_vectors, name)), flatten(part(component, task_vectors, name))
        )


@pytest.mark.parametrize("options", EVERY)
def test_description(options):
    task_vectors = random_task_vectors(3)
    component = real_component(task_vectors, options)
    report = component.made.report
    flat = torch.stack([flatten(one) for one in task_vectors.values()])
    unit = flat / flat.norm(dim=1, keepdim=True)
    assert torch.allclose(torch.tensor(report["cosines"], dtype=torch.float64), unit @ unit.T)
    assert sum(report["core_weights"].values()) == pytest.approx(1, rel=1e-5)
    assert list(report["task_vector_norms"].values()) == pytest.approx(flat.norm(dim=1).tolist())
    parts = {name: flatten(part(component, task_vectors, name)) for name in task_vectors}
    core = torch.stack(list(parts.values())).mean(0)
    assert report["core_norm"] == pytest.approx(core.norm().item())
    for name, one in parts.items():
        assert report["core_weights"][name] == pytest.approx((one @ core / (3 * core @ core)).item())
        share = (one @ one / flatten(task_vectors[name]).square().sum()).item()
        assert report["shared_energy"][name] == pytest.approx(share)
    if options.block_weight == "none":
        assert all(0 <= share <= 1 + 1e-9 for share in report["shared_energy"].values())


def test_mistakes(task_vectors):
    with pytest.raises(R2MError, match="at least one task vector"):
        real_component({}, RealOptions())
    component = real_component(task_vectors, RealOptions())
    two = {name: task_vectors[name] for name in ("s0", "s1")}
    with pytest.raises(R2MError, match=r"\['s0', 's1', 's2'\].*\['s0', 's1'\]"):
        truncated_residual(component, two, "s0", ResidualOptions())
