"""A detector in one file, and a folder of drawn photographs and a video with faces that are discs."""

import cv2
import numpy as np
import pytest

from detector_samples import save_whole
from drawn_videos import disc_detector, two_faces, write_video
from r2m.models import checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory, base_files):
    """A detector with all its tensors, described as its base is."""
    return save_whole(base_files["convnet"], tmp_path_factory.mktemp("whole") / "model.safetensors")


@pytest.fixture
def faces(tmp_path):
    """The folder of the face detector."""
    folder = tmp_path / "faces"
    folder.mkdir()
    with disc_detector(folder):
        yield folder


@pytest.fixture
def media(tmp_path):
    """Two photographs, one without a face, one that is damaged, and a video of two faces."""
    folder = tmp_path / "media"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), two_faces(1)[0])
    write_video(folder / "b.mp4", two_faces(12))
    blue = np.random.default_rng(0).integers((120, 0, 0), (256, 30, 30), (64, 64, 3))
    cv2.imwrite(str(folder / "c.png"), blue.astype(np.uint8))
    (folder / "d.jpg").write_bytes(b"no image")
    cv2.imwrite(str(folder / "e.png"), two_faces(2)[1])
    return folder


@pytest.fixture
def specialists(tmp_path, base_files):
    """A folder of two specialists, which differ from the base in their heads."""
    base = base_files["convnet"]
    head, metadata = checkpoint.load(base.parent / "initial_head.safetensors")
    folder = tmp_path / "specialists"
    for name, factor in {"swap": 3.0, "up": -2.0}.items():
        own = {key: factor * tensor for key, tensor in head.items()}
        path = folder / name / "seed2/model.safetensors"
        path.parent.mkdir(parents=True)
        checkpoint.save(path, own, metadata | {"name": name, "seed": "2"})
    return folder
