"""ESM against a plain float64 transcription of its definition, and its special cases."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from r2m.errors import R2MError
from r2m.merge import registry
from r2m.merge.kinds import role
from r2m.merge.merging import merge
from r2m.merge.methods import esm

SHAPES = {
    "blocks.0.attn.qkv.weight": (18, 6),
    "blocks.0.mlp.fc2.weight": (6, 14),
    "blocks.0.norm1.bias": (6,),
    "blocks.1.attn.qkv.weight": (18, 6),
    "blocks.1.mlp.fc2.weight": (6, 14),
    "blocks.2.attn.proj.weight": (7, 7),
    "blocks.2.attn.qkv.weight": (18, 6),
    "blocks.2.mlp.fc2.weight": (8, 14),
    "head.weight": (2, 6),
    "patch_embed.proj.weight": (6, 2, 2, 2),
    "pos_embed": (5, 6),
}
MATRICES = [key for key, shape in SHAPES.items() if len(shape) == 2 and key != "pos_embed"]
# Of the same role and shape.
GROUPS = [
    [f"blocks.{block}.attn.qkv.weight" for block in range(3)],
    [f"blocks.{block}.mlp.fc2.weight" for block in range(2)],
]


@pytest.fixture(autouse=True)
def _one_blas_thread():
    with threadpool_limits(1):
        yield


def random_task_vectors(count, seed=0):
    """Task vectors with entries of about 1 that share a part, the greater the later their block."""
    generator = torch.Generator().manual_seed(seed)
    common = {key: torch.randn(shape, generator=generator) for key, shape in SHAPES.items()}

    def change(key, k):
        block = int(key.split(".")[1]) if key.startswith("blocks") else 0
        own = (1 + k / count) * torch.randn(SHAPES[key], generator=generator)
        return (1 + block / 2) * (0.5 * common[key] + own)

    return {f"s{k}": {key: change(key, k) for key in SHAPES} for k in range(count)}


def random_grams(task_vectors, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def gram(size):
        inputs = torch.randn(3 * size, size, generator=generator) * torch.linspace(1, 2, size)
        product = inputs.T @ inputs
        return (product + product.T) / 2

    return {name: {key: gram(SHAPES[key][1]) for key in MATRICES} for name in task_vectors}


def run(task_vectors, grams=None, threads=1, **options):
    method = registry.get("esm")
    grams = random_grams(task_vectors) if grams is None else grams
    return merge(method, task_vectors, method.options(**options), statistics=grams, threads=threads)[0]


def polar(matrix):
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    kept = values > 1e-6 * values[0]
    return left[:, kept] @ right[kept], np.where(kept, values, 0).sum()


def naive_matrix(tau, grams):
    count, (m, n) = len(tau), tau[0].shape
    rank = m // count
    if rank == 0:
        return np.zeros((m, n))
    mean_norm = np.mean([np.linalg.norm(one) for one in tau])
    left, right = [], []
    for one, gram in zip(tau, grams, strict=True):
        values, vectors = np.linalg.eigh(one @ gram @ one.T)
        values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
        values = np.where(values > 1e-12 * values[0], values, 0)
        scales = (values / values.mean()) ** 0.15
        scales /= scales.mean()
        left.append((vectors * scales)[:, values > 0])
        coordinates = vectors.T @ one * (np.linalg.norm(one) / mean_norm) ** 2
        right.append((coordinates * scales[:, None])[values > 0])
    left, right = np.hstack(left), np.vstack(right)
    lengths = np.linalg.norm(right, axis=0)
    right = right * (lengths / lengths.mean()) ** 2
    (left, left_values), (right, right_values) = polar(left), polar(right)
    return 2 * left @ right * left_values / (rank * count) * right_values / min(rank * count, n)


def naive(task_vectors, grams, scaling=1):
    result = {}
    for key in SHAPES:
        tau = [one[key].double().numpy() for one in task_vectors.values()]
        if key in MATRICES:
            result[key] = naive_matrix(tau, [one[key].double().numpy() for one in grams.values()])
        else:
            result[key] = np.mean(tau, axis=0)
    for group in GROUPS:
        norms = {key: np.linalg.norm(result[key]) for key in group}
        for key in group:
            result[key] = (
                result[key] * (norms[key] / np.mean(list(norms.values()))) ** 2 if norms[key] else result[key]
            )
    return {key: scaling * one for key, one in result.items()}


def assert_close(found, expected, tolerance=1e-5):
    assert found.keys() == expected.keys()
    for key in found:
        wanted = torch.as_tensor(expected[key]).double()
        assert found[key].dtype == torch.float32
        assert found[key].shape == wanted.shape, key
        scale = max(1.0, wanted.abs().max().item())
        assert torch.allclose(found[key].double(), wanted, atol=tolerance * scale, rtol=0), key


@pytest.mark.parametrize("options", [{}, {"scaling": 0.4}])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 40])
def test_it_equals_its_definition(count, options):
    task_vectors = random_task_vectors(count)
    grams = random_grams(task_vectors)
    assert_close(run(task_vectors, grams, **options), naive(task_vectors, grams, **options))


def test_threads_change_nothing():
    task_vectors = random_task_vectors(3)
    expected = run(task_vectors)
    assert all(torch.equal(one, expected[key]) for key, one in run(task_vectors, threads=2).items())


@given(seed=st.integers(0, 9), order=st.permutations(range(3)))
@settings(max_examples=10, deadline=None)
def test_order_of_specialists_does_not_matter(seed, order):
    task_vectors = random_task_vectors(3, seed)
    grams = random_grams(task_vectors)
    shuffled = [{f"s{k}": one[f"s{k}"] for k in order} for one in (task_vectors, grams)]
    assert_close(run(*shuffled), run(task_vectors, grams))


@given(seed=st.integers(0, 9), factor=st.sampled_from([-2.0, 0.25, 2.0**-30]))
@settings(max_examples=10, deadline=None)
def test_scales_with_the_task_vectors_and_not_with_the_grams(seed, factor):
    task_vectors = random_task_vectors(3, seed)
    grams = random_grams(task_vectors)
    expected = run(task_vectors, grams)
    scaled = {name: {key: factor * one[key] for key in one} for name, one in task_vectors.items()}
    found = run(scaled, grams)
    assert_close({key: one / factor for key, one in found.items()}, expected)
    louder = {name: {key: (7.0 + k) * one[key] for key in one} for k, (name, one) in enumerate(grams.items())}
    assert_close(run(task_vectors, louder), expected)


@given(seed=st.integers(0, 99), count=st.integers(2, 4))
@settings(max_examples=10, deadline=None)
def test_identical_specialists_give_the_leading_part_of_one(seed, count):
    (one,) = random_task_vectors(1, seed).values()
    (gram,) = random_grams({"s0": one}).values()
    alike = {f"s{k}": one for k in range(count)}
    found = run(alike, dict.fromkeys(alike, gram))
    assert_close(found, naive(alike, dict.fromkeys(alike, gram)))
    for key in MATRICES:
        assert np.linalg.matrix_rank(found[key].numpy(), tol=1e-4) <= SHAPES[key][0] // count


def test_specialists_that_learnt_nothing_give_no_direction():
    task_vectors = random_task_vectors(1)
    task_vectors["idle"] = {key: torch.zeros(shape) for key, shape in SHAPES.items()}
    found = run(task_vectors)
    assert all(one.isfinite().all() for one in found.values())
    key = "blocks.2.attn.proj.weight"
    assert np.linalg.matrix_rank(found[key].numpy(), tol=1e-4) == 3
    idle = {name: {key: torch.zeros(shape) for key, shape in SHAPES.items()} for name in ("a", "b")}
    assert all(not one.any() for one in run(idle).values())


def test_outputs_that_inputs_do_not_reach_give_no_direction():
    task_vectors = random_task_vectors(2)
    grams = random_grams(task_vectors)
    key = "blocks.2.attn.proj.weight"
    reached = torch.zeros(7, 7)
    reached[0, 0] = 4.0
    grams = {name: {**one, key: reached} for name, one in grams.items()}
    found = run(task_vectors, grams)[key]
    assert np.linalg.matrix_rank(found.numpy(), tol=1e-4) == 2
    span = np.linalg.qr(np.stack([one[key][:, 0].numpy() for one in task_vectors.values()], axis=1))[0]
    assert np.allclose(span @ (span.T @ found.numpy()), found.numpy(), atol=1e-5)


@pytest.mark.parametrize("shape", [(9, 30), (30, 9)])
def test_low_rank_specialists_stay_in_their_span(shape):
    # With Grams whose halves differ by rounding errors of float32.
    generator = torch.Generator().manual_seed(5)
    factors = [[torch.randn(size, 2, generator=generator) for size in shape] for _ in range(2)]
    task_vectors = {f"s{k}": {"w": left @ right.T} for k, (left, right) in enumerate(factors)}
    inputs = torch.randn(500, shape[1], generator=generator)
    rounded = inputs.T @ inputs * (1 + 1e-7 * torch.randn(shape[1], shape[1], generator=generator))
    merged = run(task_vectors, {name: {"w": rounded} for name in task_vectors})["w"].double()
    span = torch.linalg.qr(torch.cat([left for left, _ in factors], dim=1).double()).Q
    assert merged.abs().max() > 0.1
    assert torch.allclose(span @ (span.T @ merged), merged, atol=1e-5)


@pytest.mark.parametrize("shape", [(300, 20), (20, 300), (40, 40)])
def test_essential_directions_are_eigenvectors(shape):
    generator = torch.Generator().manual_seed(1)
    tau = torch.randn(shape, generator=generator)
    inputs = torch.randn(shape[1] + 5, shape[1], generator=generator).double()
    gram = inputs.T @ inputs
    values, vectors = esm.essential_directions(tau, gram, 12)
    moved = tau.double() @ gram @ tau.double().T
    torch.testing.assert_close(moved @ vectors, vectors * values, rtol=1e-7, atol=1e-6 * values[0].item())
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(12).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(values, torch.linalg.eigvalsh(moved).flip(0)[:12], rtol=1e-9, atol=0)


def test_blocks_are_compared_with_blocks_of_the_same_role():
    task_vectors = random_task_vectors(2)
    grams = random_grams(task_vectors)
    found = run(task_vectors, grams)
    for group in GROUPS:
        parts = [run({n: {key: one[key]} for n, one in task_vectors.items()}, grams)[key] for key in group]
        norms = [torch.linalg.norm(part).item() for part in parts]
        for key, part, norm in zip(group, parts, norms, strict=True):
            torch.testing.assert_close(found[key], part * (norm / np.mean(norms)) ** 2)
    assert role("blocks.3.attn.qkv.weight") == role("blocks.11.attn.qkv.weight") == ("", "attn.qkv.weight")
    assert role("visual.layers.0.mlp.0.weight") == ("visual", "mlp.0.weight")
    assert role("text.layers.0.mlp.2.weight") == ("text", "mlp.2.weight")
    assert role("head.weight") is None


def test_matrices_without_statistics_are_merged_as_by_tsv_m():
    task_vectors = random_task_vectors(2)
    grams = random_grams(task_vectors)
    without = {
        name: {key: gram for key, gram in one.items() if key != "head.weight"} for name, one in grams.items()
    }
    method = registry.get("tsv_m")
    expected, _ = merge(method, task_vectors, method.options(scaling=0.7))
    found = run(task_vectors, without, scaling=0.7)
    torch.testing.assert_close(found["head.weight"], expected["head.weight"])
    torch.testing.assert_close(found["pos_embed"], expected["pos_embed"])
    assert not torch.allclose(found["blocks.0.attn.qkv.weight"], expected["blocks.0.attn.qkv.weight"])


def test_statistics_are_checked():
    task_vectors = random_task_vectors(3)
    with pytest.raises(R2MError, match=r"esm.*--statistics NAME=FILE"):
        run(task_vectors, {name: {} for name in task_vectors})
    for key in ("head.weight", "blocks.0.mlp.fc2.weight"):
        grams = random_grams(task_vectors)
        del grams["s2"][key]
        with pytest.raises(R2MError, match=rf"{key}.*'s2'"):
            run(task_vectors, grams)
        grams["s2"][key] = torch.ones(3, 3)
        with pytest.raises(R2MError, match=rf"{key}.*'s2'.*expected shape"):
            run(task_vectors, grams)
