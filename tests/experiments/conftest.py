"""A bench of the small ViT with random task vectors and heads, read from files."""

import pytest
import torch
from experiment_context import CONTEXT

from detector_samples import VIT
from r2m.cli.bench import bench_of
from r2m.evaluate.bench import Bench
from r2m.evaluate.protocols import EvaluationContext
from r2m.models import checkpoint

NAMES = ("drawn", "sketch", "swap", "up")


@pytest.fixture(scope="session")
def bench_files(tmp_path_factory, image_sets, trunk_files, base_files):
    """What `bench_of` takes."""
    folder = tmp_path_factory.mktemp("bench")
    base, metadata = checkpoint.load(base_files["vit"])
    generator = torch.Generator().manual_seed(0)
    trained = [name for name in base if name.startswith(("blocks.4.", "blocks.5.", "norm."))]
    files = {"task_vector": {}, "head": {}}
    for name in ("swap", "up", "third"):
        tensors = {key: torch.randn(base[key].shape, generator=generator) * 0.05 for key in trained}
        head = {
            "head.weight": torch.randn(1, 64, generator=generator),
            "head.bias": torch.randn(1, generator=generator),
        }
        for kind, content in (("task_vector", tensors), ("head", head)):
            files[kind][name] = folder / f"{name}.{kind}.safetensors"
            checkpoint.save(files[kind][name], content, metadata)
    return {
        "manifests": image_sets.paths(*NAMES),
        "trunks": [trunk_files[name] for name in NAMES],
        "base": base_files["vit"],
        "backbone": VIT,
        "initial_head": base_files["vit"].parent / "initial_head.safetensors",
        "device": "cpu",
        "precision": "fp32",
        "threads": 1,
        **files,
    }


@pytest.fixture
def bench(bench_files, one_thread) -> Bench:
    return bench_of(**bench_files)


@pytest.fixture
def context() -> EvaluationContext:
    return EvaluationContext.model_validate(CONTEXT)
