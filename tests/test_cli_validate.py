import json
from functools import partial

import pytest

import cli_calls
from indexed_images import IndexedImages, picture
from r2m.cli.validate import command
from r2m.errors import R2MError

invoke = partial(cli_calls.invoke, command=command)


@pytest.fixture
def drawn(tmp_path):
    return IndexedImages(tmp_path)


def test_a_good_index_exits_with_0_and_leaves_report_and_cache_beside_it(drawn):
    printed = invoke(drawn.write())
    assert "nothing found\n" in printed
    assert printed.endswith(f"report in {drawn.folder / 'drawn.validation/report.html'}\n")
    assert json.loads((drawn.folder / "drawn.validation/report.json").read_text())["severity"] is None
    assert (drawn.folder / "drawn.contents.parquet").is_file()


def test_warnings_exit_with_0_and_errors_with_1_and_a_report(drawn, tmp_path):
    drawn.add("lonely/a.png", picture(900), label=1, domain="lonely", method="lonely", identity="a")
    assert "warning: Fakes without reals" in invoke(drawn.write())
    drawn.add("more/a.png", picture(901), split="test", identity="003")
    printed = invoke(drawn.write(), "--out", tmp_path / "out", code=1)
    assert "error: People in several splits: 1 person" in printed
    assert json.loads((tmp_path / "out/report.json").read_text())["severity"] == "error"
    assert (tmp_path / "out/report.html").is_file()
    assert "warning: People in several splits" in invoke(drawn.index, "--allow-leakage")


def test_names_only_opens_no_image(drawn, monkeypatch):
    from r2m.data import images

    monkeypatch.setattr(images, "Pillow", None)
    assert "files were not opened" in invoke(drawn.write(), "--names-only")
    assert not drawn.cache.exists()


def test_another_root_and_cache(drawn, tmp_path):
    drawn.write()
    drawn.root.rename(tmp_path / "moved")
    with pytest.raises(R2MError, match="no such folder"):
        invoke(drawn.index)
    invoke(drawn.index, "--root", tmp_path / "moved", "--cache", tmp_path / "kept.parquet", "--threads", 1)
    assert (tmp_path / "kept.parquet").is_file()
    assert not drawn.cache.exists()


def test_what_is_no_index(tmp_path):
    with pytest.raises(R2MError, match=r"gone\.parquet"):
        invoke(tmp_path / "gone.parquet")


def test_a_tested_domain_that_the_index_lacks(drawn):
    with pytest.raises(R2MError, match=r"--tested fff: no domain of .*drawn\.parquet; did you mean 'ff'\?"):
        invoke(drawn.write(), "--tested", "ff", "--tested", "fff")
    assert not drawn.cache.exists()


def test_a_cache_that_cannot_be_written_is_done_without(drawn, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = tmp_path / "file/kept.parquet"
    assert "nothing found" in invoke(drawn.write(), "--cache", cache)
    assert f"--cache {cache}: cannot be written (Not a directory)" in caplog.text
    assert "nothing found" in invoke(drawn.index, "--cache", tmp_path)
    assert f"--cache {tmp_path}: cannot be written (a folder is there)" in caplog.text


def test_an_out_that_cannot_be_written_is_told_before_any_file_is_read(drawn, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file/below/out"):
        with pytest.raises(R2MError, match=f"--out {out}: cannot be written .*expected another folder"):
            invoke(drawn.write(), "--out", out)
    assert not drawn.cache.exists()
