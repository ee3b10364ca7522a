"""A drawn data set with an index: two people in each split, a real and a fake video of each, two frames."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from r2m.index import table

SIZE = 64
PAIRS = {"train": ("000", "003"), "val": ("100", "101"), "test": ("200", "201")}


def picture(seed: int, size: int = SIZE) -> np.ndarray:
    """Smooth noise (size, size, 3), so that each seed looks different."""
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    return cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)


def forged(image: np.ndarray) -> np.ndarray:
    """The image with a square in it."""
    result = image.copy()
    result[24:36, 24:36] = 255
    return result


class IndexedImages:
    """Files below `root`, and the rows of their index, by path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "images"
        self.index = folder / "drawn.parquet"
        self.cache = folder / "drawn.contents.parquet"
        self.rows: list[dict] = []
        for split, pair in PAIRS.items():
            for person, other in (pair, pair[::-1]):
                for frame in range(2):
                    image = picture(int(person) * 2 + frame)
                    real = {"label": 0, "video": person, "identity": person}
                    fake = {"label": 1, "video": f"{person}_{other}", "identity": person, "identity2": other}
                    self.add(f"original/{person}/{frame:03}.png", image, split=split, frame=frame, **real)
                    self.add(
                        f"swap/ff/frames/{person}_{other}/{frame:03}.png",
                        forged(image),
                        split=split,
                        frame=frame,
                        **fake,
                    )

    def add(self, path: str, image: np.ndarray | bytes | None = None, **row) -> dict:
        """Write an image, a file of these bytes, or none, and add its row."""
        file = self.root / path
        if isinstance(image, bytes):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(image)
        elif image is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(file), image)
        label = row.get("label", 0)
        given = {
            "path": path,
            "label": label,
            "method": "swap" if label else "real",
            "family": "FS" if label else "real",
            "domain": "ff",
            "dataset": "Drawn",
            "media": "image",
            "split": "train",
            "split_by": "official",
            "size": file.stat().st_size if file.is_file() else 1,
        }
        self.rows.append(given | row)
        return self.rows[-1]

    def row(self, path: str) -> dict:
        return next(row for row in self.rows if row["path"] == path)

    def write(self) -> Path:
        """Write the index, sorted as indexes are."""
        keys = ("domain", "label", "method", "video", "frame", "path")
        ordered = sorted(self.rows, key=lambda row: [str(row.get(key) or "") for key in keys])
        rows = [{name: row.get(name) for name in table.COLUMNS} for row in ordered]
        table.write(
            pa.Table.from_pylist(rows, table.SCHEMA), {"version": 1, "root": str(self.root)}, self.index
        )
        return self.index


def write_video(path: Path, frames: list[np.ndarray]) -> None:
    """Write BGR frames (SIZE, SIZE, 3) as a video; without frames it has a stream, and nothing in it."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        container.mux(stream.encode())
