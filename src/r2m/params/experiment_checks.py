"""Checks of the section `experiments` against the rest of `params.yaml`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import ValidationError

from r2m.errors import R2MError
from r2m.options import combinations, complaint, nearest, with_dotted
from r2m.params.merge_checks import not_enabled, rank_beyond

if TYPE_CHECKING:
    from r2m.params.whole import Params

# Experiments that take R²M apart.
_OF_R2M = {"ablation", "rationale"}


def experiment_inconsistencies(params: "Params") -> Iterator[str]:
    """Yield what is wrong with the experiments that are on."""
    from r2m.merge.registry import get

    experiments = params.experiments
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
                yield f"experiments.{key}.variants: {not_enabled(params, name)}"
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
    yield from _composability_inconsistencies(params)
    victim, members = experiments.hostile.victim, params.specialist_members
    if victim is not None and victim not in members:
        yield f"experiments.hostile.victim: unknown specialist {victim!r}{nearest(victim, members)}"
    for factor, values in experiments.ablation.factors.items():
        for value in values:
            try:
                changed = get("r2m").options.model_validate(with_dotted({}, {factor: value}))
            except ValidationError as error:
                yield f"experiments.ablation.factors.{factor}: {complaint(error)[1]}"
                return
            if experiments.ablation.enabled and (text := rank_beyond(params, changed)):
                yield f"experiments.ablation.factors.{factor}: {text}"
                return
    if params.experiments.families.enabled:
        yield from _families_inconsistencies(params)
    if params.experiments.sources.enabled:
        yield from _sources_inconsistencies(params)


def _families_inconsistencies(params: "Params") -> Iterator[str]:
    """Yield what is wrong with the experiment `families`."""
    from r2m.merge.registry import get

    options, key = params.experiments.families, "experiments.families"
    unseen = [name for name, generator in params.generators.items() if generator.role == "unseen"]
    for name in options.generators:
        if name not in unseen:
            yield f"{key}.generators: {name!r} is no unseen generator{nearest(name, unseen)}"
            return
    families = params.family_generators
    if all(len(names) == 1 for names in families.values()):
        yield (
            f"{key}.generators: no family has two generators that are trained on; expected unseen ones here"
        )
    counts = {len(names) for names in families.values() if len(names) > 1}
    counts |= {len(families), sum(map(len, families.values()))}
    for name in options.variants:
        if name not in params.variants:
            yield f"{key}.variants: {not_enabled(params, name)}"
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


def _sources_inconsistencies(params: "Params") -> Iterator[str]:
    """Yield what is wrong with the experiment `sources`."""
    from r2m.merge.registry import get

    options, key = params.experiments.sources, "experiments.sources"
    tests = [name for name, domain in params.domains.items() if domain.role == "test"]
    if params.second_source not in tests:
        given = options.domain or ""
        yield f"{key}.domain: expected a domain with `role: test`{nearest(given, tests)}"
    for name, grid in options.cores.items():
        if name not in params.variants:
            yield f"{key}.cores: {not_enabled(params, name)}"
            continue
        variant, method = params.merge.methods[name], get(params.variants[name])
        if method.statistics is not None:
            yield f"{key}.cores: {name!r} needs statistics of the training data, which are not made here"
        for option in grid:
            if option in variant.tune:
                yield f"{key}.cores.{name}.{option}: the variant tunes this option; expected another"
        for values in combinations({**grid, **variant.tune}):
            try:
                made = method.options.model_validate(with_dotted(variant.options, values))
            except ValidationError as error:
                yield f"{key}.cores.{name}: {': '.join(filter(None, complaint(error)))}"
                return
            except R2MError as error:
                yield f"{key}.cores.{name}: {error}"
                return
            if text := rank_beyond(params, made):
                yield f"{key}.cores.{name}: {text}"
                return


def _composability_inconsistencies(params: "Params") -> Iterator[str]:
    """Yield variants that cannot merge every subset of the specialists."""
    from r2m.merge.registry import get

    options, key = params.experiments.composability, "experiments.composability"
    if not options.enabled:
        return
    if len(params.specialist_members) < 2:
        yield f"{key}: expected two specialists or more, here is one; expected `enabled: false`"
    for name in options.variants:
        if name not in params.variants:
            yield f"{key}.variants: {not_enabled(params, name)}"
        elif get(params.variants[name]).statistics is not None:
            yield f"{key}.variants: {name!r} needs statistics of training data; expected one that does not"
        elif params.merge.methods[name].head.startswith("specialist:"):
            yield f"{key}.variants: {name!r} takes the head of a specialist that may not have arrived yet"
