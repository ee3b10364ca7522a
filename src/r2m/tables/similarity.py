"""Table of how alike specialists and merges see the same images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r2m.errors import R2MError
from r2m.evaluate.bootstrap import LEVEL
from r2m.evaluate.image_kinds import FOREIGN, IMAGE_KINDS, OWN, UNSEEN, image_kind
from r2m.evaluate.jackknife import interval
from r2m.evaluate.protocols import EvaluationContext
from r2m.experiments.similarity import BASE, EVERYONE, KEYS, MEASURES, MERGE, SPECIALIST
from r2m.manifest import REAL
from r2m.report.table import Table as Rendered
from r2m.session import POOLED

OTHERS, MEAN = "other specialists", "mean"
FAKE = "fake_"


def summary(found: pd.DataFrame, context: EvaluationContext) -> pd.DataFrame:
    """Return similarities by kind of image, and what Real has more than each kind of fakes.

    Rows: every compared model (`kind`, `other`; the other specialists together are one) and measure, layer
    by layer for the mean over specialists (`specialist` is `MEAN`), and for each specialist of the pooled
    features. Columns: `real`, `own`, `foreign` and `unseen` with their limits (`_low`, `_high`), each the
    mean over its generators; the differences Real − Fake (`real_own` …) with theirs; and `fake_GENERATOR`.
    The limits are of `jackknife.interval`, over people.
    """
    rows: list[dict[str, Any]] = []
    for measure in MEASURES:
        # A person whom a set does not show is left out of it by leaving it as it is; inf stands for what a
        # set does show, but has no value of.
        shown = found.assign(value=found[measure].fillna(np.inf))
        table = shown.pivot_table("value", KEYS, "left_out", sort=False)
        table = table.T.fillna(table[EVERYONE]).T.replace(np.inf, np.nan).dropna(subset=[EVERYONE])
        table = table[[EVERYONE, *table.columns.drop(EVERYONE)]]
        for (kind, other, layer), part in table.groupby(["kind", "other", "layer"], sort=False):
            where = {"kind": kind, "other": other, "layer": layer, "measure": measure}
            single = {
                str(name): _by_kind(one, str(name), context)
                for name, one in part.groupby("specialist", sort=False)
            }
            images = list(dict.fromkeys(image for one in single.values() for image in one))
            mean = {
                image: np.mean([one[image] for one in single.values() if image in one], axis=0)
                for image in images
            }
            described = {MEAN: mean, **(single if layer == POOLED else {})}
            rows += [{**where, "specialist": name, **_row(values)} for name, values in described.items()]
    frame = pd.DataFrame(rows)
    # Merges first, each with all of its measures.
    place = frame["kind"].map([MERGE, SPECIALIST, BASE].index)
    order = pd.DataFrame({"kind": place, "other": frame["other"].factorize()[0]})
    return frame.loc[order.sort_values(["kind", "other"], kind="stable").index].reset_index(drop=True)


def _by_kind(
    table: pd.DataFrame, specialist: str, context: EvaluationContext
) -> dict[str, NDArray[np.float64]]:
    """Return the values (1 + P,) of one specialist beside one model, by the summary's columns."""
    values = table.groupby("generator", sort=False).mean()
    kinds = [image_kind(str(name), specialist, context) for name in values.index]
    found = {str(kind): one.to_numpy() for kind, one in values.groupby(kinds).mean().T.items()}
    means = {kind: found[kind] for kind in IMAGE_KINDS if kind in found}
    differences = {f"real_{kind}": means[REAL] - one for kind, one in means.items() if kind != REAL}
    fakes = {f"{FAKE}{name}": one.to_numpy() for name, one in values.T.items() if name != REAL}
    return {**means, **differences, **fakes}


def _row(values: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Return estimates of one row of the summary, and the limits of all but single generators."""
    row: dict[str, float] = {}
    for name, one in values.items():
        row[name] = float(one[0])
        if not name.startswith(FAKE):
            row[f"{name}_low"], row[f"{name}_high"] = map(float, interval(one))
    return row


def table(source: Path, context: EvaluationContext) -> Rendered:
    """Return the table of the similarities in `source`: a row a compared model and measure.

    Readers are shown the pooled features and the mean over specialists; the CSV has all rows of `summary`.

    Raises:
        R2MError: not the output of `r2m similarity`.
    """
    found = summary(read(source), context)
    fakes = [kind for kind in (OWN, FOREIGN, UNSEEN) if kind in found]
    labels = {BASE: "Base", OTHERS: "Other specialists"}
    frame = found.assign(
        compared=[labels.get(name) or context.variant_label(name) for name in found["other"]],
        quantity=found["measure"].map(MEASURES),
    )
    titles = {"compared": "Specialists beside", "quantity": "Similarity", REAL: IMAGE_KINDS[REAL]}
    for kind in fakes:
        titles |= {kind: IMAGE_KINDS[kind]}
    for kind in fakes:
        difference = f"real_{kind}"
        titles |= {difference: f"Real − {kind}", f"{difference}_low": "from", f"{difference}_high": "to"}
    return Rendered(
        frame,
        titles,
        caption=(
            "Similarity of specialists' pooled features to those of other models on the same test images,"
            " mean over specialists; fakes by whether the specialist was trained on them, other specialists"
            f" were, or none. Differences with {100 * LEVEL:g} % intervals (jackknife over people)."
            f" {_verdict(frame)}"
        ),
        label="similarity",
        section="compared",
        shown=((frame["layer"] == POOLED) & (frame["specialist"] == MEAN)).tolist(),
    )


def _verdict(frame: pd.DataFrame) -> str:
    """Say of how many specialists Real is more similar than their own fakes, for every merge."""
    if f"real_{OWN}" not in frame:
        return "No specialist's own fakes are among the images."
    single = frame[(frame["kind"] == MERGE) & (frame["specialist"] != MEAN)].dropna(subset=f"real_{OWN}")
    told: dict[str, list[str]] = {}
    for (label, quantity), part in single.groupby(["compared", "quantity"], sort=False):
        above, below = (part[f"real_{OWN}_low"] > 0).sum(), (part[f"real_{OWN}_high"] < 0).sum()
        told.setdefault(str(label), []).append(f"{quantity} {above} / {below}")
    counted = ". ".join(f"{label}: {'; '.join(counts)}" for label, counts in told.items())
    return (
        f"Of {single['specialist'].nunique()} specialists, Real is significantly more / less similar than"
        f" their own fakes for: {counted}."
    )


def read(path: Path) -> pd.DataFrame:
    """Read what `r2m similarity` wrote, the other specialists taken together as the model `OTHERS`.

    Raises:
        R2MError: another file.
    """
    wanted = [*KEYS, "left_out", *MEASURES]
    try:
        found = pd.read_parquet(path, columns=wanted)
    except (OSError, ValueError, KeyError) as error:
        raise R2MError(f"{path}: expected the columns {', '.join(wanted)} ({error})") from error
    return found.assign(other=found["other"].where(found["kind"] != SPECIALIST, OTHERS))
