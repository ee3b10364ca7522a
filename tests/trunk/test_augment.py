import pytest
import torch

from r2m.trunk.inputs import augment
from r2m.trunk.options import AugmentOptions

OFF = AugmentOptions(flip=0, rotate=0, brightness=0, contrast=0)


@pytest.fixture
def images():
    return torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_the_seed_decides(images):
    options = AugmentOptions()
    torch.manual_seed(1)
    first = augment(images, options, 7)
    torch.manual_seed(2)
    assert torch.equal(first, augment(images, options, 7))
    assert not torch.equal(first, augment(images, options, 8))
    assert first.shape == images.shape
    assert first.min() >= 0
    assert first.max() <= 1


def test_nothing_switched_on_changes_nothing(images):
    torch.testing.assert_close(augment(images, OFF, 0), images, rtol=0, atol=1e-5)


def test_flip(images):
    flipped = augment(images, OFF.model_copy(update={"flip": 1.0}), 0)
    torch.testing.assert_close(flipped, images.flip(3), rtol=0, atol=1e-5)
    some = augment(images.repeat(20, 1, 1, 1), OFF.model_copy(update={"flip": 0.5}), 0)
    share = (some - images.repeat(20, 1, 1, 1)).abs().amax(dim=(1, 2, 3)).gt(0.01).float().mean()
    assert 0.35 < share < 0.65


def test_rotation_keeps_the_centre_and_moves_the_rim():
    image = torch.zeros(1, 1, 17, 17)
    image[..., 8, :] = 1
    rotated = augment(image.expand(8, 3, 17, 17), OFF.model_copy(update={"rotate": 45.0}), 0)
    torch.testing.assert_close(rotated[:, :, 8, 8], torch.ones(8, 3), rtol=0, atol=1e-4)
    assert (rotated[:, 0, 8, 0] < 0.9).any()
    assert rotated[:, 0, :, 0].sum(1).std() > 0


def test_brightness_and_contrast():
    grey = torch.full((4, 3, 8, 8), 0.5)
    brighter = augment(grey, OFF.model_copy(update={"brightness": 0.2}), 0)
    assert (brighter - 0.5).abs().max() <= 0.2
    assert brighter.std(dim=(1, 2, 3)).max() < 1e-6
    assert brighter.mean(dim=(1, 2, 3)).std() > 0
    kept = augment(grey, OFF.model_copy(update={"contrast": 0.5}), 0)
    torch.testing.assert_close(kept, grey)
