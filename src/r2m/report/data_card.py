"""The data card: what the images are, where they come from and what they are not."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import Field

from r2m import manifest
from r2m.data.intake import reason_of
from r2m.errors import R2MError
from r2m.evaluate.protocols import DomainContext, EvaluationContext, GeneratorContext
from r2m.report.table import markdown_table

logger = logging.getLogger(__name__)

FAMILY_TITLES = {
    "FS": "face swapping",
    "FR": "face reenactment",
    "EFS": "entire face synthesis",
    "FE": "face editing",
}
STAND_INS = (
    "The forgeries that the workflow makes itself are classical image operations. Each stands for a family "
    "of DF40 ({families}), but none of them is DF40 or any other deepfake benchmark: no face here was made "
    "by a neural generator of that data set. Numbers show how merging behaves, and say nothing about "
    "detecting present-day deepfakes."
)
PSEUDO_IDENTITIES = (
    "The photographs of {domains} carry no identity labels. Their identities are pseudo-identities: groups "
    "of images whose face embeddings are similar. One person may be spread over several groups, and so over "
    "several splits, where the embedder fails to see the likeness."
)


class GeneratorCard(GeneratorContext):
    """A generator and where its images come from: a built-in forgery or a folder."""

    forge: str | None = None
    images: str | None = None
    reals: str | None = None


class DomainCard(DomainContext):
    """A domain, where its photographs come from, and how identities were found."""

    images: dict[str, str]
    identity: Literal["cluster", "folder", "file"]


class CardContext(EvaluationContext):
    """Generators and domains with their origins."""

    generators: dict[str, GeneratorCard] = Field(default_factory=dict)  # type: ignore[assignment]
    domains: dict[str, DomainCard] = Field(default_factory=dict)  # type: ignore[assignment]


def read_skipped(path: Path) -> pd.DataFrame:
    """Read the list of skipped files; raises R2MError where it is missing or has other columns."""
    try:
        frame = pd.read_csv(path, dtype=str)
    except (OSError, ValueError) as error:
        raise R2MError(f"{path}: cannot read the list of skipped files: {error}") from error
    if not {"path", "reason"} <= set(frame.columns):
        raise R2MError(f"{path}: expected the columns path and reason, got {', '.join(frame.columns)}")
    return frame


def read_receipt(path: Path) -> dict[str, Any]:
    """Read the receipt of a fetched package; raises R2MError where a key is missing."""
    try:
        receipt = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise R2MError(f"{path}: cannot read the receipt: {error}") from error
    missing = {"package", "version", "sha256", "licence", "files"} - receipt.keys()
    if missing:
        raise R2MError(f"{path}: the receipt lacks {', '.join(sorted(missing))}")
    return receipt


def compose_data_card(
    images: pd.DataFrame,
    skipped: dict[str, pd.DataFrame],
    receipts: Sequence[dict[str, Any]],
    context: CardContext,
) -> str:
    """Compose the card as Markdown from the rows of all manifests and the skipped files per image set."""
    sections = [
        ["# Data card", "", *_limits(context)],
        ["## Image sets", "", *_sets(images, context)],
        ["## Skipped files", "", *_skipped(skipped)],
        ["## The same file in several splits", "", *_overlaps(images, context)],
        ["## Sources and licences", "", *_sources(receipts, context)],
    ]
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def families_of(context: CardContext) -> str:
    """Name the families that built-in forgeries stand for; empty where there are none."""
    families = {generator.family for generator in context.generators.values() if generator.forge}
    return ", ".join(f"{key}: {title}" for key, title in FAMILY_TITLES.items() if key in families)


def _limits(context: CardContext) -> list[str]:
    paragraphs = []
    if families := families_of(context):
        paragraphs.append(STAND_INS.format(families=families))
    by_identity = {
        identity: " and ".join(
            context.domain_label(name)
            for name, domain in context.domains.items()
            if domain.identity == identity
        )
        for identity in ("cluster", "file")
    }
    if clustered := by_identity["cluster"]:
        paragraphs.append(PSEUDO_IDENTITIES.format(domains=clustered))
    if single := by_identity["file"]:
        paragraphs.append(f"Every image of {single} counts as an identity of its own.")
    paragraphs.append("Splits are made by identity. Every image passed through the same last encoding step.")
    return "\n\n".join(paragraphs).split("\n")


def _sets(images: pd.DataFrame, context: CardContext) -> list[str]:
    unknown = sorted(set(images["generator"]) - {manifest.REAL} - set(context.generators))
    if unknown:
        raise R2MError(f"generator {unknown[0]!r} has a manifest but is not among generators: in params.yaml")
    order = [manifest.REAL, *context.generators]
    domains = [*context.domains, *context.generators]
    rows = []
    pairs = set(zip(images["generator"], images["domain"], strict=True))
    for generator, domain in sorted(pairs, key=lambda pair: (order.index(pair[0]), domains.index(pair[1]))):
        part = images[(images["generator"] == generator) & (images["domain"] == domain)]
        real = generator == manifest.REAL
        counts = part["split"].value_counts()
        rows.append(
            [
                "reals" if real else context.generator_label(generator),
                "–" if real else context.generators[generator].family,
                "–" if real else context.generators[generator].role,
                context.domain_label(domain),
                *(int(counts.get(split, 0)) for split in manifest.SPLITS),
                part["identity"].nunique(),
                part["video"].nunique() or "–",
                "–" if real else int(part["source_image"].notna().sum()),
            ]
        )
    header = ["set", "family", "role", "domain", *manifest.SPLITS, "identities", "videos", "of a known real"]
    return markdown_table(header, rows, "l" * 4 + "r" * 6)


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
    named = images.loc[images["digest"].notna(), ["digest", "generator", "domain", "split"]].copy()
    named["set"] = named["domain"].where(named["generator"] == manifest.REAL, named["generator"])
    parts = named[["digest", "set", "split"]].drop_duplicates()
    other = parts.rename(columns={"set": "other_set", "split": "other_split"})
    both = parts[parts["digest"].duplicated(keep=False)].merge(other, on="digest")
    order = {split: place for place, split in enumerate(manifest.SPLITS)}
    both = both[both["split"].map(order) < both["other_split"].map(order)]
    keys = ["set", "split", "other_set", "other_split"]
    return both.groupby(keys).size().reset_index(name="files")


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
        (context.domain_label(name), domain.images.get("folder")) for name, domain in context.domains.items()
    ]
    for name, generator in context.generators.items():
        folders += [
            (context.generator_label(name), generator.images),
            (f"{context.generator_label(name)}, reals", generator.reals),
        ]
    own = [
        f"- {label}: the folder `{folder}`, under its owner's terms." for label, folder in folders if folder
    ]
    return lines + ([""] if lines and own else []) + own
