import cv2
import numpy as np
import pytest
import torch

from r2m.data.images import resized
from r2m.errors import R2MError
from r2m.models.preprocess import load_images, normalization, stacked


def test_rgb_in_the_order_of_the_paths(tmp_path):
    blue = np.zeros((4, 4, 3), np.uint8)
    blue[..., 0] = 255
    cv2.imwrite(str(tmp_path / "blue.png"), blue)
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((4, 4), 51, np.uint8))
    images = load_images([tmp_path / "blue.png", tmp_path / "grey.png"], 4)
    assert images.shape == (2, 3, 4, 4)
    assert images.dtype == torch.float32
    assert images[0, :, 0, 0].tolist() == [0, 0, 1]
    assert images[1].unique().tolist() == [pytest.approx(0.2)]


@pytest.mark.parametrize("content", [None, b"", b"not an image"])
def test_unreadable_images_are_named(tmp_path, content):
    path = tmp_path / "broken.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(R2MError, match=r"broken\.jpg: cannot be read: .*; the manifest lists it"):
        load_images([path], 4)


def test_other_sizes_are_resized_and_oblong_ones_told(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (40, 90, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image[:, :50])
    cv2.imwrite(str(tmp_path / "wide.png"), image[:20])
    expected = stacked([resized(image[:, :50], 24)])
    assert torch.equal(load_images([tmp_path / "a.png"], 24), expected)
    with pytest.raises(R2MError, match=r"wide\.png: no aligned crop: 90×20 pixels, expected about a square"):
        load_images([tmp_path / "wide.png"], 24)


def test_normalization_is_the_pretrained_models():
    mean, std = normalization("vit_base_patch16_clip_quickgelu_224")
    assert mean.flatten().tolist() == pytest.approx([0.4815, 0.4578, 0.4082], abs=1e-4)
    assert std.shape == (3, 1, 1)
    mean, std = normalization("no_such_model")
    assert mean.flatten().tolist() == std.flatten().tolist() == [0.5, 0.5, 0.5]
