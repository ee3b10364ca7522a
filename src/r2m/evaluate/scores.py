"""Scores of a model for every image, and the Parquet file that keeps them."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from r2m.errors import R2MError
from r2m.evaluate.protocols import KEPT, SAMPLING
from r2m.files import atomic_path
from r2m.session import Session

logger = logging.getLogger(__name__)


def score(session: Session, batch_size: int = 64) -> pd.DataFrame:
    """Return the columns `KEPT`, logit and probability of every val and test image.

    Where a manifest says how the frames of its videos were sampled, the column `sampling` is there as well.
    Images are scored set by set, so that no batch holds images of two sets.

    Raises:
        R2MError: a logit is not finite.
    """
    rows = session.inputs.select(split=["val", "test"])
    kept = [*KEPT, SAMPLING] if SAMPLING in rows and rows[SAMPLING].notna().any() else KEPT
    parts = []
    for name, part in rows.groupby("set", sort=False):
        counts = part["split"].value_counts()
        logger.info("%s: %d images of val, %d of test", name, counts.get("val", 0), counts.get("test", 0))
        logits = session.predict(part, batch_size)
        if not np.isfinite(logits).all():
            image = part["image_id"].iloc[int(np.argmin(np.isfinite(logits)))]
            raise R2MError(f"{image}: the model's logit is not finite")
        probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
        parts.append(part[kept].assign(logit=logits, probability=probability))
    return pd.concat(parts, ignore_index=True)


def write(scores: pd.DataFrame, model: Mapping[str, str | int | None], path: Path) -> None:
    """Write scores as Parquet, with the description of the model in the schema's metadata under `r2m`."""
    table = pa.Table.from_pandas(scores, preserve_index=False)
    table = table.replace_schema_metadata({b"r2m": json.dumps(dict(model), sort_keys=True).encode()})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
