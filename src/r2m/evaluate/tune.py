"""Choice of a merge's options on the val split: every candidate is merged and scored."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from r2m.errors import R2MError
from r2m.evaluate.bench import Bench
from r2m.merge import registry
from r2m.merge.merging import sweep
from r2m.merge.tensors import TaskVectors, Tensors
from r2m.models.decision import Decision
from r2m.options import Section, with_dotted
from r2m.train.rows import rows_of
from r2m.train.validation import aucs, decision

logger = logging.getLogger(__name__)


class Tuned(NamedTuple):
    """The complete options of the best candidate, how its logits are read, and one row per candidate.

    Rows hold `candidate`, the options, `val_auc`, `val_auc.<generator>`, and `chosen`.
    """

    options: dict[str, Any]
    decision: Decision
    rows: list[dict[str, Any]]


def tune(
    bench: Bench,
    method: str,
    options: Mapping[str, Any],
    candidates: Sequence[Mapping[str, Any]],
    *,
    head: Tensors,
    generators: Sequence[str],
    statistics: TaskVectors | None = None,
) -> Tuned:
    """Merge and score every candidate.

    A candidate maps dotted option names to values. Best is the greatest mean over `generators` of val AUC; of
    equals, the first; one whose logits are not finite is never chosen.

    Raises:
        R2MError: no images in the val split, or no candidate gives finite logits.
    """
    chosen_method = registry.get(method)
    complete = [chosen_method.options.model_validate(with_dotted(options, values)) for values in candidates]
    fakes, reals = rows_of(bench.inputs, generators, "val")
    measured: dict[Section, tuple[dict[str, float], np.ndarray, np.ndarray]] = {}
    updates = sweep(
        chosen_method,
        bench.task_vectors,
        complete,
        base=bench.base,
        statistics=statistics,
        shapes=bench.shapes,
    )
    for candidate, update in updates:
        # A tensor that no task vector holds must be the base's, not an earlier merge's.
        bench.detector.load_tensors({**bench.updated(update), **head})
        of_fakes, of_reals = bench.predict(fakes), bench.predict(reals)
        by_generator = aucs(fakes, of_fakes, reals, of_reals)
        measured[candidate] = by_generator, of_fakes, of_reals
        logger.info("%s: val AUC %s", candidate.model_dump_json(exclude_none=True), by_generator)
    rows = []
    for place, (values, candidate) in enumerate(zip(candidates, complete, strict=True)):
        by_generator = measured[candidate][0]
        rows.append(
            {
                "candidate": place,
                **values,
                "val_auc": sum(by_generator.values()) / len(by_generator),
                **{f"val_auc.{generator}": auc for generator, auc in by_generator.items()},
                "chosen": False,
            }
        )
    usable = [row for row in rows if not math.isnan(row["val_auc"])]
    if not usable:
        raise R2MError(f"{method}: no candidate gives finite logits on the val split")
    best = max(usable, key=lambda row: row["val_auc"])
    best["chosen"] = True
    chosen = complete[best["candidate"]]
    _, of_fakes, of_reals = measured[chosen]
    return Tuned(chosen.model_dump(mode="json"), decision(fakes, of_fakes, reals, of_reals), rows)
