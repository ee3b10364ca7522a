"""The networks behind neural forgeries: real ones, from the Python registry."""

import shutil

import cv2
import numpy as np
import pytest

from r2m.data.align import template
from r2m.errors import R2MError
from r2m.forge.networks import pool as pools
from r2m.forge.networks import stylegan
from r2m.forge.networks.dcgan import DCGAN
from r2m.forge.networks.esrgan import FACTOR, NAME, Upscaler
from r2m.forge.networks.faces import FaceReader, smile, yaw
from r2m.forge.networks.network import Network
from r2m.forge.networks.stylegan import Mapping, StyleGAN
from r2m.forge.networks.styletransfer import StyleTransfer
from r2m.forge.registry import Face
from r2m.seeding import rng

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("networks")]


@pytest.fixture(scope="module")
def network(networks) -> StyleGAN:
    return StyleGAN(networks.packages["stylegan"], pools.read(networks.pool).read_out)


@pytest.fixture(scope="module")
def reader(networks) -> FaceReader:
    return FaceReader(networks.detector, networks.embedder)


def test_random_latents_become_faces(network, reader) -> None:
    for number in range(4):
        image = network.image(network.latent(rng(0, str(number))))
        assert image.shape == (128, 128, 3)
        assert reader.find(image) is not None
    np.testing.assert_array_equal(image, network.image(network.latent(rng(0, "3"))))


def test_the_read_out_is_close_to_the_whole_network(network, networks) -> None:
    folder = networks.packages["stylegan"]
    latent = network.latent(rng(0, "whole"))
    (whole,) = Network(folder / "SynthesisNetwork.xml")(latent[None])
    expected = stylegan.picture(whole[0].clip(-1, 1).reshape(3, 128, 8, 128, 8).mean(axis=(2, 4)))
    difference = network.image(latent).astype(float) - expected
    assert np.sqrt((difference**2).mean()) < 0.5 * expected.astype(float).std()


def test_the_read_out_is_a_correlation(network, networks) -> None:
    import torch

    generator = np.random.default_rng(0)
    features = generator.standard_normal((1, stylegan.CHANNELS, 9, 9), dtype=np.float32)
    kernel = generator.standard_normal((3, stylegan.CHANNELS, 3, 3), dtype=np.float32)
    expected = torch.nn.functional.conv2d(torch.from_numpy(features), torch.from_numpy(kernel), padding=1)
    np.testing.assert_allclose(stylegan._read_out(features, kernel), expected[0].numpy(), atol=1e-3)


def test_the_mean_latent_is_that_of_the_mapping(networks) -> None:
    mapping = Mapping(networks.packages["stylegan"])
    latents = np.stack([mapping(rng(0, "other", str(i))) for i in range(100)])
    mean = pools.read(networks.pool).mean
    assert np.linalg.norm(latents.mean(axis=0) - mean) < 0.5 * np.linalg.norm(latents - mean, axis=1).mean()


def test_inversion_finds_back_faces_of_the_pool(networks) -> None:
    pool = pools.read(networks.pool)
    inverted = np.stack([pool.inverted(row) for row in pool.descriptions])
    centred, found = pool.latents - pool.latents.mean(axis=0), inverted - pool.latents.mean(axis=0)
    own = (centred * found).sum(axis=1) / np.linalg.norm(centred, axis=1) / np.linalg.norm(found, axis=1)
    assert own.min() > 0.3
    np.testing.assert_allclose(
        pool.inverted(pool.descriptions.mean(axis=0)), pool.latents.mean(axis=0), atol=1e-4
    )


def test_a_direction_leads_from_low_to_high(networks) -> None:
    pool = pools.read(networks.pool)
    order = np.argsort(pool.smiles)
    count = len(order) // pools.PART
    expected = pool.latents[order[-count:]].mean(axis=0) - pool.latents[order[:count]].mean(axis=0)
    np.testing.assert_allclose(pool.direction("smiles"), expected, atol=1e-6)


def test_a_description_does_not_depend_on_the_place_of_the_face(network, reader) -> None:
    face = reader.find(network.image(network.latent(rng(0, "place"))))
    assert face is not None
    size, move = 160, np.float32([20, 12])
    larger = cv2.copyMakeBorder(face.image, 12, 20, 20, 12, cv2.BORDER_REFLECT_101)
    assert larger.shape == (size, size, 3)
    moved = Face(larger.astype(np.uint8), face.landmarks + move)
    ours, theirs = reader.describe(face), reader.describe(moved)
    assert ours @ theirs > 0.98 * np.linalg.norm(ours) * np.linalg.norm(theirs)


def test_measures_of_landmarks() -> None:
    points = template(100, 1.0)
    wide, turned = points.copy(), points.copy()
    wide[3, 0] -= 5
    turned[2, 0] += 8
    assert smile(wide) > smile(points)
    assert yaw(turned) > yaw(points) + 0.2
    assert yaw(points * 3) == pytest.approx(yaw(points), abs=1e-5)


def test_real_esrgan_enlarges_and_keeps_what_there_is(networks, network) -> None:
    upscaler = Upscaler(networks.packages["esrgan"])
    image = network.image(network.latent(rng(0, "esrgan")))
    small = cv2.resize(image, (64, 60), interpolation=cv2.INTER_AREA).astype(np.uint8)
    large = upscaler(small)
    assert large.shape == (60 * FACTOR, 64 * FACTOR, 3)
    back = cv2.resize(large, (64, 60), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(back - small).mean() < 8
    assert np.abs(back - small).mean() > 0.1


def test_style_transfer_takes_the_colours_of_the_style(networks, network) -> None:
    transfer = StyleTransfer(networks.packages["styletransfer"])
    image = network.image(network.latent(rng(0, "content")))
    blue, red = np.zeros((2, 64, 64, 3), np.uint8)
    blue[..., 0], red[..., 2] = 200, 200
    cold, warm = transfer(image, blue).astype(float), transfer(image, red).astype(float)
    assert cold.shape == image.shape
    assert (cold[..., 0] - cold[..., 2]).mean() > (warm[..., 0] - warm[..., 2]).mean() + 10


def test_dcgan_draws_images_that_differ(networks) -> None:
    network = DCGAN(networks.packages["dcgan"])
    images = [network.image(rng(0, str(number))) for number in range(3)]
    assert images[0].shape == (64, 64, 3)
    assert images[0].std() > 20
    assert np.abs(images[0].astype(float) - images[1]).mean() > 10
    np.testing.assert_array_equal(images[2], network.image(rng(0, "2")))


def test_files_that_are_no_networks_are_refused(networks, tmp_path) -> None:
    with pytest.raises(R2MError, match=r"nothing\.xml: no such network"):
        Network(tmp_path / "nothing.xml")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(R2MError, match=r"broken\.onnx: not a network"):
        Network(broken)
    (tmp_path / "weights.tar").write_bytes(b"no weights")
    with pytest.raises(R2MError, match=r"weights\.tar: not the weights of the DCGAN"):
        DCGAN(tmp_path)
    with pytest.raises(R2MError, match=r"x4\.param: not the weights of Real-ESRGAN"):
        Upscaler(tmp_path)
    shutil.copy(networks.packages["esrgan"] / f"{NAME}.param", tmp_path)
    (tmp_path / f"{NAME}.bin").write_bytes((networks.packages["esrgan"] / f"{NAME}.bin").read_bytes()[:5000])
    with pytest.raises(R2MError, match=r"x4\.bin: not the weights of Real-ESRGAN"):
        Upscaler(tmp_path)
    with pytest.raises(R2MError, match=r"pool\.safetensors: not a pool"):
        pools.read(tmp_path / "pool.safetensors")
