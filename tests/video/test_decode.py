from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from drawn_videos import CODECS, number_of, numbered, write_video
from r2m.video.decode import Video


def read(path: Path, numbers: list[int]) -> list[int]:
    """Return the numbers drawn on the frames `numbers`, after a check that they are given back."""
    with Video(path) as video:
        pairs = list(video.frames(numbers))
    assert [number for number, _ in pairs] == numbers
    return [number_of(image) for _, image in pairs]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Videos of 60 frames in every container, and in codecs that order their frames in other ways."""
    root = tmp_path_factory.mktemp("videos")
    pictures = numbered(60)
    made = {suffix: write_video(root / f"a{suffix}", pictures) for suffix in CODECS}
    open_gop = {"x264-params": "open-gop=1:keyint=12:bframes=3:b-pyramid=normal:scenecut=0"}
    made["open"] = write_video(root / "open.mp4", pictures, options=open_gop)
    made["open265"] = write_video(
        root / "open265.mp4",
        pictures,
        codec="libx265",
        options={
            "x265-params": "open-gop=1:keyint=12:bframes=3:scenecut=0:log-level=none",
        },
    )
    made["vp8"] = write_video(root / "vp8.webm", pictures, codec="libvpx")
    fragments = {"movflags": "frag_keyframe+empty_moov"}
    made["fragmented"] = write_video(root / "fragmented.mp4", pictures, container=fragments)
    return made


NAMES = [*CODECS, "open", "open265", "vp8", "fragmented"]


@pytest.mark.parametrize("name", NAMES)
def test_frames_have_exact_numbers(videos: dict[str, Path], name: str) -> None:
    with Video(videos[name]) as video:
        assert len(video) == 60
    for numbers in (
        [0],
        [59],
        [3, 4, 5, 30, 31, 58],
        [11, 12, 13, 23, 24, 25],
        [7, 22, 37, 52],
        list(range(60)),
    ):
        assert read(videos[name], numbers) == numbers


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_has_the_same_pixels_however_it_was_reached(videos: dict[str, Path], name: str) -> None:
    with Video(videos[name]) as video:
        every = {number: image.copy() for number, image in video.frames(range(60))}
        for number in (0, 10, 25, 47, 59):
            ((_, image),) = video.frames([number])
            np.testing.assert_array_equal(image, every[number])


def test_no_more_is_decoded_than_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(
        tmp_path / "a.mp4", numbered(120), gop=10, b_frames=0, options={"x264-params": "scenecut=0"}
    )
    with Video(path) as video:
        decoded = 0
        plain = video._decoded

        def counting(*arguments: object) -> Iterator[av.VideoFrame]:
            nonlocal decoded
            for frame in plain(*arguments):
                decoded += 1
                yield frame

        monkeypatch.setattr(video, "_decoded", counting)
        assert [number for number, _ in video.frames([5, 7, 52, 113])] == [5, 7, 52, 113]
    assert decoded <= 6 + 2 + 3 + 4 + 4


def test_variable_frame_rate(tmp_path: Path) -> None:
    times = np.cumsum(np.random.default_rng(0).integers(1, 400, 40)).tolist()
    for suffix in (".mp4", ".mkv"):
        path = write_video(tmp_path / f"a{suffix}", numbered(40), times=times)
        with Video(path) as video:
            assert len(video) == 40
        assert read(path, [1, 2, 19, 38, 39]) == [1, 2, 19, 38, 39]


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_honoured(tmp_path: Path, rotation: int) -> None:
    """A phone stores a turned picture and how to turn it back."""
    upright = [np.rot90(picture, -rotation // 90) for picture in numbered(5, 128, 96)]
    path = write_video(tmp_path / "a.mp4", upright, rotation=rotation)
    with Video(path) as video:
        for number, image in video.frames([0, 3]):
            assert image.shape == (96, 128, 3)
            assert image.flags.c_contiguous
            assert number_of(image) == number


def test_a_wrong_or_missing_frame_count_does_not_matter(videos: dict[str, Path], tmp_path: Path) -> None:
    content = bytearray(videos[".avi"].read_bytes())
    for header, offset in ((b"avih", 20), (b"strh", 36)):
        start = content.index(header) + len(header)
        content[start + offset : start + offset + 4] = (7).to_bytes(4, "little")
    wrong = tmp_path / "wrong.avi"
    wrong.write_bytes(content)
    with av.open(wrong) as file:
        assert file.streams.video[0].frames == 7
    with av.open(videos[".mkv"]) as file:
        assert file.streams.video[0].frames == 0
    for path in (wrong, videos[".mkv"]):
        assert read(path, [0, 30, 59]) == [0, 30, 59]


def test_frames_whose_packets_tell_no_time_are_counted(
    videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Video, "_read_times", lambda self: ([], []))
    with Video(videos[".mp4"]) as video:
        assert len(video) == 60
    assert read(videos[".mp4"], [0, 17, 59]) == [0, 17, 59]


@pytest.mark.parametrize("name", ["open", "open265"])
def test_what_leads_up_to_the_first_keyframe_is_no_frame(
    videos: dict[str, Path], name: str, tmp_path: Path
) -> None:
    """A recording that was cut before an open group of pictures begins with frames that none can decode."""
    cut = tmp_path / "cut.mkv"
    with av.open(videos[name]) as source, av.open(cut, "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        keyframes = 0
        for packet in source.demux(stream):
            keyframes += packet.is_keyframe
            if keyframes >= 2 and packet.size:
                packet.stream = copy
                target.mux(packet)
    with Video(cut) as video:
        drawn = [number_of(image) for _, image in video.frames(range(len(video)))]
    assert drawn == list(range(60 - len(drawn), 60))
    assert len(drawn) in (48, 49)


def reason(path: Path, numbers: list[int] | None = None) -> str:
    with pytest.raises(ValueError, match=": ") as caught, Video(path) as video:
        for _ in video.frames(range(len(video)) if numbers is None else numbers):
            pass
    assert type(caught.value) is ValueError
    return str(caught.value)


def test_what_is_no_video_has_a_short_reason(tmp_path: Path) -> None:
    contents = {
        "empty": (b"", "empty"),
        "text": (b"hello world" * 99, "no whole video that FFmpeg knows"),
        "pointer": (b"version https://git-lfs.github.com/spec/v1\noid 1", "Git LFS pointer"),
        "page": (b"<!doctype html><title>404</title>" * 9, "HTML"),
        "playlist": (
            b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n",
            "cannot be read",
        ),
    }
    for name, (content, text) in contents.items():
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(content)
        assert text in reason(path)
        assert str(tmp_path) not in reason(path)
    assert "No such file" in reason(tmp_path / "absent.mp4")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(path, "w") as file:
        stream = file.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    assert "no video stream" in reason(path)


@pytest.mark.parametrize("name", [".mp4", ".mov", ".avi", ".mkv", ".webm", "fragmented"])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_file_that_is_cut_off_is_refused(
    videos: dict[str, Path], name: str, share: float, tmp_path: Path
) -> None:
    content = videos[name].read_bytes()
    path = tmp_path / videos[name].name
    path.write_bytes(content[: int(share * len(content))])
    assert reason(path).startswith("cannot be read: ")


@pytest.mark.parametrize("name", [".mp4", ".mov", ".avi", ".mkv"])
def test_damage_is_told_and_no_other_frame_is_taken(
    videos: dict[str, Path], name: str, tmp_path: Path
) -> None:
    content = bytearray(videos[name].read_bytes())
    with av.open(videos[name]) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
    target = packets[30]
    content[target.pos + 8 : target.pos + 8 + target.size // 2] = bytes(target.size // 2)
    path = tmp_path / videos[name].name
    path.write_bytes(content)
    assert "damaged at" in reason(path)
    assert read(path, [0, 59]) == [0, 59]


def test_a_picture_that_shows_nobody_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [np.zeros((8, 32, 3), np.uint8)] * 3)
    assert reason(path) == "too small: 32×8 pixels, expected 16 or more each way"


def test_a_file_is_let_go_of(videos: dict[str, Path]) -> None:
    with Video(videos[".mp4"]) as video:
        next(video.frames([5]))
        container = video._container
    with pytest.raises(AssertionError):
        container.seek(0)


def test_opening_decodes_nothing(videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Video) -> Iterator[av.VideoFrame]:
        raise AssertionError("decoded")

    monkeypatch.setattr(Video, "_decoded", refuse)
    with Video(videos[".mp4"]) as video:
        assert len(video) == 60


@pytest.mark.parametrize("name", ["open", "open265", ".avi", ".mov"])
def test_frames_that_no_other_depends_on_are_left_out_unless_wanted(
    videos: dict[str, Path], name: str
) -> None:
    with Video(videos[name]) as video:
        wanted = {video._times[number] for number in (30, 31, 32)}
        decoded = [frame.pts for frame in video._decoded(video._keyframes[0], wanted)]
    assert wanted <= set(decoded)
    assert len(decoded) < 45
