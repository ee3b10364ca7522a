"""Frames of a video file by their exact numbers: keyframes are sought, and no more is decoded than needed."""

import bisect
import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from r2m.data.images import LEAST_SIDE, Image

# A video whose frames end before this share of the length that its file states is cut off.
LEAST_LENGTH = 0.9
# Demuxers may land after the keyframe that was asked for; so many earlier ones are tried.
SEEKS = 3
# Their streams hold packets that are never shown, so that packets do not count frames.
UNSHOWN = frozenset({"vp8"})
CLOCK = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")


class Video:
    """An open video file, whose frames are numbered from 0 in the order in which they are shown.

    Opening reads all packets and decodes none of them, so that neither a missing nor a wrong frame count in
    the file matters. Files whose packets do not tell their frames are decoded once to count them.
    """

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            ValueError: the file is missing, empty, cut off, or no video; the message is a short reason.
        """
        self._path = path
        with _reasons(path):
            self._container, self._stream = _opened(path)
            try:
                self._times, self._keyframes = self._read_times()
                self._total = len(self._times) or sum(1 for _ in self._decoded())
                if not self._total:
                    raise ValueError("cannot be read: a video without frames")
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Return how many frames there are."""
        return self._total

    def seconds(self, number: int) -> float:
        """Return when a frame is shown, in seconds; by the mean frame rate where packets do not tell."""
        if self._times:
            return float(self._times[number] * (self._stream.time_base or 0))
        return number / float(self._stream.average_rate or 25)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def frames(self, numbers: Sequence[int]) -> Iterator[tuple[int, Image]]:
        """Yield number and picture, BGR (H, W, 3) and turned upright, of the frames `numbers` (ascending).

        Only one picture is in memory at a time.

        Raises:
            ValueError: a frame is damaged; no other one is taken in its place.
        """
        with _reasons(self._path):
            for number, frame in self._sought(numbers) if self._times else self._counted(numbers):
                if frame.is_corrupt:
                    raise ValueError(f"cannot be read: damaged at frame {number}")
                yield number, _upright(frame)

    def _read_times(self) -> tuple[list[int], list[int]]:
        """Return the times of all frames and those of keyframes, in order; none if packets do not tell."""
        shown: list[int | None] = []
        every: list[int] = []
        keyframes: list[int] = []
        end = 0
        for packet in self._container.demux(self._stream):
            if not packet.size:
                continue
            if packet.is_corrupt:
                raise ValueError("cannot be read: cut off")
            if packet.pts is not None:
                every.append(packet.pts)
                end = max(end, packet.pts + (packet.duration or 0))
                if packet.is_keyframe:
                    keyframes.append(packet.pts)
            if not packet.is_discard:
                shown.append(packet.pts)
        if every:
            self._check_length(end - min(0, *every))
        known = [time for time in shown if time is not None]
        unique = len(set(known)) == len(shown)
        if not unique or not keyframes or self._stream.codec_context.name in UNSHOWN:
            return [], []
        # Frames that lead up to the first keyframe lack what they were predicted from.
        return sorted(time for time in known if time >= min(keyframes)), sorted(keyframes)

    def _check_length(self, length: int) -> None:
        """Raise ValueError if the packets end after `length` ticks, much earlier than the file states."""
        stated = _stated_seconds(self._container, self._stream)
        seconds = float(length * (self._stream.time_base or 0))
        if stated is not None and seconds < LEAST_LENGTH * stated:
            raise ValueError(f"cannot be read: cut off, {seconds:.1f} s of {stated:.1f} s")

    def _sought(self, numbers: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Yield the frames `numbers`; from one to the next, decode on, or seek where that skips frames."""
        frames: Iterator[VideoFrame] = iter(())
        previous: int | None = None
        may_seek = True
        wanted = {self._times[number] for number in numbers}
        for number in numbers:
            keyframe = self._keyframes[bisect.bisect_right(self._keyframes, self._times[number]) - 1]
            if previous is None or (may_seek and keyframe > self._times[previous + 1]):
                frames = self._decoded(keyframe, wanted)
            try:
                frame = self._next(frames, number)
            except ValueError:
                if not may_seek:
                    raise
                # In an open group of pictures, decoders may miss what stands before its keyframe.
                frames, may_seek = self._decoded(None, wanted), False
                frame = self._next(frames, number)
            previous = number
            yield number, frame

    def _next(self, frames: Iterator[VideoFrame], number: int) -> VideoFrame:
        """Return the frame `number` of `frames` to come; raises ValueError if it is not among them."""
        time = self._times[number]
        frame = next((frame for frame in frames if frame.pts is not None and frame.pts >= time), None)
        if frame is None or frame.pts != time:
            raise ValueError(f"cannot be read: damaged at frame {number}")
        return frame

    def _counted(self, numbers: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Yield the frames `numbers`, told by counting frames from the first."""
        wanted = set(numbers)
        for number, frame in enumerate(self._decoded()):
            if number in wanted:
                wanted.remove(number)
                yield number, frame
            if not wanted:
                return
        raise ValueError(f"cannot be read: damaged at frame {min(wanted)}")

    def _decoded(
        self, keyframe: int | None = None, wanted: Collection[int] | None = None
    ) -> Iterator[VideoFrame]:
        """Yield frames from the one at the time `keyframe` on, or from an earlier one; None: from the first.

        Of frames at other times than the `wanted`, those that no other frame depends on are left out.

        Raises:
            ValueError: a damaged frame.
        """
        packets = self._reopened() if keyframe is None else self._packets_from(keyframe)
        start = None
        for packet in packets:
            if start is None:
                start = packet.pts
            is_needed = wanted is None or not packet.size or packet.pts in wanted
            self._stream.codec_context.skip_frame = "DEFAULT" if is_needed else "NONREF"
            try:
                yield from packet.decode()
            except av.FFmpegError as error:
                # What leads up to a keyframe was predicted from frames before it.
                if start is None or packet.pts is None or packet.pts >= start:
                    raise ValueError(f"cannot be read: damaged at {_seconds(packet)}") from error

    def _packets_from(self, keyframe: int) -> Iterator[Packet]:
        """Seek and return the packets from the one at the time `keyframe`, or an earlier keyframe, on."""
        last = bisect.bisect_right(self._keyframes, keyframe)
        for earlier in reversed(self._keyframes[max(0, last - SEEKS) : last]):
            self._container.seek(earlier, stream=self._stream)
            packets = self._container.demux(self._stream)
            first = next(packets, None)
            if first is not None and first.is_keyframe and first.pts is not None and first.pts <= keyframe:
                return itertools.chain([first], packets)
        return self._reopened()

    def _reopened(self) -> Iterator[Packet]:
        """Open the file anew and return its packets."""
        self._container.close()
        self._container, self._stream = _opened(self._path)
        return self._container.demux(self._stream)


def _opened(path: Path) -> tuple[InputContainer, VideoStream]:
    """Return an open file and its main video stream, to be decoded on the thread that reads it."""
    # A relative path with a colon would read as a protocol, and a playlist called .mp4 could fetch files.
    container = av.open(path.absolute(), options={"protocol_whitelist": "file"})
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream):
        container.close()
        raise ValueError("cannot be read: holds no video stream")
    stream.codec_context.thread_count = 1
    # Else decoders paint over damage without a word.
    stream.codec_context.options = {"err_detect": "explode"}
    return container, stream


@contextmanager
def _reasons(path: Path) -> Iterator[None]:
    """Turn what FFmpeg and the file system say of a file into a ValueError with a short reason."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"cannot be read: {_why(path, error)}") from error


def _why(path: Path, error: Exception) -> str:
    """Return in a few words why a file could not be opened or decoded."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError as cause:
        return str(cause.strerror)
    if not head:
        return "empty"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the video (git lfs pull)"
    if head.lstrip()[:1] == b"<":
        return "a page of HTML or XML, not a video"
    if isinstance(error, av.InvalidDataError):
        return "no whole video that FFmpeg knows"
    return str(getattr(error, "strerror", None) or error)


def _stated_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    """Return how long the file says that the video lasts, if it does."""
    if clock := CLOCK.fullmatch(stream.metadata.get("DURATION", "")):
        return 3600 * int(clock[1]) + 60 * int(clock[2]) + float(clock[3])
    alone = len(container.streams) == 1
    return container.duration / av.time_base if alone and container.duration else None


def _seconds(packet: Packet) -> str:
    return f"{float(packet.pts * packet.time_base):.2f} s" if packet.pts is not None else "an unknown time"


def _upright(frame: VideoFrame) -> Image:
    """Return a decoded frame as BGR (H, W, 3), turned as the file says that it is to be shown."""
    picture = frame.to_ndarray(format="bgr24").astype(np.uint8, copy=False)
    image = np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90) % 4))
    if min(image.shape[:2]) < LEAST_SIDE:
        height, width = image.shape[:2]
        raise ValueError(f"too small: {width}×{height} pixels, expected {LEAST_SIDE} or more each way")
    return image
