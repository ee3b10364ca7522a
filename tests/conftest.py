"""Drawn image sets and small random detectors, for every test that reads images or trains."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

# Read when torch and BLAS are imported, here and in what tests start: processes share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


MadeOnce = Callable[[str, Callable[[Path], object]], Path]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Named files and tests run in one process: starting others takes longer than most of them."""
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    folders = [argument for argument in config.args if Path(argument).is_dir()]
    return 0 if named and not folders else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Processes start with the tests that take longest, so that they end together."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture
def one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Return a function that gives the folder of a name, filled by the process that asks for it first."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def folder(name: str, fill: Callable[[Path], object]) -> Path:
        path, done = shared / name, shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                assert not path.exists(), f"another process failed to make {path}"
                path.mkdir()
                fill(path)
                done.touch()
        return path

    return folder


@dataclass(frozen=True)
class ImageSets:
    """Manifests of drawn image sets by name: `drawn` (reals), `sketch` (reals, test only), `swap`, `up`."""

    folder: Path
    manifests: dict[str, Path]

    def paths(self, *names: str) -> list[Path]:
        return [self.manifests[name] for name in names]


@pytest.fixture(scope="session")
def image_sets(tmp_path_factory) -> ImageSets:
    """Noise at 32 px; a fake is its source with a bright square, which a small network learns."""
    from detector_samples import draw_image_sets

    folder = tmp_path_factory.mktemp("image_sets")
    return ImageSets(folder, draw_image_sets(folder))


@pytest.fixture(scope="session")
def base_files(tmp_path_factory) -> dict[str, Path]:
    """Backbone name → base.safetensors with random weights; initial_head.safetensors stands beside it."""
    from detector_samples import BACKBONES, write_base

    folder = tmp_path_factory.mktemp("bases")
    return {name: write_base(folder / name, options) for name, options in BACKBONES.items()}


@pytest.fixture(scope="session")
def trunk_files(tmp_path_factory, image_sets, base_files) -> dict[str, Path]:
    """Image set → cached activations of the small ViT."""
    from detector_samples import VIT
    from r2m.trunk.stages import trunk

    folder = tmp_path_factory.mktemp("trunks")
    files = {}
    for name, manifest in image_sets.manifests.items():
        files[name] = folder / name / "activations.safetensors"
        trunk(
            manifest=manifest,
            base=base_files["vit"],
            backbone=VIT,
            device="cpu",
            precision="fp32",
            activations=files[name],
        )
    return files
