"""What follows from `params.yaml` for single experiments."""

from r2m.core_params import CoreParams
from r2m.experiments.options import FamiliesOptions, SourcesOptions
from r2m.train.options import FinetuneOptions


def family_generators(params: CoreParams, options: FamiliesOptions) -> dict[str, list[str]]:
    """Return family → the generators that the experiment `families` trains on."""
    return params.by_family([*params.train_generators, *options.generators])


def family_members(params: CoreParams, options: FamiliesOptions) -> dict[str, list[str]]:
    """Return specialist of `families` → its generators: one each, and families of several."""
    families = family_generators(params, options)
    alone = {name: [name] for names in families.values() for name in names}
    return alone | {family: names for family, names in families.items() if len(names) > 1}


def family_finetune_options(params: CoreParams, options: FamiliesOptions, specialist: str) -> FinetuneOptions:
    """Return the fine-tuning options of one specialist of `families`."""
    if specialist in params.generators:
        changed = params.generators[specialist].finetune.model_dump(exclude_none=True)
    else:
        changed = {"steps": max(1, round(params.finetune.steps * options.steps_factor))}
    return params.finetune.model_copy(update=changed)


def family_reused(params: CoreParams, options: FamiliesOptions) -> dict[str, str]:
    """Return specialist of `families` → that of the main run which is the same training."""
    return {
        name: other
        for name, generators in family_members(params, options).items()
        for other, others in params.specialist_members.items()
        if generators == others
        and family_finetune_options(params, options, name) == params.finetune_options(other)
    }


def second_source(params: CoreParams, options: SourcesOptions) -> str | None:
    """Return the domain whose reals `sources` trains on as well; None where there is none."""
    tests = [name for name, domain in params.domains.items() if domain.role == "test"]
    return options.domain or (tests[0] if tests else None)
