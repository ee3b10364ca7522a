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
from r2m.evaluate.experiment_means import TITLES, protocol_means, read_settings, set_aucs
from r2m.evaluate.metrics import best_threshold
from r2m.evaluate.protocols import IN_DISTRIBUTION, EvaluationContext
from r2m.evaluate.rendered import Rendered
from r2m.evaluate.scores import KEPT
from r2m.experiments.hostile_data import with_trigger
from r2m.merge.blocks import Blocks, MemorySource
from r2m.merge.diagnostics import FEWEST, THRESHOLD
from r2m.merge.gram import grams, total
from r2m.merge.stages.inputs import Chosen
from r2m.merge.survey import Survey
from r2m.merge.tensors import TaskVectors, Tensors
from r2m.models.precision import autocast
from r2m.params import HostileOptions
from r2m.seeding import derive, rng
from r2m.trunk.fresh import detector_input

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
    gram = total(grams(Blocks(MemorySource(every))), len(every))
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


def table(source: Path, context: EvaluationContext) -> Rendered:
    """Return the table of the scores in `source` and of diagnostics.parquet beside it.

    A row a merge and replacement; the first rows are of the replacements alone, and hold the diagnostic.
    """
    by = ["variant", "replacement"]
    scores = read_settings(source, [*by, "triggered", "image_id"])
    found = _read_diagnoses(source.with_name("diagnostics.parquet"))
    victim = str(found["victim"].iloc[0])
    plain = scores[~scores["triggered"]]
    means = protocol_means(plain, by, context)
    aucs = set_aucs(plain[plain["split"] == "test"], by, context)
    own = aucs[(aucs["protocol"] == IN_DISTRIBUTION) & aucs["generator"].isin(_generators(victim, context))]
    means = means.merge(own.groupby(by)["auc"].mean().rename("victim_auc").reset_index(), on=by)
    honest = means[means["replacement"] == HONEST].set_index("variant")[IN_DISTRIBUTION]
    means["loss"] = means["variant"].map(honest) - means[IN_DISTRIBUTION]
    means = means.merge(attack_rates(scores, context), on=by)
    alone = pd.DataFrame(
        {"variant": ALONE, "replacement": kind, **_verdict(part, victim)}
        for kind, part in found.groupby("replacement", sort=False)
    )
    means = means.merge(alone, on=by, how="left")
    order = dict(zip(dict.fromkeys(means["variant"]), range(len(means)), strict=False))
    means = means.sort_values("variant", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    label = context.generator_label(victim)
    means.insert(0, "merge", [_merge_label(name, context) for name in means["variant"]])
    means.insert(1, "kind", means["replacement"].map(KINDS))
    return Rendered(
        means,
        {
            "merge": "Merge",
            "kind": f"{label} is",
            **{
                key: title.removeprefix("Test: ")
                for key, title in TITLES.items()
                if key in means and key != "val_auc"
            },
            "victim_auc": f"{label}'s fakes",
            "loss": "Loss",
            "clean_real": "Called real",
            "triggered_real": "With trigger",
            "norm_z": "Norm z",
            "cosine_z": "Cosine z",
            "singled_out": "Singled out",
            "false_alarms": "False alarms",
            "diagnosed": "Of",
        },
        caption=(
            f"The specialist {label} replaced by uneven and hostile ones; options of the merges as chosen on"
            " val for the honest set. Mean AUC on test images, AUC on the victim's own generator in the"
            " training domain, and loss of the mean in distribution against the honest merge. Called real:"
            " share of the trained generators' test fakes below the threshold that val images of the merge"
            " give, without and with the trigger. The first rows are of the replacement alone, with the"
            " diagnostic of `r2m merge`: modified z-scores among all specialists, share of the sets of three"
            " or more in which the replacement stands out, and share of the diagnoses of honest specialists"
            " in these sets that are false alarms, with their number."
        ),
        label="hostile",
        section="variant",
        digits={"norm_z": 1, "cosine_z": 1, "singled_out": 2, "false_alarms": 2, "diagnosed": 0},
    )


def attack_rates(scores: pd.DataFrame, context: EvaluationContext) -> pd.DataFrame:
    """Return how many fakes each setting calls real, as they are and with the trigger.

    Columns variant, replacement, threshold (of the val images of trained generators), clean_real and
    triggered_real, shares of the same images.
    """
    trained = {name for name, one in context.generators.items() if one.role == "train"}
    rows = []
    for (variant, kind), part in scores.groupby(["variant", "replacement"], sort=False):
        plain, triggered = part[~part["triggered"]], part[part["triggered"]]
        val = plain[plain["split"] == "val"]
        threshold, _ = best_threshold(
            [
                (
                    val.loc[(val["label"] == 0) & (val["domain"] == domain), "logit"].to_numpy(float),
                    fakes["logit"].to_numpy(float),
                )
                for (domain, generator), fakes in val[val["label"] == 1].groupby(["domain", "generator"])
                if generator in trained
            ]
        )
        same = plain[plain["image_id"].isin(set(triggered["image_id"]))]
        rates = [float((one["logit"] < threshold).mean()) for one in (same, triggered)]
        rows.append([variant, kind, threshold, *rates])
    return pd.DataFrame(rows, columns=["variant", "replacement", "threshold", "clean_real", "triggered_real"])


def _verdict(part: pd.DataFrame, victim: str) -> dict[str, float]:
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


def _generators(victim: str, context: EvaluationContext) -> set[str]:
    """Return the generators that a specialist of a generator, or of a family, is trained on."""
    if victim in context.generators:
        return {victim}
    trained = {name: one for name, one in context.generators.items() if one.role == "train"}
    return {name for name, one in trained.items() if one.family == victim}


def _merge_label(name: str, context: EvaluationContext) -> str:
    return "The specialist alone" if name == ALONE else context.variant_label(name)


def _read_diagnoses(path: Path) -> pd.DataFrame:
    wanted = ["replacement", "specialist", "norm_z", "cosine_z", "stands_out", "victim"]
    try:
        return pd.read_parquet(path, columns=wanted)
    except (OSError, ValueError, KeyError) as error:
        raise R2MError(
            f"{path}: expected diagnoses with the columns {', '.join(wanted)} ({error})"
        ) from error
