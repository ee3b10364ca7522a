from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from PIL import Image as Pillow

from r2m.data.images import read_image


@pytest.fixture
def grey() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 30)).astype(np.uint8)


@pytest.fixture
def colours() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (40, 30, 3)).astype(np.uint8)


def read(path: Path) -> np.ndarray:
    return read_image(path)[0]


def reason(path: Path) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        read_image(path)
    return str(caught.value)


def test_colours_come_as_bgr_with_the_digest_of_the_file(tmp_path: Path, colours: np.ndarray) -> None:
    Pillow.fromarray(colours).save(tmp_path / "a.png")
    image, digest = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image, colours[:, :, ::-1])
    assert digest == blake3((tmp_path / "a.png").read_bytes()).hexdigest()


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, grey: np.ndarray, suffix: str) -> None:
    Pillow.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read(tmp_path / f"a.{suffix}"), np.repeat(grey[:, :, None], 3, axis=2))


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "tiff", "tga"])
def test_other_kinds_that_lose_nothing(tmp_path: Path, grey: np.ndarray, suffix: str) -> None:
    Pillow.fromarray(grey).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read(tmp_path / f"a.{suffix}"), np.repeat(grey[:, :, None], 3, axis=2))


def test_opaque_alpha_and_first_picture_of_an_animation(tmp_path: Path, colours: np.ndarray) -> None:
    opaque = Pillow.fromarray(np.dstack([colours, np.full(colours.shape[:2], 255, np.uint8)]))
    opaque.save(tmp_path / "a.png", save_all=True, append_images=[Pillow.new("RGBA", opaque.size)] * 2)
    np.testing.assert_array_equal(read(tmp_path / "a.png"), colours[:, :, ::-1])


def test_exif_turns_upright(tmp_path: Path, colours: np.ndarray) -> None:
    exif = Pillow.Exif()
    exif[274] = 6
    Pillow.fromarray(np.rot90(colours)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "a.png"), colours[:, :, ::-1])


def test_content_decides_not_the_suffix(tmp_path: Path, colours: np.ndarray) -> None:
    Pillow.fromarray(colours).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read(tmp_path / "a.jpg"), colours[:, :, ::-1])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><title>Virus scan warning</title>", "HTML"),
        (b"\x00\x05\x16\x07" * 20, "no image that Pillow knows"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 40, "cannot be read"),
    ],
)
def test_what_is_no_image_is_told(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert expected in reason(tmp_path / "a.jpg")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert reason(tmp_path / "a.jpg") == "cannot be read: No such file or directory"
    assert "directory" in reason(tmp_path)


@pytest.mark.parametrize("size", [(1, 1), (2, 2000), (3000, 1), (15, 100)])
def test_strips_and_dots_are_too_small(tmp_path: Path, size: tuple[int, int]) -> None:
    Pillow.effect_noise(size, 50).save(tmp_path / "a.png")
    assert reason(tmp_path / "a.png").startswith(f"too small: {size[0]}×{size[1]} pixels")


def test_masks_and_blank_pictures_show_no_face(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    Pillow.fromarray(mask).save(tmp_path / "blank.png")
    mask[20:40, 20:40] = 255
    Pillow.fromarray(mask).save(tmp_path / "mask.png")
    assert reason(tmp_path / "blank.png") == reason(tmp_path / "mask.png")
    assert "mask" in reason(tmp_path / "mask.png")


def test_transparent_pixels_are_not_guessed(tmp_path: Path, colours: np.ndarray) -> None:
    alpha = np.full(colours.shape[:2], 255, np.uint8)
    alpha[:10] = 0
    Pillow.fromarray(np.dstack([colours, alpha])).save(tmp_path / "a.png")
    assert "transparent: 25% of its pixels" in reason(tmp_path / "a.png")


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_of_unknown_range_are_not_guessed(tmp_path: Path, grey: np.ndarray, dtype: type) -> None:
    Pillow.fromarray(grey.astype(dtype) * 1000).save(tmp_path / "a.tiff")
    assert "expected 8 or 16 bits" in reason(tmp_path / "a.tiff")


def test_a_decompression_bomb_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pillow.new("L", (200, 200)).save(tmp_path / "a.png")
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 1000)
    assert "decompression bomb" in reason(tmp_path / "a.png")
