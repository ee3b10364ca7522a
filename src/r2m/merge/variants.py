"""Merges by name: a method, its options, its head rule, and the grid that is tuned on val."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from r2m.options import Name, Section, nearest


class MergeVariant(BaseModel):
    """One merge: a method, its options beside it, its head rule, and the grid that is tuned on val."""

    model_config = ConfigDict(extra="allow", frozen=True)

    enabled: bool = Field(default=True, strict=True, description="false: checked, but not made")
    method: str | None = Field(default=None, description="default: the variant's own name")
    head: Annotated[str, Field(pattern=r"^(average|base|specialist:[A-Za-z0-9_]+)$")] = Field(
        default="average", description="average, base or specialist:NAME"
    )
    label: str | None = Field(default=None, description="name for readers")
    tune: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default={},
        description="dotted option → its values; every combination is a candidate, and val chooses",
    )

    @property
    def options(self) -> dict[str, Any]:
        """The options of the method, as they stand beside the keys that every variant has."""
        return dict(self.model_extra or {})


class MergeOptions(Section):
    """The merges to make and how many candidates each tunable one may try."""

    candidates: PositiveInt = Field(default=9, description="how many every merge with `tune` has")
    methods: dict[Name, MergeVariant] = Field(
        description="name → a method's options, and enabled, method, head, label, tune"
    )

    @property
    def enabled(self) -> dict[str, str]:
        """Enabled merge variant → its method."""
        return {name: variant.method or name for name, variant in self.methods.items() if variant.enabled}

    def why_not(self, name: str) -> str:
        """Say of a merge variant that is not enabled whether it is switched off or unknown."""
        if name in self.methods:
            return f"{name!r} is switched off; expected `merge.methods.{name}.enabled: true`, or another"
        return f"no merge is called {name!r}{nearest(name, self.enabled)}"


def rank_beyond(options: Any, specialists: int) -> str:
    """Say of a method's options that their Real component has more directions than there are specialists."""
    real = getattr(options, "real", None)
    if real is None or real.space != "task" or real.rank <= specialists:
        return ""
    return f"real.rank {real.rank} exceeds the number of specialists; expected at most {specialists}"
