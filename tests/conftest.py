"""Drawn image sets and small random detectors, for every test that reads images or trains."""

from dataclasses import dataclass
from pathlib import Path

import pytest


@pytest.fixture
def one_thread():
    import torch

    torch.set_num_threads(1)


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
