"""What is needed to merge specialists and score the result in memory, read once from the stages' files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from r2m.evaluate.scores import score
from r2m.merge import merging
from r2m.merge.heads import merge_heads
from r2m.merge.merging import Shapes
from r2m.merge.method import Method
from r2m.merge.stages.inputs import read_same_base
from r2m.merge.tensors import TaskVectors, Tensors, merged_shapes
from r2m.models import checkpoint
from r2m.models.backbone import Detector
from r2m.models.layers import recorded_layers
from r2m.models.precision import resolve_device
from r2m.options import Section
from r2m.session_files import Compute, MergeParts, SessionFiles
from r2m.train.probe import features
from r2m.trunk.inputs import Inputs

POOLED = "pooled"


@dataclass(frozen=True)
class Bench:
    """A detector on its device, the images, and the parts of all merges.

    `base` holds the tensors that training can change; the detector has the others already. `shapes` are those
    of all that take part in a merge.
    """

    detector: Detector
    inputs: Inputs
    base: Tensors
    shapes: Shapes
    task_vectors: TaskVectors
    heads: TaskVectors
    initial_head: Tensors
    device: torch.device
    precision: str

    def merged(
        self, method: Method, options: Section, names: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Return the merged tensors θ* of all specialists, or of those in `names`, without a head."""
        chosen = self.task_vectors if names is None else {name: self.task_vectors[name] for name in names}
        update, _ = merging.merge(method, chosen, options, base=self.base, shapes=self.shapes)
        return self.updated(update)

    def updated(self, update: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return θ₀ + update of every tensor that training can change."""
        return {key: base + update[key] if key in update else base for key, base in self.base.items()}

    def head(self, rule: str = "average", names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the head that a rule makes of all specialists' heads, or of those in `names`."""
        chosen = self.heads if names is None else {name: self.heads[name] for name in names}
        return merge_heads(chosen, rule, self.initial_head)

    def scores(self, tensors: Tensors, head: Tensors) -> pd.DataFrame:
        """Return the scores of every val and test image, as `r2m score` writes them."""
        self.detector.load_tensors({**tensors, **head})
        return score(self.detector, self.inputs, self.device, self.precision)

    def features(self, tensors: Tensors, rows: pd.DataFrame) -> np.ndarray:
        """Return the pooled features (n, D) of the images in `rows`, in float32."""
        self.detector.load_tensors(tensors)
        parts = []
        for _, part in rows.groupby("set", sort=False):
            found = features(self.detector, self.inputs, part, self.device, self.precision)
            parts.append(pd.DataFrame(found, index=part.index))
        return pd.concat(parts).loc[rows.index].to_numpy()

    def layer_features(self, tensors: Tensors, rows: pd.DataFrame) -> dict[str, np.ndarray]:
        """Return features (n, D) of the images in `rows` by layer, in float32.

        The layers are the trainable blocks of a vision transformer in their order (`recorded_layers`), and
        last, as `POOLED`, the features that the head reads; of other backbones, only these.
        """
        with recorded_layers(self.detector) as recorded:
            pooled = self.features(tensors, rows)
        # `features` goes through the rows set by set.
        order = rows.groupby("set", sort=False).ngroup().argsort(kind="stable").to_numpy()
        layers = {}
        for name, batches in recorded.items():
            found = torch.cat(batches).numpy()
            layers[name] = np.empty_like(found)
            layers[name][order] = found
        return {**layers, POOLED: pooled}


def open_bench(files: SessionFiles, compute: Compute, parts: MergeParts, threads: int = 1) -> Bench:
    """Read what the stages wrote.

    Raises:
        R2MError: a file is missing or damaged, or was made from another base.
    """
    backbone = compute.backbone
    torch.set_num_threads(threads)
    weights, metadata = checkpoint.load(files.base)
    base_hash = metadata.get("base_hash")
    detector = Detector(backbone)
    detector.load_tensors(weights, f"{files.base}: tensors", complete=True)
    trained = {name: weights[name] for name in detector.trainable_state() if name in weights}
    place = resolve_device(compute.device)
    return Bench(
        detector=detector.to(place),
        inputs=Inputs(files.manifests, files.trunks, backbone, base_hash),
        base=trained,
        shapes=merged_shapes(weights),
        task_vectors=read_same_base(parts.task_vectors, base_hash)[0],
        heads=read_same_base(parts.heads, base_hash)[0],
        initial_head=checkpoint.load(parts.initial_head)[0],
        device=place,
        precision=compute.precision,
    )
