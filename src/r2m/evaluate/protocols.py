"""What a test set is, which protocol it belongs to, and in which order models and test sets are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from r2m.errors import R2MError

if TYPE_CHECKING:
    import pandas as pd

FAMILIES = ("FS", "FR", "EFS", "FE")
KINDS = {"base": "Base", "specialist": "Specialists", "joint": "Joint training", "merge": "Merged"}
IN_DISTRIBUTION = "in_distribution"
UNSEEN_GENERATOR = "unseen_generator"
CROSS_DATASET = "cross_dataset"
PROTOCOLS = {
    IN_DISTRIBUTION: "In distribution",
    UNSEEN_GENERATOR: "Unseen generators",
    CROSS_DATASET: "Cross-dataset",
}
# Titles of the panels of figures; that of unseen generators is parted into one a group.
PANELS = {
    IN_DISTRIBUTION: "In distribution",
    UNSEEN_GENERATOR: "Unseen generators",
    f"{CROSS_DATASET}_trained": "Cross-dataset,\ntrained generators",
    f"{CROSS_DATASET}_unseen": "Cross-dataset,\nunseen generators",
}
OTHER = "other"  # the group of unseen generators without one, where others have one
MODEL_KEYS = ["model", "kind", "method"]
# What is kept of an image beside its score.
KEPT = ["image_id", "set", "domain", "split", "label", "generator", "identity", "video"]
SAMPLING = "sampling"  # kept as well where the manifests say which frames of a video there are
EVERY_FRAME = "every frame in the manifests"  # what it means where they do not
SET_COLUMNS = ["test_set", "generator", "family", "domain", "protocol"]
SPREAD = "_sd"  # behind the name of a column: its standard deviation over seeds of training
_TEXT = (*MODEL_KEYS, *SET_COLUMNS, "label", "reference", "real_domain", "part", "group", "sampling")


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a CSV table of results/tables or of an experiment; names stay text, even `null` and `42`."""
    import pandas as pd  # experiments name protocols in their options, which are read without it

    try:
        return pd.read_csv(path, dtype=dict.fromkeys(_TEXT, str), keep_default_na=False)
    except (OSError, ValueError) as error:
        raise R2MError(f"{path}: not a readable table of results: {error}") from error


class Strict(BaseModel):
    """A description with known keys only."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class GeneratorContext(Strict):
    """What the evaluation knows of a generator."""

    family: Literal["FS", "FR", "EFS", "FE"]
    role: Literal["train", "unseen"] = "train"
    label: str | None = None
    group: str | None = None


class DomainContext(Strict):
    """What the evaluation knows of a collection of real photographs."""

    role: Literal["train", "test"]
    label: str | None = None


class EvaluationContext(Strict):
    """Generators and domains by name, in the order in which tables and figures show them."""

    generators: dict[str, GeneratorContext] = Field(default_factory=dict)
    domains: dict[str, DomainContext] = Field(default_factory=dict)
    variants: dict[str, str] = Field(default_factory=dict, description="merge variant → its name for readers")
    resamples: int = Field(default=1000, description="bootstrap resamples of people behind intervals")
    seed: int = Field(default=0, description="seed of the bootstrap")

    @property
    def groups(self) -> list[str]:
        """Groups of unseen generators, in the order of the first of each; none where there is only one."""
        named = [known.group for known in self.generators.values() if known.role == "unseen"]
        groups = list(dict.fromkeys(group or OTHER for group in named))
        return groups if len(groups) > 1 else []

    def generator_label(self, name: str) -> str:
        """Name of a generator as a reader sees it."""
        generator = self.generators.get(name)
        return (generator.label if generator else None) or name

    def variant_label(self, name: str) -> str:
        """Name of a merge variant as a reader sees it."""
        return self.variants.get(name, name)

    def domain_label(self, name: str) -> str:
        """Name of a domain as a reader sees it; a generator's own reals go by the generator's label."""
        domain = self.domains.get(name)
        return (domain.label if domain else None) or self.generator_label(name)


@dataclass(frozen=True)
class TestSet:
    """Fakes of one generator in one domain, against the reals of that domain."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    domain: str
    generator: str
    family: str
    role: str
    protocol: str
    group: str | None

    @property
    def panel(self) -> str:
        """The panel of figures: the protocol, cross-dataset by role, and unseen generators by group."""
        if self.protocol == CROSS_DATASET:
            return f"{CROSS_DATASET}_{'trained' if self.role == 'train' else 'unseen'}"
        return self.protocol if self.group is None else f"{self.protocol}/{self.group}"

    @property
    def name(self) -> str:
        """Identifier used in tables, ``<domain>/<generator>``."""
        return f"{self.domain}/{self.generator}"

    def columns(self) -> dict[str, str]:
        """What the tables say of a test set, by column (SET_COLUMNS)."""
        return {
            "test_set": self.name,
            "generator": self.generator,
            "family": self.family,
            "domain": self.domain,
            "protocol": self.protocol,
        }


def describe(domain: str, generator: str, context: EvaluationContext) -> TestSet:
    """Describe the test set of a (domain, generator) pair.

    Raises R2MError where the domain or the generator is not in the context.
    """
    if generator not in context.generators:
        raise R2MError(
            f"test set {domain}/{generator}: generator {generator!r} is not among generators: in params.yaml"
        )
    if domain not in context.domains and domain != generator:
        raise R2MError(
            f"test set {domain}/{generator}: domain {domain!r} is not among domains: in params.yaml"
        )
    known = context.generators[generator]
    if domain in context.domains and context.domains[domain].role == "test":
        protocol = CROSS_DATASET
    else:
        protocol = IN_DISTRIBUTION if known.role == "train" else UNSEEN_GENERATOR
    group = known.group or OTHER if known.role == "unseen" and context.groups else None
    return TestSet(domain, generator, known.family, known.role, protocol, group)


def mean_columns(sets: Sequence[TestSet], context: EvaluationContext) -> dict[tuple[str, str], list[int]]:
    """Means that the tables show: (protocol, part) → places in `sets` of the test sets that it averages.

    The part `mean` is a whole protocol. In distribution, each family is a part, and so is each group of
    unseen generators where several occur; cross-dataset is parted by whether the generator was trained on
    (`trained`, `unseen`) where both kinds occur.
    """
    columns: dict[tuple[str, str], list[int]] = {}
    for protocol in PROTOCOLS:
        within = [place for place, item in enumerate(sets) if item.protocol == protocol]
        trained = [place for place in within if sets[place].role == "train"]
        parts: dict[str, list[int]] = {}
        if protocol == IN_DISTRIBUTION:
            parts = {
                family: [place for place in within if sets[place].family == family] for family in FAMILIES
            }
        elif protocol == UNSEEN_GENERATOR and len({sets[place].group for place in within}) > 1:
            parts = {
                group: [place for place in within if sets[place].group == group] for group in context.groups
            }
        elif protocol == CROSS_DATASET and 0 < len(trained) < len(within):
            parts = {"trained": trained, "unseen": [place for place in within if place not in trained]}
        parts["mean"] = within
        columns |= {(protocol, part): places for part, places in parts.items() if places}
    return columns


def order_test_sets(sets: Sequence[TestSet], context: EvaluationContext) -> list[TestSet]:
    """Sort by protocol, domain, role, group, family and place in the context: the order of columns."""
    domains = list(context.domains)
    generators = list(context.generators)
    groups = context.groups

    def key(item: TestSet) -> tuple[int, int, bool, int, int, int]:
        return (
            list(PROTOCOLS).index(item.protocol),
            domains.index(item.domain) if item.domain in domains else len(domains),
            item.role != "train",
            0 if item.group is None else groups.index(item.group),
            FAMILIES.index(item.family),
            generators.index(item.generator),
        )

    return sorted(sets, key=key)


def group_title(item: TestSet, context: EvaluationContext) -> str:
    """Heading of test sets shown together: the domain, whether the generators were trained on, the group."""
    domain = context.domain_label(item.domain) if item.domain in context.domains else "own reals"
    title = f"{domain}\n{'trained' if item.role == 'train' else 'unseen'} generators"
    return title if item.group is None else f"{title},\n{item.group}"


def panels(context: EvaluationContext) -> list[str]:
    """Return all panels that figures may have, in their order."""
    parted = {UNSEEN_GENERATOR: [f"{UNSEEN_GENERATOR}/{group}" for group in context.groups]}
    return [panel for name in PANELS for panel in parted.get(name) or [name]]


def panel_title(panel: str) -> str:
    """Return the title of a panel of figures."""
    name, _, group = panel.partition("/")
    return f"{PANELS[name]},\n{group}" if group else PANELS[name]


def model_columns(models: pd.DataFrame) -> list[dict[str, str]]:
    """What the tables say of each model (MODEL_KEYS), by column."""
    rows = models[MODEL_KEYS].itertuples(index=False, name=None)
    return [dict(zip(MODEL_KEYS, row, strict=True)) for row in rows]


def order_models(models: pd.DataFrame, context: EvaluationContext) -> pd.DataFrame:
    """Sort the rows (columns model, kind, …) by kind; specialists by family and place in the context.

    Models of one kind otherwise keep their order, which for merges is the one in which they were given.
    """
    kinds, generators = list(KINDS), list(context.generators)

    def place(row: pd.Series) -> tuple[int, int, int]:
        own = context.generators.get(row["model"]) if row["kind"] == "specialist" else None
        if own is None:
            return kinds.index(row["kind"]), len(FAMILIES), 0
        return kinds.index(row["kind"]), FAMILIES.index(own.family), generators.index(row["model"])

    places = [place(row) for _, row in models.iterrows()]
    order = sorted(range(len(models)), key=places.__getitem__)
    return models.iloc[order].reset_index(drop=True)
