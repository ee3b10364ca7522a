"""A bench of the small ViT with random task vectors and heads, read from files."""

import pytest
import torch
from experiment_context import CONTEXT

from detector_samples import VIT
from r2m.evaluate.bench import Bench, open_bench
from r2m.evaluate.protocols import EvaluationContext
from r2m.merge import registry
from r2m.merge.options import R2M
from r2m.merge.stages import Chosen
from r2m.models import checkpoint
from r2m.session_files import Compute, MergeParts, SessionFiles

NAMES = ("drawn", "sketch", "swap", "up")


@pytest.fixture(scope="session")
def bench_files(tmp_path_factory, image_sets, trunk_files, base_files):
    """What `open_bench` takes, and the runs of experiments beside their own."""
    folder = tmp_path_factory.mktemp("bench")
    base, metadata = checkpoint.load(base_files["vit"])
    generator = torch.Generator().manual_seed(0)
    trained = [name for name in base if name.startswith(("blocks.4.", "blocks.5.", "norm."))]
    made = {"task_vector": {}, "head": {}}
    for name in ("swap", "up", "third"):
        tensors = {key: torch.randn(base[key].shape, generator=generator) * 0.05 for key in trained}
        head = {
            "head.weight": torch.randn(1, 64, generator=generator),
            "head.bias": torch.randn(1, generator=generator),
        }
        for kind, content in (("task_vector", tensors), ("head", head)):
            made[kind][name] = folder / f"{name}.{kind}.safetensors"
            checkpoint.save(made[kind][name], content, metadata)
    base_file = base_files["vit"]
    return {
        "files": SessionFiles(
            tuple(image_sets.paths(*NAMES)), tuple(trunk_files[name] for name in NAMES), base_file
        ),
        "compute": Compute(VIT, "cpu", "fp32"),
        "parts": MergeParts(made["task_vector"], made["head"], base_file.parent / "initial_head.safetensors"),
        "threads": 1,
    }


@pytest.fixture
def bench(bench_files, one_thread) -> Bench:
    return open_bench(**bench_files)


@pytest.fixture
def context() -> EvaluationContext:
    return EvaluationContext.model_validate(CONTEXT)


@pytest.fixture
def chosen() -> Chosen:
    """R²M in matrix space, with its defaults."""
    return Chosen("r2m", registry.get("r2m"), "average", R2M.model_validate({"real": {"space": "matrix"}}))
