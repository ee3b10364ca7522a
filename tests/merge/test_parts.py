"""The summands of an R²M merge add up to it."""

import pytest
import torch

from r2m.merge import merging, registry
from r2m.merge.options import R2M
from r2m.merge.passes import parts

OPTIONS = [
    {},
    {"real": {"space": "matrix"}, "residual": {"rank": {"ratio": 0.5}}, "scale": {"relative": 3.0}},
    {"real": {"space": "matrix"}, "norm_match": "layer", "residual": {"vectors": "drop"}},
    {"norm_match": "none", "residual": {"definition": "shift"}, "scale": {"absolute": 0.7}},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_parts_sum_to_the_merge(options):
    torch.manual_seed(0)
    shapes = {"fc.weight": (12, 8), "conv.weight": (6, 3, 2, 2), "norm.bias": (9,)}
    task_vectors = {
        name: {key: torch.randn(shape) * scale for key, shape in shapes.items()}
        for name, scale in (("a", 1.0), ("b", 1.5), ("c", 0.5))
    }
    chosen = R2M.model_validate(options)
    whole, _ = merging.merge(registry.get("r2m"), task_vectors, chosen)
    core, _ = merging.merge(
        registry.get("r2m"), task_vectors, chosen.model_copy(update={"scale": type(chosen.scale)(absolute=0)})
    )
    found = parts(task_vectors, chosen)
    for key, tensor in whole.items():
        torch.testing.assert_close(found.core[key], core[key], atol=1e-5, rtol=1e-4)
        total = found.core[key] + sum(found.residual(name)[key] for name in task_vectors)
        torch.testing.assert_close(total, tensor, atol=1e-4, rtol=1e-4)
