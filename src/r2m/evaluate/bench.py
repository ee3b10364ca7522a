"""What is needed to merge specialists and score the result in memory, read once from the stages' files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
from torch import Tensor

from r2m.evaluate.scores import score
from r2m.merge import merging
from r2m.merge.heads import merge_heads
from r2m.merge.memory import map_large_blocks
from r2m.merge.merging import Shapes
from r2m.merge.method import Method
from r2m.merge.stages import read_same_base
from r2m.merge.tensors import TaskVectors, Tensors, merged_shapes
from r2m.models import checkpoint
from r2m.models.heads import average_head
from r2m.options import Section
from r2m.session import Session, open_session
from r2m.session_files import Compute, MergeParts, SessionFiles


@dataclass(frozen=True)
class Bench(Session):
    """A session, and the parts of all merges; `shapes` are those of all tensors that take part in one."""

    shapes: Shapes
    task_vectors: TaskVectors
    heads: TaskVectors
    initial_head: Tensors

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
        average = partial(average_head, head=self.detector.head_type)
        return merge_heads(chosen, rule, self.initial_head, average)

    def scores(self, tensors: Tensors, head: Tensors) -> pd.DataFrame:
        """Return the scores of every val and test image, as the stage `score` writes them."""
        self.detector.load_tensors({**tensors, **head})
        return score(self)


def open_bench(files: SessionFiles, compute: Compute, parts: MergeParts, threads: int = 1) -> Bench:
    """Read what the stages wrote.

    Raises:
        R2MError: a file is missing or damaged, or was made from another base.
    """
    map_large_blocks()
    session = open_session(files, compute, threads)
    return Bench(
        **vars(session),
        shapes=merged_shapes(dict(sorted(session.detector.backbone.state_dict().items()))),
        task_vectors=read_same_base(parts.task_vectors, session.base_hash)[0],
        heads=read_same_base(parts.heads, session.base_hash)[0],
        initial_head=checkpoint.load(parts.initial_head)[0],
    )
