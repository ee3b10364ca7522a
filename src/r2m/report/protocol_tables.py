"""The tables by the protocols of DF40: P1 to P3, one row per model, and P4, one row per specialist."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from r2m.evaluate.df40 import (
    LEVELS,
    OTHER_DOMAINS,
    PART_KEYS,
    SAME_DOMAIN,
    UNSEEN,
    Part,
    one_against_all,
    parts_of,
    protocol_of,
)
from r2m.evaluate.protocols import FAMILIES, KINDS, SPREAD, EvaluationContext, TestSet
from r2m.report.main_table import MARKS, OVER_SEEDS, OWN, own_families
from r2m.report.table import Heading, Table

MOST_COLUMNS = 10  # of a protocol, beside its mean
MOST_NAMES = 4  # of domains in a sentence
TITLES = {
    SAME_DOMAIN: "P1: same domain",
    OTHER_DOMAINS: "P2: other domains",
    UNSEEN: "P3: unseen generators",
}
_MEMBERS = {
    SAME_DOMAIN: "generators that have a specialist",
    OTHER_DOMAINS: "the same generators",
    UNSEEN: "generators that no specialist saw",
}
_PARTED = {
    ("family",): "by family",
    ("domain",): "by domain",
    ("domain", "family"): "by domain and family",
    ("family", "generator"): "one by one",
    (): "all together",
}


def protocol_table(
    means: pd.DataFrame,
    models: pd.DataFrame,
    sets: Sequence[TestSet],
    context: EvaluationContext,
    built_in: Sequence[str],
) -> Table:
    """Return the means (DF40_COLUMNS) of P1 to P3 over `sets`, and those over videos where there are any.

    A protocol is shown by the finest of its LEVELS that has no more than MOST_COLUMNS. The generators in
    `built_in` are built-in forgeries, which the caption tells.
    """
    families = own_families(models, context)
    frame = models[["label", "kind"]].reset_index(drop=True)
    titles: dict[str, str | Heading] = {}
    notes, texts = {}, []
    has_videos = "video_auc" in means
    rows = {Part(*map(str, keys)): own.set_index("model") for keys, own in means.groupby(PART_KEYS)}
    parts = list(parts_of(sets, context))
    for protocol in dict.fromkeys(part.protocol for part in parts):
        level, shown = _shown(protocol, parts)
        texts.append(_told(protocol, level, sets, context))
        whole = Part(protocol)
        values = ["auc", "video_auc"] if has_videos else ["auc"]
        for part, value in [*((part, "auc") for part in shown), *((whole, value) for value in values)]:
            own = rows[part].loc[models["model"]]
            column = "/".join([*(getattr(part, name) for name in PART_KEYS), value])
            frame[column] = own[value].to_numpy(float)
            frame[column + SPREAD] = own[value + SPREAD].to_numpy(float)
            title = _title(part, value, context)
            titles[column] = Heading(TITLES[protocol], title, f"{protocol} {title}")
            is_own = [protocol != UNSEEN and part.family == family != "" for family in families]
            notes[column] = [OWN * mark for mark in is_own]
    caption = [
        "Mean AUC over test sets, by the protocols of DF40 on the generators and domains of this run.",
        *texts,
        *_stand_ins(built_in, context),
        *(["Video: of videos, where all test sets of the protocol are of videos."] if has_videos else []),
        f"{MARKS}; {OWN}: the specialist's own family.",
    ]
    return Table(
        frame,
        {"label": "Model", **titles},
        caption=" ".join(caption) + (OVER_SEEDS if means["auc_sd"].notna().any() else ""),
        label="protocols",
        section="kind",
        sections=KINDS,
        compared="merge",
        notes=notes,
        best=list(titles),
    )


def _shown(protocol: str, parts: Sequence[Part]) -> tuple[tuple[str, ...], list[Part]]:
    """Return the finest level of a protocol that is not too wide to be read, and its parts."""
    for level in LEVELS[protocol]:
        own = [part for part in parts if part.protocol == protocol and part.level == level]
        if len(own) <= MOST_COLUMNS:
            return level, own
    return (), []


def _told(protocol: str, level: tuple[str, ...], sets: Sequence[TestSet], context: EvaluationContext) -> str:
    """Return the sentence of the caption that says what a protocol averages."""
    within = [item for item in sets if protocol_of(item) == protocol]
    domains = {
        item.domain: context.domain_label(item.domain) for item in within if item.domain in context.domains
    }
    places = list(domains.values()) if len(domains) <= MOST_NAMES else [f"{len(domains)} domains"]
    if any(item.domain not in context.domains for item in within):
        places.append("reals of their own")
    where = " and ".join(filter(None, (", ".join(places[:-1]), places[-1])))
    finest = LEVELS[protocol][0]
    elsewhere = "" if level == finest else f" (protocols.csv has them {_PARTED[finest]})"
    return f"{protocol}: {_MEMBERS[protocol]}, on {where}, {_PARTED[level]}{elsewhere}."


def _title(part: Part, value: str, context: EvaluationContext) -> str:
    """Return the heading of a column below its protocol's."""
    if not part.level:
        return "video" if value == "video_auc" else "mean"
    if part.generator:
        return context.generator_label(part.generator)
    return " ".join(filter(None, (part.domain and context.domain_label(part.domain), part.family)))


def _stand_ins(built_in: Sequence[str], context: EvaluationContext) -> list[str]:
    """Return the sentence of the caption that keeps built-in forgeries from being taken for DF40's."""
    if not built_in:
        return []
    if set(built_in) == set(context.generators):
        return ["All forgeries are stand-ins for the families of DF40: these are no results on DF40."]
    names = ", ".join(context.generator_label(name) for name in built_in)
    return [f"Stand-ins for the families of DF40, and none of its generators, are: {names}."]


def one_against_all_table(
    runs: Sequence[pd.DataFrame],
    video_runs: Sequence[pd.DataFrame],
    models: pd.DataFrame,
    sets: Sequence[TestSet],
    context: EvaluationContext,
    built_in: Sequence[str],
) -> Table:
    """Return P4 over those of `sets` that are in it: each specialist of one generator against all generators.

    `runs` and `video_runs` hold the metrics (AUC_COLUMNS) of every training on images and on videos.
    """
    is_shown = (models["kind"] == "specialist") & models["model"].isin(list(context.generators))
    specialists = models.loc[is_shown, ["model", "label"]].reset_index(drop=True)
    names = list(specialists["model"])
    against = [sets[place] for place in one_against_all(sets)]
    families = [family for family in FAMILIES if family in {item.family for item in against}]
    aucs = [_of_specialists(run, names, against) for run in runs]
    mean = pd.concat(aucs).groupby(["model", "generator", "test_set"], sort=False)["auc"].mean().reset_index()
    others = mean[mean["model"] != mean["generator"]]
    worst = (
        others.sort_values("auc", kind="stable").drop_duplicates("model").set_index("model").reindex(names)
    )
    tables = [_one_against_all(auc, names, families, worst["test_set"]) for auc in aucs]
    if video_runs:
        # A mean over fewer sets, those of videos, would be one of fewer generators.
        count = others.groupby("model").size()
        for table, run in zip(tables, video_runs, strict=True):
            own = _of_specialists(run, names, against)
            by_model = own[own["model"] != own["generator"]].groupby("model")["auc"]
            table.insert(len(families) + 2, "others_video", by_model.mean().where(by_model.size().eq(count)))

    frame = specialists.assign(family=[context.generators[name].family for name in names])
    for column in tables[0]:
        values = np.stack([table[column].to_numpy(float) for table in tables])
        frame[column] = values.mean(axis=0)
        if len(tables) > 1:
            frame[f"{column}{SPREAD}"] = values.std(axis=0, ddof=1)
    frame["worst_set"] = worst["test_set"].to_numpy()
    frame["worst_on"] = worst["generator"].map(context.generator_label, na_action="ignore").to_numpy()
    group = "Mean over others"
    titles: dict[str, str | Heading] = {"label": "Specialist", "family": "Family", "own": "Own"}
    titles |= {family: Heading(group, family, family) for family in families}
    titles["others"] = Heading(group, "all", "All others")
    if video_runs:
        titles["others_video"] = Heading(group, "video", "All others, video")
    titles |= {"worst": "Worst", "worst_on": "Worst on"}
    caption = [
        "P4 of DF40 on the generators of this run: the AUC of specialists of one generator, on its own fakes"
        " and on those of all others, in the training domain or with reals of their own. A family's column is"
        " the mean over its other generators; worst is the test set that the specialist does worst on.",
        *(["Video: of videos, where all others are of videos."] if video_runs else []),
        *_stand_ins(built_in, context),
        "**Bold**: best specialist, <ins>underlined</ins>: second.",
    ]
    return Table(
        frame,
        titles,
        caption=" ".join(caption) + (OVER_SEEDS if len(runs) > 1 else ""),
        label="protocols_p4",
        best=[*families, "others", *(["others_video"] if video_runs else []), "worst"],
    )


def _of_specialists(auc: pd.DataFrame, names: Sequence[str], against: Sequence[TestSet]) -> pd.DataFrame:
    """Return the rows of specialists on the test sets of P4."""
    return auc[auc["model"].isin(names) & auc["test_set"].isin([item.name for item in against])]


def _one_against_all(
    auc: pd.DataFrame, names: Sequence[str], families: Sequence[str], worst: pd.Series
) -> pd.DataFrame:
    """Return the columns of P4 of one training, one row per specialist; `worst` has its test set of each."""
    is_own = auc["model"] == auc["generator"]
    others = auc[~is_own]
    columns = {
        "own": auc[is_own],
        **{family: others[others["family"] == family] for family in families},
        "others": others,
        "worst": others[others["test_set"] == others["model"].map(worst)],
    }
    means = {name: rows.groupby("model")["auc"].mean() for name, rows in columns.items()}
    return pd.DataFrame(means, index=list(names))
