"""The table of which specialist responds most to the fakes of each generator."""

import pandas as pd

from r2m.evaluate.bootstrap import LEVEL
from r2m.evaluate.protocols import IN_DISTRIBUTION, UNSEEN_GENERATOR, EvaluationContext
from r2m.report.numbers import limits
from r2m.report.table import Table

SECTIONS = {
    IN_DISTRIBUTION: "Trained generators; right: their own specialist",
    UNSEEN_GENERATOR: "Unseen generators; right: a specialist of their family",
}


def closest_specialists_table(
    closest: pd.DataFrame, models: pd.DataFrame, context: EvaluationContext
) -> Table:
    """Return the shares of all specialists (CLOSEST_COLUMNS) side by side, a row per test set.

    The last row of a protocol is the mean of the right answers.
    """
    keys = ["protocol", "test_set"]
    labels = dict(zip(models["model"], models["label"], strict=True))
    frame = closest.drop_duplicates(keys)[[*keys, "generator", "family"]].reset_index(drop=True)
    frame["generator"] = frame["generator"].map(
        lambda name: context.generator_label(name) if name else "Mean"
    )
    titles, notes = {"generator": "Generator", "family": "Family"}, {}
    for name in dict.fromkeys(closest["specialist"][closest["specialist"] != ""]):
        cells = frame[keys].merge(closest[closest["specialist"] == name], on=keys, how="left")
        column = f"share/{name}"
        frame[column], titles[column] = cells["share"].astype(float), labels[name]
        notes[column] = [f" ({count:.0f})" for count in cells["count"].astype(float)]
    right = frame[keys].merge(closest[closest["specialist"] == ""], on=keys, how="left")
    for name, title in {"share": "Right", "chance": "Chance"}.items():
        frame[name], titles[name] = right[name].astype(float), title
    pairs = zip(right["low"].astype(float), right["high"].astype(float), strict=True)
    notes["share"] = [f" {limits(*pair, digits=2)}" for pair in pairs]
    return Table(
        frame,
        titles,
        caption=(
            "Which specialist gives fakes of a generator the greatest probability, calibrated on val of its"
            " own generators: the share of the test fakes, and in brackets their number. The mean over"
            " generators has the chance level beside it: what the best single specialist would have, were it"
            f" always the answer. {100 * LEVEL:g} % intervals are from a bootstrap of people."
        ),
        label="closest",
        section="protocol",
        sections=SECTIONS,
        digits=dict.fromkeys(titles, 2),
        notes=notes,
    )
