"""Photographs of every sort: at the size of the detector's input, and very large ones."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from r2m.data import images
from r2m.data.images import bgr_of, read_image, read_square, resized

SIDE, SIZE = 48, 24


@pytest.fixture
def colours() -> np.ndarray:
    """RGB that every encoder keeps well: slow waves."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    waves = [128 + 90 * np.sin(3 * x + k) * np.cos(2 * y + k) for k in range(3)]
    return np.stack(waves, axis=2).astype(np.uint8)


def write_sixteen_bits(path: Path, rgb: np.ndarray) -> None:
    cv2.imwrite(str(path), rgb[..., ::-1].astype(np.uint16) * 257)


def write_turned(path: Path, rgb: np.ndarray) -> None:
    exif = Pillow.Exif()
    exif[274] = 6
    Pillow.fromarray(np.ascontiguousarray(np.rot90(rgb))).save(path, exif=exif, quality=100, subsampling=0)


def saved(convert: Callable[[Pillow.Image], Pillow.Image] = lambda image: image, **options: object) -> object:
    return lambda path, rgb: convert(Pillow.fromarray(rgb)).save(path, **options)


BLANK = Pillow.new("RGB", (SIDE, SIDE))
KINDS: dict[str, object] = {
    "plain.png": saved(),
    "plain.jpg": saved(quality=95),
    "palette.png": saved(lambda image: image.quantize(256)),
    "alpha.png": saved(lambda image: image.convert("RGBA")),
    "cmyk.jpg": saved(lambda image: image.convert("CMYK"), quality=95),
    "exif.jpg": write_turned,
    "exif.png": write_turned,
    "still.webp": saved(quality=95),
    "still.avif": saved(quality=95),
    "animated.webp": saved(save_all=True, append_images=[BLANK] * 2, quality=95),
    "animated.png": saved(save_all=True, append_images=[BLANK] * 2),
    "rgb16.png": write_sixteen_bits,
    "rgb16.tiff": write_sixteen_bits,
    "rgb16.ppm": write_sixteen_bits,
    "tiled 图片 ñ.bmp": saved(),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_read_and_resized(tmp_path: Path, colours: np.ndarray, name: str) -> None:
    KINDS[name](tmp_path / name, colours)
    expected = resized(np.ascontiguousarray(colours[..., ::-1]), SIZE).astype(float)
    image = read_square(tmp_path / name, SIZE)
    assert image.shape == (SIZE, SIZE, 3)
    assert image.dtype == np.uint8
    assert np.abs(image - expected).mean() < 4
    np.testing.assert_array_equal(image, resized(read_image(tmp_path / name)[0], SIZE))


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_read_at_its_own_size(tmp_path: Path, colours: np.ndarray, name: str) -> None:
    KINDS[name](tmp_path / name, colours)
    assert np.abs(read_square(tmp_path / name, SIDE) - colours[..., ::-1].astype(float)).mean() < 4


@pytest.mark.parametrize(
    "name", ["plain.png", "plain.jpg", "palette.png", "cmyk.jpg", "exif.jpg", "rgb16.png"]
)
def test_the_exact_size_has_the_bits_of_opencv(tmp_path: Path, colours: np.ndarray, name: str) -> None:
    KINDS[name](tmp_path / name, colours)
    np.testing.assert_array_equal(read_square(tmp_path / name, SIDE), cv2.imread(str(tmp_path / name)))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_grey_of_sixteen_bits_is_scaled_at_any_size(tmp_path: Path, colours: np.ndarray, suffix: str) -> None:
    grey = colours[..., 0]
    Pillow.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / f"a.{suffix}")
    expected = np.repeat(grey[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(read_square(tmp_path / f"a.{suffix}", SIDE), expected)
    np.testing.assert_array_equal(read_square(tmp_path / f"a.{suffix}", SIZE), resized(expected, SIZE))


@pytest.mark.parametrize("size", [SIDE, SIZE])
@pytest.mark.parametrize(
    ("channels", "dtype", "reason"),
    [
        (3, np.float32, "pixels of float32, expected 8 or 16 bits"),
        (3, np.float64, "pixels of float64, expected 8 or 16 bits"),
        (1, np.float32, "grey levels in floating point, expected 8 or 16 bits"),
    ],
)
def test_floating_point_is_not_guessed(
    tmp_path: Path, colours: np.ndarray, channels: int, dtype: type, reason: str, size: int
) -> None:
    cv2.imwrite(str(tmp_path / "a.tiff"), colours[..., :channels].astype(dtype) / 255)
    with pytest.raises(ValueError, match=f"^{reason}$"):
        read_square(tmp_path / "a.tiff", size)


def test_a_tiff_that_only_opencv_knows(
    tmp_path: Path, colours: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(file: object) -> None:
        raise images.UnidentifiedImageError

    write_sixteen_bits(tmp_path / "a.tiff", colours)
    monkeypatch.setattr(Pillow, "open", unknown)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tiff")[0], colours[..., ::-1])
    (tmp_path / "b.tiff").write_bytes(b"II*\x00" + b"\xff" * 40)
    with pytest.raises(ValueError, match="cannot be read: a TIFF of a kind that Pillow and OpenCV"):
        read_image(tmp_path / "b.tiff")


@pytest.mark.parametrize("size", [SIDE, SIZE])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_truncated_file_is_an_error_at_any_size(
    tmp_path: Path, colours: np.ndarray, suffix: str, size: int
) -> None:
    path = tmp_path / f"a.{suffix}"
    Pillow.fromarray(colours).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="cannot be read: "):
        read_square(path, size)


def test_what_is_far_from_square_is_refused(tmp_path: Path) -> None:
    for name, shape in {"wide": (30, 120, 3), "about": (30, 90, 3), "tall": (120, 30, 3)}.items():
        noise = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{name}.png"), noise)
    assert read_square(tmp_path / "about.png", SIZE).shape == (SIZE, SIZE, 3)
    with pytest.raises(ValueError, match="no aligned crop: 120×30 pixels, expected about a square"):
        read_square(tmp_path / "wide.png", SIZE)
    with pytest.raises(ValueError, match="30×120 pixels"):
        read_square(tmp_path / "tall.png", SIZE)


def test_a_blank_picture_is_read_and_a_dot_is_not(tmp_path: Path) -> None:
    Pillow.new("RGB", (SIDE, SIDE)).save(tmp_path / "blank.png")
    assert not read_square(tmp_path / "blank.png", SIZE).any()
    Pillow.new("RGB", (8, 8)).save(tmp_path / "dot.png")
    with pytest.raises(ValueError, match="too small: 8×8 pixels, expected 16 or more each way"):
        read_square(tmp_path / "dot.png", SIZE)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A photograph of `SIDE` counts as large: it has to be halved."""
    monkeypatch.setattr(images, "MOST_PIXELS", SIDE * SIDE // 4)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("name", KINDS)
def test_a_large_photograph_is_halved(tmp_path: Path, colours: np.ndarray, name: str) -> None:
    KINDS[name](tmp_path / name, colours)
    image = read_image(tmp_path / name)[0]
    assert image.shape == (SIDE // 2, SIDE // 2, 3)
    expected = cv2.resize(colours[..., ::-1], (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)
    assert np.abs(image - expected.astype(float)).mean() < 4


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_a_large_photograph_of_sixteen_bits(tmp_path: Path, colours: np.ndarray, suffix: str) -> None:
    Pillow.fromarray(colours[..., 1].astype(np.uint16) * 257).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")[0]
    expected = cv2.resize(colours[..., 1], (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)
    assert np.abs(image - expected[..., None].astype(float)).max() <= 1


@pytest.mark.usefixtures("large")
def test_the_factor_is_the_least_that_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (61, 91, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), noise)
    for most, shape in ((61 * 91, (61, 91)), (61 * 91 - 1, (31, 46)), (61 * 91 // 4, (21, 31))):
        monkeypatch.setattr(images, "MOST_PIXELS", most)
        assert read_image(tmp_path / "a.png")[0].shape[:2] == shape
        assert read_square(tmp_path / "a.png", 16).shape == (16, 16, 3)


@pytest.mark.usefixtures("large")
def test_the_callers_own_picture_stays_as_it_is(tmp_path: Path, colours: np.ndarray) -> None:
    Pillow.fromarray(colours).save(tmp_path / "a.jpg")
    with Pillow.open(tmp_path / "a.jpg") as image:
        assert bgr_of(image).shape == (SIDE // 2, SIDE // 2, 3)
        assert image.size == (SIDE, SIDE)
        assert np.asarray(image).shape == (SIDE, SIDE, 3)
