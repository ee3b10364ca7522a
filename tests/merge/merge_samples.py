"""Random task vectors for the tests of this folder."""

from dataclasses import dataclass

import torch

from r2m.merge import passes, real_aware
from r2m.merge.stream import MemorySource, TensorStream
from r2m.merge.tensors import norm

SHAPES = {
    "blocks.0.attn.qkv.weight": (18, 6),
    "blocks.0.mlp.fc2.weight": (6, 14),
    "blocks.0.norm1.bias": (6,),
    "blocks.1.attn.proj.weight": (6, 6),
    "patch_embed.proj.weight": (6, 2, 2, 2),
    "pos_embed": (1, 5, 6),
}


def random_task_vectors(count, seed=0, shapes=None, shared=1.0):
    """Task vectors of `count` specialists that share a part, of different norms."""
    generator = torch.Generator().manual_seed(seed)
    shapes = shapes or SHAPES
    common = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    return {
        f"s{j}": {
            key: (shared * common[key] + (1 + 0.3 * j) * torch.randn(shape, generator=generator)) * 1e-3
            for key, shape in shapes.items()
        }
        for j in range(count)
    }


def flatten(tensors):
    return torch.cat([tensors[key].reshape(-1).double() for key in sorted(tensors)])


def stream_of(task_vectors):
    return TensorStream(MemorySource(task_vectors))


@dataclass
class Component:
    """A Real component in memory, tensor by tensor."""

    made: passes.RealComponent
    names: tuple
    core: dict
    how: dict


def component_of(made):
    keys = sorted(key.removeprefix("core.") for key in made.store if key.startswith("core."))
    core, how = {key: made.core(key) for key in keys}, {key: made.how(key) for key in keys}
    return Component(made, made.names, core, how)


def real_component(task_vectors, options):
    return component_of(passes.real_component(stream_of(task_vectors), options, {}))


def in_order(component, task_vectors):
    return stream_of({name: task_vectors[name] for name in component.names if name in task_vectors})


def real_part(component, task_vectors, name, key):
    """The Real part R_j of one tensor, in float64."""
    stream, index = in_order(component, task_vectors), component.names.index(name)
    real, _ = passes.share(stream, key, component.how[key])
    return real.part(index, stream.whole(key).task_vector(index))


def truncated_residual(component, task_vectors, name, options):
    """The truncated residual F̂_j of one specialist."""
    stream = in_order(component, task_vectors)
    (found,) = passes.residuals(stream, component.made, [options], [{}], only=[name])
    return found[name]


def whole_residual(component, task_vectors, name, key, definition):
    """F_j of one tensor as the merge makes it, in float32."""
    stream, index = in_order(component, task_vectors), component.names.index(name)
    task_vector = stream.whole(key).task_vector(index)
    length = norm([task_vector]) ** 2
    real, _ = passes.share(stream, key, component.how[key], torch.float32)
    core = component.core[key] if definition == "shift" else None
    rest = real_aware.residual_(task_vector, real, index, core)
    return rest if real_aware.significant(norm([rest]) ** 2, length) else torch.zeros_like(rest)
