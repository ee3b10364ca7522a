from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from detector_samples import CONVNET, IDENTITIES
from r2m.errors import R2MError
from r2m.seeding import rng
from r2m.train.options import FinetuneOptions, FinetuneOverrides
from r2m.train.rows import rows_of
from r2m.train.sampling.epochs import lengthened, total_steps
from r2m.train.sampling.rounds import Rounds, videos_of
from r2m.train.sampling.samplers import BalancedSampler, PairSampler
from r2m.trunk.inputs import Inputs


@pytest.fixture
def inputs(image_sets):
    return Inputs(image_sets.paths("drawn", "sketch", "swap", "up"), [], CONVNET)


def test_rows_of_a_split(inputs):
    fakes, reals = rows_of(inputs, ["swap", "up"], "train")
    assert len(fakes) == 2 * IDENTITIES["train"]
    assert len(reals) == IDENTITIES["train"]
    assert set(fakes["split"]) == set(reals["split"]) == {"train"}
    assert set(reals["domain"]) == {"drawn"}
    fakes, reals = rows_of(inputs, ["swap"], "test")
    assert set(reals["domain"]) == {"drawn", "sketch"}


def test_missing_fakes_or_reals(inputs, image_sets):
    with pytest.raises(R2MError, match=r"generator other: no fakes in the split 'val' of its manifest"):
        rows_of(inputs, ["swap", "other"], "val")
    alone = Inputs(image_sets.paths("swap"), [], CONVNET)
    with pytest.raises(R2MError, match=r"domain drawn: no reals in the split 'train'"):
        rows_of(alone, ["swap"], "train")


def sampler_of(inputs, pairs=3, seed=0, name="swap"):
    fakes, reals = rows_of(inputs, ["swap", "up"], "train")
    return PairSampler(fakes, reals, pairs, seed, name), fakes, reals


def test_every_fake_has_its_source(inputs):
    sampler, _, _ = sampler_of(inputs)
    for _, rows in sampler.batches(0, 8):
        assert rows["label"].tolist() == [1, 1, 1, 0, 0, 0]
        assert rows["source_image"].tolist()[:3] == rows["image_id"].tolist()[3:]


def test_an_epoch_covers_every_fake_once(inputs):
    sampler, fakes, _ = sampler_of(inputs, pairs=4)
    ids = [image_id for _, rows in sampler.batches(0, 8) for image_id in rows["image_id"][:4]]
    first, second = ids[:16], ids[16:]
    assert sorted(first) == sorted(second) == sorted(fakes["image_id"])
    assert first != second


def test_batches_larger_than_the_set_and_odd_sizes(inputs):
    sampler, fakes, _ = sampler_of(inputs, pairs=5)
    ids = [image_id for _, rows in sampler.batches(0, 16) for image_id in rows["image_id"][:5]]
    assert pd.Series(ids).value_counts().unique().tolist() == [5]
    large, fakes, _ = sampler_of(inputs, pairs=40)
    assert len(large.batch(0)) == 80
    assert set(large.batch(0)["image_id"][:40]) == set(fakes["image_id"])


def test_a_batch_depends_on_seed_name_and_step_only(inputs):
    first, again = sampler_of(inputs)[0], sampler_of(inputs)[0]
    first.batch(0)
    for step in (5, 2):
        pd.testing.assert_frame_equal(first.batch(step), again.batch(step))
    for other in (sampler_of(inputs, seed=1)[0], sampler_of(inputs, name="up")[0]):
        ids = [sampler.batch(0)["image_id"].tolist() for sampler in (first, other)]
        assert ids[0] != ids[1]
    steps = [step for step, _ in first.batches(3, 6)]
    assert steps == [3, 4, 5]


def test_a_fake_without_source_gets_a_real_of_its_domain(inputs):
    fakes, reals = rows_of(inputs, ["swap"], "test")
    unpaired = fakes.assign(source_image=None)
    unpaired.loc[0, "source_image"] = "elsewhere/x"
    sampler, again = (PairSampler(unpaired, reals, 4, 0, "swap") for _ in range(2))
    seen = set()
    for step, rows in sampler.batches(0, 20):
        assert rows["domain"].tolist()[:4] == rows["domain"].tolist()[4:]
        pd.testing.assert_frame_equal(rows, again.batch(step))
        seen |= set(rows["image_id"][4:])
    assert seen == set(reals["image_id"])


def test_sources_and_draws_of_a_batch_by_hand(inputs):
    """A batch depends on the seed and its step: what was drawn before does not matter."""
    sampler, fakes, reals = sampler_of(inputs, pairs=5)
    fakes = fakes.assign(source_image=fakes["source_image"].where(fakes.index % 3 > 0, None))
    fakes.loc[1, "source_image"] = "drawn/of-another-split"
    again = pd.concat([reals, reals.iloc[:1].assign(path="again.png")], ignore_index=True)
    sampler = PairSampler(fakes, again, 5, 0, "swap")
    place = {image_id: i for i, image_id in enumerate(again["image_id"])}
    for step in (7, 2, 3, 11):
        draws = [divmod(step * 5 + i, len(fakes)) for i in range(5)]
        chosen = [rng(0, "fakes", "swap", str(epoch)).permutation(len(fakes))[at] for epoch, at in draws]
        random = rng(0, "reals", "swap", str(step))
        expected = [
            place[source] if source in place else int(random.choice(len(again)))
            for source in fakes["source_image"].iloc[chosen]
        ]
        batch = sampler.batch(step)
        assert batch["image_id"].tolist()[:5] == fakes["image_id"].iloc[chosen].tolist()
        assert batch["path"].tolist()[5:] == again["path"].iloc[expected].tolist()


# What `PairSampler` drew before there were other samplers: batches of four, fakes and then their reals.
GOLDEN = {
    0: "f0 f9 f8 f3 r0 r7 r1 r3",
    1: "f7 f10 f6 f2 r0 r3 r6 r2",
    2: "f1 f4 f5 f9 r3 r4 r2 r7",
    3: "f1 f5 f4 f10 r3 r3 r4 r3",
    5: "f2 f8 f5 f9 r2 r1 r2 r6",
    40: "f5 f4 f3 f6 r3 r4 r3 r6",
}


def frame(label, videos, generators=None, domains=None, sources=None):
    """Rows called f0, f1, … or r0, r1, …; a video of None is none."""
    count = len(videos)
    return pd.DataFrame(
        {
            "image_id": [f"{'rf'[label]}{i}" for i in range(count)],
            "label": label,
            "generator": generators or ["real"] * count,
            "domain": domains or ["a"] * count,
            "video": videos,
            "source_image": sources or [None] * count,
        }
    ).astype({"video": "str", "source_image": "str"})


def test_pairs_are_drawn_as_ever():
    sources = [None if i % 4 == 1 else f"r{i % 7}" for i in range(11)]
    fakes = frame(1, [None] * 11, ["g"] * 11, ["a"] * 8 + ["b"] * 3, sources)
    reals = frame(0, [None] * 9, domains=["a"] * 6 + ["b"] * 3)
    for frames in (None, 1):  # each image counts as a video of its own
        sampler = PairSampler(fakes, reals, 4, 3, "swap", frames)
        assert sampler.epoch == 11
    sampler = PairSampler(fakes, reals, 4, 3, "swap")
    assert {step: " ".join(sampler.batch(step)["image_id"]) for step in GOLDEN} == GOLDEN


VIDEOS = st.lists(st.sampled_from([None, "x", "y", "z"]), min_size=1, max_size=30)


@settings(max_examples=40, deadline=None)
@given(videos=VIDEOS, frames=st.none() | st.integers(1, 5), seed=st.integers(0, 5))
def test_rounds_hold_so_many_frames_of_every_video(videos, frames, seed):
    rows = frame(1, videos, ["g"] * len(videos))
    rounds, again = (Rounds(rows, frames, seed, "fakes") for _ in range(2))
    whole = rounds.at(np.arange(8 * len(rounds))).reshape(8, -1)
    sizes = Counter(video for video in videos if video)
    for drawn in whole:
        assert len(set(drawn)) == len(drawn)
        counts = Counter(videos[row] for row in drawn)
        assert counts[None] == videos.count(None)
        assert all(counts[video] == min(size, frames or size) for video, size in sizes.items())
    # A video has shown all its frames after as many rounds as they take.
    if frames is not None:
        needed = -(-max(sizes.values(), default=1) // frames)
        assert needed > 8 or set(whole[:needed].ravel()) == set(range(len(videos)))
    draws = np.arange(3, 8 * len(rounds), 2)
    assert np.array_equal(again.at(draws[::-1])[::-1], rounds.at(draws))


def test_videos_are_told_by_generator_and_domain():
    rows = frame(1, ["x", "x", "x", "x", None, None], list("gghggg"), list("aaabaa"))
    numbers = videos_of(rows)
    assert numbers[0] == numbers[1]
    assert len(set(numbers)) == 5


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    pairs=st.integers(1, 12),
    frames=st.none() | st.integers(1, 3),
)
def test_generators_are_balanced(sizes, pairs, frames):
    generators = [f"g{i}" for i, size in enumerate(sizes) for _ in range(size)]
    fakes = frame(1, [f"v{i // 2}" for i in range(len(generators))], generators)
    reals = frame(0, [f"v{i // 3}" for i in range(7)])
    sampler = BalancedSampler(fakes, reals, pairs, 0, "joint", frames)
    drawn, real = Counter(), Counter()
    for step, batch in sampler.batches(0, 30):
        assert batch["label"].tolist() == [1] * pairs + [0] * pairs
        own = Counter(batch["generator"][:pairs])
        drawn += own
        for counts in (own, drawn):
            found = [counts[f"g{i}"] for i in range(len(sizes))]
            assert max(found) - min(found) <= 1
        real += Counter(batch["image_id"][pairs:])
        if step in (3, 17):
            fresh = BalancedSampler(fakes, reals, pairs, 0, "joint", frames)
            pd.testing.assert_frame_equal(fresh.batch(step), batch)
    if frames is None:
        found = [real[f"r{i}"] for i in range(7)]
        assert max(found) - min(found) <= 1
        assert sampler.epoch == len(fakes)


def test_reals_are_of_the_domains_that_the_fakes_are_of():
    """A generator with reals of its own is not told by their domain."""
    fakes = frame(1, [None] * 30, ["g"] * 20 + ["h"] * 5 + ["i"] * 5, ["a"] * 20 + ["b"] * 5 + ["a"] * 5)
    reals = frame(0, [None] * 60, domains=["a"] * 58 + ["b"] * 2)
    sampler = BalancedSampler(fakes, reals, 6, 0, "joint")
    for _, batch in sampler.batches(0, 12):
        domains = batch["domain"].tolist()
        assert domains[:6] == domains[6:]
    seen = Counter(image for _, batch in sampler.batches(0, 29) for image in batch["image_id"][6:])
    shared = [seen[f"r{i}"] for i in range(58)]
    assert max(shared) - min(shared) <= 1, "generators of one domain share a round of its reals"


def test_steps_of_epochs():
    assert total_steps(FinetuneOptions(), 10) == 120
    options = FinetuneOptions(epochs=3, pairs=4)
    assert options.steps is None
    assert [total_steps(options, fakes) for fakes in (1, 4, 10, 11)] == [1, 3, 8, 9]
    assert total_steps(FinetuneOptions(epochs=1.1, pairs=1), 10) == 11
    assert total_steps(FinetuneOptions(epochs=1e-6), 10) == 1


def test_options_of_epochs_are_read_again():
    for options in (FinetuneOptions(epochs=2), FinetuneOptions(steps=5), FinetuneOptions()):
        assert FinetuneOptions.model_validate_json(options.model_dump_json()) == options
    with pytest.raises(ValidationError, match="`steps` and `epochs` are both given"):
        FinetuneOptions(steps=120, epochs=2)
    with pytest.raises(ValidationError, match="expected `steps` or `epochs`"):
        FinetuneOptions(steps=None)
    with pytest.raises(ValidationError, match="unknown sampler; did you mean 'balanced'"):
        FinetuneOptions(sampling="balance")


def test_overrides_replace_steps_by_epochs_and_back():
    common = FinetuneOptions(epochs=2)
    changed = FinetuneOverrides(steps=7).applied(common)
    assert (changed.steps, changed.epochs) == (7, None)
    assert FinetuneOverrides(epochs=3).applied(FinetuneOptions()).steps is None
    assert FinetuneOverrides(lr=1e-4).applied(common) == FinetuneOptions(epochs=2, lr=1e-4)
    with pytest.raises(ValidationError, match="`steps` and `epochs` are both given"):
        FinetuneOverrides(steps=1, epochs=2)


def test_longer_trainings_in_epochs_have_as_many_steps_as_in_steps():
    """A joint training on three sets of 40 fakes, twice as long as on one of them."""
    assert lengthened(FinetuneOptions(steps=30), 2, 3).steps == 60
    options = FinetuneOptions(epochs=6, pairs=8)
    assert total_steps(options, 40) == 30
    assert total_steps(lengthened(options, 2, 3), 3 * 40) == 60
    assert lengthened(options, 3, 3) == options
