import pandas as pd
import pytest

from detector_samples import CONVNET, IDENTITIES
from r2m.errors import R2MError
from r2m.seeding import rng
from r2m.train.pairs import PairSampler, rows_of
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
