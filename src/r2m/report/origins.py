"""Where images come from: what the cards know of generators, domains, data sets and built-in forgeries."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from r2m.data.sources import PACKAGES
from r2m.evaluate.protocols import DomainContext, EvaluationContext, GeneratorContext, Strict
from r2m.forge import registry
from r2m.forge.registry import Forgery
from r2m.report.table import markdown_table

FAMILY_TITLES = {
    "FS": "face swapping",
    "FR": "face reenactment",
    "EFS": "entire face synthesis",
    "FE": "face editing",
}
STAND_INS = (
    "The workflow makes fakes itself. Each of its forgeries stands for a family of DF40 ({families}), but "
    "none is of DF40 or of any other deepfake benchmark. Numbers show how merging behaves, and say little "
    "about detecting present-day deepfakes."
)
NEURAL = "Neural networks make the fakes of {labels}."
CLASSICAL = "Classical image operations make the fakes of {labels}."
SHARED = (
    "One network is behind {labels}. What it leaves on every image, they share: who detects one of them may "
    "know the others by that."
)
NOBODY = "The faces of {labels} are drawn from random numbers: no person whom they show exists."


class GeneratorCard(GeneratorContext):
    """A generator and where its images come from: a built-in forgery, a folder, or a method of a data set."""

    forge: str | None = None
    options: dict[str, float] = Field(default_factory=dict)
    images: str | None = None
    reals: str | None = None
    dataset: str | None = None
    method: str | None = None


class DomainCard(DomainContext):
    """A domain, where its photographs come from, and how identities were found if no data set says them."""

    images: dict[str, str] | None = None
    identity: Literal["cluster", "folder", "file"] | None = None
    dataset: str | None = None
    domain: str | None = None


class DatasetCard(Strict):
    """A data set that has an index; `split_by` (official, protocol, identity) may not be known."""

    index: str
    encode: Literal["none", "jpeg"] = "none"
    aligned: bool = True
    split_by: str | None = None


class CardContext(EvaluationContext):
    """Generators and domains with their origins."""

    generators: dict[str, GeneratorCard] = Field(default_factory=dict)  # type: ignore[assignment]
    domains: dict[str, DomainCard] = Field(default_factory=dict)  # type: ignore[assignment]
    datasets: dict[str, DatasetCard] = Field(default_factory=dict)


def built_in(context: CardContext) -> Iterator[str]:
    """Yield what has to be known of the built-in forgeries: what they are not, and what they share."""
    forgeries = _forgeries(context)
    if not forgeries:
        return
    families = {context.generators[name].family for name in forgeries}
    titles = (f"{key}: {title}" for key, title in FAMILY_TITLES.items() if key in families)
    yield STAND_INS.format(families=", ".join(titles))
    neural = [name for name, forgery in forgeries.items() if forgery.packages]
    classical = [name for name in forgeries if name not in neural]
    for text, names in ((NEURAL, neural), (CLASSICAL, classical)):
        if names:
            yield text.format(labels=_labels(names, context))
    for package in sorted({package for name in neural for package in forgeries[name].packages}):
        sharing = [name for name in neural if package in forgeries[name].packages]
        if len(sharing) > 1:
            yield SHARED.format(labels=_labels(sharing, context))
    if nobody := [name for name in neural if forgeries[name].family == "EFS"]:
        yield NOBODY.format(labels=_labels(nobody, context))


def origins(context: CardContext) -> list[str]:
    """Return the table of what each built-in forgery does, and of the packages its networks come from."""
    rows = []
    for name, forgery in _forgeries(context).items():
        options = ", ".join(f"{key} {value:g}" for key, value in context.generators[name].options.items())
        packages = ", ".join(PACKAGES[package].requirement for package in forgery.packages)
        rows.append(
            (
                context.generator_label(name),
                f"`{forgery.name}`",
                forgery.summary,
                options or "–",
                packages or "–",
            )
        )
    return (
        markdown_table(["set", "forgery", "what it does", "options", "networks of"], rows, "lllll")
        if rows
        else []
    )


def _forgeries(context: CardContext) -> dict[str, Forgery]:
    """Return generator → its built-in forgery."""
    named = {name: generator.forge for name, generator in context.generators.items()}
    return {name: registry.get(forge) for name, forge in named.items() if forge}


def _labels(names: list[str], context: CardContext) -> str:
    return ", ".join(context.generator_label(name) for name in names)
