"""Checks of the section `experiments` against the rest of `params.yaml`."""

from collections.abc import Iterator

from pydantic import ValidationError

from r2m.core_params import CoreParams
from r2m.errors import R2MError
from r2m.experiments.derived import family_generators, second_source
from r2m.experiments.options import (
    ComposabilityOptions,
    ExperimentsOptions,
    FamiliesOptions,
    SourcesOptions,
)
from r2m.merge.registry import get
from r2m.merge.variants import rank_beyond
from r2m.options import combinations, complaint, nearest, with_dotted

# Experiments that take R²M apart.
_OF_R2M = {"ablation", "rationale"}


def inconsistencies(params: CoreParams, experiments: ExperimentsOptions) -> Iterator[str]:
    """Yield what is wrong with the experiments that are on; each text begins with its key in params.yaml."""
    for key, options in (
        ("similarity", experiments.similarity),
        ("rationale", experiments.rationale),
        ("heads", experiments.heads),
        ("ablation", experiments.ablation),
        ("hostile", experiments.hostile),
        ("robustness", experiments.robustness),
    ):
        for name in options.variants if options.enabled else ():
            if name not in params.variants:
                yield f"experiments.{key}.variants: {params.merge.why_not(name)}"
            elif key in _OF_R2M and params.variants[name] != "r2m":
                yield (
                    f"experiments.{key}.variants: {name!r} is a merge by {params.variants[name]}; expected"
                    " one of the method r2m"
                )
            elif key == "hostile" and get(params.variants[name]).statistics is not None:
                yield (
                    f"experiments.{key}.variants: {name!r} needs statistics of the training data, which are"
                    " not made here"
                )
    if experiments.composability.enabled:
        yield from _of_composability(params, experiments.composability)
    victim, members = experiments.hostile.victim, params.specialist_members
    if victim is not None and victim not in members:
        yield f"experiments.hostile.victim: unknown specialist {victim!r}{nearest(victim, members)}"
    for factor, values in experiments.ablation.factors.items():
        key = f"experiments.ablation.factors.{factor}"
        for value in values:
            try:
                changed = get("r2m").options.model_validate(with_dotted({}, {factor: value}))
            except ValidationError as error:
                yield f"{key}: {complaint(error)}"
                return
            if experiments.ablation.enabled and (text := rank_beyond(changed, len(members))):
                yield f"{key}: {text}"
                return
    if experiments.families.enabled:
        yield from _of_families(params, experiments.families)
    if experiments.sources.enabled:
        yield from _of_sources(params, experiments.sources)


def _of_families(params: CoreParams, options: FamiliesOptions) -> Iterator[str]:
    """Yield what is wrong with the experiment `families`."""
    key = "experiments.families"
    unseen = [name for name, generator in params.generators.items() if generator.role == "unseen"]
    for name in options.generators:
        if name not in unseen:
            yield f"{key}.generators: {name!r} is no unseen generator{nearest(name, unseen)}"
            return
    families = family_generators(params, options)
    if all(len(names) == 1 for names in families.values()):
        yield (
            f"{key}.generators: no family has two generators that are trained on; expected unseen ones here"
        )
    counts = {len(names) for names in families.values() if len(names) > 1}
    counts |= {len(families), sum(map(len, families.values()))}
    for name in options.variants:
        if name not in params.variants:
            yield f"{key}.variants: {params.merge.why_not(name)}"
            continue
        method = get(params.variants[name])
        least, most = method.least_specialists, method.most_specialists
        if min(counts) < least or (most is not None and max(counts) > most):
            taken = ", ".join(map(str, sorted(counts)))
            yield f"{key}.variants: {method.name} does not take every number of specialists here ({taken})"
        if method.statistics is not None:
            yield f"{key}.variants: {name!r} needs statistics of the training data, which are not made here"
        if params.merge.methods[name].head.startswith("specialist:"):
            yield f"{key}.variants: {name!r} takes the head of one specialist, who is not in every merge here"


def _of_sources(params: CoreParams, options: SourcesOptions) -> Iterator[str]:
    """Yield what is wrong with the experiment `sources`."""
    key = "experiments.sources"
    tests = [name for name, domain in params.domains.items() if domain.role == "test"]
    if second_source(params, options) not in tests:
        given = options.domain or ""
        yield f"{key}.domain: expected a domain with `role: test`{nearest(given, tests)}"
    for name, grid in options.cores.items():
        if name not in params.variants:
            yield f"{key}.cores: {params.merge.why_not(name)}"
            continue
        variant, method = params.merge.methods[name], get(params.variants[name])
        if method.statistics is not None:
            yield f"{key}.cores: {name!r} needs statistics of the training data, which are not made here"
        for option in grid:
            if option in variant.tune:
                yield f"{key}.cores.{name}.{option}: the variant tunes this option; expected another"
        for values in combinations({**grid, **variant.tune}):
            try:
                core = method.options.model_validate(with_dotted(variant.options, values))
            except (ValidationError, R2MError) as error:
                text = complaint(error) if isinstance(error, ValidationError) else str(error)
                yield f"{key}.cores.{name}: {text}"
                return
            if text := rank_beyond(core, len(params.specialist_members)):
                yield f"{key}.cores.{name}: {text}"
                return


def _of_composability(params: CoreParams, options: ComposabilityOptions) -> Iterator[str]:
    """Yield variants that cannot merge every subset of the specialists."""
    key = "experiments.composability"
    if len(params.specialist_members) < 2:
        yield f"{key}: expected two specialists or more, here is one; expected `enabled: false`"
    for name in options.variants:
        if name not in params.variants:
            yield f"{key}.variants: {params.merge.why_not(name)}"
        elif get(params.variants[name]).statistics is not None:
            yield f"{key}.variants: {name!r} needs statistics of training data; expected one that does not"
        elif params.merge.methods[name].head.startswith("specialist:"):
            yield f"{key}.variants: {name!r} takes the head of a specialist that may not have arrived yet"
