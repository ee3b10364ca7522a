import copy
import json
import re
from pathlib import Path

import pytest
import yaml

from r2m.errors import R2MError
from r2m.merge import registry
from r2m.merge.variants import MergeVariant
from r2m.options import as_yaml, nearest, parse_yaml, read_yaml
from r2m.params import load, parse
from r2m.train.options import FinetuneOptions

REPOSITORY = Path(__file__).parents[1]
CONFIG = yaml.safe_load(
    """
seed: 0
device: auto
domains:
  celeba: {images: {package: celeba}, role: train, identity: cluster}
  orl: {images: {package: orl}, role: test, identity: folder, limit: 120}
generators:
  swap: {family: FS, forge: swap}
  lip: {family: FR, forge: lip}
  up: {family: EFS, forge: up}
  inp: {family: FE, forge: inp}
  sbi: {family: FS, role: unseen, forge: sbi}
  tps: {family: FR, role: unseen, forge: tps}
faces:
  detector: {package: faces}
  crop_size: 144
  split: {train: 0.66, val: 0.15, test: 0.19}
  jpeg_quality: [70, 95]
backbone: {image_size: 112, weights: {package: clip}, trainable_blocks: 4}
specialists: {per: generator}
finetune: {steps: 120, lr: 3.0e-5}
joint: {steps_factor: 2}
merge:
  candidates: 9
  methods:
    weight_averaging: {}
    ties: {tune: {keep: [0.1, 0.2, 0.4], scaling: [1.0, 1.5, 2.5]}}
    r2m: {tune: {residual.rank.ratio: [0.02, 0.05, 0.1], scale.relative: [2.0, 4.0, 6.0]}}
"""
)
SWAP = {"family": "FS", "forge": "swap"}


def changed(**values):
    """Return CONFIG with `section__key=value` put in; None removes a key."""
    config = copy.deepcopy(CONFIG)
    for name, value in values.items():
        *path, last = name.split("__")
        place = config
        for part in path:
            place = place[part]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return config


def message(**values):
    with pytest.raises(R2MError) as caught:
        parse(changed(**values))
    return str(caught.value)


def test_the_default_params():
    params = load(REPOSITORY / "params.yaml")
    assert params.specialist_members == {name: [name] for name in params.train_generators}
    assert {params.generators[name].family for name in params.train_generators} == {"FS", "FR", "EFS", "FE"}
    assert all(generator.label for generator in params.generators.values())


def test_roles():
    params = parse(CONFIG)
    assert params.train_domain == "celeba"
    assert params.train_generators == ["swap", "lip", "up", "inp"]


def test_names_and_limits_that_are_fine():
    parse(changed(domains__celeba__limit=54, domains__orl__limit=8))
    parse(changed(generators__up__options={"strength": 1.4}, generators__swap__options={"strength": 1}))
    parse(changed(merge__methods__mine={"method": "ties", "enabled": False, "label": "ties"}))


def test_reference_of_the_tests():
    assert parse(CONFIG).reference == "r2m"
    assert parse(changed(evaluate={"reference": "ties"})).reference == "ties"
    assert parse(changed(merge__methods__r2m__enabled=False)).reference is None
    text = message(merge__methods__r2m__enabled=False, evaluate={"reference": "r2m"})
    assert "evaluate.reference: 'r2m' is switched off; expected `merge.methods.r2m.enabled: true`" in text
    assert "no merge is called 'swap'; expected one of" in message(evaluate={"reference": "swap"})


def test_defaults_stand_where_nothing_is_said():
    least = {
        "domains": {"a": {"images": {"folder": "x"}, "role": "train"}},
        "generators": {"swap": SWAP},
        "merge": {"methods": {"weight_averaging": {}}},
    }
    params = parse(least)
    assert params.seed == 0
    assert params.finetune == FinetuneOptions()
    assert params.merge.methods["weight_averaging"].tune == {}
    assert params.variants == {"weight_averaging": "weight_averaging"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # a key that is not known, and the nearest one
        ({"finetun": {}}, "unknown key 'finetun'; did you mean 'finetune'?"),
        ({"finetune__step": 3}, "finetune: unknown key 'step'; did you mean 'steps'?"),
        ({"generators__swap__forg": 3}, "generators.swap: unknown key 'forg'; did you mean 'forge'?"),
        (
            {"generators__swap__finetune": {"lrr": 1}},
            "generators.swap.finetune: unknown key 'lrr'; did you mean 'lr'?",
        ),
        ({"specialists__xyzzy": 1}, "specialists: unknown key 'xyzzy'; expected one of per"),
        # videos
        ({"evaluate": {"video": "mode"}}, "evaluate.video: expected 'mean', 'median' or 'max'"),
        (
            {"domains__orl__frames_per_video": 0},
            "domains.orl.frames_per_video: expected a number greater than 0",
        ),
        (
            {"generators__swap__frames_per_video": 4},
            "generators.swap: `frames_per_video` belongs to `images`, which is not there",
        ),
        # inside unions
        (
            {"domains__orl__images": {"pakage": "orl"}},
            "domains.orl.images: unknown key 'pakage'; did you mean 'package'?",
        ),
        (
            {"domains__orl__images": {"foldr": "x"}},
            "domains.orl.images: unknown key 'foldr'; did you mean 'folder'?",
        ),
        (
            {"backbone__weights": {"fil": "x"}},
            "backbone.weights: unknown key 'fil'; did you mean 'file'?",
        ),
        (
            {"domains__orl__images": {"package": "celebb"}},
            "domains.orl.images.package: expected 'celeba' or 'orl' (got 'celebb')",
        ),
        (
            {"domains__orl__images": {"folder": 3}},
            "domains.orl.images.folder: expected text (got 3)",
        ),
        (
            {"domains__orl__images": "orl"},
            "domains.orl.images: expected `{package: NAME}` or `{folder: PATH}`, got 'orl'",
        ),
        (
            {"faces__detector": "non"},
            "faces.detector: expected `{package: faces}` or `{folder: PATH}` or 'none', got 'non'",
        ),
        (
            {"backbone__trainable_blocks": 0},
            "backbone.trainable_blocks: expected a number greater than 0 or 'all', got 0",
        ),
        # single values
        ({"seed": -1}, "seed: expected a number of at least 0 (got -1)"),
        ({"device": "gpu"}, "device: expected 'auto', 'cpu', 'cuda' or 'mps' (got 'gpu')"),
        ({"finetune__lr": 0}, "finetune.lr: expected a number greater than 0 (got 0)"),
        ({"finetune__warmup": 1}, "finetune.warmup: expected a number less than 1 (got 1)"),
        ({"finetune__steps": 0}, "finetune.steps: expected a number greater than 0 (got 0)"),
        (
            {"finetune__accumulate": 8, "generators__swap__finetune": {"pairs": 2}},
            "generators.swap.finetune: 4 images a batch are too few for 8 parts",
        ),
        ({"finetune__epochs": 2}, "finetune: `steps` and `epochs` are both given; expected one of them"),
        (
            {"generators__swap__finetune": {"steps": 2, "epochs": 2}},
            "generators.swap.finetune: `steps` and `epochs` are both given; expected one of them",
        ),
        (
            {"faces__jpeg_quality": [70, 101]},
            "faces.jpeg_quality.1: expected a number of at most 100",
        ),
        ({"domains__orl__limit": 0}, "domains.orl.limit: expected a number greater than 0 (got 0)"),
        ({"domains__orl__role": None}, "domains.orl.role: is missing"),
        ({"merge": None}, "merge: is missing"),
        ({"domains": {}}, "domains: expected at least 1 entry"),
        ({"generators__Swap": SWAP}, "generators.Swap: expected lower-case letters, digits and underscores"),
        ({"generators__swap__family": "GAN"}, "generators.swap.family: expected 'FS', 'FR', 'EFS' or"),
        # a generator's origin
        (
            {"generators__swap__forge": None},
            "generators.swap: expected exactly one of `forge: NAME`, `images:",
        ),
        ({"domains__orl__images": None}, "domains.orl: expected exactly one of `images` and `dataset: NAME`"),
        (
            {"generators__swap__images": "x"},
            "generators.swap: expected exactly one of `forge: NAME`, `images:",
        ),
        ({"generators__swap__reals": "x"}, "generators.swap: `reals` belongs to `images`"),
        (
            {"generators__swap": {"family": "FS", "images": "x", "options": {"a": 1}}},
            "generators.swap: `options` belongs to `forge`",
        ),
        (
            {"generators__swap__forge": "swpa"},
            "generators.swap.forge: unknown forgery 'swpa'; did you mean 'swap'?",
        ),
        # the options of a forgery
        *(
            (
                {"generators__swap__options": {"strength": value}},
                f"generators.swap.options.strength: expected a number {wanted} (got {value})",
            )
            for value, wanted in ((-0.8, "greater than 0"), (0.0, "greater than 0"), (1.8, "of at most 1"))
        ),
        (
            {"generators__up__options": {"strength": 9.0}},
            "generators.up.options.strength: expected a number of at most 5 (got 9.0)",
        ),
        (
            {"generators__swap__family": "FE"},
            "generators.swap.family: forgery 'swap' is of the family FS; expected that, got FE",
        ),
        # labels that readers could not tell apart
        (
            {"generators__swap__label": "Mouth", "generators__lip__label": "Mouth"},
            "generators.lip.label: 'Mouth' stands for generators.swap already; expected another",
        ),
        (
            {"generators__swap__label": "lip"},
            "generators.lip.label: 'lip' stands for generators.swap already",
        ),
        ({"domains__orl__label": "celeba"}, "domains.orl.label: 'celeba' stands for domains.celeba already"),
        (
            {"merge__methods__ties__label": "A", "merge__methods__r2m__label": "A"},
            "merge.methods.r2m.label: 'A' stands for merge.methods.ties already",
        ),
        # too few images to be split or tested on
        (
            {"domains__celeba__limit": 53},
            "domains.celeba.limit: expected at least 54, got 53: each split needs `faces.min_images` (8)",
        ),
        ({"domains__orl__limit": 7}, "domains.orl.limit: expected at least 8, got 7"),
        # packages that hold something else
        (
            {"domains__orl__images": {"package": "clip"}},
            "domains.orl.images.package: expected 'celeba' or 'orl' (got 'clip')",
        ),
        (
            {"faces__detector": {"package": "celeba"}},
            "faces.detector.package: expected 'faces' (got 'celeba')",
        ),
        (
            {"backbone__weights": {"package": "orl"}},
            "backbone.weights.package: expected 'clip' (got 'orl')",
        ),
        # pairs
        ({"faces__jpeg_quality": [70]}, "faces.jpeg_quality: expected 2 values (got [70])"),
        ({"faces__jpeg_quality": []}, "faces.jpeg_quality: expected 2 values (got [])"),
        ({"faces__jpeg_quality": [7, 8, 9]}, "faces.jpeg_quality: expected at most 2 values (got [7, 8, 9])"),
        # groups of unseen generators
        (
            {"generators__swap__group": "new"},
            "generators.swap: `group` is for `role: unseen` only, and the role is `train`",
        ),
        *(
            ({"generators__sbi__group": name}, "generators.sbi.group: the name is taken; expected none of (")
            for name in ("mean", "trained", "unseen", "video", "FS", "FR", "EFS", "FE")
        ),
        *(
            ({"generators__sbi__group": text}, "generators.sbi.group: expected words with single spaces")
            for text in ("", " ", " new", "new  ones", "new\nones")
        ),
        # names and roles
        (
            {"domains__orl__role": "train"},
            "domains: expected exactly one with `role: train`, got ['celeba', 'or",
        ),
        ({"domains__celeba__role": "test"}, "domains: expected exactly one with `role: train`, got none"),
        ({"generators__orl": SWAP}, "generators.orl: the name is taken"),
        ({"generators__joint": SWAP}, "generators.joint: the name is taken"),
        ({"seeds": [0, 1, 0]}, "seeds: 0 stands there twice; expected each once (got [0, 1, 0])"),
        ({"seeds": []}, "seeds: "),
        ({"seeds": [-1]}, "seeds.0: "),
        (
            {"domains__real": {"images": {"folder": "x"}, "role": "test"}},
            "domains.real: the name is reserved; expected none of ('real', 'base', 'joint')",
        ),
        (
            {"generators": {"swap": SWAP | {"role": "unseen"}}},
            "generators: expected at least one with `role: train`",
        ),
        # values that go together
        ({"faces__split__train": 0.5}, "faces.split: expected shares that sum to 1, got 0.84"),
        ({"faces__jpeg_quality": [95, 70]}, "faces.jpeg_quality: expected [lowest, highest] (got [95, 70])"),
        (
            {"faces__crop_size": 100},
            "faces.crop_size: expected at least `backbone.image_size` (112), got 100",
        ),
        ({"faces__detector": "none"}, "domains.celeba.identity: `cluster` needs a face detector"),
        (
            {"specialists__per": "family", "generators__swap__finetune": {"lr": 1e-4}},
            "generators.swap.finetune: there is no specialist of this generator alone",
        ),
        (
            {"generators__sbi__finetune": {"steps": 3}},
            "generators.sbi.finetune: there is no specialist of this generator alone",
        ),
        # merges
        ({"merge__methods__tie": {}}, "merge.methods.tie: unknown method 'tie'; did you mean 'ties'?"),
        (
            {"merge__methods__ties__keeep": 0.1},
            "merge.methods.ties: unknown key 'keeep'; did you mean 'keep'?",
        ),
        (
            {"merge__methods__ties__tune": {"keep": [0.1]}},
            "merge.methods.ties.tune: 1 candidates; expected 9 (`m",
        ),
        (
            {"merge__methods__ties__tune": {"keep": []}},
            "merge.methods.ties.tune.keep: expected at least 1 value",
        ),
        (
            {"merge__methods__ties__tune": {"keep": [*(i / 10 for i in range(1, 9)), 1.5]}},
            "merge.methods.ties.keep: expected a number of at most 1 (got 1.5)",
        ),
        (
            {"merge__methods__r2m__tune": {"real.spce": list("abcdefghi")}},
            "merge.methods.r2m.real: unknown key 'spce'; did you mean 'space'?",
        ),
        (
            {"merge__methods__r2m__scale": 3},
            "merge.methods.r2m: scale.relative: expected a mapping under 'scale', got 3",
        ),
        (
            {"merge__methods__r2m": {"residual": {"rank": {"ratio": 0.1, "fixed": 2}}}},
            "merge.methods.r2m.residual.rank: expected exactly one of ratio, energy, fixed and",
        ),
        (
            {"merge__methods__ties__tune": {"keep": [0.1, 0.2, 0.3], "scaling": [0.5, 1.0, 0.5]}},
            "merge.methods.ties.tune.scaling: 0.5 stands there twice; expected each once",
        ),
        (
            {"merge__methods__slerp": {}},
            "merge.methods.slerp: slerp takes 2 specialists, here are 4; expected `enabled: false`",
        ),
        ({"merge__methods__ties": {"enabled": False, "keeep": 1}}, "merge.methods.ties: unknown key 'keeep'"),
        (
            {"merge__methods": {"ties": {"enabled": False}}},
            "merge.methods: expected at least one that is enabled",
        ),
        (
            {"merge__methods__fisher": {"tune": {"images": list(range(1, 10))}}},
            "merge.methods.fisher.tune: `images` is that of the statistics, made once; expected beside",
        ),
        ({"merge__methods__fisher": {"images": 0}}, "merge.methods.fisher.images: expected a number greater"),
        (
            {"merge__methods__ties__head": "mean"},
            "merge.methods.ties.head: expected average, base or specialist:NAME",
        ),
        (
            {"merge__methods__ties__head": "specialist:sbi"},
            "merge.methods.ties.head: unknown specialist 'sbi'; expected one of inp, lip, swap, up",
        ),
    ],
)
def test_mistakes_name_the_key(values, expected):
    text = message(**values)
    assert text.startswith("params.yaml: ")
    assert text.removeprefix("params.yaml: ").startswith(expected)


def test_options_that_a_forgery_does_not_have():
    config = changed()
    name = next(iter(config["generators"]))
    config["generators"][name] = {"family": "EFS", "forge": "up", "options": {"strenght": 1.2}}
    with pytest.raises(R2MError, match=rf"generators\.{name}\.options\.strenght.*expected strength"):
        parse(config)


def test_the_file_is_named():
    with pytest.raises(R2MError, match=r"^other\.yaml: seed: "):
        parse(changed(seed=-1), "other.yaml")


def test_one_specialist_per_family():
    config = changed(specialists__per="family", generators__tps__role="train")
    config["merge"]["methods"]["ties"]["head"] = "specialist:FR"
    params = parse(config)
    expected = {"FS": ["swap"], "FR": ["lip", "tps"], "EFS": ["up"], "FE": ["inp"]}
    assert params.specialist_members == expected
    assert list(params.specialist_members) == ["FS", "FR", "EFS", "FE"]
    assert params.finetune_options("FR") == params.finetune


def test_overrides_of_one_generator():
    params = parse(changed(generators__lip__finetune={"lr": 1e-3, "steps": 7}))
    assert params.finetune_options("lip") == params.finetune.model_copy(update={"lr": 1e-3, "steps": 7})
    assert params.finetune_options("swap") == params.finetune


def test_steps_of_joint_training():
    assert parse(changed(finetune__steps=50, joint__steps_factor=2.5)).joint_options().steps == 125
    assert parse(changed(finetune__steps=5, joint__steps_factor=0.01)).joint_options().steps == 1
    params = parse(changed(finetune__steps=60, joint__steps_factor=2.5))
    count = len(params.specialist_members)
    found = [params.joint_options(k).steps for k in range(1, count + 1)]
    assert (found[0], found[-1]) == (60, params.joint_options().steps)
    assert found == [round(60 + 90 * k / (count - 1)) for k in range(count)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": ["r2n"]}, "experiments.composability.variants: no merge is called 'r2n'; did you mean"),
        ({"variants": ["fisher"]}, "experiments.composability.variants: 'fisher' needs statistics"),
        ({"variants": ["kept"]}, "experiments.composability.variants: 'kept' takes the head of a specialist"),
        ({"orders": 0}, "experiments.composability.orders: "),
    ],
)
def test_composability_wants_merges_of_any_subset(changes, message):
    methods = {"r2m": {}, "fisher": {}, "kept": {"method": "r2m", "head": "specialist:swap"}}
    experiment = {"enabled": True, "variants": ["r2m"], **changes}
    config = changed(merge__methods=methods, experiments={"composability": experiment})
    with pytest.raises(R2MError, match=message):
        parse(config)
    config["experiments"]["composability"]["enabled"] = False
    if "orders" not in changes:
        parse(config)


def test_options_stand_beside_the_keys_of_every_variant():
    variant = MergeVariant(method="r2m", real={"space": "task"}, tune={"a": [1, 2]}, enabled=False, label="A")
    assert variant.options == {"real": {"space": "task"}}


def test_a_calibrated_merge_is_written_out():
    methods = {
        "ties": {"keep": 0.1, "tune": {"scaling": [0.5, 1.0, 2.0]}, "calibrate": "svc", "label": "TIES, SVC"},
        "wide": {"method": "r2m", "real": {"rank": 2}, "calibrate": "svc", "head": "base", "enabled": False},
        "svc": {"inner": {"method": "dare"}, "tune": {"inner.seed": [1, 2, 3]}},
    }
    params = parse(changed(merge={"candidates": 3, "methods": methods}))
    assert params.variants == {"ties": "svc", "svc": "svc"}
    ties, wide = params.merge.methods["ties"], params.merge.methods["wide"]
    assert ties.options == {"inner": {"method": "ties", "keep": 0.1}}
    assert ties.tune == {"inner.scaling": [0.5, 1.0, 2.0]}
    assert ties.label == "TIES, SVC"
    assert wide.options == {"inner": {"method": "r2m", "real": {"rank": 2}}}
    assert (wide.head, wide.enabled, wide.method) == ("base", False, "svc")


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("ties", {"calibrate": "svd"}, "merge.methods: ties: calibrate: expected svc, got 'svd'"),
        ("svc", {"calibrate": "svc"}, "merge.methods: svc: calibrate: svc calibrates already"),
        (
            "ties",
            {"calibrate": "svc", "kep": 1},
            "merge.methods.ties.inner: options of ties: unknown key",
        ),
        ("mine", {"calibrate": "svc"}, "merge.methods.mine: unknown merging method 'mine'"),
        (
            "svc",
            {"inner": {"method": "tis"}},
            "merge.methods.svc: unknown merging method 'tis'",
        ),
        ("slerp", {"calibrate": "svc"}, "merge.methods.slerp: slerp takes 2 specialists, here are 4"),
        (
            "fisher",
            {"calibrate": "svc"},
            "merge.methods.fisher: fisher needs statistics of the",
        ),
        (
            "r2m",
            {"calibrate": "svc", "real": {"rank": 5}},
            "merge.methods.r2m: real.rank 5 exceeds",
        ),
        (
            "ties",
            {"calibrate": "svc", "keep": 0.2, "tune": {"keep": [0.1, 0.2, 0.3]}},
            "merge.methods.ties.inner.keep: stands beside `tune: inner.keep`",
        ),
        (
            "ties",
            {"calibrate": "svc", "tune": {"kep": [0.1, 0.2, 0.3]}},
            "merge.methods.ties.inner: options of ties: unknown key 'kep'; did you mean 'keep'",
        ),
    ],
)
def test_wrong_calibrations(name, options, expected):
    with pytest.raises(R2MError, match=re.escape(expected)):
        parse(changed(merge={"candidates": 3, "methods": {name: options}}))


def test_only_enabled_variants_are_made():
    config = changed(merge__methods__mine={"method": "ties"}, merge__methods__slerp={"enabled": False})
    config["merge"]["methods"]["r2m"]["enabled"] = False
    assert parse(config).variants == {"weight_averaging": "weight_averaging", "ties": "ties", "mine": "ties"}


def test_number_of_specialists_that_a_method_takes():
    two = changed(generators__up__role="unseen", generators__inp__role="unseen", merge__methods__slerp={})
    assert "slerp" in parse(two).variants


def test_every_method_stands_in_the_default_params():
    merge = load(REPOSITORY / "params.yaml").merge
    assert {one.method or name for name, one in merge.methods.items()} == set(registry.names())
    assert all(one.label for one in merge.methods.values())
    for name, one in merge.methods.items():
        options = registry.get(one.method or name).options.model_fields
        assert "scaling" not in options or "scaling" in one.tune, name


def test_nearest():
    assert nearest("stpes", ["steps", "pairs"]) == "; did you mean 'steps'?"
    assert nearest("zzz", {"steps": 1, "pairs": 2}) == "; expected one of pairs, steps"


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "1.e-5", "1.0e-5", "+1e-05"])
def test_numbers_in_scientific_notation(tmp_path, text):
    (tmp_path / "p.yaml").write_text(f"lr: {text}\nname: 1e-5x\n")
    assert read_yaml(tmp_path / "p.yaml") == {"lr": 1e-5, "name": "1e-5x"}


def test_words_of_yaml_1_1_are_text(tmp_path):
    (tmp_path / "p.yaml").write_text("a: [yes, on, off, 1:30, true]\n")
    assert read_yaml(tmp_path / "p.yaml") == {"a": ["yes", "on", "off", "1:30", True]}


@pytest.mark.parametrize("flow", [True, False])
def test_values_are_written_as_they_are_read(flow):
    value = {"b": 1e-5, "a": [1, 2.0, True, None, "1e-5", "true", "R²M"], "c": {}, "d": {"e": {"f": -0.5}}}
    text = as_yaml(value, flow=flow)
    assert parse_yaml(text, "text") == value
    assert [line[0] for line in text.splitlines() if line[0] in "abcd"] == ["b", "a", "c", "d"]


@pytest.mark.parametrize("number", [1e39, -1e39, 10**39])
def test_numbers_beyond_float32(number):
    config = changed(merge__methods__ties={"scaling": number, "keep": 0.1})
    with pytest.raises(R2MError, match=r"ties\.scaling: expected a number within the range of float32 \(got"):
        parse(config)


def test_integers_are_numbers_and_lists_are_tuples():
    params = parse(changed(finetune__lr=1, experiments={"robustness": {"blur": [[3, 1]]}}))
    assert type(params.finetune.lr) is float
    assert params.faces.jpeg_quality == (70, 95)
    assert params.experiments.robustness.blur == [(3, 1.0)]
    assert parse(json.loads(params.model_dump_json(exclude_none=True))) == params
    assert parse(params.model_dump(exclude_none=True)) == params


def test_a_key_given_twice(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("seed: 1\nfinetune:\n  steps: 3\n  lr: 1\n  steps: 4\n")
    with pytest.raises(R2MError, match=r"p\.yaml: line 5: the key 'steps' stands here twice"):
        read_yaml(path)
    path.write_text("a: {steps: 3}\nb: {steps: 4}\n")
    assert read_yaml(path) == {"a": {"steps": 3}, "b": {"steps": 4}}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: [1", "not valid YAML"),
        (b"a: {{b}}", "not valid YAML"),
        (b"\xff\xfe\x00a", "not valid YAML"),
        (b"a: 1\nb: [1\nc: 2\n", r"not valid YAML: while parsing a flow sequence \(line 2\)"),
        (b"a: \x01", "not valid YAML: unacceptable character"),
        (b"a: 1\n---\nb: 2", "not valid YAML: expected a single document"),
        (b"a: !!python/object/apply:os.getcwd []", "not valid YAML"),
        (b"- 1", "expected a mapping of sections, got a list"),
        (b"", "is empty; expected a mapping of sections"),
    ],
)
def test_files_that_are_not_params(tmp_path, content, expected):
    (tmp_path / "p.yaml").write_bytes(content)
    with pytest.raises(R2MError, match=rf"p\.yaml: {expected}"):
        read_yaml(tmp_path / "p.yaml")


def test_missing_file(tmp_path):
    with pytest.raises(R2MError, match=r"p\.yaml: cannot be read \(No such file"):
        load(tmp_path / "p.yaml")


def test_the_smallest_params_of_the_tests_are_valid():
    assert (
        parse(yaml.safe_load((REPOSITORY / "tests/workflow/tiny.yaml").read_text())).train_domain == "drawn"
    )


@pytest.mark.parametrize(
    ("experiments", "message"),
    [
        ({"heads": {"enabled": True, "variants": []}}, "experiments.heads.variants: expected at least one"),
        ({"composability": {"variants": []}}, "experiments.composability.variants: expected at least one"),
        ({"families": {"variants": []}}, "experiments.families.variants: expected at least one"),
        (
            {"robustness": {"variants": ["ties", "ties"]}},
            "experiments.robustness.variants: 'ties' stands there twice; expected each once",
        ),
        (
            {"heads": {"enabled": True, "variants": ["ties", "ties"]}},
            "experiments.heads.variants: 'ties' stands there twice",
        ),
        (
            {"families": {"generators": ["a", "a"]}},
            "experiments.families.generators: 'a' stands there twice",
        ),
        ({"robustness": {"jpeg": [80, 80]}}, "experiments.robustness.jpeg: 80 stands there twice"),
        (
            {"robustness": {"blur": [[3, 0.5], [3, 0.5]]}},
            "experiments.robustness.blur: (3, 0.5) stands there twice",
        ),
        (
            {"ablation": {"factors": {"scale": []}}},
            "experiments.ablation.factors.scale: expected at least 1 value",
        ),
        (
            {"ablation": {"factors": {"norm_match": [True, True]}}},
            "experiments.ablation.factors.norm_match: True stands there twice",
        ),
        ({"sources": {"cores": {}}}, "experiments.sources.cores: expected at least 1 entry"),
        (
            {"sources": {"cores": {"r2m": {"real.rank": []}}}},
            "experiments.sources.cores.r2m.real.rank: expected at least 1 value",
        ),
    ],
)
def test_names_of_experiments(experiments, message):
    config = changed(experiments=experiments, merge__methods={"ties": {}})
    with pytest.raises(R2MError, match=re.escape(message)):
        parse(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"heads": {"variants": ["r2n"]}},
            "experiments.heads.variants: no merge is called 'r2n'; did you mean",
        ),
        (
            {"heads": {"variants": ["off"]}},
            "experiments.heads.variants: 'off' is switched off; expected `merge.methods.off.enabled: true`",
        ),
        (
            {"rationale": {"variants": ["ties"]}},
            "experiments.rationale.variants: 'ties' is a merge by ties; expected one of the method r2m",
        ),
        ({"hostile": {"variants": ["fisher"]}}, "experiments.hostile.variants: 'fisher' needs statistics"),
        ({"families": {"variants": ["off"]}}, "experiments.families.variants: 'off' is switched off"),
        ({"sources": {"cores": {"off": {}}}}, "experiments.sources.cores: 'off' is switched off"),
        (
            {"ablation": {"factors": {"real.rank": [1, 5]}}},
            "experiments.ablation.factors.real.rank: real.rank 5 exceeds the number of specialists;"
            " expected at most 4",
        ),
        (
            {"sources": {"cores": {"r2m": {"real.rank": [5]}}}},
            "experiments.sources.cores.r2m: real.rank 5 exceeds the number of specialists",
        ),
    ],
)
def test_merges_of_experiments(changes, message):
    methods = {"r2m": {}, "ties": {}, "fisher": {}, "off": {"method": "ties", "enabled": False}}
    ((name, options),) = changes.items()
    options = {"enabled": True, **({"generators": ["sbi"]} if name == "families" else {}), **options}
    if name in ("heads", "rationale", "hostile", "ablation", "families"):
        options = {"variants": ["r2m"], **options}
    config = changed(experiments={name: options}, merge__methods=methods)
    with pytest.raises(R2MError, match=re.escape(message)):
        parse(config)


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"base": {"method": "ties"}}, "merge.methods.base: another model has this name"),
        ({"swap": {"method": "ties"}}, "merge.methods.swap: another model has this name"),
        (
            {"ties": {"keep": 0.2, "tune": {"keep": [0.1, 0.2, 0.3]}}},
            "merge.methods.ties.keep: stands beside `tune: keep`; expected one of the two",
        ),
        (
            {
                "r2m": {
                    "residual": {"rank": {"energy": 0.5}},
                    "tune": {"residual.rank.ratio": [0.1, 0.2, 0.3]},
                }
            },
            "merge.methods.r2m.residual.rank.energy: stands beside `tune: residual.rank.ratio`",
        ),
        (
            {"r2m": {"tune": {"residual.rank.ratio": [0.1, 0.2, 0.3], "residual.rank.energy": [0.5]}}},
            "merge.methods.r2m.tune: {'residual.rank.ratio': 0.2, 'residual.rank.energy': 0.5} gives",
        ),
    ],
)
def test_merges_that_contradict_themselves(methods, message):
    with pytest.raises(R2MError, match=re.escape(message)):
        parse(changed(merge={"candidates": 3, "methods": methods}))


def test_more_real_directions_than_specialists():
    message = "merge.methods.r2m: real.rank 5 exceeds the number of specialists; expected at most 4"
    with pytest.raises(R2MError, match=re.escape(message)):
        parse(changed(merge__methods={"r2m": {"real": {"rank": 5}}}))
    parse(changed(merge__methods={"ties": {}, "r2m": {"enabled": False, "real": {"rank": 5}}}))
    parse(changed(merge__methods={"r2m": {"real": {"space": "matrix", "rank": 5}}}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [True]}, "seeds.0: expected an integer (got True)"),
        ({"seeds": 1}, "seeds: expected a list (got 1)"),
        ({"finetune__steps": True}, "finetune.steps: expected an integer (got True)"),
        ({"finetune__steps": 1e3}, "finetune.steps: expected an integer (got 1000.0)"),
        ({"finetune__lr": True}, "finetune.lr: expected a number (got True)"),
        ({"finetune__lr": "1e-5"}, "finetune.lr: expected a number, not text (got '1e-5')"),
        ({"generators__lip__finetune": {"lr": "1"}}, "generators.lip.finetune.lr: expected a number, not"),
        ({"generators__up__options": {"strength": "1"}}, "generators.up.options.strength: expected a number"),
        ({"backbone__trainable_blocks": False}, "trainable_blocks: expected an integer or 'all', got False"),
        ({"backbone__blocks": 0}, "backbone.blocks: expected a number greater than 0 or 'all', got 0"),
        ({"backbone__blocks": "8"}, "backbone.blocks: expected an integer or 'all', got '8'"),
        ({"backbone__trainable_blocks": "4"}, "trainable_blocks: expected an integer or 'all', got '4'"),
        ({"finetune__steps": "120"}, "finetune.steps: expected an integer, not text (got '120')"),
        ({"seed": "0"}, "params.yaml: seed: expected an integer, not text (got '0')"),
        ({"faces__jpeg_quality": ["70", 95]}, "faces.jpeg_quality.0: expected an integer, not text"),
        ({"domains__orl__frames": 1}, "domains.orl.frames: expected true or false (got 1)"),
        (
            {"merge__methods__ties__enabled": "yes"},
            "methods.ties.enabled: expected true or false (got 'yes')",
        ),
        ({"merge__methods__ties__enabled": 1}, "merge.methods.ties.enabled: expected true or false (got 1)"),
        ({"merge__methods__ties": 1}, "merge.methods.ties: expected a mapping (got 1)"),
        (
            {"merge__methods__r2m": {"residual": {"rank": {"optimal_threshold": 1}}}},
            "merge.methods.r2m.residual.rank.optimal_threshold: expected true or false (got 1)",
        ),
        (
            {"merge__methods__r2m": {"residual": {"rank": {"optimal_threshold": False}}}},
            "merge.methods.r2m.residual.rank: optimal_threshold: expected true, or another rule",
        ),
        ({"experiments": {"inversion": {"enabled": "yes"}}}, "inversion.enabled: expected true or false"),
        ({"experiments": {"robustness": {"blur": [["3", 1]]}}}, "robustness.blur.0.0: expected an integer"),
    ],
)
def test_numbers_and_truths_are_not_converted(changes, message):
    with pytest.raises(R2MError, match=re.escape(message)):
        parse(changed(**changes))


def test_seeds_that_no_library_takes():
    with pytest.raises(R2MError, match=r"seeds\.0"):
        parse(changed(seeds=[2**32]))
