"""Tiny random CLIP vision transformers, as checkpoints of timm and of OpenAI and open_clip hold them."""

import timm
import torch

WIDTH, DEPTH, OUT, PATCH = 16, 2, 10, 4


def timm_model(classes=OUT, grid=3):
    return timm.create_model(
        "vit_base_patch32_clip_224",
        img_size=grid * PATCH,
        patch_size=PATCH,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=2,
        num_classes=classes,
    ).eval()


def timm_state(classes=OUT, grid=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    state = timm_model(classes, grid).state_dict()
    return {name: torch.randn(tensor.shape, generator=generator) for name, tensor in state.items()}


def openai_state(seed=0, grid=3):
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "class_embedding": (WIDTH,),
        "positional_embedding": (grid**2 + 1, WIDTH),
        "proj": (WIDTH, OUT),
        "conv1.weight": (WIDTH, 3, PATCH, PATCH),
        "ln_pre.weight": (WIDTH,),
        "ln_pre.bias": (WIDTH,),
        "ln_post.weight": (WIDTH,),
        "ln_post.bias": (WIDTH,),
    }
    for block in range(DEPTH):
        shapes |= {
            f"transformer.resblocks.{block}.{name}": shape
            for name, shape in {
                "attn.in_proj_weight": (3 * WIDTH, WIDTH),
                "attn.in_proj_bias": (3 * WIDTH,),
                "attn.out_proj.weight": (WIDTH, WIDTH),
                "attn.out_proj.bias": (WIDTH,),
                "ln_1.weight": (WIDTH,),
                "ln_1.bias": (WIDTH,),
                "ln_2.weight": (WIDTH,),
                "ln_2.bias": (WIDTH,),
                "mlp.c_fc.weight": (4 * WIDTH, WIDTH),
                "mlp.c_fc.bias": (4 * WIDTH,),
                "mlp.c_proj.weight": (WIDTH, 4 * WIDTH),
                "mlp.c_proj.bias": (WIDTH,),
            }.items()
        }
    return {f"visual.{name}": torch.randn(shape, generator=generator) for name, shape in shapes.items()}
