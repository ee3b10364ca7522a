import pytest

from index_trees import df40, video
from r2m.errors import R2MError
from r2m.index import registry


def test_layouts_are_the_modules_of_their_package():
    data_sets = {"celeb_df", "df40", "dfd", "dfdc", "dfdcp", "faceforensics", "uadfv"}
    assert set(registry.names()) == {"deepfakebench", "folder", "table", *data_sets}
    assert [layout.name for layout in registry.layouts()][:3] == ["deepfakebench", "table", "faceforensics"]


@pytest.mark.parametrize("name", registry.names())
def test_every_layout_says_what_it_looks_like(name, tmp_path):
    layout = registry.get(name)
    assert layout.name == name
    assert layout.title
    assert layout.expects
    assert not layout.recognizes(tmp_path)


def test_data_sets_are_found_some_levels_deep(tmp_path):
    df40(tmp_path / "a/b/DF40")
    video(tmp_path, "a/FaceForensics++/original_sequences/youtube/c23/frames/000")
    video(tmp_path, "a/Celeb-DF-v2/Celeb-real/frames/id0_0000")
    video(tmp_path, "a/Celeb-DF-v2/YouTube-real/frames/00170")
    found = {
        path.relative_to(tmp_path).as_posix(): layout.name for path, layout in registry.recognized(tmp_path)
    }
    assert found == {"a/b/DF40": "df40", "a/FaceForensics++": "faceforensics", "a/Celeb-DF-v2": "celeb_df"}
    with pytest.raises(R2MError, match="no such file or folder"):
        registry.recognized(tmp_path / "none")
