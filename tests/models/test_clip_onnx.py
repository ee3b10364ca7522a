"""Conversion of a small quantized CLIP image tower that has the node names of the real export."""

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper

from r2m.errors import R2MError
from r2m.models.clip_onnx import convert

WIDTH, DEPTH, TOKENS, MLP = 64, 6, 5, 192
LINEARS = {
    **{f"self_attn.{one}_proj": (WIDTH, WIDTH) for one in ("q", "k", "v", "out")},
    "mlp.fc1": (WIDTH, MLP),
    "mlp.fc2": (MLP, WIDTH),
}


class Tower:
    """Initializers and nodes of the export, and the floating matrices that they stand for."""

    def __init__(self, per_channel=True):
        random = np.random.default_rng(0)
        self.values, self.nodes, self.matrices = {}, [], {}

        def draw(name, *shape):
            self.values[f"vision_model.{name}"] = random.normal(size=shape).astype(np.float32)

        draw("embeddings.class_embedding", WIDTH)
        draw("embeddings.position_embedding.weight", TOKENS, WIDTH)
        draw("embeddings.patch_embedding.weight", WIDTH, 3, 16, 16)
        for norm in ("pre_layrnorm", "post_layernorm"):
            draw(f"{norm}.weight", WIDTH)
            draw(f"{norm}.bias", WIDTH)
        for i in range(DEPTH):
            for norm in ("layer_norm1", "layer_norm2"):
                draw(f"encoder.layers.{i}.{norm}.weight", WIDTH)
                draw(f"encoder.layers.{i}.{norm}.bias", WIDTH)
            for linear, (rows, columns) in LINEARS.items():
                draw(f"encoder.layers.{i}.{linear}.bias", columns)
                stem = f"onnx::MatMul_{len(self.matrices)}"
                channels = columns if per_channel else 1
                q = random.integers(-128, 128, (rows, columns)).astype(np.int8)
                scale = random.uniform(0.001, 0.01, channels).astype(np.float32)
                zero = random.integers(-5, 5, channels).astype(np.int8)
                if not per_channel:
                    scale, zero = scale.reshape(()), zero.reshape(())
                self.values |= {f"{stem}_quantized": q, f"{stem}_scale": scale, f"{stem}_zero_point": zero}
                self.matrices[i, linear] = (q.astype(float) - zero.astype(float)) * scale
                name = f"/vision_model/encoder/layers.{i}/{linear.replace('.', '/')}/MatMul_quant"
                inputs = [f"x{len(self.nodes)}", f"{stem}_quantized", "x_zero", f"{stem}_zero_point"]
                self.nodes.append(helper.make_node("MatMulInteger", inputs, [f"y{len(self.nodes)}"], name))
        self.nodes.append(helper.make_node("MatMulInteger", ["a", "b"], ["c"], "/vision_model/other"))

    def write(self, path):
        output = helper.make_tensor_value_info("y0", TensorProto.INT32, None)
        initializers = [numpy_helper.from_array(value, name) for name, value in self.values.items()]
        graph = helper.make_graph(self.nodes, "tower", [], [output], initializers)
        onnx.save(helper.make_model(graph), str(path))
        return path


@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_under_timm_names(tmp_path, per_channel):
    tower = Tower(per_channel)
    weights = convert(tower.write(tmp_path / "clip.onnx"))
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())
    for theirs, ours in {"pre_layrnorm": "norm_pre", "post_layernorm": "norm"}.items():
        expected = tower.values[f"vision_model.{theirs}.weight"]
        np.testing.assert_array_equal(weights[f"{ours}.weight"], expected)
    assert weights["cls_token"].shape == (1, 1, WIDTH)
    assert weights["pos_embed"].shape == (1, TOKENS, WIDTH)
    joined = np.concatenate([tower.matrices[2, f"self_attn.{one}_proj"].T for one in "qkv"])
    np.testing.assert_allclose(weights["blocks.2.attn.qkv.weight"], joined, rtol=1e-6)
    np.testing.assert_allclose(weights["blocks.5.mlp.fc1.weight"], tower.matrices[5, "mlp.fc1"].T, rtol=1e-6)
    value_bias = tower.values["vision_model.encoder.layers.3.self_attn.v_proj.bias"]
    np.testing.assert_array_equal(weights["blocks.3.attn.qkv.bias"][2 * WIDTH :], value_bias)


def test_weights_fill_the_timm_model(tmp_path):
    weights = convert(Tower().write(tmp_path / "clip.onnx"))
    model = timm.create_model("test_vit", img_size=32, num_classes=0, pre_norm=True)
    model.load_state_dict(weights)


def test_other_onnx_files_are_refused(tmp_path):
    path = tmp_path / "other.onnx"
    path.write_bytes(b"no model at all")
    with pytest.raises(R2MError, match=r"other\.onnx: not a readable ONNX file"):
        convert(path)
    with pytest.raises(R2MError, match=r"absent\.onnx: not a readable ONNX file"):
        convert(tmp_path / "absent.onnx")
    for missing in ("vision_model.post_layernorm.bias", "onnx::MatMul_3_zero_point"):
        tower = Tower()
        del tower.values[missing]
        name = missing.removeprefix("vision_model.")
        with pytest.raises(R2MError, match=rf"no weight '{name}'; expected an int8 CLIP image tower"):
            convert(tower.write(path))
