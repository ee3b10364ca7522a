"""What stages that run a detector read and how they compute; without torch, so that a plan can hold it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from r2m.models.options import BackboneOptions


@dataclass(frozen=True)
class SessionFiles:
    """Images and base weights: `manifests`, cached `trunks` (one per manifest, or none) and `base`."""

    manifests: tuple[Path, ...]
    trunks: tuple[Path, ...]
    base: Path


@dataclass(frozen=True)
class MergeParts:
    """What merges are made of: specialist → file, of one seed, and the head that all started from."""

    task_vectors: Mapping[str, Path]
    heads: Mapping[str, Path]
    initial_head: Path


@dataclass(frozen=True)
class Compute:
    """The backbone, where and how precisely it computes, and whether to the same bits each time."""

    backbone: BackboneOptions
    device: str = "auto"
    precision: str = "auto"
    deterministic: bool = True
