import itertools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_samples import (
    flatten,
    random_task_vectors,
    real_component,
    real_part,
    stream_of,
    truncated_residual,
    whole_residual,
)

from r2m.errors import R2MError
from r2m.merge import linalg, merging, passes, registry
from r2m.merge.gram import grams
from r2m.merge.linalg import LowRank
from r2m.merge.options import R2M, RankOptions, RealOptions, ResidualOptions, ScaleOptions
from r2m.merge.real_aware import coefficient, matching_factors
from r2m.merge.tensors import as_matrix, norm

REALS = [
    RealOptions(),
    RealOptions(rank=2),
    RealOptions(center=True),
    RealOptions(scope="layer", block_weight="frobenius"),
    RealOptions(block_weight="frobenius_sqrt_size"),
    RealOptions(space="matrix", core_ratio=0.2),
]
RANKS = [
    RankOptions(ratio=0.34),
    RankOptions(energy=0.7),
    RankOptions(fixed=2),
    RankOptions(optimal_threshold=True),
]
EVERY = [
    R2M(
        real=chosen,
        residual=ResidualOptions(definition=definition, rank=rank, vectors=vectors),
        norm_match=norm_match,
        scale=scale,
    )
    for chosen, definition, rank, vectors, norm_match, scale in itertools.chain(
        itertools.product(
            REALS,
            ["projection", "shift"],
            RANKS[:2],
            ["keep"],
            ["model", "layer"],
            [ScaleOptions(relative=0.6)],
        ),
        itertools.product(
            REALS[:1],
            ["projection"],
            RANKS,
            ["keep", "drop"],
            ["none"],
            [ScaleOptions(absolute=2.0), ScaleOptions(relative=1.2)],
        ),
    )
]
every_option = st.builds(
    R2M,
    real=st.sampled_from(REALS),
    residual=st.builds(
        ResidualOptions,
        definition=st.sampled_from(["projection", "shift"]),
        rank=st.sampled_from(RANKS),
        vectors=st.sampled_from(["keep", "drop"]),
    ),
    norm_match=st.sampled_from(["model", "layer", "none"]),
    scale=st.sampled_from([ScaleOptions(relative=0.6), ScaleOptions(absolute=1.5)]),
)
seeds = st.integers(0, 2**16)
METHOD = registry.get("r2m")


def merge(task_vectors, options, **settings):
    return merging.merge(METHOD, task_vectors, options, **settings)


def dense(kept, shape):
    return kept.dense().reshape(shape) if isinstance(kept, LowRank) else kept


def aggregate(core, residuals, norm_match, scale):
    """The merge of a Real component and truncated residuals that are given."""
    component = passes.RealComponent(tuple(residuals), {f"core.{key}": one for key, one in core.items()}, {})
    found = {
        name: passes.Residual(
            {key: norm([one]) ** 2 for key, one in tensors.items()},
            {f"dense.{key}": one for key, one in tensors.items()},
            "",
            {},
        )
        for name, tensors in residuals.items()
    }
    stream = stream_of({"core": core})
    state = passes.scaled(passes.average(stream, component, found, norm_match, {}), scale)
    return {key: passes.update(key, state) for key in core}, state.report


def naive(task_vectors, options):
    """R²M with dense float64 matrices, after the definition (without block weights, scope model)."""
    names, keys = list(task_vectors), sorted(task_vectors["s0"])
    tau = {key: torch.stack([task_vectors[name][key].double() for name in names]) for key in keys}
    if options.real.space == "task":
        flat = torch.cat([tau[key].reshape(len(names), -1) for key in keys], 1)
        fitted = flat - flat.mean(0) if options.real.center else flat
        right = torch.linalg.svd(fitted, full_matrices=False).Vh[: options.real.rank]
        sizes = [tau[key][0].numel() for key in keys]
        parts = dict(zip(keys, (flat @ right.T @ right).split(sizes, 1), strict=True))
        real_part = {key: parts[key].reshape(tau[key].shape) for key in keys}
    else:
        real_part = {}
        for key in keys:
            average = tau[key].mean(0)
            real_part[key] = average.expand(tau[key].shape)
            if average.ndim in (2, 4):
                left, _, right = torch.linalg.svd(as_matrix(average), full_matrices=False)
                rank = max(1, round(options.real.core_ratio * min(as_matrix(average).shape)))
                left, right = left[:, :rank], right[:rank]
                real_part[key] = torch.stack(
                    [
                        (left @ left.T @ as_matrix(one) @ right.T @ right).reshape(one.shape)
                        for one in tau[key]
                    ]
                )
    core = {key: real_part[key].mean(0) for key in keys}
    truncated = {}
    for key in keys:
        shift = options.residual.definition == "shift"
        rest = tau[key] - (core[key] if shift else real_part[key])
        if core[key].ndim not in (2, 4):
            truncated[key] = rest if options.residual.vectors == "keep" else 0 * rest
            continue
        truncated[key] = torch.empty_like(rest)
        for j, one in enumerate(rest):
            left, values, right = torch.linalg.svd(as_matrix(one), full_matrices=False)
            rule = options.residual.rank
            if rule.ratio is not None:
                rank = max(1, round(rule.ratio * len(values)))
            elif rule.energy is not None:
                share = values.square().cumsum(0) / values.square().sum()
                rank = int((share < rule.energy).sum()) + 1
            else:
                rank = rule.fixed
            truncated[key][j] = ((left[:, :rank] * values[:rank]) @ right[:rank]).reshape(one.shape)
    if options.norm_match == "model":
        norms = torch.stack(
            [sum(truncated[key][j].square().sum() for key in keys) for j in range(len(names))]
        )
        norms = {key: norms.sqrt() for key in keys}
    elif options.norm_match == "layer":
        norms = {key: truncated[key].reshape(len(names), -1).norm(dim=1) for key in keys}
    else:
        norms = {key: torch.ones(len(names), dtype=torch.float64) for key in keys}
    mean = {}
    for key in keys:
        factors = torch.where(norms[key] > 0, norms[key].mean() / norms[key], 1.0)
        mean[key] = torch.einsum("j,j...->...", factors, truncated[key]) / len(names)
    factor = options.scale.absolute
    if factor is None:
        factor = options.scale.relative * norm(core.values()) / norm(mean.values())
    return {key: core[key] + factor * mean[key] for key in keys}


@pytest.mark.parametrize(
    "options",
    [one for one in EVERY if one.real.block_weight == "none" and one.residual.rank.optimal_threshold is None],
)
def test_r2m_against_the_definition(options):
    task_vectors = random_task_vectors(4, seed=2)
    update, _ = merge(task_vectors, options)
    expected = naive(task_vectors, options)
    error = torch.linalg.norm(flatten(update) - flatten(expected))
    assert error <= 1e-5 * torch.linalg.norm(flatten(expected))


@given(every_option, st.integers(1, 4), seeds)
@settings(deadline=None, max_examples=30)
def test_parts_add_up(options, count, seed):
    task_vectors = random_task_vectors(count, seed)
    component = real_component(task_vectors, options.real)
    for name, one in task_vectors.items():
        for key, tensor in one.items():
            rest = whole_residual(component, task_vectors, name, key, "projection")
            total = real_part(component, task_vectors, name, key) + rest
            assert torch.allclose(total, tensor.double(), rtol=1e-6, atol=2e-6 * tensor.abs().max().item())


@given(every_option, seeds)
@settings(deadline=None, max_examples=30)
def test_order_does_not_matter(options, seed):
    task_vectors = random_task_vectors(3, seed)
    one, _ = merge(task_vectors, options)
    renamed = dict(zip(task_vectors, reversed(task_vectors.values()), strict=True))
    other, _ = merge(renamed, options)
    assert torch.linalg.norm(flatten(one) - flatten(other)) <= 1e-4 * torch.linalg.norm(flatten(one))


@given(every_option, seeds, st.sampled_from([-1.0, 2.0**-12, 100.0]))
@settings(deadline=None, max_examples=30)
def test_scaling_the_task_vectors_scales_the_update(options, seed, factor):
    task_vectors = random_task_vectors(3, seed)
    scaled = {
        name: {key: factor * tensor for key, tensor in one.items()} for name, one in task_vectors.items()
    }
    one, other = (flatten(merge(given, options)[0]) for given in (task_vectors, scaled))
    assert torch.linalg.norm(factor * one - other) <= 1e-4 * torch.linalg.norm(other)


@pytest.mark.parametrize("options", EVERY)
def test_one_specialist_comes_back(options):
    task_vectors = random_task_vectors(1)
    if options.real.space == "matrix":
        changed = options.real.model_copy(update={"core_ratio": 1.0})
        options = options.model_copy(update={"real": changed})
    update, _ = merge(task_vectors, options)
    assert torch.allclose(flatten(update), flatten(task_vectors["s0"]), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("options", EVERY)
@pytest.mark.parametrize("count", [2, 4, 7])
def test_identical_specialists_merge_to_that_specialist(options, count):
    one = random_task_vectors(1)["s0"]
    if options.real.space == "matrix":
        changed = options.real.model_copy(update={"core_ratio": 1.0})
        options = options.model_copy(update={"real": changed})
    update, report = merge({f"s{j}": one for j in range(count)}, options)
    assert torch.allclose(flatten(update), flatten(one), rtol=1e-5, atol=1e-9)
    assert report["lambda"] == 0


def test_full_rank_truncation_changes_nothing(task_vectors):
    component = real_component(task_vectors, RealOptions())
    options = ResidualOptions(rank=RankOptions(ratio=1.0))
    kept = truncated_residual(component, task_vectors, "s1", options)
    assert kept.squares.keys() == task_vectors["s1"].keys()
    for key in kept.squares:
        whole = whole_residual(component, task_vectors, "s1", key, "projection")
        assert torch.equal(kept.tensor(key), whole)
    assert all(one["energy"] == 1 for one in kept.report["matrices"].values())


@given(every_option, st.integers(2, 4), seeds)
@settings(deadline=None, max_examples=30)
def test_matched_norms_are_equal(options, count, seed):
    options = options.model_copy(update={"norm_match": "model"})
    _, report = merge(random_task_vectors(count, seed), options)
    before = report["residual_norms"]
    for name, matched in report["matched_norms"].items():
        assert matched == pytest.approx(sum(before.values()) / count if before[name] > 0 else 0)


def test_relative_scale_sets_the_norm_of_the_residual(task_vectors):
    options = R2M(scale=ScaleOptions(relative=0.8))
    update, report = merge(task_vectors, options)
    component = real_component(task_vectors, options.real)
    added = norm((update[key] - component.core[key]) for key in update)
    assert added == pytest.approx(0.8 * report["core_norm"], rel=1e-4)
    assert report["lambda"] * report["mean_residual_norm"] == pytest.approx(added, rel=1e-4)


def test_absolute_scale_of_zero_is_the_core(task_vectors):
    update, _ = merge(task_vectors, R2M(scale=ScaleOptions(absolute=0.0)))
    component = real_component(task_vectors, RealOptions())
    assert torch.equal(flatten(update), flatten(component.core))


def test_dropped_vectors_keep_the_core(task_vectors):
    options = R2M(residual=ResidualOptions(vectors="drop"))
    update, _ = merge(task_vectors, options)
    component = real_component(task_vectors, options.real)
    for key in ("blocks.0.norm1.bias", "pos_embed"):
        assert torch.equal(update[key], component.core[key])


def test_layer_matching_is_per_tensor():
    norms = {"a": {"x": 1.0, "y": 2.0, "z": 0.0}, "b": {"x": 3.0, "y": 2.0, "z": 0.0}}
    assert matching_factors(norms, "layer") == {
        "a": {"x": 2.0, "y": 1.0, "z": 1.0},
        "b": {"x": 2.0 / 3.0, "y": 1.0, "z": 1.0},
    }
    assert matching_factors(norms, "none")["b"] == {"x": 1.0, "y": 1.0, "z": 1.0}
    model = matching_factors(norms, "model")
    assert model["a"]["x"] == model["a"]["y"] == pytest.approx((5**0.5 + 13**0.5) / 2 / 5**0.5)


def test_a_zero_residual_stays_zero():
    core = {"w": torch.ones(2, 2)}
    residuals = {"a": {"w": torch.zeros(2, 2)}, "b": {"w": torch.eye(2)}}
    update, report = aggregate(core, residuals, "model", ScaleOptions(absolute=1.0))
    # The mean norm counts the zero: n̄ = √2 / 2, so b is halved, and halved again by the mean.
    assert torch.allclose(update["w"], torch.ones(2, 2) + torch.eye(2) / 4)
    assert report["matched_norms"]["a"] == 0


def test_a_zero_task_vector_and_an_absent_one(task_vectors):
    zero = {key: torch.zeros_like(tensor) for key, tensor in task_vectors["s0"].items()}
    one, _ = merge({**task_vectors, "none": zero}, R2M())
    other, _ = merge({**task_vectors, "none": {}}, R2M())
    assert torch.isfinite(flatten(one)).all()
    assert torch.equal(flatten(one), flatten(other))


def test_nothing_changed_at_all():
    update, report = merge({"a": {"w": torch.zeros(3, 2)}, "b": {}}, R2M())
    assert not update["w"].any()
    assert report["lambda"] == 0


def test_cancelling_residuals_are_left_out(caplog):
    core = {"w": torch.ones(2, 2)}
    residuals = {"a": {"w": torch.eye(2)}, "b": {"w": -torch.eye(2)}}
    update, report = aggregate(core, residuals, "none", ScaleOptions(relative=0.6))
    assert torch.equal(update["w"], core["w"])
    assert report["lambda"] == 0
    assert "cancel" in caplog.text


@pytest.mark.parametrize("norm_match", ["model", "layer"])
def test_two_projected_residuals_of_equal_norm_cancel(norm_match):
    update, report = merge(random_task_vectors(2), R2M(norm_match=norm_match))
    component = real_component(random_task_vectors(2), RealOptions())
    assert torch.equal(flatten(update), flatten(component.core))
    assert report["remaining_share"] < 1e-6


def test_coefficient():
    assert coefficient(ScaleOptions(absolute=-2), 1, 1) == -2
    assert coefficient(ScaleOptions(relative=0.5), 4, 2) == 1
    assert coefficient(ScaleOptions(relative=0.5), 4, 0) == 0


def test_projected_residuals_cancel_along_the_leading_eigenvector(task_vectors):
    component = real_component(task_vectors, RealOptions())
    values, vectors = torch.linalg.eigh(component.how["pos_embed"].coefficients)
    leading = vectors[:, -1].tolist()
    for key in component.core:
        rest = [whole_residual(component, task_vectors, name, key, "projection") for name in task_vectors]
        total = sum(weight * one for weight, one in zip(leading, rest, strict=True))
        assert norm([total]) <= 1e-6 * sum(norm([one]) for one in rest)
    assert values[-1].item() == pytest.approx(1)


@pytest.mark.parametrize("order", [1, -1])
def test_sweep_equals_single_merges_to_the_last_bit(task_vectors, order):
    candidates = EVERY[::order][::3]
    seen = []
    for options, update in merging.sweep(METHOD, task_vectors, candidates):
        single, _ = merge(task_vectors, options)
        assert update.keys() == single.keys()
        assert torch.equal(flatten(update), flatten(single))
        seen.append(options)
    assert sorted(map(repr, seen)) == sorted(map(repr, candidates))


def test_sweep_decomposes_once_a_rank(task_vectors, monkeypatch):
    calls = []
    products = []

    def counted(name, seen):
        real = getattr(linalg, name)
        monkeypatch.setattr(linalg, name, lambda *given: seen.append(name) or real(*given))

    counted("side_gram", products)
    counted("leading_right_vectors", calls)
    candidates = [
        R2M(residual=ResidualOptions(rank=RankOptions(ratio=ratio)), scale=ScaleOptions(relative=scale))
        for ratio in (0.02, 0.2, 0.5)
        for scale in (0.4, 0.6, 0.8)
    ]
    assert len(list(merging.sweep(METHOD, task_vectors, candidates))) == 9
    shapes = [as_matrix(tensor).shape for tensor in task_vectors["s0"].values() if tensor.ndim in (2, 4)]
    ranks = [len({max(1, round(ratio * min(shape))) for ratio in (0.02, 0.2, 0.5)}) for shape in shapes]
    assert len(calls) == sum(ranks) * len(task_vectors)
    assert len(products) == len(shapes) * len(task_vectors)


def test_report(task_vectors):
    _, report = merge(task_vectors, R2M(residual=ResidualOptions(rank=RankOptions(fixed=2))))
    one = report["residuals"]["s1"]["matrices"]["patch_embed.proj.weight"]
    assert one["shape"] == [6, 8]
    assert one["rank"] == 2
    assert 0 < one["energy"] < 1
    assert 0 < report["residuals"]["s1"]["energy"] < 1
    assert report["remaining_share"] == pytest.approx(
        report["mean_residual_norm"] / (sum(report["matched_norms"].values()) / 3)
    )
    assert report["residuals"]["s2"]["norm"] == pytest.approx(report["residual_norms"]["s2"])


def test_round_trip_of_a_residual(task_vectors):
    component = real_component(task_vectors, RealOptions())
    kept = truncated_residual(component, task_vectors, "s1", ResidualOptions())
    tensors = {key.removeprefix("s1/"): tensor for key, tensor in kept.store.items()}
    again = passes.Residual(json.loads(json.dumps(kept.squares)), tensors, "", {})
    assert again.squares == kept.squares
    assert any(isinstance(again.tensor(key), LowRank) for key in kept.squares)
    for key, square in kept.squares.items():
        shape = component.core[key].shape
        assert torch.equal(dense(again.tensor(key), shape), dense(kept.tensor(key), shape))
        assert square == pytest.approx(norm([dense(kept.tensor(key), shape)]) ** 2, rel=1e-5)


@pytest.mark.parametrize("options", EVERY[::5])
@pytest.mark.parametrize("pieces", [(2**20, 2**12), (1, 7), (64, 8)])
def test_pieces_and_threads_do_not_matter(monkeypatch, options, pieces):
    task_vectors = random_task_vectors(3, seed=8)
    expected, expected_report = merge(task_vectors, options)
    monkeypatch.setattr("r2m.merge.stream.PIECE_ENTRIES", pieces[0])
    monkeypatch.setattr("r2m.merge.stream.LEAST_PIECE", pieces[1])
    update, report = merge(task_vectors, options, threads=2)
    error = torch.linalg.norm(flatten(update) - flatten(expected))
    assert error <= 1e-6 * torch.linalg.norm(flatten(expected))
    assert report["lambda"] == pytest.approx(expected_report["lambda"], rel=1e-6)


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("options", [R2M(real=one) for one in REALS])
def test_any_number_of_specialists(options, count):
    task_vectors = random_task_vectors(count, seed=3)
    for one in task_vectors.values():
        for tensor in one.values():
            tensor *= 1e3
    options = options.model_copy(update={"scale": ScaleOptions(absolute=1.5)})
    if options.real.center and count == 1:
        expected = flatten(task_vectors["s0"])
    else:
        expected = flatten(naive(task_vectors, options))
    if options.real.block_weight != "none":
        return
    update, _ = merge(task_vectors, options, threads=2)
    assert torch.linalg.norm(flatten(update) - expected) <= 1e-5 * torch.linalg.norm(expected)


def test_large_matrices_against_the_definition():
    """Beyond the size from where the fast route is taken, wide, tall, square and decaying."""
    shapes = {"a.weight": (300, 280), "b.weight": (270, 600), "c.weight": (512, 300)}
    task_vectors = random_task_vectors(3, seed=6, shapes=shapes)
    decay = torch.linspace(0, 6, 300).neg().exp()
    for one in task_vectors.values():
        one["c.weight"] *= decay
    options = R2M(residual=ResidualOptions(rank=RankOptions(ratio=0.1)))
    update, _ = merge(task_vectors, options)
    expected = flatten(naive(task_vectors, options))
    assert torch.linalg.norm(flatten(update) - expected) <= 1e-5 * torch.linalg.norm(expected)


def test_position_tables_are_no_matrices():
    shapes = {"embeddings.position_embedding.weight": (5, 6), "a.weight": (8, 6)}
    task_vectors = random_task_vectors(3, shapes=shapes)
    _, report = merge(task_vectors, R2M())
    assert list(report["residuals"]["s0"]["matrices"]) == ["a.weight"]


def test_known_grams_are_not_computed_again(task_vectors, monkeypatch):
    stream = stream_of(task_vectors)
    expected = passes.prepare(stream, R2M())
    stream.grams = grams(stream)
    monkeypatch.setattr(passes, "grams", None)
    assert passes.prepare(stream, R2M()).report == expected.report


def test_odd_shapes():
    shapes = {"row.weight": (1, 9), "column.weight": (9, 1), "none.weight": (0, 4), "scalar": (), "b": (3,)}
    task_vectors = random_task_vectors(3, shapes=shapes)
    for chosen in (RealOptions(), RealOptions(space="matrix")):
        update, _ = merge(task_vectors, R2M(real=chosen))
        assert {key: tuple(tensor.shape) for key, tensor in update.items()} == shapes
        assert torch.isfinite(flatten(update)).all()


def test_deterministic(task_vectors):
    one, other = (merge(task_vectors, R2M()) for _ in range(2))
    assert torch.equal(flatten(one[0]), flatten(other[0]))
    assert one[1] == other[1]


def test_no_residual():
    with pytest.raises(R2MError, match="at least one specialist"):
        aggregate({"w": torch.ones(2, 2)}, {}, "model", ScaleOptions(relative=1))
