import copy

import pytest

from dataset_samples import Video, alone, reals, swapped, synthesized, write_index
from r2m.errors import R2MError
from r2m.input_files import check_inputs
from r2m.params import parse

VIDEOS = [*reals(), *swapped("simswap"), *synthesized("ddim"), *alone("heygen", "FR")]


@pytest.fixture
def config(tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"x")
    write_index(tmp_path / "df40.parquet", tmp_path, VIDEOS)
    return {
        "datasets": {"df40": {"index": str(tmp_path / "df40.parquet"), "frames": 2}},
        "domains": {
            "ff": {"dataset": "df40", "role": "train"},
            "celeb": {"dataset": "df40", "domain": "cdf", "role": "test"},
        },
        "generators": {
            "simswap": {"family": "FS", "dataset": "df40"},
            "ddpm": {"family": "EFS", "dataset": "df40", "method": "ddim"},
            "heygen": {"family": "FR", "dataset": "df40", "role": "unseen"},
        },
        "faces": {"detector": "none", "min_images": 2},
        "backbone": {"weights": {"file": str(weights)}},
        "merge": {"methods": {"weight_averaging": {}}},
    }


def message(config, **changes):
    config = copy.deepcopy(config)
    for key, value in changes.items():
        *path, last = key.split("__")
        place = config
        for part in path:
            place = place[part]
        place[last] = value
    with pytest.raises(R2MError) as caught:
        check_inputs(parse(config))
    return str(caught.value)


def test_everything_is_there(config):
    check_inputs(parse(config))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"domains__ff__dataset": "df4"}, "domains.ff.dataset: unknown data set 'df4'; did you mean 'df40'?"),
        (
            {"generators__simswap__dataset": "xyz"},
            "generators.simswap.dataset: unknown data set 'xyz'; expected one of df40",
        ),
        (
            {"domains__celeb__domain": "cfd"},
            "domains.celeb.domain: {index} holds no reals of the domain 'cfd'; did you mean 'cdf'?",
        ),
        (
            {"generators__simswap__method": "real"},
            "generators.simswap.method: 'real' stands for the reals of an index; expected a generator's",
        ),
        (
            {"generators__simswap__method": "simswp"},
            "generators.simswap.method: {index} holds no method 'simswp'; did you mean 'simswap'?",
        ),
        (
            {"generators__simswap__family": "FR"},
            "generators.simswap.family: FR, but in {index} 'simswap' is of the family FS",
        ),
        (
            {"generators__heygen__role": "train"},
            "generators.heygen: {index} holds no 'train' rows of 'heygen' in ff and cdf and heygen; expected"
            " some in train, val, test",
        ),
        ({"datasets__df40__root": "gone"}, "datasets.df40.root: gone: no such folder"),
        (
            {"datasets__df40__index": "gone.parquet"},
            "datasets.df40.index: gone.parquet: ",
        ),
        ({"datasets__df40__aligned": False}, "datasets.df40.aligned: faces have to be found, and"),
        ({"datasets__df40__fames": 3}, "datasets.df40: unknown key 'fames'; did you mean 'frames'?"),
        # of one image set alone
        ({"domains__celeb__images": {"folder": "x"}}, "domains.celeb: expected exactly one of `images` and"),
        ({"domains__celeb__identity": "folder"}, "domains.celeb: `identity` belongs to `images`"),
        (
            {"domains__celeb": {"images": {"folder": "x"}, "domain": "cdf", "role": "test"}},
            "domains.celeb: `domain` belongs to `dataset`",
        ),
        (
            {"generators__simswap": {"family": "FS", "forge": "swap", "method": "simswap"}},
            "generators.simswap: `method` belongs to `dataset`",
        ),
        ({"generators__simswap__forge": "swap"}, "generators.simswap: expected exactly one of `forge: NAME`"),
        # of several
        (
            {"generators__twin": {"family": "FS", "dataset": "df40", "method": "simswap"}},
            "generators.twin: the same images as generators.simswap; expected images of its own",
        ),
        (
            {"generators__own": {"family": "FS", "images": "x"}},
            "generators.own.images: these fakes would be encoded, and the reals of ff are not",
        ),
    ],
)
def test_mistakes_name_the_key(config, changes, expected):
    expected = expected.replace("{index}", config["datasets"]["df40"]["index"])
    assert message(config, **changes).startswith(f"params.yaml: {expected}")


def test_fakes_in_domains_that_are_not_named(config):
    del config["domains"]["celeb"]
    check_inputs(parse(config))
    config["domains"]["ff"] = {"images": {"folder": "x"}, "role": "train", "identity": "file"}
    with pytest.raises(R2MError, match=r"x: no such folder"):
        check_inputs(parse(config))


def test_a_method_of_other_domains_only(config, tmp_path):
    other = [video for video in VIDEOS if (video.method, video.domain) != ("simswap", "ff")]
    write_index(tmp_path / "df40.parquet", tmp_path, other)
    del config["domains"]["celeb"]
    assert "holds fakes of 'simswap' in cdf only; expected one of these among `domains`" in message(config)


def test_fakes_without_reals(config, tmp_path):
    write_index(
        tmp_path / "df40.parquet",
        tmp_path,
        [one for one in VIDEOS if (one.method, one.domain) != ("real", "heygen")],
    )
    text = message(config)
    assert "generators.heygen: " in text
    assert "in the domain 'heygen', and no reals of it; it has reals of cdf, ff" in text


def test_a_split_that_is_missing(config, tmp_path):
    write_index(
        tmp_path / "df40.parquet",
        tmp_path,
        [one for one in VIDEOS if (one.method, one.split) != ("real", "val")],
    )
    assert "domains.ff: " in message(config)
    assert "holds no 'val' rows of reals in ff; expected some in train, val, test" in message(config)


def test_video_files_need_a_detector(config, tmp_path):
    rows = Video("clips", "x", domain="ff").rows([0], media="video", path="clips/x.mp4", frame=None)
    write_index(tmp_path / "df40.parquet", tmp_path, VIDEOS, rows)
    assert "holds video files, whose faces have to be found" in message(config)


def test_files_that_lie_elsewhere(config, tmp_path):
    write_index(tmp_path / "df40.parquet", tmp_path / "moved", VIDEOS)
    assert f"says that its files lie below {tmp_path / 'moved'}, which is no folder" in message(config)
    config["datasets"]["df40"]["root"] = str(tmp_path)
    check_inputs(parse(config))


def test_a_data_set_that_nothing_is_of_is_not_read(config):
    config["datasets"]["other"] = {"index": "gone.parquet"}
    check_inputs(parse(config))
