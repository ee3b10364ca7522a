"""Time and peak memory of `r2m index` on a synthetic tree of DF40's size, a million frames by default.

python benchmarks/index.py --repeats 3
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from measure import measure

# DF40's methods with FaceForensics++'s domain, by their folders there.
METHODS = (
    *("fsgan", "faceswap", "simswap", "inswap", "blendface", "uniface", "mobileswap", "e4s", "facedancer"),
    *("fomm", "facevid2vid", "wav2lip", "MRAA", "one_shot_free", "pirender", "tpsm", "lia", "danet"),
    *("sadtalker", "mcnet", "hyperreenact", "VQGAN", "StyleGAN2", "StyleGAN3", "StyleGANXL", "sd2.1"),
    *("ddim", "rddm", "pixart", "DiT", "SiT", "deepfacelab", "heygen", "MidJourney", "whichisreal"),
    *("CollabDiff", "e4e", "stargan", "starganv2", "styleclip"),
)


def make_tree(folder: Path, methods: int, videos: int, frames: int) -> None:
    """Write METHOD/ff/frames/A_B/NNN.png of a few bytes, `videos` pairs a method."""
    for method in METHODS[:methods]:
        for number in range(videos):
            first, second = (number, number ^ 1)
            video = folder / method / "ff" / "frames" / f"{first:03}_{second:03}"
            video.mkdir(parents=True)
            for frame in range(frames):
                file = os.open(video / f"{13 * frame:03}.png", os.O_CREAT | os.O_WRONLY | os.O_EXCL)
                os.write(file, b"frame")
                os.close(file)


def main() -> None:
    """Print one row a run, and the median; the tree is removed in the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", type=int, default=40)
    parser.add_argument("--videos", type=int, default=780, help="a method")
    parser.add_argument("--frames", type=int, default=32, help="a video")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to make the tree  [default: a temporary folder]")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="r2m-index-", dir=options.folder))
    try:
        start = time.perf_counter()
        make_tree(place / "DF40", options.methods, options.videos, options.frames)
        count = options.methods * options.videos * options.frames
        print(f"{count:,} frames, made in {time.perf_counter() - start:.0f} s; load {os.getloadavg()[0]:.1f}")
        print("| run | wall, s | CPU, s | peak, GB | index, MB |")
        print("|---|--:|--:|--:|--:|")
        index = place / "df40.parquet"
        command = [sys.executable, "-m", "r2m", "index", str(place / "DF40"), "--out", str(index)]
        walls = []
        for run in range(options.repeats):
            index.unlink(missing_ok=True)
            run_of = measure(command, place / "log", os.environ)
            if run_of.status:
                sys.exit((place / "log").read_text())
            walls.append(run_of.wall)
            size = index.stat().st_size
            print(
                f"| {run + 1} | {run_of.wall:.1f} | {run_of.cpu:.1f} | {run_of.rss / 1e9:.2f}"
                f" | {size / 1e6:.1f} |",
                flush=True,
            )
        print(f"median: {statistics.median(walls):.1f} s")
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
