"""CLIP ViT image tower from an int8 ONNX export into timm's naming."""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from r2m.errors import R2MError

_STEM = {
    "embeddings.patch_embedding.weight": "patch_embed.proj.weight",
    "pre_layrnorm.weight": "norm_pre.weight",
    "pre_layrnorm.bias": "norm_pre.bias",
    "post_layernorm.weight": "norm.weight",
    "post_layernorm.bias": "norm.bias",
}
_NORMS = {"layer_norm1": "norm1", "layer_norm2": "norm2"}
_LINEARS = {"self_attn.out_proj": "attn.proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}


def convert(path: str | Path) -> dict[str, torch.Tensor]:
    """Return the weights of the image tower in `path` as fp32 tensors under the names of timm's CLIP ViTs.

    Quantized matrices are `(q - zero_point) * scale` per output channel, transposed to `(out, in)`.

    Raises:
        R2MError: no ONNX file, or a weight that the image tower needs is not in it.
    """
    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # onnx raises protobuf's own classes
        raise R2MError(f"{path}: not a readable ONNX file ({type(error).__name__}: {error})") from error
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    floats = {name.removeprefix("vision_model."): value for name, value in values.items()}
    try:
        matrices = {
            _dotted(node.name): _dequantize(values, node.input[1])
            for node in graph.node
            if node.op_type == "MatMulInteger" and node.name.endswith("/MatMul_quant")
        }
        weights = _rename(floats, matrices)
    except KeyError as error:
        raise R2MError(f"{path}: no weight {error.args[0]!r}; expected an int8 CLIP image tower") from error
    return {name: torch.from_numpy(np.array(value, np.float32)) for name, value in weights.items()}


def _dotted(node: str) -> str:
    """Return the module's name that stands in the name of a quantized product's node."""
    return node.removeprefix("/vision_model/").removesuffix("/MatMul_quant").replace("/", ".")


def _dequantize(values: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Return one int8 matrix `(in, out)` as float `(out, in)`."""
    stem = name.removesuffix("_quantized")
    zero_point = values[f"{stem}_zero_point"].astype(np.float32)
    return ((values[name].astype(np.float32) - zero_point) * values[f"{stem}_scale"]).T


def _rename(floats: dict[str, np.ndarray], matrices: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    weights = {ours: floats[theirs] for theirs, ours in _STEM.items()}
    weights["cls_token"] = floats["embeddings.class_embedding"].reshape(1, 1, -1)
    weights["pos_embed"] = floats["embeddings.position_embedding.weight"][None]
    depth = sum(name.endswith(".mlp.fc1") for name in matrices)
    for i in range(depth):
        theirs, ours = f"encoder.layers.{i}", f"blocks.{i}"
        for norm, name in _NORMS.items():
            for parameter in ("weight", "bias"):
                weights[f"{ours}.{name}.{parameter}"] = floats[f"{theirs}.{norm}.{parameter}"]
        for linear, name in _LINEARS.items():
            weights[f"{ours}.{name}.weight"] = matrices[f"{theirs}.{linear}"]
            weights[f"{ours}.{name}.bias"] = floats[f"{theirs}.{linear}.bias"]
        projections = [f"self_attn.{part}_proj" for part in "qkv"]
        weights[f"{ours}.attn.qkv.weight"] = np.concatenate(
            [matrices[f"{theirs}.{projection}"] for projection in projections]
        )
        weights[f"{ours}.attn.qkv.bias"] = np.concatenate(
            [floats[f"{theirs}.{projection}.bias"] for projection in projections]
        )
    return weights
