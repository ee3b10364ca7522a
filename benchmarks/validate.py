"""Time and memory of `r2m validate --names-only` on a drawn-up tree of DF40's layout and its index."""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from measure import measure

FRAMES = 32  # a video
METHODS = 40
SIZE = 40_000  # bytes, as the index says
# Files that are said to be there, and are not.
GONE = 1000


def folders(videos: int) -> Iterator[tuple[str, int, str, str, int]]:
    """Yield folder, label, method, domain and number of each video; a quarter are real."""
    for number in range(videos):
        domain = ("ff", "cdf")[number // 4 % 2]
        if number % 4 == 0:
            yield f"{domain}/original_sequences/c23/frames/{number:06}", 0, "real", domain, number
        else:
            method = f"method{number // 8 % METHODS:02}"
            name = f"{number:06}_{number + 4:06}"
            yield f"DF40/{method}/{domain}/frames/{name}", 1, method, domain, number


def make(root: Path, index: Path, files: int) -> None:
    """Write a tree of empty files, some of which are left out, and its index."""
    import numpy as np
    import pyarrow as pa

    from r2m.index import table

    videos = list(folders(files // FRAMES))
    names = [f"{frame:03}.png" for frame in range(FRAMES)]
    rows = len(videos) * FRAMES
    gone = set(np.linspace(0, rows - 1, GONE).astype(int).tolist()) if rows > GONE else set()
    paths = []
    for folder, *_ in videos:
        os.makedirs(root / folder)
        for name in names:
            path = f"{folder}/{name}"
            if len(paths) not in gone:
                os.close(os.open(root / path, os.O_CREAT | os.O_WRONLY))
            paths.append(path)

    def repeated(values: list[object]) -> np.ndarray:
        return np.repeat(np.array(values, dtype=object), FRAMES)

    splits = ["train", "train", "train", "val", "test"]
    labels = [label for _, label, *_ in videos]
    columns = {
        "path": paths,
        "label": repeated(labels),
        "method": repeated([method for *_, method, _, _ in videos]),
        "family": repeated(["FS" if label else "real" for label in labels]),
        "domain": repeated([domain for *_, domain, _ in videos]),
        "dataset": repeated(["DF40" if label else "FaceForensics++" for label in labels]),
        "video": repeated([folder.rpartition("/")[2] for folder, *_ in videos]),
        "frame": np.tile(np.arange(FRAMES, dtype=np.int32), len(videos)),
        "media": repeated(["image"] * len(videos)),
        "identity": repeated([f"{number // 8:06}" for *_, number in videos]),
        "identity2": repeated([f"{number // 8:06}b" if label else None for _, label, _, _, number in videos]),
        "split": repeated([splits[number // 8 % len(splits)] for *_, number in videos]),
        "split_by": repeated(["official"] * len(videos)),
        "compression": repeated([None if label else "c23" for label in labels]),
        "mask": repeated([None] * len(videos)),
        "size": np.full(rows, SIZE),
    }
    arrays = [
        pa.array(columns[field.name], field.type.value_type).dictionary_encode().cast(field.type)
        if pa.types.is_dictionary(field.type)
        else pa.array(columns[field.name], field.type)
        for field in table.SCHEMA
    ]
    table.write(pa.table(arrays, schema=table.SCHEMA), {"version": 1, "root": str(root)}, index)


def main() -> None:
    """Make the tree in a process of its own, validate it, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="keep the tree here for the next time")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    root, index = folder / f"tree{options.files}", folder / f"tree{options.files}.parquet"
    if options.make:
        make(root, index, options.files)
        return
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "validate.log"
    try:
        if not index.exists():
            shutil.rmtree(root, ignore_errors=True)
            again = [sys.executable, __file__, "--make", "--files", str(options.files)]
            made = measure([*again, "--folder", str(folder)], log, os.environ)
            if made.status:
                sys.exit(log.read_text())
        command = [sys.executable, "-m", "r2m", "validate", str(index), "--names-only"]
        runs = [measure(command, log, os.environ) for _ in range(options.repeats)]
        if "Files that are not there" not in log.read_text():
            sys.exit(log.read_text())
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    best = min(run.wall for run in runs)
    cpu, rss = min(run.cpu for run in runs), max(run.rss for run in runs)
    print("| files | wall, best (s) | CPU (s) | peak RSS (GB) |\n|--:|--:|--:|--:|")
    print(f"| {options.files:,} | {best:.1f} | {cpu:.1f} | {rss / 1e9:.2f} |")


if __name__ == "__main__":
    main()
