import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from r2m.seeding import rng
from r2m.trunk.augment import AUGMENTATIONS, augmented
from r2m.trunk.inputs import Inputs
from r2m.trunk.options import AugmentOptions

OFF = AugmentOptions(**dict.fromkeys(AUGMENTATIONS, 0))
ALL = AugmentOptions(flip=1, blur=1, resize=1, jpeg=1)


def only(**options):
    return OFF.model_copy(update=options)


@pytest.fixture
def image():
    """Smooth noise, (3, 32, 32)."""
    small = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(small, size=(32, 32), mode="bilinear")[0]


def names(count):
    return [f"set/{i}" for i in range(count)]


def test_the_seed_and_the_image_decide(image):
    torch.manual_seed(1)
    first = augmented(image, ALL, 7, "a")
    torch.manual_seed(2)
    assert torch.equal(first, augmented(image, ALL, 7, "a"))
    assert not torch.equal(first, augmented(image, ALL, 8, "a"))
    assert not torch.equal(first, augmented(image, ALL, 7, "b"))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**62),
    options=st.builds(
        AugmentOptions,
        flip=st.floats(0, 1),
        rotate=st.floats(0, 45),
        blur=st.floats(0, 1),
        blur_kernel=st.sampled_from([(3, 3), (3, 7), (5, 31)]),
        brightness=st.floats(0, 0.9),
        contrast=st.floats(0, 0.9),
        resize=st.floats(0, 1),
        resize_to=st.sampled_from([(0.01, 0.02), (0.3, 1.0)]),
        jpeg=st.floats(0, 1),
        jpeg_quality=st.sampled_from([(1, 1), (40, 100)]),
    ),
    size=st.sampled_from([16, 33]),
)
def test_an_image_stays_one(seed, options, size):
    image = torch.rand(3, size, size, generator=torch.Generator().manual_seed(seed % 2**31))
    before = image.clone()
    result = augmented(image, options, seed, "x")
    assert result.shape == image.shape
    assert result.dtype == torch.float32
    assert result.is_contiguous()
    assert result.min() >= 0
    assert result.max() <= 1
    assert torch.equal(image, before)


@pytest.mark.usefixtures("one_thread")
def test_whatever_else_is_in_the_batch(image_sets):
    """Several processes that share a batch see the images that one would."""
    from detector_samples import CONVNET

    inputs = Inputs(image_sets.paths("drawn", "swap"), [], CONVNET)
    rows = inputs.rows.iloc[:8]
    whole = inputs.fetch(rows, ALL, 3)
    assert torch.equal(inputs.fetch(rows.iloc[::-1], ALL, 3), whole.flip(0))
    for rank in range(3):
        assert torch.equal(inputs.fetch(rows.iloc[rank::3], ALL, 3), whole[rank::3])
    assert not torch.equal(inputs.fetch(rows, ALL, 4), whole)


def test_nothing_switched_on_changes_nothing(image):
    assert torch.equal(augmented(image, OFF, 0, "a"), image)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_one_alone_changes_the_image_and_draws_the_same_beside_others(image, name):
    """Its random numbers are its own."""
    options = only(**{name: getattr(ALL, name)})
    alone = augmented(image, options, 5, "a")
    assert not torch.equal(alone, image)
    assert torch.equal(alone, AUGMENTATIONS[name](image, ALL, rng(5, name, "a")).clamp(0, 1))


def test_flip(image):
    options = only(flip=1.0)
    flipped = augmented(image, options, 0, "a")
    assert torch.equal(flipped, image.flip(2))
    assert torch.equal(augmented(flipped, options, 1, "b"), image)
    some = [torch.equal(augmented(image, only(flip=0.5), 0, name), image) for name in names(100)]
    assert 35 < sum(some) < 65


@pytest.mark.parametrize("name", ["blur", "resize", "jpeg"])
def test_what_happens_with_a_probability(image, name):
    changed = [not torch.equal(augmented(image, only(**{name: 0.3}), 0, one), image) for one in names(100)]
    assert 15 < sum(changed) < 45
    always = only(**{name: 1.0}, resize_to=(0.3, 0.9))
    assert all(not torch.equal(augmented(image, always, 0, one), image) for one in names(20))


def test_rotation_keeps_the_centre_and_moves_the_rim():
    line = torch.zeros(3, 17, 17)
    line[:, 8, :] = 1
    rotated = torch.stack([augmented(line, only(rotate=45.0), 0, name) for name in names(8)])
    torch.testing.assert_close(rotated[:, :, 8, 8], torch.ones(8, 3), rtol=0, atol=1e-4)
    assert (rotated[:, 0, 8, 0] < 0.9).any()
    assert rotated[:, 0, :, 0].sum(1).std() > 0


def test_rotation_fills_the_border_by_reflection():
    """What is of one colour stays so: nothing black comes in at the corners."""
    grey = torch.full((3, 40, 40), 0.7)
    for name in names(8):
        torch.testing.assert_close(augmented(grey, only(rotate=45.0), 0, name), grey, rtol=0, atol=1e-5)


def test_brightness_and_contrast():
    grey = torch.full((3, 8, 8), 0.5)
    brighter = torch.stack([augmented(grey, only(brightness=0.2), 0, name) for name in names(20)])
    assert (brighter - 0.5).abs().max() <= 0.1 + 1e-6
    assert brighter.std(dim=(1, 2, 3)).max() < 1e-6
    assert brighter.mean(dim=(1, 2, 3)).std() > 0.02
    kept = augmented(grey, only(contrast=0.5), 0, "a")
    torch.testing.assert_close(kept, grey, rtol=0, atol=1e-3)


def test_contrast_scales_distances_from_the_mean(image):
    spread = [float(augmented(image, only(contrast=0.2), 0, name).std() / image.std()) for name in names(40)]
    assert 0.75 < min(spread) < 0.9
    assert 1.1 < max(spread) < 1.25


def test_blur_removes_details_and_keeps_the_mean(image):
    board = (torch.arange(32)[:, None] + torch.arange(32)).remainder(2).float().expand(3, 32, 32)
    for name in names(10):
        blurred = augmented(board, only(blur=1.0), 0, name)
        assert blurred.std() < 0.3 * board.std()
        assert float(blurred.mean()) == pytest.approx(0.5, abs=0.01)
    point = torch.zeros(3, 31, 31)
    point[:, 15, 15] = 1
    widths = {int((augmented(point, only(blur=1.0), 0, n)[0, 15] > 0).sum()) for n in names(30)}
    assert widths == {3, 5, 7}


def test_jpeg_is_that_of_its_quality(image):
    poor = augmented(image, only(jpeg=1.0, jpeg_quality=(5, 5)), 0, "a")
    good = augmented(image, only(jpeg=1.0, jpeg_quality=(100, 100)), 0, "a")
    assert (good - image).abs().mean() < 0.02 < (poor - image).abs().mean()
    red = torch.zeros(3, 16, 16)
    red[0] = 1
    kept = augmented(red, only(jpeg=1.0, jpeg_quality=(100, 100)), 0, "a")
    torch.testing.assert_close(kept, red, rtol=0, atol=0.02)


def test_resizing_loses_what_is_small(image):
    random = np.random.default_rng(0)
    noise = torch.tensor(random.random((3, 32, 32)), dtype=torch.float32)
    coarse = augmented(noise, only(resize=1.0, resize_to=(0.25, 0.25)), 0, "a")
    assert coarse.std() < 0.5 * noise.std()
    same = augmented(image, only(resize=1.0, resize_to=(1.0, 1.0)), 0, "a")
    torch.testing.assert_close(same, image, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blur_kernel": (3, 4)}, "expected an odd size of the kernel"),
        ({"blur_kernel": (7, 3)}, r"expected \[lowest, highest\]"),
        ({"jpeg_quality": (100, 40)}, r"expected \[lowest, highest\]"),
        ({"jpeg_quality": (0, 40)}, "greater than or equal to 1"),
        ({"resize_to": (0, 1)}, "greater than 0"),
        ({"jpeg": 1.5}, "less than or equal to 1"),
    ],
)
def test_wrong_ranges(options, message):
    with pytest.raises(ValidationError, match=message):
        AugmentOptions(**options)


def test_every_augmentation_has_an_option_that_turns_it_off():
    for name in AUGMENTATIONS:
        assert name in AugmentOptions.model_fields
        assert not getattr(AugmentOptions(**{name: 0}), name)
