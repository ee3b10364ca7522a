"""Links to the files of data sets."""

import os

import pytest

from dataset_samples import reals, write_index
from r2m.datasets.options import DatasetOptions
from r2m.datasets.roots import link_roots
from r2m.errors import R2MError


def test_links_lead_where_the_index_or_the_params_say(tmp_path):
    def link(**options):
        datasets = {name: DatasetOptions(index=str(index), **options) for name in ("df40", "unused")}
        link_roots(datasets, ["df40"], places.joinpath)
        return os.readlink(places / "df40")

    index, places = tmp_path / "df40.parquet", tmp_path / "places"
    write_index(index, tmp_path / "a", reals())

    assert link() == str(tmp_path / "a")
    assert link(root=str(tmp_path / "b")) == str(tmp_path / "b")
    assert [path.name for path in places.iterdir()] == ["df40"]


def test_what_is_no_link_stays(tmp_path):
    (tmp_path / "df40").mkdir()
    datasets = {"df40": DatasetOptions(index="df40.parquet", root=str(tmp_path / "a"))}
    with pytest.raises(R2MError, match="expected a link to the files of the data set df40"):
        link_roots(datasets, ["df40"], tmp_path.joinpath)
    assert (tmp_path / "df40").is_dir()
