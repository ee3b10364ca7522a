"""Links to the files of data sets."""

import os

import pytest

from r2m.datasets.options import DatasetOptions
from r2m.datasets.roots import link_roots
from r2m.datasets.slices import Index
from r2m.errors import R2MError


def test_links_lead_where_the_index_or_the_params_say(tmp_path):
    def link(**options):
        datasets = {name: DatasetOptions(index="df40.parquet", **options) for name in ("df40", "unused")}
        link_roots(datasets, ["df40"], lambda path: Index(str(tmp_path / "a"), ()), tmp_path.joinpath)
        return os.readlink(tmp_path / "df40")

    assert link() == str(tmp_path / "a")
    assert link(root=str(tmp_path / "b")) == str(tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["df40"]


def test_what_is_no_link_stays(tmp_path):
    (tmp_path / "df40").mkdir()
    datasets = {"df40": DatasetOptions(index="df40.parquet")}
    with pytest.raises(R2MError, match="expected a link to the files of the data set df40"):
        link_roots(datasets, ["df40"], lambda path: Index(str(tmp_path / "a"), ()), tmp_path.joinpath)
    assert (tmp_path / "df40").is_dir()
