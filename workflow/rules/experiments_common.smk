"""Names and paths of the experiments that train models of their own, or read those of others."""

from r2m.experiments.orders import random_orders, subset_name, subsets

ORDERS = random_orders(MEMBERS, PARAMS.experiments.composability.orders, PARAMS.seed)
# Every specialist, and the sets of several that the orders pass through: name → specialists.
SUBSETS = {**{name: [name] for name in MEMBERS}, **subsets(ORDERS)}
# Those of them that no other rule trains on.
TRAINED_SUBSETS = [
    name for name, names in SUBSETS.items() if 1 < len(names) < len(MEMBERS)
]


wildcard_constraints:
    subset="|".join(SUBSETS),


def subset_files(pattern, joint, specialist):
    """Subset → a file of the model trained on it: one of three paths, in which {subset} is filled in."""

    def path(subset, names):
        if len(names) == 1:
            return specialist.format(subset=subset)
        return (joint if len(names) == len(MEMBERS) else pattern).format(subset=subset)

    return {subset: path(subset, names) for subset, names in SUBSETS.items()}


def subset_models(seed):
    """Subset → its model; that of one specialist, and that of all of them, are the main run's."""
    return subset_files(
        f"results/experiments/composability/seed{seed}/joint/{{subset}}/model.safetensors",
        model_file("joint", "joint", seed),
        model_file("specialist", "{subset}", seed),
    )


def subset_benchmarks(seed):
    """Subset → the benchmark file of its training; there is none where the model came from DVC."""
    folder = "results/benchmarks"
    return subset_files(
        f"{folder}/experiments/composability/joint/{{subset}}/seed{seed}.tsv",
        f"{folder}/joint/seed{seed}.tsv",
        f"{folder}/finetune/{{subset}}/seed{seed}.tsv",
    )


def subset_generators(subset):
    """Generators that the specialists of a subset are trained on."""
    members = {one for name in SUBSETS[subset] for one in MEMBERS[name]}
    return [name for name in TRAIN_GENERATORS if name in members]


HOSTILE = PARAMS.experiments.hostile
VICTIM = HOSTILE.victim or next(iter(MEMBERS))
HOSTILE_DATA = "results/experiments/hostile/data/{attack}"
# What has to be trained; random and scaled specialists are made of the honest one.
ATTACKS = ["undertrained", "flipped", "backdoor"]


wildcard_constraints:
    attack="|".join(ATTACKS),


def hostile_files(kind, seed):
    """Attack → the trained specialist's file of one kind (task_vector, head), of one seed."""
    return {
        attack: f"results/experiments/hostile/specialists/{attack}/seed{seed}/{kind}.safetensors"
        for attack in ATTACKS
    }


ROBUSTNESS = PARAMS.experiments.robustness
ROBUSTNESS_SETS = [PARAMS.train_domain, *GENERATORS]


def robustness_models(seed):
    """Model → its checkpoint: the base's head, joint training, and merges."""
    merges = [name for name in ROBUSTNESS.variants if name in VARIANTS]
    return {
        "base": PROBE,
        "joint": model_file("joint", "joint", seed),
        **{name: model_file("merge", name, seed) for name in merges},
    }


FAMILIES_FOLDER = "results/experiments/families"
FAMILIES_OPTIONS = PARAMS.experiments.families
# Unseen elsewhere, trained on here: their fakes are forged of all splits. Test images come out the same.
PROMOTED = FAMILIES_OPTIONS.generators
BY_FAMILY = derived.family_generators(PARAMS, FAMILIES_OPTIONS)
FAMILY_GENERATORS = [name for names in BY_FAMILY.values() for name in names]
FAMILY_MEMBERS = derived.family_members(PARAMS, FAMILIES_OPTIONS)
# Specialist → that of the main run which is the same training.
REUSED = derived.family_reused(PARAMS, FAMILIES_OPTIONS)


def family_finetune_options(name):
    return derived.family_finetune_options(PARAMS, FAMILIES_OPTIONS, name)


def family_specialist(name, kind, seed):
    """File of one specialist of the experiment, made here or in the main run."""
    if name in REUSED:
        return specialist_files(kind, seed)[REUSED[name]]
    return f"{FAMILIES_FOLDER}/specialists/{name}/seed{seed}/{kind}.safetensors"


def family_files(kind, seed):
    return {name: family_specialist(name, kind, seed) for name in FAMILY_MEMBERS}


def family_joint(seed):
    """The joint model, where there is one."""
    there = FAMILIES_OPTIONS.joint
    return [f"{FAMILIES_FOLDER}/joint/seed{seed}/model.safetensors"] if there else []


def family_inputs(image_sets):
    return replaced_inputs(image_sets, FAMILIES_FOLDER, PROMOTED)


def families_plan():
    """Who is merged with what, as JSON."""
    steps = {name: family_finetune_options(name).steps for name in FAMILY_MEMBERS}
    alone = {family: names[0] for family, names in BY_FAMILY.items() if len(names) == 1}
    return json.dumps(
        {
            "families": BY_FAMILY,
            "specialists": {family: alone.get(family, family) for family in BY_FAMILY},
            "steps": {**steps, "joint": PARAMS.joint_options().steps},
            "variants": variant_options(FAMILIES_OPTIONS.variants),
        }
    )


wildcard_constraints:
    member="|".join(FAMILY_MEMBERS),


SOURCES_FOLDER = "results/experiments/sources"
SOURCES_OPTIONS = PARAMS.experiments.sources
SECOND_SOURCE = derived.second_source(PARAMS, SOURCES_OPTIONS)
TRAINED_DOMAINS = [PARAMS.train_domain, SECOND_SOURCE]
SOURCE_VARIANTS = list(SOURCES_OPTIONS.cores)
# Fakes in folders of the user's own show nobody of the second domain: they stay as they are.
FORGED_AGAIN = [name for name in GENERATORS if PARAMS.generators[name].forge]


def source_inputs(image_sets):
    return replaced_inputs(image_sets, SOURCES_FOLDER, [SECOND_SOURCE, *FORGED_AGAIN])


def second_specialist_files(kind, seed):
    """Specialist → its file, trained with reals of both domains."""
    return {
        name: f"{SOURCES_FOLDER}/specialists/{name}/seed{seed}/{kind}.safetensors"
        for name in MEMBERS
    }


def sources_plan():
    """What is merged, as JSON."""
    return json.dumps(
        {
            "domain": SECOND_SOURCE,
            "generators": TRAIN_GENERATORS,
            "variants": variant_options(SOURCE_VARIANTS),
            "cores": SOURCES_OPTIONS.cores,
        }
    )


def source_faces():
    """Folders of reals to forge, the second domain's with its new split."""
    return [
        f"{SOURCES_FOLDER if name == SECOND_SOURCE else 'results'}/faces/{name}"
        for name in DOMAINS
    ]
