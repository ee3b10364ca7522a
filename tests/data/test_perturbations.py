import cv2
import numpy as np
import pytest

from r2m.data import perturbations


@pytest.fixture
def image():
    random = np.random.default_rng(0)
    smooth = cv2.resize(random.integers(0, 256, (6, 6, 3)).astype(np.uint8), (48, 48))
    return np.clip(smooth + random.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


LEVELS = {
    "jpeg": [90, 40, 10],
    "blur": [(5, 0.5), (7, 1.0), (13, 2.0)],
    "noise": [0.01, 0.05, 0.2],
    "resize": [0.8, 0.5, 2 / 7],
    "saturation": [0.85, 0.6, 0.35],
    "contrast": [0.85, 0.6, 0.35],
}


@pytest.mark.parametrize("name", perturbations.PERTURBATIONS)
def test_each_level_is_farther_from_the_image(image, name):
    before = image.copy()
    found = [perturbations.perturbed(image, name, level, 0, "a") for level in LEVELS[name]]
    assert all(one.dtype == np.uint8 and one.shape == image.shape for one in found)
    errors = [np.abs(one.astype(float) - image).mean() for one in found]
    assert errors == sorted(errors)
    assert errors[0] > 0
    assert np.array_equal(image, before)


def test_a_perturbation_is_one_function(image, monkeypatch):
    monkeypatch.setattr(perturbations, "PERTURBATIONS", dict(perturbations.PERTURBATIONS))

    @perturbations.perturbation(level=float, description="shares", title="Darkened to")
    def darken(image, share):
        return (image * share).astype(np.uint8)

    @perturbations.perturbation(level=int, description="pixels", title="Shifted by", axis="Shift (px)")
    def shift(image, most, random):
        return np.roll(image, random.integers(1, most + 1), axis=1)

    assert list(perturbations.PERTURBATIONS)[-2:] == ["darken", "shift"]
    assert perturbations.PERTURBATIONS["darken"].axis == "Darkened to"
    assert perturbations.PERTURBATIONS["darken"].level_text(0.5) == "0.5"
    assert np.array_equal(perturbations.perturbed(image, "darken", 0.5, 0, "a"), darken(image, 0.5))
    shifted = [perturbations.perturbed(image, "shift", 20, 0, name).tobytes() for name in "aabcde"]
    assert shifted[0] == shifted[1]
    assert len(set(shifted)) > 1


def test_levels_without_effect(image):
    assert np.array_equal(perturbations.saturation(image, 1.0), image)
    assert np.array_equal(perturbations.contrast(image, 1.0), image)
    assert np.array_equal(perturbations.blur(image, (1, 1.0)), image)


def test_saturation_and_contrast_keep_what_they_should(image):
    grey = perturbations.saturation(image, 0.0)
    assert np.ptp(grey.astype(int), axis=2).max() == 0
    flat = perturbations.contrast(image, 0.0)
    assert np.ptp(flat.astype(int)) == 0
    assert abs(int(flat[0, 0, 0]) - cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).mean()) <= 0.5


def test_noise_has_its_sigma_and_is_the_same_for_the_same_image():
    grey = np.full((64, 64, 3), 128, np.uint8)
    first = perturbations.perturbed(grey, "noise", 0.05, 0, "a")
    assert np.array_equal(first, perturbations.perturbed(grey, "noise", 0.05, 0, "a"))
    for seed, image_id in ((0, "b"), (1, "a")):
        assert not np.array_equal(first, perturbations.perturbed(grey, "noise", 0.05, seed, image_id))
    assert (first.astype(float) - 128).std() == pytest.approx(0.05 * 255, rel=0.05)


def test_blur_is_a_convolution_with_a_gaussian():
    point = np.zeros((15, 15, 3), np.uint8)
    point[7, 7] = 255
    x = np.exp(-(np.arange(-3, 4) ** 2) / 2)
    kernel = np.outer(x, x) / x.sum() ** 2
    np.testing.assert_allclose(perturbations.blur(point, (7, 1.0))[4:11, 4:11, 0], 255 * kernel, atol=1)
