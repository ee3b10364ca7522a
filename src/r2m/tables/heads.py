"""Table of heads on merged backbones."""

from pathlib import Path

from r2m.evaluate.experiment_means import TITLES, protocol_means, read_settings
from r2m.evaluate.protocols import EvaluationContext
from r2m.report.table import Table as Rendered


def table(source: Path, context: EvaluationContext) -> Rendered:
    """Return the table of the scores in `source`: a row a variant and head."""
    by = ["variant", "head"]
    means = protocol_means(read_settings(source, by), by, context)
    means.insert(0, "merge", means["variant"].map(context.variant_label))
    return Rendered(
        means,
        {"merge": "Merge", "head": "Head", **{key: title for key, title in TITLES.items() if key in means}},
        caption=(
            "Heads of merged backbones. Retrain (logistic regression) and lda (linear discriminant analysis)"
            " are fitted to the merged backbone's features of the training split, the others need no data."
            " Mean AUC; best of a merge bold, second underlined."
        ),
        label="heads",
        best=[key for key in TITLES if key in means],
        section="variant",
    )
