"""Table of what specialists are trained on, a generator or a family, and how they are merged."""

import json
from pathlib import Path

import pyarrow.parquet as pq

from r2m.errors import R2MError
from r2m.evaluate.experiment_means import TITLES, protocol_means, read_settings
from r2m.evaluate.protocols import EvaluationContext
from r2m.experiments.plans import BOTH, FAMILIES, GENERATORS, JOINT
from r2m.report.table import Table as Rendered

STRATEGIES = {
    GENERATORS: "a specialist a generator",
    FAMILIES: "a specialist a family",
    BOTH: "within families, then across",
    JOINT: "all generators at once",
}


def table(source: Path, context: EvaluationContext) -> Rendered:
    """Return the table of the scores in `source`: a row a merge and strategy.

    `in distribution` means the generators trained on here, which are more than the context's.
    """
    trained = read_trained(source)
    generators = {
        name: one.model_copy(update={"role": "train" if name in trained else "unseen"})
        for name, one in context.generators.items()
    }
    by = ["variant", "strategy", "specialists", "steps"]
    known = context.model_copy(update={"generators": generators})
    means = protocol_means(read_settings(source, by), by, known)
    label = {JOINT: "Joint training"}
    means.insert(0, "merge", [label.get(name) or context.variant_label(name) for name in means["variant"]])
    means.insert(3, "training", means["strategy"].map(STRATEGIES))
    return Rendered(
        means,
        {
            "merge": "Merge",
            "training": "Specialists",
            "specialists": "Number",
            "steps": "Steps in total",
            **{key: title for key, title in TITLES.items() if key in means},
        },
        caption=(
            f"Specialists of each of {len(trained)} generators merged, specialists of each family merged, and"
            " both levels: specialists merged within their family, then across. Options are chosen on val for"
            " every row anew, with one grid; in two levels for each family on its own generators, then for"
            " all. A family's specialist sees the images of its generators in the steps that are given. Mean"
            " AUC over the generators trained on here, the others, and the other domains; best of a merge"
            " bold, second underlined."
        ),
        label="families",
        best=[key for key in TITLES if key in means],
        section="variant",
    )


def read_trained(path: Path) -> list[str]:
    """Return the generators that the scores in `path` are of models trained on.

    Raises:
        R2MError: not the scores of this experiment.
    """
    try:
        notes = json.loads((pq.read_schema(path).metadata or {})[b"r2m"])
        return str(notes["trained"]).split(",")
    except (OSError, ValueError, KeyError) as error:
        raise R2MError(f"{path}: expected the scores that `r2m families` writes ({error})") from error
