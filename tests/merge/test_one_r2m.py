"""R²M in the workflow's stages, from files, in memory and in a sweep: the same weights to the last bit."""

import json

import pytest
import torch
from safetensors.torch import load_file

from r2m.merge import api, merging, recipe, registry, stages
from r2m.merge.engine import Settings, merge_files
from r2m.merge.options import R2M
from r2m.merge.tensors import apply, merged_shapes, task_vector
from r2m.models import checkpoint

METHOD = registry.get("r2m")
NAMES = ("lip", "swap", "up")
# Beyond 256 rows and columns, matrices are decomposed in float32 first.
SHAPES = {
    "blocks.0.mlp.fc1.weight": (330, 280),
    "blocks.0.mlp.fc2.weight": (24, 70),
    "blocks.0.norm.bias": (33,),
    "blocks.1.attn.weight": (20, 20),
    "patch_embed.weight": (10, 3, 2, 2),
    "pos_embed": (1, 5, 6),
}
MATRIX = {"space": "matrix", "core_ratio": 0.1}
OPTIONS = [
    {},
    {"real": {"rank": 2}, "norm_match": "layer", "residual": {"rank": {"fixed": 3}}},
    {"real": {"scope": "layer"}, "residual": {"rank": {"energy": 0.7}, "vectors": "drop"}},
    {"real": {"center": True}, "residual": {"definition": "shift"}, "scale": {"absolute": 1.3}},
    {"real": {"block_weight": "frobenius"}, "residual": {"rank": {"optimal_threshold": True}}},
    {"real": {"rank": 3}, "residual": {"definition": "shift", "rank": {"ratio": 1.0}}, "norm_match": "none"},
    {"real": MATRIX},
    {"real": MATRIX, "norm_match": "layer", "residual": {"rank": {"ratio": 0.45}, "vectors": "drop"}},
    {"real": MATRIX, "norm_match": "none", "residual": {"rank": {"energy": 0.9}}, "scale": {"absolute": 2.0}},
    {"real": MATRIX, "residual": {"definition": "shift", "rank": {"fixed": 4}}, "scale": {"relative": 3.0}},
    {"real": {**MATRIX, "core_ratio": 0.6}, "residual": {"rank": {"optimal_threshold": True}}},
]


def models():
    """A base and specialists with running statistics, frozen tensors, and one that only some have trained."""
    generator = torch.Generator().manual_seed(3)

    def random(shape, scale):
        return torch.randn(shape, generator=generator) * scale

    base = {key: random(shape, 0.01) for key, shape in SHAPES.items()}
    base |= {"bn.running_mean": random(8, 1.0), "bn.running_var": torch.full((8,), 4.0)}
    base |= {"bn.num_batches_tracked": torch.tensor(3), "frozen.weight": random((4, 4), 1.0)}
    shared = {key: random(shape, 0.01) for key, shape in SHAPES.items()}
    specialists = {}
    for name in NAMES:
        one = base | {key: base[key] + change + random(change.shape, 0.01) for key, change in shared.items()}
        one |= {"bn.running_mean": random(8, 1.0), "bn.running_var": random(8, 1.0).abs()}
        specialists[name] = one
    specialists["swap"]["blocks.1.attn.weight"] = base["blocks.1.attn.weight"]
    return base, specialists


BASE, SPECIALISTS = models()


def from_stages(folder, options, threads):
    base, chosen, core = (folder / name for name in ("base.safetensors", "chosen.json", "core.safetensors"))
    checkpoint.save(base, BASE, {})
    complete = options.model_dump(exclude_none=True)
    chosen.write_text(json.dumps({"variant": "v", "method": "r2m", "head": "average", "options": complete}))
    taus, heads, residuals = (
        {name: folder / part / f"{name}.safetensors" for name in NAMES}
        for part in ("tau", "head", "residual")
    )
    for name, tensors in SPECIALISTS.items():
        path = folder / "specialist.safetensors"
        head = {"head.weight": torch.ones(1, 6)}
        checkpoint.save(path, tensors | head, {"base_hash": checkpoint.digest(BASE)})
        stages.task_vector(base=base, specialist=path, task_vector=taus[name], head=heads[name])
    # In which order the files are given has no say.
    made = {"chosen": chosen, "task_vectors": dict(reversed(taus.items())), "core": core, "threads": threads}
    stages.real_component(**made, report=folder / "core.json")
    for name, path in residuals.items():
        stages.residual(**made, specialist=name, residual=path, report=folder / f"{name}.json")
    rest = {"statistics": {}, "heads": heads, "initial_head": None, "report": folder / "model.json"}
    stages.merge(
        **{**made, "task_vectors": {}}, base=base, seed=0, residuals=residuals, model=folder / "model", **rest
    )
    merged = load_file(folder / "model")
    del merged["head.weight"]
    return merged


def from_files(folder, options, threads):
    paths = {name: folder / f"{name}.safetensors" for name in ("base", *NAMES)}
    for name, tensors in {"base": BASE, **SPECIALISTS}.items():
        checkpoint.save(paths[name], tensors, {})
    content = {"method": "r2m", "base": paths.pop("base"), "specialists": paths}
    content |= {"options": options.model_dump(exclude_none=True), "out": folder / "merged.safetensors"}
    merge_files(recipe.build(content, "test"), Settings(threads=threads))
    return load_file(folder / "merged.safetensors")


def from_sweep(options):
    """The candidate among others that share Real component, definition or norms with it, but not its rank."""
    complete = options.model_dump(exclude_none=True)
    ranks = [{"ratio": 0.3}, {"energy": 0.95}, {"fixed": 1}, complete["residual"]["rank"]]
    others = [
        R2M.model_validate({**complete, "residual": {**complete["residual"], "rank": rank}, "scale": scale})
        for rank in ranks
        for scale in ({"relative": 1.5}, complete["scale"])
    ]
    trained = {key: BASE[key] for key in BASE if key != "frozen.weight" and "num_batches" not in key}
    task_vectors = {name: task_vector(BASE, SPECIALISTS[name]) for name in reversed(NAMES)}
    for candidate, update in merging.sweep(
        METHOD, task_vectors, others, base=trained, shapes=merged_shapes(BASE)
    ):
        if candidate == options:
            return apply(BASE, update)
    raise AssertionError("the candidate is not among those that come back")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("values", OPTIONS)
def test_every_route_gives_the_same_bits(tmp_path, values, threads):
    options = R2M.model_validate(values)
    memory = api.merge("r2m", BASE, SPECIALISTS, options.model_dump(exclude_none=True), threads=threads)
    routes = {
        "stages": from_stages(tmp_path, options, threads),
        "files": from_files(tmp_path, options, threads),
        "sweep": from_sweep(options),
    }
    assert any(not torch.equal(memory[key], BASE[key]) for key in SHAPES)
    for route, tensors in routes.items():
        assert tensors.keys() == memory.keys() == BASE.keys()
        different = [key for key in BASE if not torch.equal(tensors[key], memory[key])]
        assert not different, route
