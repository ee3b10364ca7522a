"""Choice of a merge's options on the val split: every candidate is merged and scored."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from r2m.errors import R2MError
from r2m.merge import registry
from r2m.merge.merging import Shapes, sweep
from r2m.merge.tensors import TaskVectors
from r2m.models.backbone import Detector
from r2m.options import with_dotted
from r2m.train.pairs import rows_of
from r2m.train.predict import generator_aucs, predict
from r2m.trunk.inputs import Inputs

logger = logging.getLogger(__name__)


def tune(
    method: str,
    options: Mapping[str, Any],
    candidates: Sequence[Mapping[str, Any]],
    *,
    detector: Detector,
    base: Mapping[str, Tensor],
    task_vectors: TaskVectors,
    head: Mapping[str, Tensor],
    inputs: Inputs,
    generators: list[str],
    device: torch.device,
    precision: str,
    statistics: TaskVectors | None = None,
    shapes: Shapes | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the complete options of the best candidate, and one row a candidate.

    A candidate maps dotted option names to values. Best is the greatest mean over `generators` of val AUC; of
    equals, the first; one whose logits are not finite is never chosen. Rows hold `candidate`, the options,
    `val_auc`, `val_auc.<generator>` and `chosen`. `base` holds at least the tensors of the task vectors,
    `shapes` are those of all tensors of the model (see `merging.merge`).

    Raises:
        R2MError: no images in the val split, or no candidate gives finite logits.
    """
    chosen_method = registry.get(method)
    complete = [chosen_method.options.model_validate(with_dotted(options, one)) for one in candidates]
    fakes, reals = rows_of(inputs, generators, "val")
    detector.to(device)
    by_options: dict[Any, dict[str, float]] = {}
    updates = sweep(chosen_method, task_vectors, complete, base=base, statistics=statistics, shapes=shapes)
    for one, update in updates:
        detector.load_tensors({key: base[key] + delta for key, delta in update.items()} | dict(head))
        fake_logits = predict(detector, inputs, fakes, device, precision)
        real_logits = predict(detector, inputs, reals, device, precision)
        by_options[one] = generator_aucs(fakes, fake_logits, reals, real_logits)
        logger.info("%s: val AUC %s", one.model_dump_json(exclude_none=True), by_options[one])
    rows = []
    for i, (values, one) in enumerate(zip(candidates, complete, strict=True)):
        aucs = by_options[one]
        rows.append(
            {
                "candidate": i,
                **values,
                "val_auc": sum(aucs.values()) / len(aucs),
                **{f"val_auc.{generator}": auc for generator, auc in aucs.items()},
                "chosen": False,
            }
        )
    finite = [row for row in rows if not math.isnan(row["val_auc"])]
    if not finite:
        raise R2MError(f"{method}: no candidate gives finite logits on the val split")
    best = max(finite, key=lambda row: row["val_auc"])
    best["chosen"] = True
    return complete[best["candidate"]].model_dump(mode="json"), rows
