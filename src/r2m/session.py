"""A detector on its device with the images that it is to read: the one place that opens and runs them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from r2m.models import checkpoint
from r2m.models.backbone import Detector
from r2m.models.blocks import recorded_blocks
from r2m.models.precision import make_deterministic, outputs, resolve_device
from r2m.session_files import Compute, SessionFiles
from r2m.trunk.inputs import Inputs

POOLED = "pooled"


@dataclass(frozen=True)
class Session:
    """A detector on its device, and the images.

    `base` holds the tensors that training can change, as they are in the file of the digest `base_hash`.
    """

    detector: Detector
    inputs: Inputs
    base: Mapping[str, Tensor]
    base_hash: str | None
    device: torch.device
    precision: str

    def predict(self, rows: pd.DataFrame, batch_size: int = 64) -> np.ndarray:
        """Return the logits `(n,)` of `rows`, fp32, in their order."""
        return self._run(self.detector, rows, batch_size, (0,))

    def pooled(self, rows: pd.DataFrame, batch_size: int = 64) -> np.ndarray:
        """Return the features `(n, D)` of `rows` that the head reads, fp32, in their order."""
        return self._run(self.detector.features, rows, batch_size, (0, self.detector.width))

    def features(self, tensors: Mapping[str, Tensor], rows: pd.DataFrame) -> np.ndarray:
        """Return the features `(n, D)` of `rows` with `tensors` in the detector, computed set by set."""
        self.detector.load_tensors(tensors)
        parts = [
            pd.DataFrame(self.pooled(part), index=part.index) for _, part in rows.groupby("set", sort=False)
        ]
        return pd.concat(parts).loc[rows.index].to_numpy()

    def layer_features(self, tensors: Mapping[str, Tensor], rows: pd.DataFrame) -> dict[str, np.ndarray]:
        """Return features `(n, D)` of `rows` by layer, in float32.

        The layers are the trainable blocks of a vision transformer in their order (`recorded_blocks`), and
        last, as `POOLED`, the features that the head reads; of other backbones, only these.
        """
        with recorded_blocks(self.detector) as recorded:
            pooled = self.features(tensors, rows)
        # `features` goes through the rows set by set.
        order = rows.groupby("set", sort=False).ngroup().argsort(kind="stable").to_numpy()
        layers = {}
        for name, batches in recorded.items():
            values = torch.cat(batches).numpy()
            layers[name] = np.empty_like(values)
            layers[name][order] = values
        return {**layers, POOLED: pooled}

    def _run(
        self,
        function: Callable[[Tensor], Tensor],
        rows: pd.DataFrame,
        batch_size: int,
        empty: tuple[int, ...],
    ) -> np.ndarray:
        self.detector.eval()
        batches = self.inputs.batches(rows, batch_size)
        results = outputs(function, batches, self.device, self.precision)
        return np.concatenate([np.zeros(empty, np.float32), *(result.float().numpy() for result in results)])


def open_session(files: SessionFiles, compute: Compute, threads: int = 1) -> Session:
    """Open the images and load the base into a detector on its device; its head is yet to be loaded.

    Raises:
        R2MError: a file is missing or damaged, tensors do not fit the backbone, or trunks are of another
            base.
    """
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)  # images are read in as many threads
    weights, metadata = checkpoint.load(files.base)
    detector = Detector(compute.backbone)
    detector.load_tensors(weights, f"{files.base}: tensors", complete=True)
    device = resolve_device(compute.device)
    if compute.deterministic:
        make_deterministic(device)
    base_hash = metadata.get("base_hash")
    return Session(
        detector=detector.to(device),
        inputs=Inputs(files.manifests, files.trunks, compute.backbone, base_hash, threads),
        base={name: weights[name] for name in detector.trainable_state() if name in weights},
        base_hash=base_hash,
        device=device,
        precision=compute.precision,
    )
