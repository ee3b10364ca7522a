"""Drawn photographs, so that no test needs a real face."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.fixture
def photographs(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that fills a folder with `n` drawn faces, in sub-folders of `per_person` if asked."""

    def make(name: str, n: int, per_person: int = 0, size: int = 80) -> Path:
        folder = tmp_path / name
        for i in range(n):
            rng = np.random.default_rng(i)
            image = rng.integers(0, 255, (size, size, 3)).astype(np.uint8)
            cv2.circle(image, (size // 2, size // 2), size // 3, rng.integers(0, 255, 3).tolist(), -1)
            person = f"p{i // per_person}" if per_person else ""
            path = folder / person / f"{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image)
        return folder

    return make
