"""The logits of val's reals, which the thresholds of a detector were chosen on, from its file of scores."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from r2m.errors import R2MError
from r2m.evaluate.evaluation import read_scores


def val_reals(path: Path, metadata: Mapping[str, str]) -> NDArray[np.float64]:
    """Return the logits (R,) of val's reals of the training domain; `metadata` are of the detector's file.

    Where every generator brings reals of its own, these are taken.

    Raises:
        R2MError: not a readable file of scores, a detector that names no model of the workflow, the scores of
            another model, or no reals of val among them.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise R2MError(f"{path}: cannot be read ({error.strerror})") from error
    scores = read_scores(path)
    name = metadata.get("variant", metadata.get("name"))
    seed = metadata.get("seed")
    if name is None:
        raise R2MError(
            f"{path}: scores of {scores.model!r}, but the detector's metadata have neither 'variant' nor"
            " 'name', so that nothing tells whether they are its own; expected a detector that the workflow"
            " made"
        )
    if name != scores.model:
        raise R2MError(f"{path}: scores of {scores.model!r}; expected those of the model {name!r}")
    if seed is not None and scores.seed is not None and int(seed) != scores.seed:
        raise R2MError(f"{path}: scores of seed {scores.seed}; expected those of the model, seed {seed}")
    frame = scores.frame
    reals = frame[(frame["split"] == "val") & (frame["label"] == 0)]
    if reals.empty:
        raise R2MError(f"{path}: no reals in split 'val'; expected scores that the workflow wrote")
    is_own = reals["domain"].isin(frame.loc[frame["label"] == 1, "generator"])
    return (reals if is_own.all() else reals[~is_own])["logit"].to_numpy(float)
