"""What commands of experiments are told to train on and to merge, as JSON; without torch."""

from typing import Any

from r2m.merge.variants import MergeVariant
from r2m.options import Section

GENERATORS, FAMILIES, BOTH, JOINT = "generators", "families", "both", "joint"


class FamiliesPlan(Section):
    """Who is merged with what in the experiment `families`.

    families: family → its generators, each of which has a specialist by its name.
    specialists: family → the specialist trained on all of its generators.
    steps: specialist → its training steps; `joint` for joint training, where there is any.
    variants: merge variants with their grids.
    """

    families: dict[str, list[str]]
    specialists: dict[str, str]
    steps: dict[str, int]
    variants: dict[str, MergeVariant]

    @property
    def generators(self) -> list[str]:
        """All generators that are trained on."""
        return [name for names in self.families.values() for name in names]

    def used(self, strategy: str) -> list[str]:
        """Return the specialists (or `joint`) that a strategy needs."""
        if strategy == JOINT:
            return [JOINT]
        return list(self.specialists.values()) if strategy == FAMILIES else self.generators


class SourcesPlan(Section):
    """What the experiment `sources` merges.

    domain: the one of which some people are trained on.
    generators: those trained on.
    variants: merge variants with their grids.
    cores: merge variant → dotted option → its values; every combination is a setting.
    """

    domain: str
    generators: list[str]
    variants: dict[str, MergeVariant]
    cores: dict[str, dict[str, list[Any]]]
