"""The data card: what the images are, where they come from and what they are not."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from r2m import manifest
from r2m.data.intake import reason_of
from r2m.errors import R2MError
from r2m.evaluate.protocols import (
    EVERY_FRAME,
    SAMPLING,
)
from r2m.report.numbers import number
from r2m.report.origins import CardContext, DomainCard, GeneratorCard, built_in, origins
from r2m.report.table import markdown_table

logger = logging.getLogger(__name__)

PSEUDO_IDENTITIES = (
    "The photographs of {domains} carry no identity labels. Their identities are pseudo-identities: groups "
    "of images whose face embeddings are similar. One person may be spread over several groups, and so over "
    "several splits, where the embedder fails to see the likeness."
)

# A set whose files tell fakes from reals better than this gives itself away.
GIVEN_AWAY = 0.8
CUES = (
    "AUC of a logistic regression that tells fakes from the reals of their domain by cues of their files, "
    "scored on people whom it was not fitted to: what a detector could use without looking at the face. "
    f"Values near 0.5 are good; above {GIVEN_AWAY} (bold) the set gives itself away by encoding, colour or "
    "spectrum."
)
GROUPS = (
    "`file` is size and format, `tables` the quantization tables of a JPEG, `colour` the mean and spread of "
    "each channel in CIELAB, `spectrum` the power of grey levels at every frequency, `all` all of these "
    "together. Size and spectrum also follow from what a forgery does to the pixels, so that they may be a "
    "trace of the generator: a smoothed face has less of both. With few images values stray from 0.5 by "
    "chance, to either side."
)


def read_skipped(path: Path) -> pd.DataFrame:
    """Read the list of skipped files; raises R2MError where it is missing or has other columns."""
    try:
        frame = pd.read_csv(path, dtype=str)
    except (OSError, ValueError) as error:
        raise R2MError(f"{path}: cannot read the list of skipped files: {error}") from error
    if not {"path", "reason"} <= set(frame.columns):
        raise R2MError(f"{path}: expected the columns path and reason, got {', '.join(frame.columns)}")
    return frame


def compose_data_card(
    images: pd.DataFrame,
    skipped: dict[str, pd.DataFrame],
    receipts: Sequence[dict[str, Any]],
    cues: pd.DataFrame,
    context: CardContext,
) -> str:
    """Compose the card as Markdown from the rows of all manifests, skipped files per image set, and cues."""
    sources = _sources(receipts, context)
    sections = [
        ["# Data card", "", *_limits(context)],
        ["## Image sets", "", *_sets(images, context)],
        *([["## What made the fakes", "", *made]] if (made := origins(context)) else []),
        *([["## Videos", "", *_videos(images, context)]] if images["video"].notna().any() else []),
        *([["## Data sets", "", *_datasets(images, context)]] if context.datasets else []),
        ["## Skipped files", "", *_skipped(skipped)],
        ["## The same file in several splits", "", *_overlaps(images, context)],
        ["## Cheap cues", "", *_cues(cues, images, context)],
        *([["## Sources and licences", "", *sources]] if sources else []),
    ]
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _limits(context: CardContext) -> list[str]:
    paragraphs = list(built_in(context))
    by_identity = {
        identity: " and ".join(
            context.domain_label(name)
            for name, domain in context.domains.items()
            if domain.identity == identity and domain.dataset is None
        )
        for identity in ("cluster", "file")
    }
    if clustered := by_identity["cluster"]:
        paragraphs.append(PSEUDO_IDENTITIES.format(domains=clustered))
    if single := by_identity["file"]:
        paragraphs.append(f"Every image of {single} counts as an identity of its own.")
    paragraphs += _handling(context)
    return "\n\n".join(paragraphs).split("\n")


def not_encoded(context: CardContext) -> list[str]:
    """Return domains and generators whose images are not encoded again."""
    sets: dict[str, DomainCard | GeneratorCard] = {**context.domains, **context.generators}
    return [
        name
        for name, image_set in sets.items()
        if image_set.dataset is not None and context.datasets[image_set.dataset].encode == "none"
    ]


def _handling(context: CardContext) -> Iterator[str]:
    """Yield what was done to the images: splits and encoding."""
    if not context.datasets:
        yield "Splits are made by identity. Every image passed through the same last encoding step."
        return
    yield "Splits of images of a data set are those of its index; all others are made by identity."
    as_found = not_encoded(context)
    if not as_found:
        yield "Every image passed through the same last encoding step."
        return
    labels = ", ".join(context.domain_label(name) for name in as_found)
    others = [name for name in (*context.domains, *context.generators) if name not in as_found]
    yield (
        f"Images of {labels} are not encoded again: where reals and fakes were not encoded alike, a detector"
        " can tell them by that alone."
        + (" All others passed through the same last encoding step." if others else "")
    )


def _members(images: pd.DataFrame, context: CardContext) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield generator, domain and images of every set, in the order of params.yaml, reals first."""
    unknown = sorted(set(images["generator"]) - {manifest.REAL} - set(context.generators))
    if unknown:
        raise R2MError(f"generator {unknown[0]!r} has a manifest but is not among generators: in params.yaml")
    order = [manifest.REAL, *context.generators]
    domains = [*context.domains, *context.generators]
    members = {
        (str(generator), str(domain)): own
        for (generator, domain), own in images.groupby(["generator", "domain"])
    }
    for generator, domain in sorted(members, key=lambda pair: (order.index(pair[0]), domains.index(pair[1]))):
        yield generator, domain, members[generator, domain]


def _sets(images: pd.DataFrame, context: CardContext) -> list[str]:
    groups = {name: known.group or "–" for name, known in context.generators.items()}
    has_groups = any(known.group for known in context.generators.values())
    rows = []
    for generator, domain, members in _members(images, context):
        real = generator == manifest.REAL
        counts = members["split"].value_counts()
        rows.append(
            [
                "reals" if real else context.generator_label(generator),
                "–" if real else context.generators[generator].family,
                "–" if real else context.generators[generator].role,
                *([groups.get(generator, "–")] if has_groups else []),
                context.domain_label(domain),
                *(int(counts.get(split, 0)) for split in manifest.SPLITS),
                members["identity"].nunique(),
                members["video"].nunique() or "–",
                "–" if real else int(members["source_image"].notna().sum()),
            ]
        )
    what = ["set", "family", "role", *(["group"] if has_groups else []), "domain"]
    header = [*what, *manifest.SPLITS, "identities", "videos", "of a known real"]
    return markdown_table(header, rows, "l" * len(what) + "r" * 6)


def _videos(images: pd.DataFrame, context: CardContext) -> list[str]:
    """Return how many videos each set has, and how many frames of them."""
    rows = []
    for generator, domain, members in _members(images, context):
        of_videos = members[members["video"].notna()]
        if of_videos.empty:
            continue
        frames = of_videos["video"].value_counts()
        said = of_videos[SAMPLING].fillna(EVERY_FRAME) if SAMPLING in of_videos else [EVERY_FRAME]
        rows.append(
            [
                "reals" if generator == manifest.REAL else context.generator_label(generator),
                context.domain_label(domain),
                len(frames),
                len(of_videos),
                frames.min(),
                f"{frames.median():g}",
                frames.max(),
                len(members) - len(of_videos),
                "; ".join(sorted(set(said))),
            ]
        )
    header = ["set", "domain", "videos", "frames", "least", "median", "most", "in no video", "sampling"]
    return [
        *markdown_table(header, rows, "llrrrrrrl"),
        "",
        "Least, median and most are frames of one video. A video is known by label, generator, domain and"
        " name: a fake that is called after its real is another video.",
    ]


def _datasets(images: pd.DataFrame, context: CardContext) -> list[str]:
    """Return which sets come from an index, and what they are called there."""
    rows = []
    for name, domain in context.domains.items():
        if domain.dataset is not None:
            rows.append(
                [f"{context.domain_label(name)}, reals", domain.dataset, "real", domain.domain or name]
            )
    for name, generator in context.generators.items():
        if generator.dataset is not None:
            forged = set(images.loc[images["generator"] == name, "domain"])
            # The reals that a generator brings are a domain called after it.
            own = [context.domain_label(name)] if name in forged else []
            of_domains = [
                domain.domain or key
                for key, domain in context.domains.items()
                if key in forged and domain.dataset == generator.dataset
            ]
            rows.append(
                [
                    context.generator_label(name),
                    generator.dataset,
                    generator.method or name,
                    ", ".join(of_domains + own) or "–",
                ]
            )
    encodings = {"none": "not encoded again", "jpeg": "encoded again as JPEG"}
    lines = [
        f"- {name}: the index `{dataset.index}`{f', splits: {dataset.split_by}' if dataset.split_by else ''};"
        f" images {encodings[dataset.encode]}, under their owner's terms."
        for name, dataset in context.datasets.items()
    ]
    return [*markdown_table(["set", "data set", "method", "domain"], rows, "llll"), "", *lines]


def _skipped(skipped: dict[str, pd.DataFrame]) -> list[str]:
    rows = [
        (name, reason, count)
        for name, frame in skipped.items()
        for reason, count in frame["reason"].map(reason_of).value_counts().sort_index().items()
    ]
    return markdown_table(["set", "reason", "files"], rows, "llr") if rows else ["None."]


def overlaps(images: pd.DataFrame) -> pd.DataFrame:
    """Return how many files two parts of the images share that are in different splits.

    Parts are (set, split), where a set is named after a generator or a domain; the columns are set, split,
    other_set, other_split and files.
    """
    files = images.loc[images["digest"].notna(), ["digest", "generator", "domain", "split"]].copy()
    files["set"] = files["domain"].where(files["generator"] == manifest.REAL, files["generator"])
    parts = files[["digest", "set", "split"]].drop_duplicates()
    others = parts.rename(columns={"set": "other_set", "split": "other_split"})
    pairs = parts[parts["digest"].duplicated(keep=False)].merge(others, on="digest")
    order = {split: position for position, split in enumerate(manifest.SPLITS)}
    pairs = pairs[pairs["split"].map(order) < pairs["other_split"].map(order)]
    keys = ["set", "split", "other_set", "other_split"]
    return pairs.groupby(keys).size().reset_index(name="files")


def _overlaps(images: pd.DataFrame, context: CardContext) -> list[str]:
    shared = overlaps(images)
    for row in shared.itertuples():
        logger.warning(
            "%d files of %s (%s) are also in %s (%s)",
            *(row.files, row.set, row.split, row.other_set, row.other_split),
        )
    label = {name: context.generator_label(name) for name in context.generators}
    label |= {name: context.domain_label(name) for name in context.domains}
    shared = shared.replace({"set": label, "other_set": label})
    rows = list(shared.itertuples(index=False, name=None))
    header = ["set", "split", "also in", "split there", "files"]
    return markdown_table(header, rows, "llllr") if rows else ["None."]


def _cues(cues: pd.DataFrame, images: pd.DataFrame, context: CardContext) -> list[str]:
    """Return the AUCs of cheap cues of every set of fakes that has them."""
    rows_of = {(row["generator"], row["domain"]): row for row in cues.to_dict("records")}
    counts = ["fakes", "reals"]
    groups = [str(name) for name in cues if name not in ("generator", "domain", *counts)]
    rows = [
        [
            context.generator_label(generator),
            context.domain_label(domain),
            *(rows_of[generator, domain][count] for count in counts),
            *(_auc(rows_of[generator, domain][group]) for group in groups),
        ]
        for generator, domain, _ in _members(images, context)
        if (generator, domain) in rows_of
    ]
    if not rows:
        return ["No set has fakes and reals of two people or more."]
    header = ["set", "domain", *counts, *groups]
    return [CUES, "", *markdown_table(header, rows, "ll" + "r" * (len(header) - 2)), "", GROUPS]


def _auc(value: float) -> str:
    return f"**{number(value)}**" if value > GIVEN_AWAY else number(value)


def _sources(receipts: Sequence[dict[str, Any]], context: CardContext) -> list[str]:
    rows = [
        (
            f"{receipt['package']} {receipt['version']}",
            len(receipt["files"]),
            f"`{receipt['sha256']}`",
            receipt["licence"],
        )
        for receipt in receipts
    ]
    header = ["package of the Python registry", "files used", "sha256 of the wheel", "licence and terms"]
    lines = markdown_table(header, rows, "llll") if rows else []
    folders = [
        (context.domain_label(name), (domain.images or {}).get("folder"))
        for name, domain in context.domains.items()
    ]
    for name, generator in context.generators.items():
        folders += [
            (context.generator_label(name), generator.images),
            (f"{context.generator_label(name)}, reals", generator.reals),
        ]
    lines_of_folders = [
        f"- {label}: the folder `{folder}`, under its owner's terms." for label, folder in folders if folder
    ]
    return lines + ([""] if lines and lines_of_folders else []) + lines_of_folders
