import os
from collections import Counter

import pytest

from dataset_samples import Video, reals, swapped, write_index
from r2m.datasets import slices
from r2m.datasets.options import DatasetOptions
from r2m.datasets.slices import Index, Indexes, Part, read_index
from r2m.errors import R2MError

VIDEOS = [*reals(), *swapped("simswap"), *swapped("e4s")]
OPTIONS = DatasetOptions(index="index.parquet")
CDF = Part("cdf", "real", "cdf", "test_if_any")
SIMSWAP = [Part("ff", "simswap", "ff", "all"), Part("cdf", "simswap", "cdf", "test_if_any")]


@pytest.fixture
def index(tmp_path):
    path = tmp_path / "index.parquet"
    write_index(path, tmp_path, VIDEOS)
    return path


def test_slices_count_rows_by_split(index, tmp_path):
    known = read_index(index)
    assert known.root == tmp_path.as_posix()
    keys = [(one.domain, one.method) for one in known.slices]
    assert keys == [(domain, name) for domain in ("cdf", "ff") for name in ("real", "e4s", "simswap")]
    ff = known.of(SIMSWAP[0])
    assert (ff.counts, ff.family, ff.videos) == ({"test": 16, "train": 16, "val": 8}, "FS", 0)
    assert known.of(Part("ff", "gone", "ff", "all")) is None
    assert Index.from_json(known.to_json()) == known


def test_only_rows_of_its_own_change_the_state_of_a_set(index, tmp_path):
    before = read_index(index)
    write_index(index, tmp_path, [*VIDEOS, *swapped("blendface")])
    after = read_index(index)
    assert after.digest(SIMSWAP, OPTIONS) == before.digest(SIMSWAP, OPTIONS)
    assert after.digest([CDF], OPTIONS) == before.digest([CDF], OPTIONS)
    assert after.state() != before.state()
    more = Video("DF40/simswap/cdf/frames", "id9_id8_0000", "simswap", "FS", "cdf")
    write_index(index, tmp_path, [*VIDEOS, more])
    assert read_index(index).digest(SIMSWAP, OPTIONS) != before.digest(SIMSWAP, OPTIONS)
    assert read_index(index).digest([CDF], OPTIONS) == before.digest([CDF], OPTIONS)


def test_files_that_were_moved_change_no_image_set(index, tmp_path):
    before = read_index(index)
    write_index(index, tmp_path / "elsewhere", VIDEOS)
    elsewhere = OPTIONS.model_copy(update={"root": "frames"})
    assert read_index(index).digest(SIMSWAP, elsewhere) == before.digest(SIMSWAP, OPTIONS)
    assert read_index(index).state() != before.state(), "they are validated again"


def test_how_images_are_taken_counts_and_how_they_are_checked_does_not(index):
    known = read_index(index)
    changes = {"frames": 3, "encode": "jpeg", "faces": "all", "aligned": False}
    digests = {
        known.digest(SIMSWAP, OPTIONS.model_copy(update={key: value})) for key, value in changes.items()
    }
    assert len(digests - {known.digest(SIMSWAP, OPTIONS)}) == 4
    other = OPTIONS.model_copy(update={"check": "names", "allow_leakage": True, "index": "moved.parquet"})
    assert known.digest(SIMSWAP, other) == known.digest(SIMSWAP, OPTIONS)


def test_an_index_is_read_once_until_it_changes(index, tmp_path, monkeypatch):
    read = Counter()
    monkeypatch.setattr(slices, "read_index", lambda path: read.update([path]) or read_index(path))

    def start():
        return Indexes(tmp_path / "records")(str(index))

    first = start()
    assert start() == first
    assert read.total() == 1
    os.utime(index, ns=(0, 0))
    assert start() == first
    assert read.total() == 2
    (record,) = (tmp_path / "records").iterdir()
    record.write_text("{}")
    assert start() == first
    assert read.total() == 3


def test_what_is_no_index(index, tmp_path):
    with pytest.raises(R2MError, match=r"gone\.parquet: cannot be read .*`r2m index` makes an index"):
        Indexes(tmp_path / "records")(str(tmp_path / "gone.parquet"))
    write_index(index, tmp_path, [])
    with pytest.raises(R2MError, match="an index without rows"):
        read_index(index)
