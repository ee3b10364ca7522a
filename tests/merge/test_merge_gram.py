import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_samples import flatten, random_task_vectors, stream_of

from r2m.errors import R2MError
from r2m.files import publish
from r2m.merge import files
from r2m.merge.gram import GramCache, grams, missing_rows, total
from r2m.merge.options import R2M, RealOptions
from r2m.merge.passes import prepare
from r2m.merge.stream import MemorySource, TensorStream
from r2m.models import checkpoint

NAMES = [f"s{j}" for j in range(5)]


class Counting(MemorySource):
    """Counts the tensors that are read."""

    def __init__(self, task_vectors):
        super().__init__(task_vectors)
        self.read = set()

    def task_vectors(self, key, start, stop):
        self.read.add(key)
        return super().task_vectors(key, start, stop)


def some(task_vectors, names):
    return {name: task_vectors[name] for name in names}


def exact(task_vectors, key):
    rows = torch.stack([one[key].reshape(-1).double() for one in task_vectors.values()])
    return rows @ rows.T


@given(st.integers(1, 6), st.integers(0, 99), st.sampled_from([(2**20, 2**12), (1, 5), (40, 8)]))
@settings(deadline=None, max_examples=20)
def test_grams_are_inner_products(count, seed, pieces):
    task_vectors = random_task_vectors(count, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("r2m.merge.stream.PIECE_ENTRIES", pieces[0])
        patch.setattr("r2m.merge.stream.LEAST_PIECE", pieces[1])
        found = grams(stream_of(task_vectors))
    assert list(found) == sorted(task_vectors["s0"])
    for key, gram in found.items():
        torch.testing.assert_close(gram, exact(task_vectors, key), rtol=1e-12, atol=1e-18)
    whole = torch.stack([flatten(one) for one in task_vectors.values()])
    torch.testing.assert_close(total(found, count), whole @ whole.T, rtol=1e-12, atol=1e-18)


def test_missing_rows():
    gram = torch.ones(4, 4)
    assert missing_rows(gram) == []
    gram[2] = gram[:, 2] = torch.nan
    assert missing_rows(gram) == [2]
    gram[2, 2] = 1
    gram[0, 1] = gram[1, 0] = torch.nan
    assert missing_rows(gram) in ([0, 2], [1, 2])
    assert missing_rows(torch.full((3, 3), torch.nan)) == [0, 1, 2]


@given(st.permutations(NAMES), st.integers(1, 4), st.integers(1, 5))
@settings(deadline=None, max_examples=20)
def test_with_a_cache_as_without(order, before, after):
    """First some specialists, then others in another order: removed, added, or both."""
    task_vectors = random_task_vectors(5)
    first, second = order[:before], sorted(order)[:after]
    old = grams(stream_of(some(task_vectors, first)))
    cache = GramCache("base", (), {}).updated("base", first, old)
    chosen = some(task_vectors, second)
    source = Counting(chosen)
    found = grams(TensorStream(source), cache.known("base", second))
    for key, gram in found.items():
        torch.testing.assert_close(gram, exact(chosen, key), rtol=1e-12, atol=1e-18)
        for i, one in enumerate(second):
            for j, other in enumerate(second):
                if one in first and other in first:
                    assert gram[i, j] == old[key][first.index(one), first.index(other)]
    assert source.read == (set() if set(second) <= set(first) else set(found))


def test_updating_keeps_what_is_known():
    task_vectors = random_task_vectors(4)
    left, right = ["s0", "s1", "s2"], ["s3", "s1"]
    cache = GramCache("base", (), {}).updated("base", left, grams(stream_of(some(task_vectors, left))))
    new = grams(stream_of(some(task_vectors, right)))
    cache = cache.updated("base", right, new)
    assert cache.specialists == ("s0", "s1", "s2", "s3")
    for key, gram in cache.known("base", ["s0", "s1", "s2", "s3"]).items():
        unknown = gram.isnan()
        assert unknown.sum() == 4
        assert unknown[0, 3]
        assert unknown[2, 3]
        torch.testing.assert_close(gram[~unknown], exact(task_vectors, key)[~unknown], rtol=1e-12, atol=1e-18)


def test_tensors_that_the_cache_lacks():
    task_vectors = random_task_vectors(3)
    known = grams(stream_of(task_vectors))
    gone = known.pop("pos_embed")
    source = Counting(task_vectors)
    assert torch.equal(grams(TensorStream(source), known)["pos_embed"], gone)
    assert source.read == {"pos_embed"}


def test_another_base_is_another_cache():
    task_vectors = random_task_vectors(2)
    found = grams(stream_of(task_vectors))
    cache = GramCache("base", ("s0", "s1"), found)
    assert cache.known("other", ["s0", "s1"]) == {}
    assert cache.updated("other", ["s1"], {}) == GramCache("other", ("s1",), {})


def through_cache(path, blocks, identities):
    """Take Grams from the cache file, and add what was new as a merge does when it is done."""
    found, cache = files.through_cache(path, blocks, identities)
    if cache is not None:
        with files.written_gram_cache(path, cache) as temporary:
            publish(temporary, path)
    return found


def test_cache_file(tmp_path):
    path, four = tmp_path / "grams.safetensors", random_task_vectors(4)
    three = some(four, ["s0", "s1", "s2"])
    first = through_cache(path, stream_of(three), ["base", "a", "b", "c"])
    before = path.read_bytes()
    again = Counting(three)
    second = through_cache(path, TensorStream(again), ["base", "a", "b", "c"])
    assert not again.read
    assert path.read_bytes() == before
    assert all(torch.equal(first[key], second[key]) for key in first)

    fourth = through_cache(path, stream_of(four), ["base", "a", "b", "c", "d"])
    left_out = Counting(some(four, ["s3", "s0"]))
    small = through_cache(path, TensorStream(left_out), ["base", "d", "a"])
    assert not left_out.read
    for key in first:
        assert torch.equal(fourth[key][:3, :3], first[key])
        assert torch.equal(small[key], fourth[key][[3, 0]][:, [3, 0]])
    assert files.load_gram_cache(path).specialists == ("a", "b", "c", "d")

    # A file that changed has another identity.
    changed = Counting(three)
    through_cache(path, TensorStream(changed), ["base", "a", "b", "c2"])
    assert changed.read == set(first)
    through_cache(path, stream_of(three), ["base 2", "a", "b", "c"])
    assert files.load_gram_cache(path).base == "base 2"


def test_other_files(tmp_path):
    path, blocks = tmp_path / "x.safetensors", stream_of(random_task_vectors(1))
    checkpoint.save(path, {"w": torch.ones(2)}, {})
    with pytest.raises(R2MError, match=r"x.safetensors: expected a cache of inner products"):
        files.through_cache(path, blocks, ["base", "a"])
    metadata = {"kind": "gram cache", "base": "b", "specialists": ["a"]}
    checkpoint.save(path, {"w": torch.ones(2, 2)}, metadata)
    with pytest.raises(R2MError, match=r"x.safetensors: w is \(2, 2\), expected \(1, 1\) in float64"):
        files.through_cache(path, blocks, ["base", "a"])
    path.write_text("no")
    with pytest.raises(R2MError, match=r"x.safetensors"):
        files.through_cache(path, blocks, ["base", "a"])


@pytest.mark.parametrize("options", [RealOptions(), RealOptions(scope="layer"), RealOptions(space="matrix")])
def test_leaving_one_out_with_known_grams(options):
    """Merges of all but one specialist from the cache of all equal those from nothing."""
    task_vectors = random_task_vectors(4)
    cache = GramCache("base", tuple(task_vectors), grams(stream_of(task_vectors)))
    for left_out in task_vectors:
        rest = [name for name in task_vectors if name != left_out]
        blocks = stream_of(some(task_vectors, rest))
        expected = prepare(blocks, R2M(real=options)).report
        blocks.grams = grams(blocks, cache.known("base", rest))
        report = prepare(blocks, R2M(real=options)).report
        assert report["lambda"] == pytest.approx(expected["lambda"], rel=1e-9)
        assert report["real"]["core_weights"] == pytest.approx(expected["real"]["core_weights"])
