"""Merges by name: a method, its options, its head rule, and the grid that is tuned on val."""

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PositiveInt, ValidationError, field_validator

from r2m.errors import R2MError
from r2m.merge import calibration, registry
from r2m.merge.method import Method
from r2m.options import (
    RESERVED,
    Name,
    Section,
    combinations,
    complaint,
    each_once,
    nearest,
    same_label,
    with_dotted,
)

Grid = dict[str, Annotated[list[Any], Field(min_length=1), AfterValidator(each_once)]]


class MergeVariant(Section, extra="allow"):
    """One merge: a method, its options beside it, its head rule, and the grid that is tuned on val."""

    enabled: bool = Field(default=True, description="false: checked, but not made")
    method: str | None = Field(default=None, description="default: the variant's own name")
    head: Annotated[str, Field(pattern=r"^(average|base|specialist:[A-Za-z0-9_]+)$")] = Field(
        default="average", description="average, base or specialist:NAME"
    )
    label: str | None = Field(default=None, description="name for readers")
    tune: Grid = Field(
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
        description="name → a method's options, and enabled, method, head, label, tune, calibrate"
    )

    @field_validator("methods")
    @classmethod
    def _written_out(cls, methods: dict[str, MergeVariant]) -> dict[str, MergeVariant]:
        """Write out what `calibrate: svc` beside a method's options stands for."""
        return {name: _written_out(name, variant) for name, variant in methods.items()}

    @property
    def enabled(self) -> dict[str, str]:
        """Enabled merge variant → its method."""
        return {name: variant.method or name for name, variant in self.methods.items() if variant.enabled}

    def why_not(self, name: str) -> str:
        """Say of a merge variant that is not enabled whether it is switched off or unknown."""
        if name in self.methods:
            return f"{name!r} is switched off; expected `merge.methods.{name}.enabled: true`, or another"
        return f"no merge is called {name!r}{nearest(name, self.enabled)}"


def _written_out(name: str, variant: MergeVariant) -> MergeVariant:
    """Return a variant with its method inside of the one that calibrates it, if there is one."""
    try:
        method, options = calibration.expanded(variant.method or name, variant.options)
    except R2MError as error:
        raise ValueError(f"{name}: {error}") from error
    if calibration.KEY not in variant.options:
        return variant
    return MergeVariant(
        enabled=variant.enabled,
        method=method,
        head=variant.head,
        label=variant.label,
        tune={f"inner.{key}": values for key, values in variant.tune.items()},
        **options,
    )


def inconsistencies(merge: MergeOptions, specialists: Collection[str]) -> Iterator[str]:
    """Yield what is wrong with merges of these specialists; each text begins with its key in params.yaml."""
    yield from same_label(
        "merge.methods", {name: merge.methods[name].label or name for name in merge.enabled}
    )
    if not merge.enabled:
        yield "merge.methods: expected at least one that is enabled"
    for name, variant in merge.methods.items():
        yield from _of_variant(name, variant, specialists, merge.candidates)


def rank_beyond(options: Any, specialists: int) -> str:
    """Say of a method's options that their Real component has more directions than there are specialists."""
    real = getattr(options, "real", None)
    if real is None or real.space != "task" or real.rank <= specialists:
        return ""
    return f"real.rank {real.rank} exceeds the number of specialists; expected at most {specialists}"


def _of_variant(
    name: str, variant: MergeVariant, specialists: Collection[str], candidates: int
) -> Iterator[str]:
    """Yield what is wrong with one variant's name, method, head, grid and options."""
    key, method_name = f"merge.methods.{name}", variant.method or name
    if name in RESERVED or name in specialists:
        yield f"{key}: another model has this name; expected none of {RESERVED} and no specialist's"
        return
    if method_name not in registry.names():
        yield f"{key}: unknown method {method_name!r}{nearest(method_name, registry.names())}"
        return
    method = registry.get(method_name)
    rule, _, specialist = variant.head.partition(":")
    if rule == "specialist" and specialist not in specialists:
        yield f"{key}.head: unknown specialist {specialist!r}{nearest(specialist, specialists)}"
    count = len(specialists)
    if variant.enabled and not method.takes(count):
        yield (
            f"{key}: {method.name} takes {method.counts} specialists, here are {count};"
            " expected `enabled: false`"
        )
    if method.statistics is not None and "images" in variant.tune:
        yield f"{key}.tune: `images` is that of the statistics, made once; expected beside `tune`"
    grid = combinations(variant.tune)
    if variant.tune and len(grid) != candidates:
        yield (
            f"{key}.tune: {len(grid)} candidates; expected {candidates} (`merge.candidates`),"
            " so that no method is tuned harder than another"
        )
    for option in variant.tune:
        for fixed in _contradicted(option, variant.options):
            yield f"{key}.{fixed}: stands beside `tune: {option}`; expected one of the two"
            return
    earlier: list[Section] = []
    for candidate in grid:
        try:
            options = method.options.model_validate(with_dotted(variant.options, candidate))
        except ValidationError as error:
            yield complaint(error, key)
            return
        except R2MError as error:
            yield f"{key}: {error}"
            return
        merging, own = calibration.calibrated(method, options)
        if merging is not method and (text := _not_calibrated(merging, variant.enabled, count)):
            yield f"{key}: {text}"
            return
        if variant.enabled and (text := rank_beyond(own, count)):
            yield f"{key}: {text}"
            return
        if options in earlier:
            yield f"{key}.tune: {candidate} gives the options of another candidate; expected different ones"
            return
        earlier.append(options)


def _not_calibrated(method: Method, enabled: bool, specialists: int) -> str:
    """Say why the workflow does not calibrate a method."""
    if method.statistics is not None:
        return f"{method.name} needs statistics of the training data, which are not made for svc"
    if enabled and not method.takes(specialists):
        return f"{method.name} takes {method.counts} specialists, here are {specialists}"
    return ""


def _contradicted(option: str, options: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the names of nested `options` that a dotted one replaces: itself, or an alternative of it."""
    group = option.rpartition(".")[0]
    for name, value in options.items():
        full_name = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _contradicted(option, value, f"{full_name}.")
        elif full_name == option or (group.split(".")[-1] in ("rank", "scale") and prefix == f"{group}."):
            yield full_name
