"""Table of uneven and hostile specialists, and of the diagnostic that looks for them."""

from pathlib import Path

import pandas as pd

from r2m.errors import R2MError
from r2m.evaluate.experiment_means import TITLES, protocol_means, read_settings, set_aucs
from r2m.evaluate.protocols import IN_DISTRIBUTION, EvaluationContext
from r2m.experiments.hostile import ALONE, HONEST, KINDS
from r2m.merge.diagnostics import THRESHOLD
from r2m.report.rendered import Rendered
from r2m.train.threshold import best_threshold


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
