"""Faces from videos: frames a second and core, and the shares of decoding, detection and the rest.

    python benchmarks/videos.py ROOT

ROOT is a checkout whose `data/raw` has the packages `celeba` and `faces`. Clips are drawn from photographs:
720p, H.264, a keyframe every 10 s, a face that moves over a texture that passes by.
"""

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# One core: what is measured scales with the number of videos that are read side by side.
os.environ["OMP_NUM_THREADS"] = "1"

import av
import cv2
import numpy as np

from r2m.data import faces
from r2m.data.faces import Settings
from r2m.data.options import FacesOptions
from r2m.video import extract
from r2m.video.extract import VideoFile, VideoOptions, extract_videos

WIDTH, HEIGHT, RATE, SECONDS = 1280, 720, 25, 20
FACE = 320


def draw_clip(path: Path, photograph: Path) -> None:
    """Encode a photograph that moves to and fro over a texture that passes by and shows no face."""
    face = cv2.resize(cv2.imread(str(photograph)), (FACE, FACE), interpolation=cv2.INTER_CUBIC)
    grain = np.random.default_rng(0)
    texture = grain.integers(0, 256, (HEIGHT // 8, WIDTH // 4, 3), dtype=np.uint8)
    scene = cv2.resize(texture, (2 * WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    with av.open(path, "w") as file:
        stream = file.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "23"}
        stream.codec_context.gop_size = 10 * RATE
        for number in range(SECONDS * RATE):
            picture = scene[:, number : number + WIDTH].copy()
            x = round((WIDTH - FACE) * (0.5 + 0.1 * np.sin(number / 40)))
            y = round((HEIGHT - FACE) * (0.5 + 0.1 * np.cos(number / 25)))
            picture[y : y + FACE, x : x + FACE] = face
            noise = grain.integers(-4, 5, (HEIGHT, WIDTH, 1), dtype=np.int16)
            picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        file.mux(stream.encode())


class Clock:
    """CPU seconds by part of the work; parts do not lie within each other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, its time counted for `part`."""

        def measured(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[part] += time.process_time() - start

        return measured

    def watch(self) -> None:
        """Count the time of all parts from now on."""
        clock = self

        class Timed(extract.Video):
            def __init__(self, path: Path) -> None:
                clock.timed("decode", super().__init__)(path)

            def frames(self, numbers: Any) -> Iterator[Any]:
                pictures = super().frames(numbers)
                while (pair := clock.timed("decode", next)(pictures, None)) is not None:
                    yield pair

        extract.Video = Timed  # type: ignore[misc]
        detector, embedder = faces.FaceDetector, faces.FaceEmbedder
        detector.every = self.timed("detection", detector.every)  # type: ignore[method-assign]
        embedder.embed_chip = self.timed("embedding", embedder.embed_chip)  # type: ignore[method-assign]
        faces.align = self.timed("alignment and encoding", faces.align)
        for name in ("write_png", "read_crop", "write_encoded"):
            setattr(extract, name, self.timed("alignment and encoding", getattr(extract, name)))


def main() -> None:
    """Draw clips, take their faces, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path)
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 32])
    arguments = parser.parse_args()
    raw = arguments.root / "data/raw"
    photographs = sorted((raw / "celeba").glob("*.jpg"))
    settings = Settings(
        *(FacesOptions(), 64, 0, raw / "faces/yunet.onnx", raw / "faces/sface.onnx", 1),
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        videos = [VideoFile(folder / f"{i}.mp4", str(i)) for i in range(arguments.videos)]
        for number, video in enumerate(videos):
            draw_clip(video.path, photographs[number])
        size = sum(video.path.stat().st_size for video in videos) / 1e6 / len(videos)
        print(f"{len(videos)} clips of {SECONDS} s, {WIDTH}×{HEIGHT}, {RATE} frames/s, {size:.1f} MB each\n")
        clock = Clock()
        clock.watch()
        print(
            "| frames | faces | frames/s a core | decode | detection | embedding | alignment, files | rest |"
        )
        print("|--:|--:|--:|--:|--:|--:|--:|--:|")
        for count in arguments.frames:
            clock.seconds.clear()
            start = time.process_time()
            options = VideoOptions(count, "largest", "jpeg")
            out = folder / str(count)
            found = extract_videos(videos, settings, options, "clip", out / "images", None, out / "state")
            total = time.process_time() - start
            parts = [
                clock.seconds[part] for part in ("decode", "detection", "embedding", "alignment and encoding")
            ]
            shares = " | ".join(f"{seconds / total:.0%}" for seconds in (*parts, total - sum(parts)))
            asked = count * len(videos)
            print(f"| {count} | {len(found.table)} of {asked} | {asked / total:.1f} | {shares} |")


if __name__ == "__main__":
    main()
