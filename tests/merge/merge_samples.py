"""Random task vectors for the tests of this folder."""

import torch

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
