import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from blake3 import blake3

from indexed_images import picture, write_video
from r2m.validate import contents as module
from r2m.validate.contents import first_frame, read_contents


@pytest.fixture
def opened(monkeypatch):
    """The files that were opened."""
    paths = []
    read = module.read_content
    monkeypatch.setattr(module, "read_content", lambda path, *rest: paths.append(path) or read(path, *rest))
    return paths


def contents_of(drawn, *paths, videos=False, threads=2):
    array = pa.array(paths or [row["path"] for row in drawn.rows])
    return read_contents(drawn.root, array, np.full(len(array), videos), drawn.cache, threads)


def test_a_second_run_opens_only_what_is_new_or_changed(drawn, opened):
    first = contents_of(drawn)
    assert len(opened) == len(drawn.rows)
    opened.clear()
    again = contents_of(drawn)
    assert opened == []
    for name in ("digest", "phash", "width", "height", "size"):
        assert again[name].tolist() == first[name].tolist()
    path = drawn.rows[3]["path"]
    drawn.add(path, picture(900))
    drawn.add("more/new.png", picture(901))
    os.utime(drawn.root / drawn.rows[5]["path"], ns=(1, 1))
    changed = contents_of(drawn, *dict.fromkeys(row["path"] for row in drawn.rows))
    assert set(opened) == {str(drawn.root / name) for name in (path, "more/new.png", drawn.rows[5]["path"])}
    assert changed["digest"][3] == blake3((drawn.root / path).read_bytes()).hexdigest()[:32]
    assert changed["digest"][5] == first["digest"][5]


def test_what_is_not_in_the_index_any_more_leaves_the_cache(drawn):
    contents_of(drawn)
    contents_of(drawn, drawn.rows[0]["path"])
    assert pq.read_table(drawn.cache)["path"].to_pylist() == [drawn.rows[0]["path"]]


def test_threads_and_the_cache_change_nothing(drawn):
    tables = []
    for threads in (1, 3, 3):
        contents_of(drawn, threads=threads)
        tables.append(pq.read_table(drawn.cache))
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])


def test_an_interrupted_run_keeps_what_it_read(drawn, monkeypatch, opened):
    monkeypatch.setattr(module, "CHUNK", 4)
    read = module.read_content

    def interrupted(path, *rest):
        if len(opened) > 10:
            raise KeyboardInterrupt
        return read(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(module, "read_content", interrupted)
        with pytest.raises(KeyboardInterrupt):
            contents_of(drawn, threads=1)
    kept = pq.read_table(drawn.cache).num_rows
    assert 4 <= kept < len(drawn.rows)
    opened.clear()
    contents_of(drawn)
    assert len(opened) == len(drawn.rows) - kept


@pytest.mark.parametrize("content", [b"", b"PAR1 nothing", "other"])
def test_a_cache_that_is_none_is_made_anew(drawn, content, caplog):
    if content == "other":
        pq.write_table(pa.table({"path": ["a"]}), drawn.cache)
    else:
        drawn.cache.write_bytes(content)
    contents_of(drawn)
    assert "all files are read anew" in caplog.text
    assert pq.read_table(drawn.cache).num_rows == len(drawn.rows)


def test_problems_are_kept_and_reads_of_any_kind_go_on(drawn, opened):
    drawn.add("bad/a.png", b"\x89PNG\r\n\x1a\n")
    drawn.add("bad/gone.png")
    found = contents_of(drawn, "bad/a.png", "bad/gone.png", drawn.rows[0]["path"])
    assert found["problem"][0].startswith("cannot be read: ")
    assert found["problem"][1] == "cannot be read: No such file or directory"
    assert found["problem"][2] == ""
    assert found["digest"].tolist()[:2] == ["", ""]
    opened.clear()
    assert contents_of(drawn, "bad/a.png")["problem"][0] == found["problem"][0]
    assert opened == []


def test_videos(drawn, tmp_path):
    write_video(drawn.root / "good.mp4", [picture(i) for i in range(3)])
    write_video(drawn.root / "empty.mp4", [])
    (drawn.root / "none.mp4").write_bytes(b"no video" * 100)
    (drawn.root / "cut.mp4").write_bytes((drawn.root / "good.mp4").read_bytes()[:200])
    names = ("good.mp4", "empty.mp4", "none.mp4", "cut.mp4")
    found = contents_of(drawn, *names, videos=True)
    content = (drawn.root / "good.mp4").read_bytes()
    assert found["digest"].tolist() == [blake3(content).hexdigest()[:32], "", "", ""]
    assert (found["width"][0], found["height"][0], found["problem"][0]) == (64, 64, "")
    for problem in found["problem"][1:]:
        assert problem.startswith(("cannot be read as a video: ", "a video without frames"))
    assert first_frame(str(drawn.root / "good.mp4")).shape == (64, 64, 3)


def test_a_file_without_a_video_stream(tmp_path):
    import av

    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(ValueError, match="cannot be read as a video: no video stream"):
        first_frame(str(tmp_path / "sound.wav"))
