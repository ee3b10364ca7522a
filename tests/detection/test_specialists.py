"""What specialists say of faces that are not called real."""

from dataclasses import replace

import numpy as np
import pytest

import r2m
from r2m.detection.detecting import Detection, ScoredFace, detect
from r2m.detection.finding import FaceFinder
from r2m.detection.lines import lines_of
from r2m.detection.listing import files_of, specialist_files
from r2m.detection.specialists import load_specialists
from r2m.detection.tables import rows_of
from r2m.errors import R2MError
from r2m.models.decision import Decision

pytestmark = pytest.mark.usefixtures("one_thread")


def deciding(detector, threshold):
    """The detector with another threshold of probability."""
    return replace(detector, config=detector.config.model_copy(update={"threshold": threshold}))


@pytest.fixture
def detector(model):
    """A detector that calls every face fake."""
    return deciding(r2m.load(model, device="cpu"), 0.0)


@pytest.fixture
def loaded(specialists, base_files, detector):
    files = specialist_files([specialists])
    return load_specialists(files, base_files["convnet"], detector.config, device="cpu")


def test_every_face_has_what_specialists_say_of_its_crop(detector, loaded, media, faces):
    found = r2m.detect(media, detector, faces=faces, every=True, frames=4, specialists=loaded)
    finder = FaceFinder(detector.config, faces / "yunet.onnx", every=True, frames=4)
    for one, seen in zip(found, map(finder, files_of([media])), strict=True):
        assert len(one.faces) == len(seen.faces)
        for name, specialist in loaded.items() if seen.faces else ():
            expected = specialist.probabilities([face.crop[..., ::-1] for face in seen.faces])
            said = [face.responses[name] for face in one.faces]
            np.testing.assert_allclose(said, expected, atol=1e-5)
    responses = found[0].faces[0].responses
    name, probability = found[0].closest
    own = [np.mean([face.responses[name] for face in found[0].of(number)]) for number in (0, 1)]
    assert list(responses) == ["swap", "up"]
    assert probability in own


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batches_change_nothing(detector, loaded, media, faces, batch_size):
    finder = FaceFinder(detector.config, faces / "yunet.onnx", every=True, frames=4)
    found = detect(files_of([media]), detector, finder, specialists=loaded, batch_size=batch_size)
    expected = r2m.detect(media, detector, faces=faces, every=True, frames=4, specialists=loaded)
    for one, other in zip(found, expected, strict=True):
        for face, same in zip(one.faces, other.faces, strict=True):
            assert face.responses == pytest.approx(same.responses, abs=1e-5)


def test_of_reals_nothing_is_asked(detector, loaded, media, faces):
    found = r2m.detect(media, deciding(detector, 1.1), faces=faces, specialists=loaded)
    assert [one.closest for one in found] == [None] * 5
    assert not any(face.responses for one in found for face in one.faces)
    found = r2m.detect(media, detector, faces=faces)
    assert [one.closest for one in found] == [None] * 5


def face(number, seconds, probability, **responses):
    return ScoredFace(number, (1, 2, 3, 4), seconds, 0.0, probability, responses)


def test_a_track_has_the_mean_of_its_frames():
    video = Detection(
        "v.mp4",
        Decision(),
        [
            face(0, 0.0, 0.9, gan=0.2, swap=0.1),
            face(0, 1.0, 0.4, gan=0.2, swap=0.5),
            face(1, 0.0, 0.1, gan=0.9, swap=0.1),
        ],
    )
    assert video.closest == ("swap", pytest.approx(0.3))
    rows = [(row["level"], row["closest"], row["closest_probability"]) for row in rows_of(video)]
    swap = pytest.approx(0.3)
    assert rows == [
        ("frame", "gan", 0.2),
        ("frame", None, None),
        ("frame", None, None),
        ("track", "swap", swap),
        ("track", None, None),
        ("video", "swap", swap),
    ]
    assert list(lines_of(video, 5)) == [
        "v.mp4  fake    0.650  like swap 0.30  face 0  █▄",
        "       real    0.100  face 1  ▁",
    ]


def test_folders_of_specialists(specialists, tmp_path):
    (specialists / "up/seed10").mkdir()
    (specialists / "up/seed10/model.safetensors").write_bytes(b"")
    (specialists / "none").mkdir()
    swap, up = (specialists / name / "seed2/model.safetensors" for name in ("swap", "up"))
    assert specialist_files([specialists]) == [swap, up]
    assert specialist_files([up, specialists]) == [up, swap]
    with pytest.raises(R2MError, match=r"gone: no such file or folder"):
        specialist_files([tmp_path / "gone"])
    with pytest.raises(R2MError, match=r"none: no specialists; expected \*/seed\*/model\.safetensors"):
        specialist_files([specialists / "none"])


def test_specialists_that_do_not_fit(specialists, base_files, detector, tmp_path):
    files, base = specialist_files([specialists]), base_files["convnet"]
    with pytest.raises(R2MError, match=r"model\.safetensors: lacks .* give its base as well"):
        load_specialists(files, None, detector.config)
    copied = tmp_path / "copy.safetensors"
    copied.write_bytes(files[0].read_bytes())
    with pytest.raises(R2MError, match=r"copy\.safetensors: a second specialist 'swap'"):
        load_specialists([*files, copied], base, detector.config, device="cpu")
    other = detector.config.model_copy(update={"margin": 2.0})
    with pytest.raises(R2MError, match=r"model\.safetensors: margin 1\.\d+; expected 2\.0, as the model has"):
        load_specialists(files, base, other, device="cpu")
