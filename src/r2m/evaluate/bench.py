"""What is needed to merge specialists and score the result in memory, read once from the stages' files."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

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

    def only(self, names: Collection[str]) -> Self:
        """Return the bench of the specialists in `names` alone."""
        task_vectors, heads = (
            {name: tensors[name] for name in names} for tensors in (self.task_vectors, self.heads)
        )
        return replace(self, task_vectors=task_vectors, heads=heads)

    def merged(self, method: Method, options: Section) -> dict[str, Tensor]:
        """Return the merged tensors θ* of all specialists, without a head."""
        return self.updated(self.update(method, options))

    def update(self, method: Method, options: Section) -> dict[str, Tensor]:
        """Return what a merge of all specialists adds to the base."""
        return merging.merge(method, self.task_vectors, options, base=self.base, shapes=self.shapes)[0]

    def updated(self, update: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return θ₀ + update of every tensor that training can change."""
        return {key: base + update[key] if key in update else base for key, base in self.base.items()}

    def head(self, rule: str = "average") -> dict[str, Tensor]:
        """Return the head that a rule makes of all specialists' heads."""
        average = partial(average_head, head=self.detector.head_type)
        return merge_heads(self.heads, rule, self.initial_head, average)

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
