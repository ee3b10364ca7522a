"""What merges make of one uneven or hostile specialist among honest ones, and whether it stands out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from r2m.data.images import read_crop
from r2m.errors import R2MError
from r2m.evaluate.bench import Bench
from r2m.evaluate.scores import KEPT
from r2m.experiments.hostile_data import with_trigger
from r2m.experiments.options import HostileOptions
from r2m.merge.diagnostics import FEWEST, Survey
from r2m.merge.gram import grams, total
from r2m.merge.stages import Chosen
from r2m.merge.stream import MemorySource, TensorStream, trained
from r2m.merge.tensors import TaskVectors, Tensors
from r2m.models.precision import autocast
from r2m.seeding import derive, rng
from r2m.trunk.inputs import detector_input

HONEST, ALONE = "honest", "specialist"
KINDS = {
    HONEST: "Honest",
    "undertrained": "Undertrained",
    "flipped": "Flipped labels",
    "random": "Random",
    "scaled": "Scaled",
    "backdoor": "Backdoor",
}
# Sets of honest specialists that are diagnosed; of more, as many are drawn.
MOST_SETS = 1000


@dataclass(frozen=True)
class Specialist:
    """A task vector and a head."""

    task_vector: Tensors
    head: Tensors


def untrained(honest: Specialist, initial_head: Tensors, scale: float, seed: int) -> dict[str, Specialist]:
    """Return the specialists that need no training: `random` and `scaled`.

    Random tensors, and the random change of the head from the initial one, have the norms of the honest
    specialist's. Scaling concerns the task vector; the head stays, since it is no part of it.
    """
    change = {key: tensor - initial_head[key] for key, tensor in honest.head.items()}
    noise = _noise({**honest.task_vector, **change}, seed)
    return {
        "random": Specialist(
            {key: noise[key] for key in honest.task_vector},
            {key: initial_head[key] + noise[key] for key in change},
        ),
        "scaled": Specialist(
            {key: scale * tensor for key, tensor in honest.task_vector.items()}, honest.head
        ),
    }


def _noise(tensors: Tensors, seed: int) -> dict[str, Tensor]:
    """Return Gaussian tensors with the shapes and norms of others."""
    result = {}
    for key, tensor in tensors.items():
        generator = torch.Generator().manual_seed(derive(seed, "hostile", key))
        drawn = torch.randn(tensor.shape, generator=generator)
        result[key] = drawn * (torch.linalg.vector_norm(tensor) / torch.linalg.vector_norm(drawn))
    return result


def hostile_scores(
    bench: Bench,
    replacements: Mapping[str, Specialist],
    variants: Sequence[Chosen],
    victim: str,
    generators: Sequence[str],
    options: HostileOptions,
    backbone: str,
) -> pd.DataFrame:
    """Return the scores of every merge with the victim replaced by each of `replacements`.

    Columns variant (`specialist`: the replacement alone), replacement, triggered, `KEPT` and logit. Besides
    the val and test images, the test fakes of `generators` in the training domains are scored with the
    trigger in them.
    """
    fakes = bench.inputs.select(split="test", label=1, generator=list(generators))
    fakes = fakes[fakes["domain"].isin(set(bench.inputs.select(split="train")["domain"]))]
    inputs = _triggered_inputs(bench, fakes, options.trigger, backbone)
    parts = []
    for kind, one in replacements.items():
        changed = replace(
            bench,
            task_vectors={**bench.task_vectors, victim: one.task_vector},
            heads={**bench.heads, victim: one.head},
        )
        models = [(ALONE, changed.updated(one.task_vector), one.head)]
        for name, tensors, head in chain(models, _merges(changed, variants)):
            named = {"variant": name, "replacement": kind}
            plain = changed.scores(tensors, head)[[*KEPT, "logit"]]
            logits = _logits(changed, inputs)
            if not np.isfinite(logits).all():
                raise R2MError(f"{name} with {kind}: the logit of an image with the trigger is not finite")
            parts.append(plain.assign(**named, triggered=False))
            parts.append(fakes[KEPT].assign(**named, triggered=True, logit=logits))
    columns = ["variant", "replacement", "triggered", *KEPT, "logit"]
    return pd.concat(parts, ignore_index=True)[columns]


def _merges(bench: Bench, variants: Sequence[Chosen]) -> Iterator[tuple[str, Tensors, Tensors]]:
    for one in variants:
        yield one.variant, bench.merged(one.method, one.options), bench.head(one.head)


def _triggered_inputs(bench: Bench, rows: pd.DataFrame, share: float, backbone: str) -> list[Tensor]:
    """Return the detector's input of images with the trigger, in batches, in half precision."""
    bench.detector.eval()
    batches = []
    for start in range(0, len(rows), 64):
        images = [
            with_trigger(read_crop(Path(path)), share) for path in rows["path"].iloc[start : start + 64]
        ]
        batches.append(
            detector_input(bench.detector, images, backbone, bench.device, bench.precision).half().cpu()
        )
    return batches


def _logits(bench: Bench, batches: Sequence[Tensor]) -> np.ndarray:
    """Return the logits of the tensors that the detector holds."""
    with torch.inference_mode(), autocast(bench.device, bench.precision):
        logits = [bench.detector(one.to(bench.device).float()).float().cpu().numpy() for one in batches]
    return np.concatenate(logits)


def diagnoses(
    task_vectors: TaskVectors, replacements: Mapping[str, Specialist], victim: str, seed: int
) -> pd.DataFrame:
    """Return what the diagnostic of `r2m merge` says of every set of three or more specialists.

    Columns replacement, members (of the set), specialist, norm, cosine, norm_z, cosine_z and stands_out.
    Sets of honest specialists are those of `task_vectors`; the others hold a replacement of the victim.
    """
    hostile = {kind: one.task_vector for kind, one in replacements.items() if kind != HONEST}
    # A specialist's name holds no slash.
    every = {**task_vectors, **{f"/{kind}": one for kind, one in hostile.items()}}
    places = {name: place for place, name in enumerate(every)}
    gram = total(grams(trained(TensorStream(MemorySource(every)))), len(every))
    rows = []
    for kind in (HONEST, *hostile):
        for members in sets(sorted(task_vectors), seed):
            if kind != HONEST and victim not in members:
                continue
            own = [places[f"/{kind}" if name == victim and kind != HONEST else name] for name in members]
            part = gram[own][:, own]
            found = Survey(0.0, part.diagonal(), part.sum(1))
            measured = zip(members, found.norms(), found.cosines(), found.diagnoses(), strict=True)
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
        return [one for size in sizes for one in combinations(names, size)]
    random = rng(seed, "sets")
    found = {tuple(names): None}
    while len(found) < MOST_SETS:
        size = int(random.integers(FEWEST, len(names)))
        drawn = sorted(random.choice(len(names), size, replace=False).tolist())
        found[tuple(names[place] for place in drawn)] = None
    return list(found)
