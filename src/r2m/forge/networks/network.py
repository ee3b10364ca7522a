"""Networks that OpenVINO runs, one thread each: the same bits whatever else runs beside."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r2m.errors import R2MError

Array = NDArray[np.float32]


class Network:
    """A network on the CPU; threads may share it.

    `prepared(model)` may change the model before it is compiled: another size, other outputs.
    """

    def __init__(self, path: Path, prepared: Callable[[Any], Any] | None = None) -> None:
        """Read an OpenVINO IR (`.xml`, its `.bin` beside it) or an ONNX file.

        Raises:
            R2MError: the file is missing or cannot be read.
        """
        if not path.is_file():
            raise R2MError(f"{path}: no such network; `r2m job source {path.parent.name}` fetches it again")
        import openvino
        from openvino import properties
        from openvino.properties import hint

        core = openvino.Core()
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            raise R2MError(f"{path}: not a network that OpenVINO reads") from error
        options = {
            properties.inference_num_threads(): 1,
            hint.enable_cpu_pinning(): False,  # the threads of all processes would share one core
            hint.inference_precision(): openvino.Type.f32,
            hint.num_requests(): 1,
        }
        self._compiled = core.compile_model(model if prepared is None else prepared(model), "CPU", options)
        self._local = threading.local()

    def __call__(self, *inputs: Array) -> list[Array]:
        """Return the outputs of the network, in their order, for inputs in theirs."""
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        outputs = self._local.request.infer(dict(enumerate(inputs)))
        return [outputs[index].copy() for index in range(len(self._compiled.outputs))]
