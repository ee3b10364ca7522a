"""What the diagnostic of `r2m merge` says of sets of specialists, one of them replaced."""

from collections.abc import Sequence
from itertools import combinations
from math import comb

import pandas as pd

from r2m.merge.diagnostics import FEWEST, THRESHOLD, Survey
from r2m.merge.gram import grams, total
from r2m.merge.stream import MemorySource, TensorStream, trained
from r2m.merge.tensors import TaskVectors
from r2m.seeding import rng

HONEST = "honest"
# Sets of honest specialists that are diagnosed; of more, as many are drawn.
MOST_SETS = 1000


def diagnoses(task_vectors: TaskVectors, replacements: TaskVectors, victim: str, seed: int) -> pd.DataFrame:
    """Return what the diagnostic of `r2m merge` says of every set of three or more specialists.

    Columns replacement, members (of the set), specialist, norm, cosine, norm_z, cosine_z and stands_out.
    Sets of honest specialists (`HONEST`) are those of `task_vectors`; the others hold one of the task vectors
    `replacements` in place of the victim's.
    """
    # A specialist's name holds no slash.
    every = {**task_vectors, **{f"/{kind}": task_vector for kind, task_vector in replacements.items()}}
    places = {name: place for place, name in enumerate(every)}
    gram = total(grams(trained(TensorStream(MemorySource(every)))), len(every))
    rows = []
    for kind in (HONEST, *replacements):
        for members in sets(sorted(task_vectors), seed):
            if kind != HONEST and victim not in members:
                continue
            own = [places[f"/{kind}" if name == victim and kind != HONEST else name] for name in members]
            part = gram[own][:, own]
            survey = Survey(0.0, part.diagonal(), part.sum(1))
            measured = zip(members, survey.norms(), survey.cosines(), survey.diagnoses(), strict=True)
            rows += [
                (kind, ",".join(members), name, norm, cosine, one.norm_z, one.cosine_z, one.stands_out)
                for name, norm, cosine, one in measured
            ]
    columns = ["replacement", "members", "specialist", "norm", "cosine", "norm_z", "cosine_z", "stands_out"]
    frame = pd.DataFrame(rows, columns=columns)
    numbers = ["norm", "cosine", "norm_z", "cosine_z"]
    return frame.astype(dict.fromkeys(numbers, float)).assign(victim=victim)


def sets(names: Sequence[str], seed: int) -> list[tuple[str, ...]]:
    """Return all sets of `FEWEST` or more names, the whole first, or as many as `MOST_SETS` drawn ones.

    Of fewer names the whole is returned, of which the diagnostic says nothing.
    """
    if len(names) < FEWEST:
        return [tuple(names)]
    sizes = range(len(names), FEWEST - 1, -1)
    if sum(comb(len(names), size) for size in sizes) <= MOST_SETS:
        return [members for size in sizes for members in combinations(names, size)]
    random = rng(seed, "sets")
    drawn_sets = {tuple(names): None}
    while len(drawn_sets) < MOST_SETS:
        size = int(random.integers(FEWEST, len(names)))
        drawn = sorted(random.choice(len(names), size, replace=False).tolist())
        drawn_sets[tuple(names[place] for place in drawn)] = None
    return list(drawn_sets)


def verdict(part: pd.DataFrame, victim: str) -> dict[str, float]:
    """Return what the diagnoses of one replacement say: z-scores in the whole set, and shares over all sets.

    NaN, of a count of 0, where there are fewer specialists than the diagnostic needs.
    """
    part = part.assign(stands_out=part["stands_out"].astype(float).where(part["norm_z"].notna()))
    own = part[part["specialist"] == victim]
    others = part if (part["replacement"] == HONEST).all() else part[part["specialist"] != victim]
    return {
        "norm_z": own["norm_z"].iloc[0],
        "cosine_z": own["cosine_z"].iloc[0],
        "norm_stands_out": float(abs(own["norm_z"].iloc[0]) > THRESHOLD),
        "cosine_stands_out": float(own["cosine_z"].iloc[0] < -THRESHOLD),
        "singled_out": own["stands_out"].mean(),
        "false_alarms": others["stands_out"].mean(),
        "diagnosed": float(others["stands_out"].count()),
    }
