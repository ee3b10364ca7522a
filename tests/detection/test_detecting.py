"""Faces of photographs and videos, found, tracked and scored."""

import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.special import expit

import r2m
from detector_samples import SIZE
from drawn_videos import colour, two_faces, write_video
from r2m.data.images import encode
from r2m.detection.detecting import Detection, ScoredFace, detect
from r2m.detection.finding import FaceFinder
from r2m.detection.listing import files_of
from r2m.errors import R2MError
from r2m.models.decision import Decision, OperatingPoint

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def detector(model):
    return r2m.load(model, device="cpu")


def test_every_file_is_told_in_order(detector, media, faces):
    found = r2m.detect(media, detector, faces=faces)
    assert [one.path.name for one in found] == ["a.png", "b.mp4", "c.png", "d.jpg", "e.png"]
    assert [len(one.faces) for one in found] == [1, 12, 0, 0, 1]
    assert found[2].reason == "no face found with a score of 0.6 or more"
    assert found[3].reason.startswith("cannot be read")
    assert [one.decision == "" for one in found] == [False, False, True, True, False]


def test_a_detector_is_called_with_files(detector, media, faces):
    found = detector(media / "a.png", faces=faces, every=True)
    assert [found] == r2m.detect(media / "a.png", detector, faces=faces, every=True)
    assert detector([media], faces=faces) == r2m.detect(media, detector, faces=faces)
    assert detector([media / "b.mp4"], faces=faces, frames=3)[0].path.name == "b.mp4"
    assert detector(str(media / "d.jpg"), faces=faces).reason.startswith("cannot be read")
    with pytest.raises(R2MError, match=r"media: a folder; expected a file, or a list: detector\(\['"):
        detector(media, faces=faces)


def test_the_largest_face_or_every_one(detector, media, faces):
    (largest,) = r2m.detect(media / "a.png", detector, faces=faces)
    (both,) = r2m.detect(media / "a.png", detector, faces=faces, every=True)
    assert [face.number for face in both.faces] == [0, 1]
    assert (largest.faces[0].number, largest.faces[0].box) == (0, both.faces[0].box)
    assert largest.faces[0].logit == pytest.approx(both.faces[0].logit, abs=1e-5)
    assert both.faces[0].box == (16, 56, 49, 49), "a disc of radius 24 at (40, 80)"
    assert both.probability == max(both.mean(0), both.mean(1))


def test_faces_of_a_video_are_followed(detector, media, faces):
    finder = FaceFinder(detector.config, faces / "yunet.onnx", every=True, frames=6)
    seen = finder(media / "b.mp4")
    for number, name in enumerate(("red", "green")):
        own = [face for face in seen.faces if face.number == number]
        assert {colour(face.crop) for face in own} == {name}
        assert [face.seconds for face in own] == pytest.approx([frame / 25 for frame in (1, 3, 5, 7, 9, 11)])
    assert len(seen.faces) == 12


def test_a_face_that_does_not_last_is_none(detector, tmp_path, faces):
    pictures = two_faces(40, seen=[False] * 40)
    for picture in pictures[1:]:
        cv2.rectangle(picture, (100, 20), (255, 127), (128, 128, 128), -1)
    video = write_video(tmp_path / "v.mp4", pictures)
    (found,) = r2m.detect(video, detector, faces=faces, frames=40)
    assert found.reason == "no face lasts: none is on 8 of 40 frames"
    for picture in pictures:
        picture[:] = 128
    empty = write_video(tmp_path / "empty.mp4", pictures)
    (found,) = r2m.detect(empty, detector, faces=faces)
    assert found.reason == "no face found: none of 32 frames"


@pytest.mark.parametrize("name", ["pipe.jpg", "pipe.mp4"])
def test_a_pipe_is_told_and_not_waited_for(detector, media, faces, name):
    os.mkfifo(media / name)
    told = {one.path.name: one.reason for one in r2m.detect(media, detector, faces=faces)}
    assert told[name] == "cannot be read: no regular file"
    assert told["a.png"] == ""


@pytest.fixture
def encoded(image_sets, tmp_path):
    """Folders of crops: `images`, encoded as the workflow does, and `crops`, the same before that."""
    folders = tmp_path / "images", tmp_path / "crops"
    for folder in folders:
        folder.mkdir()
    for path in sorted((image_sets.paths("drawn")[0].parent / "images").iterdir())[:6]:
        crop = cv2.imread(str(path))
        content = encode(crop, SIZE, (82, 82), np.random.default_rng(0))
        (folders[0] / f"{path.stem}.jpg").write_bytes(content)
        cv2.imwrite(str(folders[1] / f"{path.stem}.png"), crop)
    return folders


def test_aligned_crops_have_the_workflow_score(detector, encoded):
    found = r2m.detect(encoded[0], detector, faces=None)
    table = r2m.score(encoded[0], detector)
    assert [str(one.path) for one in found] == table["path"].tolist()
    np.testing.assert_allclose([one.faces[0].logit for one in found], table["logit"], atol=1e-4)
    np.testing.assert_allclose([one.probability for one in found], table["probability"], atol=1e-5)


def test_lossless_crops_are_encoded_as_the_workflow_does(detector, encoded):
    scored = [[one.faces[0].logit for one in r2m.detect(folder, detector, faces=None)] for folder in encoded]
    np.testing.assert_allclose(scored[1], scored[0], atol=1e-4)
    as_they_are = r2m.score(encoded[1], detector)["logit"]
    assert np.abs(scored[1] - as_they_are).max() > 1e-3, "what is encoded is another image"


def test_crops_are_not_encoded_for_a_detector_of_such(detector, encoded):
    config = detector.config.model_copy(update={"jpeg_quality": None})
    find = FaceFinder(config, None, every=False, frames=1)
    for path in sorted(encoded[1].iterdir()):
        crop = cv2.resize(cv2.imread(str(path)), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(find(path).faces[0].crop, crop)


def test_only_jpegs_of_the_input_size_are_encoded_already(detector, encoded, tmp_path):
    find = FaceFinder(detector.config, None, every=False, frames=1)
    path = sorted(encoded[0].iterdir())[0]
    crop = cv2.imread(str(path))
    np.testing.assert_array_equal(find(path).faces[0].crop, crop)
    renamed = tmp_path / "crop.png"
    renamed.write_bytes(path.read_bytes())
    np.testing.assert_array_equal(find(renamed).faces[0].crop, crop)
    large = tmp_path / "large.jpg"
    cv2.imwrite(str(large), cv2.resize(crop, (2 * SIZE, 2 * SIZE)), [cv2.IMWRITE_JPEG_QUALITY, 100])
    resized = cv2.resize(cv2.imread(str(large)), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    once = cv2.imdecode(
        np.frombuffer(encode(resized, SIZE, (82, 82), np.random.default_rng(0)), np.uint8), cv2.IMREAD_COLOR
    )
    np.testing.assert_array_equal(find(large).faces[0].crop, once)


def test_photographs_in_memory(detector, media, faces):
    from_file = detector(media / "a.png", faces=faces, every=True)
    image = Image.open(media / "a.png")
    for given in (image, np.asarray(image.convert("RGB"))):
        found = detector(given, faces=faces, every=True)
        assert found.path == Path("image 0")
        assert found.faces == from_file.faces
    mixed = r2m.detect([media / "e.png", image, media / "b.mp4"], detector, faces=faces, frames=3)
    assert [one.path.name for one in mixed] == ["e.png", "image 1", "b.mp4"]
    assert mixed[1].faces[0].box == from_file.faces[0].box
    several = np.stack([np.asarray(image)] * 2)
    assert [str(one.path) for one in detector(several, faces=faces)] == ["image 0", "image 1"]
    assert detector(np.zeros((64, 64, 3), np.uint8), faces=faces).reason.startswith("blank")
    assert detector(np.zeros((0, 0, 3), np.uint8), faces=faces).reason


def test_aligned_crops_in_memory(detector, encoded):
    for folder in encoded:
        for path in sorted(folder.iterdir())[:2]:
            found = detector([path, Image.open(path)], faces=None)
            assert found[0].faces[0].logit == pytest.approx(found[1].faces[0].logit, abs=0.02), path
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 90, 3)).astype(np.uint8))
    assert detector(wide, faces=None).reason.startswith("no aligned crop: 90×20 pixels")


def test_nothing_is_given(detector, faces):
    assert detector([], faces=faces) == []
    assert r2m.detect([], detector, faces=faces) == []


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (None, {}, r"NoneType: expected a path, a PIL image or an RGB array \(H, W, 3\) of uint8, or a list"),
        (b"x.jpg", {}, r"bytes: expected a path"),
        ([3], {}, r"image 0: int; expected a path"),
        (np.zeros((4, 4)), {}, r"image 0: float64 \(4, 4\); expected a path, a PIL image or an RGB array"),
        ([np.zeros((4, 4, 4), np.uint8)], {}, r"image 0: uint8 \(4, 4, 4\); expected"),
        ("a.jpg", {"frames": 0}, r"frames=0; expected how many frames of a video are looked at, 1 or more"),
        ("a.jpg", {"frames": 2.5}, r"frames=2\.5; expected"),
        ("a.jpg", {"every": 0}, r"every=0; expected True, for every face, or False, for the largest"),
    ],
)
def test_what_is_no_media(detector, faces, given, options, message):
    with pytest.raises(R2MError, match=message):
        detector(given, faces=faces, **options)


def test_a_path_is_no_detector(detector, media, faces):
    expected = r"detector: a str; expected what r2m\.load returns: r2m\.{}\({}, r2m\.load\('m\.st'\)\)"
    with pytest.raises(R2MError, match=expected.format("detect", "paths")):
        r2m.detect(media, "m.st", faces=faces)
    with pytest.raises(R2MError, match=expected.format("score", "images")):
        r2m.score(media, "m.st")
    with pytest.raises(R2MError, match=r"specialists=\{'gan': r2m\.load\('m\.st'\)\}"):
        r2m.detect(media, detector, faces=faces, specialists={"gan": "m.st"})


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("threads", [1, 2])
def test_batches_and_threads_change_nothing(detector, media, faces, batch_size, threads):
    finder = FaceFinder(detector.config, faces / "yunet.onnx", every=True, frames=4)
    files = files_of([media])
    found = list(detect(files, detector, finder, batch_size=batch_size, threads=threads))
    expected = r2m.detect(media, detector, faces=faces, every=True, frames=4)
    assert [one.reason for one in found] == [one.reason for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(
            [face.logit for face in one.faces], [face.logit for face in other.faces], atol=1e-5
        )


def test_memory_holds_no_more_than_a_batch(detector):
    """Faces are found just ahead of the detector, however many files there are."""
    begun = 0
    lock = threading.Lock()

    def finder(path):
        nonlocal begun
        with lock:
            begun += 1
        return FaceFinder(detector.config, None, every=False, frames=1)(path)

    paths = (Path(f"{number}.png") for number in range(1000))
    assert next(detect(paths, detector, finder, batch_size=4, threads=2)).reason.startswith("cannot be read")
    assert begun <= 4 + 3


def test_means_and_decisions():
    def face(number, seconds, logit):
        return ScoredFace(number, (0, 0, 1, 1), seconds, logit, float(expit(logit)))

    faces = [face(0, 0.0, -2.0), face(0, 1.0, 2.0), face(1, 0.0, 3.0), face(1, 1.0, 3.0)]
    points = (OperatingPoint(fpr=0.01, threshold=0.9), OperatingPoint(fpr=0.05, threshold=0.6))
    found = Detection("v.mp4", Decision(operating_points=points), faces)
    assert found.mean(0) == pytest.approx(0.5)
    assert found.probability == pytest.approx(1 / (1 + np.exp(-3)))
    assert (found.decided(found.mean(0)), found.decision) == ("real", "fake")
    assert np.isnan(Detection("x.jpg", Decision(), reason="cannot be read").probability)
    assert found.decided(0.7) == "unsure"


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["https://example.org/face.jpg"], "an address; expected files or folders of this machine"),
        (["nowhere.jpg"], r"nowhere\.jpg: no such file or folder"),
        (["."], r"neither a photograph nor a video"),
    ],
)
def test_paths_that_are_no_media(paths, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(R2MError, match=message):
        files_of(map(Path, paths))


def test_a_face_detector_that_is_not_there(detector, media, tmp_path):
    with pytest.raises(R2MError, match=r"yunet\.onnx: no such file; .* `r2m job source faces` fetches"):
        r2m.detect(media, detector, faces=tmp_path)
    network = tmp_path / "raw/faces/yunet.onnx"
    network.parent.mkdir(parents=True)
    network.write_bytes(b"damaged")
    receipt = '{"package": "x", "files": {"yunet.onnx": "0"}}'
    (tmp_path / "raw/faces.json").write_text(receipt)
    with pytest.raises(R2MError, match=r"faces"):
        r2m.detect(media, detector, faces=network.parent)
