import pytest
import torch

from r2m.data.listing import find_images, list_images
from r2m.errors import R2MError
from r2m.input_files import check_inputs
from r2m.params import parse


def fill(folder, n):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        (folder / f"{i:02d}.PNG").write_bytes(b"x")
    return str(folder)


@pytest.fixture
def config(tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"x")
    return {
        "domains": {
            "mine": {"images": {"folder": fill(tmp_path / "mine", 14)}, "role": "train", "identity": "file"},
            "other": {"images": {"folder": fill(tmp_path / "other", 2)}, "role": "test", "identity": "file"},
        },
        "generators": {
            "own": {"family": "FS", "images": fill(tmp_path / "own", 14), "reals": fill(tmp_path / "r", 14)},
            "rare": {"family": "FR", "role": "unseen", "images": fill(tmp_path / "rare", 2)},
        },
        "faces": {"detector": "none", "min_images": 2},
        "backbone": {"weights": {"file": str(weights)}},
        "merge": {"methods": {"weight_averaging": {}}},
    }


def message(config):
    with pytest.raises(R2MError) as caught:
        check_inputs(parse(config))
    return str(caught.value)


def test_enough_of_everything(config):
    check_inputs(parse(config))


@pytest.mark.parametrize(
    ("key", "folder", "least"),
    [
        ("domains.mine.images.folder", "mine", 14),
        ("domains.other.images.folder", "other", 2),
        ("generators.own.images", "own", 14),
        ("generators.own.reals", "r", 14),
        ("generators.rare.images", "rare", 2),
    ],
)
def test_too_few_images_and_missing_folders(config, tmp_path, key, folder, least):
    path = tmp_path / folder
    (path / "00.PNG").unlink()
    count = f"{least - 1} images; expected at least {least} (each split needs faces.min_images)"
    expected = f"params.yaml: {key}: {path}: {count}"
    assert message(config) == expected
    (path / ".hidden").mkdir()
    fill(path / ".hidden", 1)
    assert message(config) == expected
    path.rename(tmp_path / "gone")
    assert message(config) == f"params.yaml: {key}: {path}: no such folder"


def test_weights(config, tmp_path):
    config["backbone"]["weights"]["file"] = str(tmp_path / "gone.pt")
    assert message(config).endswith("gone.pt: no such file")
    (tmp_path / "model.onnx").write_bytes(b"x")
    config["backbone"]["weights"]["file"] = str(tmp_path / "model.onnx")
    expected = (
        f"params.yaml: backbone.weights.file: {tmp_path / 'model.onnx'}: an ONNX model; export the state"
    )
    assert message(config).startswith(expected)


@pytest.mark.parametrize("name", ["epoch=3.ckpt", "model_best.pth.tar", "WEIGHTS.PT", "weights"])
def test_weights_are_told_by_their_content(config, tmp_path, name):
    torch.save({"a": torch.ones(2)}, tmp_path / name)
    config["backbone"]["weights"]["file"] = str(tmp_path / name)
    check_inputs(parse(config))
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert f"{tmp_path / name}: a pointer of Git LFS" in message(config)


def test_a_folder_of_weights(config, tmp_path):
    (tmp_path / "model").mkdir()
    config["backbone"]["weights"]["file"] = str(tmp_path / "model")
    assert f"backbone.weights.file: {tmp_path / 'model'}: expected exactly one index" in message(config)
    torch.save({"a": torch.ones(2)}, tmp_path / "model/pytorch_model.bin")
    check_inputs(parse(config))


def test_detector_folder(config, tmp_path):
    config["faces"]["detector"] = {"folder": str(tmp_path / "models")}
    assert (
        message(config)
        == f"params.yaml: faces.detector.folder: {tmp_path / 'models/yunet.onnx'}: no such file"
    )


@pytest.mark.parametrize(
    ("section", "name", "change", "text"),
    [
        (
            "domains",
            "other",
            {"images": {"folder": "mine"}},
            "domains.other.images: mine: the same images as",
        ),
        ("domains", "other", {"images": {"folder": "."}}, "the same images as domains.mine.images"),
        ("domains", "other", {"images": {"folder": "link"}}, "the same images as domains.mine.images"),
        (
            "generators",
            "own",
            {"images": "mine"},
            "generators.own.images: mine: the same images as domains.mine",
        ),
        ("generators", "own", {"images": "mine/sub"}, "a folder inside the other"),
        (
            "generators",
            "rare",
            {"images": "own"},
            "generators.rare.images: own: the same images as generators.own",
        ),
    ],
)
def test_images_are_taken_in_once(config, tmp_path, monkeypatch, section, name, change, text):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "mine/sub", 14)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    config[section][name] |= change
    assert text in message(config)


def test_a_generator_inside_another_ones_folder(config, tmp_path):
    inner = fill(tmp_path / "own" / "sub", 14)
    config["generators"]["rare"]["images"] = inner
    assert "or a folder inside the other" in message(config)


def test_an_index_is_read_by_what_is_given(config):
    """The workflow keeps what it knows of indexes from one start to the next."""
    config["datasets"] = {"df40": {"index": "df40.parquet"}}
    config["domains"]["cdf"] = {"dataset": "df40", "role": "test"}

    def read(path):
        raise R2MError(f"{path}: damaged")

    with pytest.raises(R2MError, match=r"^params\.yaml: datasets\.df40\.index: df40\.parquet: damaged$"):
        check_inputs(parse(config), read=read)


def test_reals_are_no_fakes(config):
    config["generators"]["own"]["reals"] = config["generators"]["own"]["images"]
    assert "generators.own.reals" in message(config)


def test_one_package_is_one_domain(config):
    for domain in config["domains"].values():
        domain["images"] = {"package": "celeba"}
    assert "domains.other.images: celeba: the same images as domains.mine.images" in message(config)


def test_listing(tmp_path):
    for name in ("b.jpg", "a/z.PGM", "a.txt", ".hidden/c.jpg", "a/.d.png", "B.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [path.as_posix() for path in find_images(tmp_path)] == ["B.webp", "a/z.PGM", "b.jpg"]
    assert list_images(tmp_path) == find_images(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(R2MError, match=r"empty: holds no image"):
        list_images(tmp_path / "empty")
    with pytest.raises(R2MError, match=r"absent: no such folder of images"):
        list_images(tmp_path / "absent")
