"""The table of what calibration and the operating points of val are worth on test images."""

import pandas as pd

from r2m.evaluate.bootstrap import LEVEL
from r2m.evaluate.protocols import PROTOCOLS
from r2m.report.numbers import limits
from r2m.report.table import Table

# Columns of error rates → what they are called; the names of their limits begin alike.
RATES = {"fpr_reached": ("FPR", "fpr"), "tpr": ("TPR", "tpr")}
ERRORS = {"ece_before": "ECE before calibration", "ece": "ECE after"}


def operating_points_table(operating: pd.DataFrame, calibration: pd.DataFrame) -> Table:
    """Return error rates (OPERATING_COLUMNS) beside calibration errors (CALIBRATION_COLUMNS).

    One row per model and protocol, protocol by protocol.
    """
    order = calibration["protocol"].map(list(PROTOCOLS).index)
    errors = calibration.iloc[order.argsort(kind="stable")].reset_index(drop=True)
    frame, titles = errors[["protocol", "label"]].copy(), {"label": "Model"}
    notes = {}
    keys = ["model", "protocol"]
    for fpr in operating["fpr"].unique():
        rates = errors[keys].merge(operating[operating["fpr"] == fpr], on=keys, how="left")
        for column, (title, start) in RATES.items():
            name = f"{column}/{fpr}"
            frame[name], notes[name] = rates[column], _notes(rates, start)
            titles[name] = f"{title} at {100 * fpr:g} %"
    for column, title in ERRORS.items():
        frame[column], notes[column], titles[column] = errors[column], _notes(errors, column), title
    stated = " and ".join(f"{100 * fpr:g} %" for fpr in operating["fpr"].unique())
    return Table(
        frame,
        titles,
        caption=(
            f"Error rates on test at the thresholds that had false positive rates of {stated} on val, means"
            " over the test sets of a protocol: the FPR that is reached, and the TPR, the share of fakes that"
            " is caught. ECE: expected calibration error of probabilities, before and after the calibration"
            f" that was fitted on val. In brackets: {100 * LEVEL:g} % intervals, from a bootstrap of people."
        ),
        label="operating",
        section="protocol",
        sections=PROTOCOLS,
        digits=dict.fromkeys(titles, 2),
        notes=notes,
    )


def _notes(rows: pd.DataFrame, name: str) -> list[str]:
    """Return the intervals behind the values of a column; the names of their limits begin with `name`."""
    pairs = zip(rows[f"{name}_low"].astype(float), rows[f"{name}_high"].astype(float), strict=True)
    return [f" {limits(*pair, digits=2)}" for pair in pairs]
