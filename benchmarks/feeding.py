"""How many images a second are fed to the model, by the number of threads that read ahead.

    python benchmarks/feeding.py --cache FOLDER --threads 1 2

JPEGs as they lie on disk: of the detector's size (224 px), of the 256 px that DF40 has, and photographs of 12
megapixels; without augmentation (scoring) and with it (training). Nothing is done with the batches.
"""

import argparse
import time
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from r2m import manifest
from r2m.models.options import BackboneOptions
from r2m.models.read_ahead import read_ahead
from r2m.options import FileSource
from r2m.trunk.inputs import Inputs
from r2m.trunk.options import AugmentOptions

BACKBONE = BackboneOptions(
    name="vit_base_patch16_clip_quickgelu_224",
    image_size=224,
    weights=FileSource(file="weights.safetensors"),
    trainable_blocks="all",
)
BATCH, FILES = 64, 128
# What it is called → (height, width), number of images.
SOURCES = {
    "224 px": ((224, 224), 2048),
    "256 px": ((256, 256), 2048),
    "12 megapixels": ((3000, 4000), 64),
}


def write_images(folder: Path, shape: tuple[int, int], count: int) -> Path:
    """Write JPEGs of smooth noise, at most `FILES` different ones, and the manifest of `count`."""
    random = np.random.default_rng(0)
    files = min(FILES, count, 8 if shape[0] > 1000 else FILES)
    paths = [folder / "images" / f"{i}.jpg" for i in range(files)]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    for path in paths:
        small = random.integers(0, 256, (28, 28, 3)).astype(np.uint8)
        image = cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    frame = pd.DataFrame(
        {
            "image_id": [f"{folder.name}/{i:05}" for i in range(count)],
            "path": [paths[i % files].as_posix() for i in range(count)],
            "label": 0,
            "generator": "real",
            "family": "real",
            "domain": "photographs",
            "identity": [str(i) for i in range(count)],
            "source_image": None,
            "video": None,
            "split": "train",
        }
    )
    manifest.write(frame, folder / "manifest.parquet")
    return folder / "manifest.parquet"


def images_per_second(inputs: Inputs, augment: AugmentOptions | None) -> tuple[float, float]:
    """Return the images a second of wall time and of CPU time."""
    starts = range(0, len(inputs.rows), BATCH)

    def read(start: int) -> torch.Tensor:
        return inputs.fetch(inputs.rows.iloc[start : start + BATCH], augment, start)

    wall, cpu = time.perf_counter(), time.process_time()
    with closing(read_ahead(read, starts, inputs.threads)) as batches:
        count = sum(len(batch) for batch in batches)
    return count / (time.perf_counter() - wall), count / (time.process_time() - cpu)


def main() -> None:
    """Parse the command line, measure, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="the best of so many is shown")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)  # as jobs do
    print("| files | augmented | threads | images/s | images/s of CPU |\n|---|---|--:|--:|--:|")
    for name, (shape, count) in SOURCES.items():
        path = write_images(arguments.cache.resolve() / name.replace(" ", "_"), shape, count)
        for augment in (None, AugmentOptions()):
            for threads in arguments.threads:
                torch.set_num_threads(threads)
                inputs = Inputs([path], [], BACKBONE, threads=threads)
                wall, cpu = max(images_per_second(inputs, augment) for _ in range(arguments.repeats))
                row = [name, "yes" if augment else "no", str(threads), f"{wall:.0f}", f"{cpu:.0f}"]
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
