"""Models as `r2m finetune` writes them: of every specialist, and of the subsets that orders pass through."""

import torch

from r2m.evaluate.orders import subsets
from r2m.models import checkpoint
from r2m.train.options import FinetuneOptions

# `third` has no images of its own on the bench.
GENERATORS = {"swap": "swap", "up": "up", "third": "swap"}


def trained_models(bench_files, folder, orders):
    """Write random models: five steps for one specialist, seven for several. Return subset → file."""
    random = torch.Generator().manual_seed(1)
    base, metadata = checkpoint.load(bench_files["files"].base)
    trained, _ = checkpoint.load(bench_files["parts"].task_vectors["up"])
    head, _ = checkpoint.load(bench_files["parts"].initial_head)
    files = {}
    for name, names in ({one: [one] for one in GENERATORS} | subsets(orders)).items():
        tensors = {key: base[key] + 0.05 * torch.randn(base[key].shape, generator=random) for key in trained}
        options = FinetuneOptions(steps=5 if len(names) == 1 else 7, pairs=3, validate_every=2)
        files[name] = folder / f"{name}.safetensors"
        about = {
            "base_hash": metadata["base_hash"],
            "options": options.model_dump(),
            "selected": {"steps": options.steps},
            "generators": sorted({GENERATORS[one] for one in names}),
        }
        checkpoint.save(files[name], tensors | head, about)
    return files
