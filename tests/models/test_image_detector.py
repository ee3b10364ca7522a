import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from scipy.special import expit

import r2m
from detector_samples import CONVNET, SIZE, VIT, load_detector, save_whole, session_of
from r2m.cli import r2m as group
from r2m.errors import R2MError
from r2m.models import checkpoint
from r2m.models.config import KEY, DetectorConfig, inherited, read_config
from r2m.trunk.inputs import Inputs

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, base_files):
    """A detector with all its tensors, described as its base is."""
    return save_whole(base_files["convnet"], tmp_path_factory.mktemp("whole") / "model.safetensors")


@pytest.fixture(scope="module")
def specialist(tmp_path_factory, base_files):
    """The tensors that training changes."""
    path = tmp_path_factory.mktemp("part") / "model.safetensors"
    _, metadata = checkpoint.load(base_files["vit"])
    detector = load_detector(base_files["vit"], VIT)
    checkpoint.save(path, detector.trainable_state(), metadata)
    return path


@pytest.fixture
def paths(image_sets):
    return list(Inputs(image_sets.paths("drawn"), [], CONVNET).rows["path"])[:5]


def test_logits_are_those_of_the_session(whole, paths, image_sets, base_files):
    detector = r2m.load(whole, device="cpu")
    inputs = Inputs(image_sets.paths("drawn"), [], CONVNET)
    session = session_of(load_detector(base_files["convnet"], CONVNET), inputs)
    expected = session.predict(inputs.rows.iloc[:5])
    np.testing.assert_array_equal(detector.logits(paths), expected)
    np.testing.assert_allclose(detector.logits(paths, batch_size=2), expected, atol=1e-6)
    np.testing.assert_allclose(detector.probabilities(paths), 1 / (1 + np.exp(-expected)), rtol=1e-6)


def test_images_of_any_kind(whole, paths):
    detector = r2m.load(whole, device="cpu")
    expected = detector.logits(paths)
    arrays = [cv2.imread(path)[..., ::-1] for path in paths]
    for images in (arrays, np.stack(arrays), [Image.open(path) for path in paths], iter(paths)):
        np.testing.assert_array_equal(detector.logits(images), expected)
    for image in (paths[0], arrays[0], Image.open(paths[0])):
        np.testing.assert_allclose(detector.logits(image), expected[:1], atol=1e-6)
    assert detector.logits([]).shape == (0,)


@pytest.mark.parametrize("threads", [1, 3])
def test_files_are_read_ahead_in_order(whole, paths, monkeypatch, threads):
    detector = r2m.load(whole, device="cpu")
    expected = detector.logits(paths, batch_size=2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    same = Image.open(paths[1])
    mixed = [paths[0], same, Path(paths[2]), cv2.imread(paths[3])[..., ::-1], paths[4]]
    np.testing.assert_array_equal(detector.logits(mixed, batch_size=2), expected)
    alone = detector.logits(paths[1])
    np.testing.assert_array_equal(detector.logits([same] * 5, batch_size=1), alone.repeat(5))
    with pytest.raises(R2MError, match=r"^absent\.png: cannot be read"):
        detector.logits([*paths, "absent.png"], batch_size=2)
    with pytest.raises(R2MError, match=r"^image 5: int"):
        detector.logits([*paths, 3], batch_size=2)


def test_images_are_resized_as_the_workflow_does(whole, paths):
    detector = r2m.load(whole, device="cpu")
    large = cv2.resize(cv2.imread(paths[0]), (3 * SIZE, 3 * SIZE), interpolation=cv2.INTER_CUBIC)
    small = cv2.resize(large, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(detector.logits(large[..., ::-1]), detector.logits(small[..., ::-1]))


def test_a_specialist_needs_its_base(specialist, base_files, image_sets, paths, trunk_files):
    with pytest.raises(R2MError, match=r"lacks 'blocks\.0.* more tensors of the backbone.*base=\.\.\."):
        r2m.load(specialist)
    with pytest.raises(R2MError, match=r"made from base blake3:\w+, but .*convnet.*"):
        r2m.load(specialist, base_files["convnet"])
    detector = r2m.load(specialist, base_files["vit"], device="cpu")
    inputs = Inputs(image_sets.paths("drawn"), [trunk_files["drawn"]], VIT)
    session = session_of(load_detector(base_files["vit"], VIT), inputs)
    np.testing.assert_allclose(detector.logits(paths), session.predict(inputs.rows.iloc[:5]), atol=2e-3)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("absent.png", r"absent\.png: cannot be read"),
        (np.zeros((8, 8, 3)), r"image 0: float64 \(8, 8, 3\); expected a path, a PIL image, or RGB of uint8"),
        (np.zeros((8, 8), np.uint8), r"image 0: uint8 \(8, 8\); expected"),
        ([3], r"image 0: int; expected"),
        (Image.new("RGB", (4, 4)), r"image 0: too small: 4×4 pixels"),
    ],
)
def test_what_is_no_image_is_told(whole, image, message):
    with pytest.raises(R2MError, match=message):
        r2m.load(whole, device="cpu").logits(image)


def test_score_of_a_folder_and_of_files(whole, tmp_path):
    for name in ("b.png", "sub/a.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8))
    detector = r2m.load(whole, device="cpu")
    table = r2m.score(tmp_path, detector)
    assert list(table) == ["path", "logit", "probability", "label", "error"]
    assert table["path"].tolist() == [str(tmp_path / "b.png"), str(tmp_path / "sub/a.png")]
    np.testing.assert_allclose(table["probability"], detector.probabilities(list(table["path"])))
    assert table["label"].tolist() == ["fake" if p >= 0.5 else "real" for p in table["probability"]]
    listed = r2m.score([tmp_path / "sub/a.png", str(tmp_path / "b.png")], detector)
    pd.testing.assert_frame_equal(listed.iloc[::-1].reset_index(drop=True), table, check_exact=False)
    assert len(r2m.score(tmp_path / "b.png", detector)) == 1
    both = r2m.score([tmp_path / "sub", tmp_path / "b.png"], detector)
    assert both["path"].tolist() == [str(tmp_path / "sub/a.png"), str(tmp_path / "b.png")]
    with pytest.raises(R2MError, match="no such folder of images"):
        r2m.score(tmp_path / "absent", detector)


@pytest.fixture
def mixed(paths, tmp_path):
    """A folder with two crops, and three images that cannot be scored, each for a reason of its own."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name, path in zip("bd", paths, strict=False):
        shutil.copy(path, folder / f"{name}.png")
    (folder / "a.jpg").write_bytes(b"no image")
    cv2.imwrite(str(folder / "c.png"), np.zeros((40, 40, 3), np.uint8))
    noise = np.random.default_rng(0).integers(0, 255, (32, 128, 3), np.uint8)
    cv2.imwrite(str(folder / "e.png"), noise)
    return folder


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_images_that_cannot_be_scored_are_told_beside_the_others(whole, mixed, batch_size):
    detector = r2m.load(whole, device="cpu")
    table = r2m.score(mixed, detector, batch_size)
    assert table["path"].map(lambda path: Path(path).stem).tolist() == list("abcde")
    good = table["error"] == ""
    assert good.tolist() == [False, True, False, True, False]
    assert [error.partition(":")[0] for error in table.loc[~good, "error"]] == [
        "cannot be read",
        "blank or a mask",
        "no aligned crop",
    ]
    expected = detector.logits(list(table.loc[good, "path"]))
    np.testing.assert_allclose(table.loc[good, "logit"], expected, atol=1e-5)
    assert table.loc[~good, ["logit", "probability", "label"]].isna().all(axis=None)
    with pytest.raises(R2MError, match=r"1 of 1 images .*e\.png: no aligned crop: 128×32 pixels"):
        r2m.score(mixed / "e.png", detector)
    lost = r2m.score([mixed / "b.png", mixed / "gone.png"], detector)
    assert lost["error"].str.partition(":")[0].tolist() == ["", "cannot be read"]


def test_fake_is_what_reaches_the_own_threshold(whole, paths):
    detector = r2m.load(whole, device="cpu")
    probabilities = detector.probabilities(paths)
    for threshold in (0.0016, float(np.median(probabilities)), 0.9999):
        own = replace(detector, config=detector.config.model_copy(update={"threshold": threshold}))
        assert own.is_fake(paths).tolist() == (probabilities >= threshold).tolist()
        labels = r2m.score(paths, own)["label"]
        assert (labels == "fake").tolist() == own.is_fake(paths).tolist()


def test_probabilities_are_calibrated(whole, paths):
    detector = r2m.load(whole, device="cpu")
    config = detector.config.model_copy(update={"slope": 2.0, "offset": -0.3})
    expected = expit(2 * detector.logits(paths).astype(float) - 0.3)
    np.testing.assert_allclose(replace(detector, config=config).probabilities(paths), expected)
    np.testing.assert_allclose(r2m.score(paths, replace(detector, config=config))["probability"], expected)


def test_the_command_scores_what_it_can(whole, mixed, tmp_path):
    out = tmp_path / "scores.csv"
    printed = run_score(mixed, "--model", whole, "--device", "cpu", "--out", out)
    assert printed.startswith(f"r2m: warning: 3 of 5 images cannot be scored, such as {mixed / 'a.jpg'}: ")
    table = pd.read_csv(out, keep_default_na=False)
    assert (table["error"] == "").tolist() == [False, True, False, True, False]
    assert (table["label"] == "").tolist() == [True, False, True, False, True]


def test_a_device_that_is_not_there_is_named_as_it_was_given(whole, paths, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(R2MError, match=r"^--device: 'cuda' is not available"):
        run_score(paths[0], "--model", whole, "--device", "cuda")
    with pytest.raises(R2MError, match=r"^device: 'cuda' is not available"):
        r2m.load(whole, device="cuda")


def test_labels_follow_the_threshold(whole, tmp_path, paths):
    tensors, metadata = checkpoint.load(whole)
    probability = r2m.load(whole, device="cpu").probabilities(paths)
    for threshold, label in ((probability.min(), "fake"), (1.0, "real")):
        changed = metadata | inherited(metadata, whole, threshold=float(threshold))
        checkpoint.save(tmp_path / "m", tensors, changed)
        assert set(r2m.score(paths, r2m.load(tmp_path / "m", device="cpu"))["label"]) == {label}


def test_files_that_describe_no_detector(whole, tmp_path):
    tensors, metadata = checkpoint.load(whole)
    checkpoint.save(tmp_path / "old", tensors, {})
    with pytest.raises(R2MError, match="old: its metadata lack 'detector', which tells backbone, input"):
        r2m.load(tmp_path / "old")
    config = json.loads(metadata[KEY])
    del config["margin"]
    checkpoint.save(tmp_path / "less", tensors, {KEY: config})
    with pytest.raises(R2MError, match=r"less: its metadata: detector\.margin: Field required"):
        r2m.load(tmp_path / "less")
    checkpoint.save(tmp_path / "base", {k: t for k, t in tensors.items() if k[:5] != "head."}, metadata)
    with pytest.raises(R2MError, match=r"base: holds no head \(head\.weight\)"):
        r2m.load(tmp_path / "base")
    with pytest.raises(R2MError, match="absent"):
        r2m.load(tmp_path / "absent")


def test_what_a_model_inherits(whole, tmp_path):
    _, metadata = checkpoint.load(whole)
    changed = inherited(metadata, whole, labels=("real", "swap", "up"), threshold=0.3)
    checkpoint.save(tmp_path / "m", {"a": torch.zeros(1)}, changed)
    config = read_config(checkpoint.read_metadata(tmp_path / "m"), tmp_path / "m")
    before = read_config(metadata, whole)
    assert config == DetectorConfig(
        **before.model_dump() | {"labels": ("real", "swap", "up"), "threshold": 0.3}
    )
    assert inherited({}, whole, threshold=0.3) == {}


def run_score(*arguments):
    return CliRunner().invoke(group, ["score", *map(str, arguments)], catch_exceptions=False).output


def test_the_command_scores_files_and_folders(whole, paths, tmp_path):
    folder = tmp_path / "crops"
    folder.mkdir()
    for path in paths[:2]:
        shutil.copy(path, folder)
    out = tmp_path / "scores.csv"
    run_score(folder, paths[2], "--model", whole, "--device", "cpu", "--out", out)
    table = pd.read_csv(out)
    assert list(table) == ["path", "logit", "probability", "label", "error"]
    assert table["path"].iloc[-1] == str(paths[2])
    expected = r2m.load(whole, device="cpu").logits(list(table["path"]))
    np.testing.assert_allclose(table["logit"], expected, atol=1e-5)
    printed = run_score(paths[2], "--model", whole, "--device", "cpu")
    assert printed.splitlines()[0] == "path,logit,probability,label,error"
    assert len(printed.splitlines()) == 2


def test_the_command_replaces_no_file_unasked(whole, paths, tmp_path, monkeypatch):
    monkeypatch.setattr("r2m.models.image_detector.load", None)  # nothing is done before
    image, out = tmp_path / "crops/a.png", tmp_path / "scores.csv"
    image.parent.mkdir()
    shutil.copy(paths[0], image)
    model = tmp_path / "model.safetensors"
    model.symlink_to(whole)
    out.write_text("precious")
    before = image.read_bytes(), whole.read_bytes()
    for given, at in ((image, image), (image.parent, image), (image, model), (image, whole)):
        with pytest.raises(R2MError, match=f"{at}: is one of the inputs; expected another name"):
            run_score(given, "--model", model, "--out", at, "--force")
    with pytest.raises(R2MError, match=r"scores\.csv: exists; --force replaces it"):
        run_score(image, "--model", model, "--out", out)
    with pytest.raises(R2MError, match="crops: is a folder; expected the name of a file"):
        run_score(image, "--model", model, "--out", image.parent, "--force")
    assert (out.read_text(), (image.read_bytes(), whole.read_bytes())) == ("precious", before)


def test_an_output_that_cannot_be_written_is_named_as_it_was_asked_for(whole, paths):
    with pytest.raises(OSError, match="No such file") as error:
        run_score(paths[0], "--model", whole, "--device", "cpu", "--out", "/proc/x.csv")
    assert error.value.filename == "/proc/x.csv"


def test_force_replaces_an_earlier_table(whole, paths, tmp_path):
    out = tmp_path / "scores.csv"
    out.write_text("old")
    run_score(paths[0], "--model", whole, "--device", "cpu", "--out", out, "--force")
    assert len(pd.read_csv(out)) == 1


def test_the_command_takes_a_specialist_with_its_base(specialist, base_files, paths, tmp_path):
    out = tmp_path / "scores.csv"
    run_score(paths[0], "--model", specialist, "--base", base_files["vit"], "--device", "cpu", "--out", out)
    assert len(pd.read_csv(out)) == 1


@pytest.mark.parametrize(
    ("images", "model", "message"),
    [
        ("empty", None, "empty: holds no image"),
        ("nowhere", None, "nowhere"),
        ("broken.jpg", None, "broken.jpg"),
        (None, "broken.jpg", "broken.jpg"),
        (None, "nowhere.safetensors", "nowhere.safetensors"),
    ],
)
def test_the_command_names_what_is_wrong_and_writes_nothing(whole, paths, tmp_path, images, model, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    out = tmp_path / "scores.csv"
    given = paths[0] if images is None else tmp_path / images
    chosen = whole if model is None else tmp_path / model
    with pytest.raises(R2MError, match=message):
        run_score(given, "--model", chosen, "--device", "cpu", "--out", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.jpg", "empty"]
