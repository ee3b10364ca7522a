"""The protocols of DF40, for whatever generators and domains there are.

Source: Yan et al., DF40: Toward Next-Generation Deepfake Detection, NeurIPS 2024, arXiv 2406.13495.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from r2m.evaluate.bootstrap import interval
from r2m.evaluate.evaluation import Evaluation
from r2m.evaluate.means import by_model
from r2m.evaluate.protocols import (
    CROSS_DATASET,
    FAMILIES,
    IN_DISTRIBUTION,
    MODEL_KEYS,
    EvaluationContext,
    TestSet,
)

SAME_DOMAIN, OTHER_DOMAINS, UNSEEN = "P1", "P2", "P3"
# Protocol → what its test sets are parted by, the finest first.
LEVELS: dict[str, list[tuple[str, ...]]] = {
    SAME_DOMAIN: [("family",)],
    OTHER_DOMAINS: [("domain", "family"), ("domain",)],
    UNSEEN: [("family", "generator"), ("family",)],
}


@dataclass(frozen=True)
class Part:
    """The test sets of a protocol that have a domain, family or generator in common; empty: all of them."""

    protocol: str
    domain: str = ""
    family: str = ""
    generator: str = ""

    @property
    def level(self) -> tuple[str, ...]:
        """What the part is told by, beside its protocol."""
        return tuple(name for name in PART_KEYS[1:] if getattr(self, name))


PART_KEYS = [field.name for field in fields(Part)]
DF40_COLUMNS = [*MODEL_KEYS, "label", *PART_KEYS, "n_sets", "auc", "auc_sd", "low", "high"]


def protocol_of(item: TestSet) -> str:
    """Return the protocol that a test set is in: P1 and P2 are of generators that have a specialist."""
    if item.role != "train":
        return UNSEEN
    return SAME_DOMAIN if item.protocol == IN_DISTRIBUTION else OTHER_DOMAINS


def one_against_all(sets: Sequence[TestSet]) -> list[int]:
    """Return the places of the test sets of P4: all but those of other domains than the training's."""
    return [place for place, item in enumerate(sets) if item.protocol != CROSS_DATASET]


def parts_of(sets: Sequence[TestSet], context: EvaluationContext) -> dict[Part, list[int]]:
    """Return the parts of P1 to P3 and the places in `sets` of their test sets, by protocol and level."""
    found: dict[Part, list[int]] = {}
    for protocol, levels in LEVELS.items():
        within = [place for place, item in enumerate(sets) if protocol_of(item) == protocol]
        for level in (*levels, ()):
            own: dict[Part, list[int]] = {}
            for place in within:
                values = {name: getattr(sets[place], name) for name in level}
                own.setdefault(Part(protocol, **values), []).append(place)
            found |= {part: own[part] for part in sorted(own, key=lambda part: _order(part, context))}
    return found


def _order(part: Part, context: EvaluationContext) -> tuple[int, int, int]:
    """Return the place of a part among those of its level."""
    domains, generators = [*context.domains, *context.generators], list(context.generators)
    return (
        domains.index(part.domain) if part.domain else 0,
        FAMILIES.index(part.family) if part.family else 0,
        generators.index(part.generator) if part.generator else 0,
    )


def df40_means(evaluation: Evaluation, context: EvaluationContext) -> pd.DataFrame:
    """Mean AUCs of all models on all parts with intervals (DF40_COLUMNS); auc_sd, over seeds, is missing."""
    estimates, models = evaluation.estimates, evaluation.models[[*MODEL_KEYS, "label"]]
    tables = []
    for part, places in parts_of([test_set.item for test_set in evaluation.sets], context).items():
        mean = estimates[:, places].mean(axis=1)
        low, high = interval(evaluation.resampled[:, :, places].mean(axis=2), mean)
        keys = {name: getattr(part, name) for name in PART_KEYS}
        tables.append(models.assign(**keys, n_sets=len(places), auc=mean, auc_sd=np.nan, low=low, high=high))
    return by_model(tables)[DF40_COLUMNS]
