"""Table of the ablation: what each part of R²M contributes."""

from pathlib import Path

from r2m.evaluate.experiment_means import TITLES, protocol_means, read_settings
from r2m.evaluate.protocols import EvaluationContext
from r2m.report.table import Table as Rendered


def table(source: Path, context: EvaluationContext) -> Rendered:
    """Return the table of the scores in `source`: a row a setting."""
    by = ["variant", "factor", "value"]
    means = protocol_means(read_settings(source, by), by, context)
    means.insert(0, "merge", means["variant"].map(context.variant_label))
    return Rendered(
        means,
        {
            "merge": "Merge",
            "factor": "Changed",
            "value": "To",
            **{key: title for key, title in TITLES.items() if key in means},
        },
        caption=(
            "R²M as chosen on val, and with one option set to other values; a row like the first is of the"
            " value that was chosen. Choices rest on the first column of"
            " numbers alone; the others are the test images. Mean AUC; best bold, second underlined."
        ),
        label="ablation",
        best=[key for key in TITLES if key in means],
        section="variant",
    )
