"""Detectors as ONNX: all of a detector in one file, for programs without torch."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from r2m.errors import R2MError
from r2m.files import atomic_path
from r2m.models.config import KEY
from r2m.models.image_detector import ImageDetector

# They tell of every step that simplifies a graph.
LOGGERS = ("onnx_ir", "onnxscript")
OPSET = 18
INPUT, OUTPUTS = "images", ("logit", "probability")
# How far logits of the file may be from torch's in fp32.
TOLERANCE = 1e-3
# Images that the exported file is compared on.
TRIED_ON = 3


class Exported(nn.Module):
    """A detector of images `(B, 3, S, S)`, RGB in [0, 1]: logits and probabilities `(B,)` of being fake."""

    mean: Tensor
    std: Tensor

    def __init__(self, detector: ImageDetector) -> None:
        super().__init__()
        self.model = deepcopy(detector.model)
        self.slope, self.offset = detector.config.slope, detector.config.offset
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(detector.config, name)).view(3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and calibrated probabilities."""
        logits = self.model((images - self.mean) / self.std)
        return logits, torch.sigmoid(self.slope * logits + self.offset)


def export_onnx(detector: ImageDetector, path: Path, *, int8: bool = False) -> float:
    """Write a detector as ONNX, and return how far its logits are from torch's at most, on random images.

    Normalization, backbone, head and calibration are inside, and the batch may have any size. The metadata
    `detector` of the file are those of the checkpoint, as JSON: the crop that images are to be, and the
    thresholds of probability. With `int8` matrices are stored in 8 bits, and inputs of products are rounded
    to 8 bits while it runs (dynamic quantization): a quarter of the size, other scores.

    Raises:
        R2MError: torch cannot write such a network as ONNX, or the file does not compute what torch does.
    """
    module = Exported(detector).eval().cpu()
    size = detector.config.image_size
    images = torch.rand(TRIED_ON, 3, size, size, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory(prefix="r2m-onnx-") as folder:
        whole = Path(folder) / "model.onnx"
        _write_whole(module, images, whole)
        with torch.inference_mode():
            expected = module(images)[0].numpy()
        difference = float(np.abs(logits_of(whole, images.numpy()) - expected).max())
        if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise R2MError(f"{path}: logits of the ONNX file are off by {difference:g}; nothing is written")
        if int8:
            whole = _quantized(whole)
            difference = float(np.abs(logits_of(whole, images.numpy()) - expected).max())
        model = _without_traces(onnx.load(whole))
    onnx.helper.set_model_props(model, {KEY: detector.config.model_dump_json()})
    with atomic_path(path) as temporary:
        onnx.save(model, temporary)
    return difference


def _write_whole(module: Exported, images: Tensor, whole: Path) -> None:
    try:
        with warnings_only(*LOGGERS):
            torch.onnx.export(
                module,
                (images,),
                whole,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        told = str(error).strip().partition("\n")[0]
        raise R2MError(f"{whole.name}: torch cannot write this network as ONNX: {told}") from error


@contextmanager
def warnings_only(*names: str) -> Iterator[None]:
    """Let loggers of these names, and those below them, tell warnings and errors alone."""
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    try:
        for logger in levels:
            logger.setLevel(logging.WARNING)
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def logits_of(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits (B,) that an exported file computes of RGB images (B, 3, S, S) in [0, 1]."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([OUTPUTS[0]], {INPUT: images})[0], dtype=np.float32)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take from a model which lines of code made its nodes: their paths tell of the machine."""
    for graph in (model.graph, *model.functions):
        for part in (graph, *graph.node, *graph.value_info):
            del part.metadata_props[:]
            part.doc_string = ""
    for part in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    return model


def _quantized(whole: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = whole.with_name("int8.onnx")
    quantize_dynamic(whole, path, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])
    return path
