import importlib
import time
from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
import pytest

from r2m.data.align import template
from r2m.data.images import Image
from r2m.errors import R2MError
from r2m.forge import registry
from r2m.forge.cues import spectrum_cues
from r2m.forge.forgeries.synthesize import PATCH, fit_autoencoder, from_patches, to_patches
from r2m.forge.generate import as_coloured, nearest_donors
from r2m.forge.paste import match_spectrum
from r2m.forge.registry import Face, Forgery, Materials
from r2m.seeding import rng

SIZE = 144
LANDMARKS = template(SIZE, 1.3)


def face(seed: int, colour: bool = True) -> Image:
    """A drawn face with texture at the places of the template."""
    stream = np.random.default_rng(seed)
    noise = stream.normal(0, 12, (SIZE, SIZE, 3)) + stream.uniform(60, 160, 3)
    image = np.clip(cv2.GaussianBlur(noise, (0, 0), 0.8), 0, 255).astype(np.uint8)
    cv2.ellipse(image, (72, 84), (40, 52), 0, 0, 360, stream.uniform(90, 220, 3).tolist(), -1)
    for x, y in LANDMARKS.astype(int).tolist():
        cv2.circle(image, (x, y), 6, stream.uniform(0, 90, 3).tolist(), -1)
    image = np.clip(image + stream.normal(0, 5, image.shape), 0, 255).astype(np.uint8)
    return image if colour else cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)


def prepared(forgery: Forgery, reals: Iterable[Image]) -> dict[str, Any]:
    return {} if forgery.prepare is None else {"state": forgery.prepare(Materials(reals))}


def forge(name: str, image: Image, seed: int = 0, **options: float) -> Image:
    forgery = registry.get(name)
    state = prepared(forgery, [face(i) for i in range(20, 24)])
    donor = Face(face(99), LANDMARKS + 1) if forgery.needs_donor else None
    return forgery.function(Face(image, LANDMARKS), donor, rng(seed, name), **state, **options)


# Those that run no network.
CLASSICAL = [name for name in registry.names() if not registry.get(name).packages]


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_forgery_changes_the_image_a_little_and_reproducibly(name: str) -> None:
    image = face(1)
    before = image.copy()
    fake = forge(name, image)
    assert fake.shape == image.shape
    assert fake.dtype == np.uint8
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(fake, forge(name, image))
    change = np.abs(fake.astype(float) - image).mean()
    assert 0.1 < change < 25
    assert (fake != forge(name, image, seed=1)).any()


@pytest.mark.parametrize("name", CLASSICAL)
def test_grey_stays_grey(name: str) -> None:
    fake = forge(name, face(1, colour=False)).astype(int)
    if not registry.get(name).needs_donor and name != "ae":
        assert np.abs(fake - fake.mean(axis=2, keepdims=True)).max() <= 1


@pytest.mark.parametrize("name", CLASSICAL)
def test_strength_scales_the_change(name: str) -> None:
    image = face(1).astype(float)
    weak, strong = (np.abs(forge(name, face(1), strength=s) - image).mean() for s in (0.3, 1.0))
    assert weak < strong


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_face_at_the_edge_and_of_another_size_is_no_error(name: str) -> None:
    forgery = registry.get(name)
    image = cv2.resize(face(1), (100, 100)).astype(np.uint8)
    landmarks = template(100, 1.0) + np.float32([30, 25])
    state = prepared(forgery, [image])
    donor = Face(image[:, ::-1].copy(), template(100, 1.0)) if forgery.needs_donor else None
    assert forgery.function(Face(image, landmarks), donor, rng(0, name), **state).shape == image.shape


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_forgery_is_fast(name: str) -> None:
    forgery = registry.get(name)
    state = prepared(forgery, [face(1)])
    image, donor = Face(face(1), LANDMARKS), Face(face(2), LANDMARKS)
    times = []
    for i in range(8):
        start = time.process_time()
        forgery.function(image, donor, rng(i, name), **state)
        times.append(time.process_time() - start)
    assert min(times) < 0.06


def test_every_forgery_is_in_the_module_that_the_registry_names() -> None:
    for name in registry.names():
        module = importlib.import_module(registry.get(name).module)
        assert registry.get(name).function is getattr(module, name)
        assert registry.get(name).family in ("FS", "FR", "EFS", "FE")


def test_unknown_forgery_and_option_are_named() -> None:
    with pytest.raises(R2MError, match="unknown forgery 'nope'"):
        registry.get("nope")
    with pytest.raises(R2MError, match=r"generators\.x\.options\.size: .* expected strength"):
        registry.get("ae").check_options({"size": 1.0}, "generators.x.options")


def test_nearest_donor_is_another_person() -> None:
    landmarks = np.stack([LANDMARKS + shift for shift in (0, 0.1, 3, 10)]).astype(np.float32)
    assert nearest_donors(landmarks, np.array(["a", "a", "b", "c"], dtype=object)).tolist() == [2, 2, 1, 2]
    assert nearest_donors(landmarks, np.array(["a"] * 4, dtype=object)).tolist() == [-1] * 4


def test_patches_are_undone_and_a_full_code_would_be_lossless() -> None:
    image = face(3)[:100, :100]
    np.testing.assert_array_equal(from_patches(to_patches(image), 100), image)
    state = fit_autoencoder(Materials([image]))
    np.testing.assert_allclose(state.basis.T @ state.basis, np.eye(state.basis.shape[1]), atol=1e-5)
    assert state.basis.shape[0] == PATCH * PATCH * 3
    with pytest.raises(R2MError, match="split 'train'"):
        fit_autoencoder(Materials([]))


def test_fakes_of_grey_photographs_are_grey_and_others_stay() -> None:
    fake = face(4)
    grey = as_coloured(fake, face(1, colour=False))
    assert (grey == grey[:, :, :1]).all()
    np.testing.assert_array_equal(as_coloured(fake, face(1)), fake)


def test_the_spectrum_of_a_photograph_is_taken_over_under_the_mask() -> None:
    photograph, everywhere = face(1), np.ones((SIZE, SIZE), np.float32)
    smooth = cv2.GaussianBlur(photograph, (0, 0), 0.5).astype(np.uint8)
    matched = match_spectrum(smooth, photograph, everywhere)
    before, after = (np.abs(spectrum_cues(i) - spectrum_cues(photograph)).max() for i in (smooth, matched))
    assert after < before / 2
    np.testing.assert_allclose(match_spectrum(photograph, photograph, everywhere), photograph, atol=1)


@pytest.mark.parametrize("size", [32, 33, 144])
def test_a_spectrum_can_be_taken_over_in_any_size(size: int) -> None:
    image = cv2.resize(face(1), (size, size)).astype(np.uint8)
    plain = np.full((size, size, 3), 90, np.uint8)
    everywhere = np.ones((size, size), np.float32)
    np.testing.assert_allclose(match_spectrum(image, image, everywhere), image, atol=1)
    np.testing.assert_allclose(match_spectrum(plain, image, everywhere), plain, atol=1)
    assert match_spectrum(image, plain, everywhere).std() < image.std()
