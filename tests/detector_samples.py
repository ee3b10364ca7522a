"""Small detectors with random weights, and image sets that they can learn."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from r2m import manifest
from r2m.data.options import FacesOptions
from r2m.models import checkpoint
from r2m.models.backbone import Detector, create_backbone
from r2m.models.config import KEY, config_of
from r2m.models.heads import initial_head
from r2m.models.options import BackboneOptions
from r2m.options import FileSource
from r2m.seeding import rng
from r2m.session import Session
from r2m.trunk.inputs import Inputs

SIZE = 32
IDENTITIES = {"train": 8, "val": 4, "test": 3}
WEIGHTS = FileSource(file="weights.safetensors")
VIT = BackboneOptions(name="test_vit", image_size=SIZE, weights=WEIGHTS, trainable_blocks=2)
CONVNET = BackboneOptions(name="test_resnet", image_size=SIZE, weights=WEIGHTS, trainable_blocks="all")
BACKBONES = {"vit": VIT, "convnet": CONVNET}


def draw_image_sets(folder: Path) -> dict[str, Path]:
    """Write images and manifests of `drawn`, `sketch`, `swap` and `up`; return the manifests."""
    reals = [_real(folder, "drawn", split, i) for split, n in IDENTITIES.items() for i in range(n)]
    other = [_real(folder, "sketch", "test", i) for i in range(3)]
    rows = {"drawn": reals, "sketch": other}
    for name, family in {"swap": "FS", "up": "EFS"}.items():
        rows[name] = [_fake(folder, name, family, real) for real in reals + other]
    manifests = {}
    for name, content in rows.items():
        manifests[name] = folder / name / "manifest.parquet"
        manifest.write(pd.DataFrame(content), manifests[name])
    return manifests


def _real(folder: Path, domain: str, split: str, i: int) -> dict:
    image_id = f"{domain}/{split}{i:02d}"
    path = folder / domain / "images" / f"{split}{i:02d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), rng(0, image_id).integers(0, 120, (SIZE, SIZE, 3)).astype(np.uint8))
    return {
        "image_id": image_id,
        "path": path.as_posix(),
        "label": 0,
        "generator": "real",
        "family": "real",
        "domain": domain,
        "identity": f"{domain}-{split}-{i}",
        "source_image": None,
        "video": None,
        "split": split,
    }


def _fake(folder: Path, generator: str, family: str, real: dict) -> dict:
    stem = real["image_id"].replace("/", "_")
    path = folder / generator / "images" / f"{stem}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = cv2.imread(real["path"])
    rows = slice(8, 24) if generator == "swap" else slice(0, 8)
    image[rows, 8:24] = image[rows, 8:24] // 2 + 100
    cv2.imwrite(str(path), image)
    return real | {
        "image_id": f"{generator}/{stem}",
        "path": path.as_posix(),
        "label": 1,
        "generator": generator,
        "family": family,
        "source_image": real["image_id"],
    }


def random_weights(
    options: BackboneOptions, seed: int = 0, size: int | None = None
) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return create_backbone(options, size).state_dict()


def write_base(folder: Path, options: BackboneOptions) -> Path:
    """Write base.safetensors and initial_head.safetensors."""
    weights = random_weights(options)
    config = config_of(options, FacesOptions(), "fp32")
    metadata = {"base_hash": checkpoint.digest(weights), KEY: config.model_dump(mode="json")}
    checkpoint.save(folder / "base.safetensors", weights, metadata)
    head = initial_head(Detector(options).width, 0)
    checkpoint.save(folder / "initial_head.safetensors", head, metadata)
    return folder / "base.safetensors"


def load_detector(base: Path, options: BackboneOptions) -> Detector:
    detector = Detector(options)
    head = checkpoint.load(base.parent / "initial_head.safetensors")[0]
    detector.load_tensors(checkpoint.load(base)[0] | head)
    return detector


def session_of(detector: Detector, inputs: Inputs) -> Session:
    """A session in fp32 on the CPU, whose base is what the detector holds."""
    base = {name: tensor for name, tensor in detector.trainable_state().items() if name[:5] != "head."}
    return Session(detector, inputs, base, None, torch.device("cpu"), "fp32")


def save_whole(base: Path, path: Path) -> Path:
    """Write the detector of a base and its first head, described as the base is, into one file."""
    tensors, metadata = checkpoint.load(base)
    head, _ = checkpoint.load(base.parent / "initial_head.safetensors")
    checkpoint.save(path, tensors | head, metadata)
    return path
