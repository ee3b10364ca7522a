"""Checks of `params.yaml` that single values cannot show."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from r2m.errors import R2MError
from r2m.experiments import registry
from r2m.merge.variants import MergeVariant
from r2m.options import combinations, complaint, nearest, with_dotted
from r2m.params.merge_checks import not_enabled, rank_beyond
from r2m.train.options import FinetuneOverrides

if TYPE_CHECKING:
    from r2m.params.whole import Params

RESERVED = ("real", "base", "joint", "joint_multiclass")


def inconsistencies(params: "Params") -> Iterator[str]:
    """Yield what single values cannot show; each text begins with the key it is about."""
    domains, generators = params.domains, params.generators
    if len(set(params.seeds)) < len(params.seeds):
        yield f"seeds: expected each seed once, got {params.seeds}"
    training = [name for name, domain in domains.items() if domain.role == "train"]
    if len(training) != 1:
        yield f"domains: expected exactly one with `role: train`, got {training or 'none'}"
    for name in generators:
        if name in domains or name in RESERVED:
            yield f"generators.{name}: the name is taken; expected no domain's and none of {RESERVED}"
    for name in domains:
        if name in RESERVED:
            yield f"domains.{name}: the name is reserved; expected none of {RESERVED}"
    if not params.train_generators:
        yield "generators: expected at least one with `role: train`"
    if params.faces.detector == "none":
        for name, domain in domains.items():
            if domain.identity == "cluster":
                yield (
                    f"domains.{name}.identity: `cluster` needs a face detector, and `faces.detector` is"
                    " `none`; expected `folder` or `file`"
                )
    low, high = params.faces.jpeg_quality
    if low > high:
        yield f"faces.jpeg_quality: expected [lowest, highest], got [{low}, {high}]"
    if params.faces.crop_size < params.backbone.image_size:
        yield (
            f"faces.crop_size: expected at least `backbone.image_size` ({params.backbone.image_size}),"
            f" got {params.faces.crop_size}"
        )
    from r2m.forge.registry import get
    from r2m.forge.registry import names as forgeries

    for name, generator in generators.items():
        if generator.forge is not None and generator.forge not in forgeries():
            yield (
                f"generators.{name}.forge: unknown forgery {generator.forge!r}"
                f"{nearest(generator.forge, forgeries())}"
            )
        elif generator.forge is not None and generator.options:
            try:
                get(generator.forge).check_options(generator.options, f"generators.{name}.options")
            except R2MError as error:
                yield str(error)
        if generator.finetune != FinetuneOverrides() and name not in params.specialist_members:
            yield f"generators.{name}.finetune: there is no specialist of this generator alone"
    if not params.variants:
        yield "merge.methods: expected at least one that is enabled"
    elif params.reference is not None and params.reference not in params.variants:
        yield f"evaluate.reference: {not_enabled(params, params.reference)}"
    for name, variant in params.merge.methods.items():
        yield from _variant_inconsistencies(params, name, variant)
    yield from registry.inconsistencies(params, params.experiments)


def _variant_inconsistencies(params: "Params", name: str, variant: MergeVariant) -> Iterator[str]:
    """Yield what is wrong with one merge variant's method, options, head and grid."""
    from r2m.merge.registry import get, names

    key = f"merge.methods.{name}"
    if name in RESERVED or name in params.specialist_members:
        yield f"{key}: another model has this name; expected none of {RESERVED} and no specialist's"
        return
    if (variant.method or name) not in names():
        yield f"{key}: unknown method {variant.method or name!r}{nearest(variant.method or name, names())}"
        return
    method = get(variant.method or name)
    kind, _, specialist = variant.head.partition(":")
    if kind == "specialist" and specialist not in params.specialist_members:
        yield (
            f"{key}.head: unknown specialist {specialist!r}{nearest(specialist, params.specialist_members)}"
        )
    count, least, most = len(params.specialist_members), method.least_specialists, method.most_specialists
    if variant.enabled and not least <= count <= (most or count):
        wanted = {None: f"at least {least}", least: least}.get(most, f"{least} to {most}")
        yield f"{key}: {method.name} takes {wanted} specialists, here are {count}; expected `enabled: false`"
    if method.statistics is not None and "images" in variant.tune:
        yield f"{key}.tune: `images` is that of the statistics, made once; expected beside `tune`"
    yield from _grid_inconsistencies(params, key, variant)
    for option in variant.tune:
        for fixed in _contradicted(option, variant.options):
            yield f"{key}.{fixed}: stands beside `tune: {option}`; expected one of the two"
            return
    seen: list[object] = []
    for candidate in combinations(variant.tune):
        try:
            options = method.options.model_validate(with_dotted(variant.options, candidate))
        except ValidationError as error:
            option, text = complaint(error)
            yield f"{key}.{option}: {text}" if option else f"{key}: {text}"
            return
        except R2MError as error:
            yield f"{key}: {error}"
            return
        if variant.enabled and (text := rank_beyond(params, options)):
            yield f"{key}: {text}"
            return
        if options in seen:
            yield f"{key}.tune: {candidate} gives the options of another candidate; expected different ones"
            return
        seen.append(options)


def _contradicted(option: str, options: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the names of nested `options` that a dotted one replaces: itself, or an alternative of it."""
    group = option.rpartition(".")[0]
    for name, value in options.items():
        whole = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _contradicted(option, value, f"{whole}.")
        elif whole == option or (group.split(".")[-1] in ("rank", "scale") and prefix == f"{group}."):
            yield whole


def _grid_inconsistencies(params: "Params", key: str, variant: MergeVariant) -> Iterator[str]:
    """Yield what is wrong with the size of one merge variant's grid."""
    count = len(combinations(variant.tune))
    if variant.tune and count != params.merge.candidates:
        yield (
            f"{key}.tune: {count} candidates; expected {params.merge.candidates} (`merge.candidates`),"
            " so that no method is tuned harder than another"
        )
    for option, values in variant.tune.items():
        for value in values:
            if values.count(value) > 1:
                yield f"{key}.tune.{option}: {value!r} stands there twice; expected different values"
                break
