"""Forgeries that run networks, on faces of the StyleGAN that stand for photographs."""

import cv2
import numpy as np
import pytest

from r2m.data.align import template
from r2m.forge import registry
from r2m.forge.forgeries import stylegan
from r2m.forge.networks import pool as pools
from r2m.forge.networks.faces import FaceReader
from r2m.forge.networks.stylegan import StyleGAN
from r2m.forge.paste import covers, moved_onto
from r2m.forge.registry import Face, NoFake
from r2m.seeding import rng

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("networks")]

NEURAL = [name for name in registry.names() if registry.get(name).packages]
OF_THE_GAN = [name for name in NEURAL if registry.get(name).needs_pool]
WHOLE = ("gan", "dcgan")
SIZE, MARGIN = 144, 1.15


@pytest.fixture(scope="module")
def photographs(networks) -> list[Face]:
    """Six aligned faces, as near to photographs as drawn ones are not."""
    network = StyleGAN(networks.packages["stylegan"], pools.read(networks.pool).read_out)
    reader = FaceReader(networks.detector, networks.embedder)
    faces = []
    for number in range(6):
        made = reader.find(network.image(network.latent(rng(5, str(number)))))
        assert made is not None
        landmarks = template(SIZE, MARGIN)
        faces.append(Face(moved_onto(made, landmarks, SIZE), landmarks))
    return faces


@pytest.fixture(scope="module")
def states(networks) -> dict[str, object]:
    prepare = {name: registry.get(name).prepare for name in NEURAL}
    made = {function: function(networks.materials()) for function in {*prepare.values()}}
    return {name: made[function] for name, function in prepare.items()}


def forged(name, photographs, states, number=0, **options) -> np.ndarray | None:
    forgery = registry.get(name)
    donor = photographs[number - 1] if forgery.needs_donor else None
    try:
        return forgery.function(
            photographs[number], donor, rng(0, name, str(number)), state=states[name], **options
        )
    except NoFake:
        return None


@pytest.mark.parametrize("name", NEURAL)
def test_fakes_are_images_that_depend_on_seed_and_photograph_alone(name, photographs, states) -> None:
    fakes = [forged(name, photographs, states, number) for number in range(6)]
    made = [number for number, fake in enumerate(fakes) if fake is not None]
    assert len(made) >= 3
    for number in made:
        fake, real = fakes[number], photographs[number].image
        assert fake.shape == real.shape
        assert fake.dtype == np.uint8
        assert np.abs(fake.astype(float) - real).mean() > 0.3
    # Alone, and in another order.
    np.testing.assert_array_equal(forged(name, photographs, states, made[-1]), fakes[made[-1]])
    np.testing.assert_array_equal(forged(name, photographs, states, made[0]), fakes[made[0]])


@pytest.mark.parametrize("name", [name for name in NEURAL if name not in (*WHOLE, "gan_edit")])
def test_pasted_faces_leave_the_border_as_it_is(name, photographs, states) -> None:
    for number in range(6):
        fake = forged(name, photographs, states, number)
        if fake is not None:
            corner = np.s_[:6, :6]
            np.testing.assert_allclose(fake[corner], photographs[number].image[corner].astype(int), atol=1)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_faces_lie_where_the_photograph_has_its_face(name, photographs, states, networks) -> None:
    reader = FaceReader(networks.detector, networks.embedder)
    distances = []
    for number in range(6):
        fake = forged(name, photographs, states, number)
        found = None if fake is None else reader.find(fake)
        if found is not None:
            distances.append(np.abs(found.landmarks - photographs[number].landmarks).mean())
    assert np.median(distances) < 0.06 * SIZE


@pytest.mark.parametrize("name", ["gan_swap", "esrgan", "relight"])
def test_strength_is_opacity(name, photographs, states) -> None:
    changes = []
    for strength in (0.2, 1.0):
        fakes = [forged(name, photographs, states, number, strength=strength) for number in range(6)]
        real = [face.image.astype(float) for face in photographs]
        changes.append([np.abs(fake - real[i]).mean() for i, fake in enumerate(fakes) if fake is not None])
    assert np.mean(changes[0]) < 0.5 * np.mean(changes[1])


def test_the_mouth_alone_changes_with_the_expression(photographs, states) -> None:
    for number in range(6):
        fake = forged("gan_smile", photographs, states, number)
        if fake is not None:
            real = photographs[number].image.astype(int)
            eyes = slice(int(photographs[number].landmarks[:2, 1].max()))
            np.testing.assert_allclose(fake[eyes], real[eyes], atol=1)


def test_failures_are_told(photographs, states, monkeypatch) -> None:
    monkeypatch.setattr(stylegan, "MOST_TURNED", -1.0)
    for name in OF_THE_GAN:
        if name != "gan":
            assert forged(name, photographs, states) is None
    monkeypatch.setattr(FaceReader, "find", lambda *_: None)
    for name in (*OF_THE_GAN, "dcgan"):
        forgery = registry.get(name)
        donor = photographs[1] if forgery.needs_donor else None
        with pytest.raises(NoFake, match=r"generated image"):
            forgery.function(photographs[0], donor, rng(0, name), state=states[name])


def test_a_face_that_does_not_cover_the_crop_is_not_shown_whole(photographs) -> None:
    near = Face(cv2.resize(photographs[0].image, (96, 96)).astype(np.uint8), template(96, 0.8))
    assert not covers(near, template(SIZE, 1.3), SIZE)
    assert covers(Face(photographs[0].image, template(SIZE, 1.3)), template(SIZE, 1.15), SIZE)
