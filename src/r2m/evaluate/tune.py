"""Choice of a merge's options on the val split: every candidate is merged and scored."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from r2m.errors import R2MError
from r2m.evaluate.bench import Bench
from r2m.merge import registry
from r2m.merge.merging import sweep
from r2m.merge.tensors import TaskVectors, Tensors
from r2m.options import Section, with_dotted
from r2m.train.rows import rows_of
from r2m.train.validation import aucs, threshold

logger = logging.getLogger(__name__)


def tune(
    bench: Bench,
    method: str,
    options: Mapping[str, Any],
    candidates: Sequence[Mapping[str, Any]],
    *,
    head: Tensors,
    generators: Sequence[str],
    statistics: TaskVectors | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the complete options of the best candidate, and one row per candidate.

    A candidate maps dotted option names to values. Best is the greatest mean over `generators` of val AUC; of
    equals, the first; one whose logits are not finite is never chosen. Rows hold `candidate`, the options,
    `val_auc`, `val_auc.<generator>`, `chosen`, and the `threshold` of probability that is best on val.

    Raises:
        R2MError: no images in the val split, or no candidate gives finite logits.
    """
    chosen_method = registry.get(method)
    complete = [chosen_method.options.model_validate(with_dotted(options, values)) for values in candidates]
    fakes, reals = rows_of(bench.inputs, generators, "val")
    measured: dict[Section, tuple[dict[str, float], float]] = {}
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
        logits = fakes, bench.predict(fakes), reals, bench.predict(reals)
        by_generator = aucs(*logits)
        finite = not any(map(math.isnan, by_generator.values()))
        measured[candidate] = by_generator, threshold(*logits) if finite else math.nan
        logger.info("%s: val AUC %s", candidate.model_dump_json(exclude_none=True), by_generator)
    rows = []
    for place, (values, candidate) in enumerate(zip(candidates, complete, strict=True)):
        by_generator, cut = measured[candidate]
        rows.append(
            {
                "candidate": place,
                **values,
                "val_auc": sum(by_generator.values()) / len(by_generator),
                **{f"val_auc.{generator}": auc for generator, auc in by_generator.items()},
                "threshold": cut,
                "chosen": False,
            }
        )
    usable = [row for row in rows if not math.isnan(row["val_auc"])]
    if not usable:
        raise R2MError(f"{method}: no candidate gives finite logits on the val split")
    best = max(usable, key=lambda row: row["val_auc"])
    best["chosen"] = True
    return complete[best["candidate"]].model_dump(mode="json"), rows
