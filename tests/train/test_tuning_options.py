"""How params.yaml names tuning methods, and what models and jobs say of them."""

import json

import jsonschema
import pytest

from detector_samples import VIT
from r2m.digest import modules_of
from r2m.errors import R2MError
from r2m.merge import stages as merging
from r2m.models import checkpoint
from r2m.params import Params, parse
from r2m.plan.plan import Plan
from r2m.session_files import Compute, SessionFiles
from r2m.train import stages as training
from r2m.train.options import FinetuneOptions, FinetuneOverrides
from r2m.train.tuning import registry
from r2m.train.tuning.options import TuningOptions
from r2m.trunk.options import AugmentOptions


def config(tuning=None, own=None):
    """The least params, with the tuning of all specialists, and of the generator `swap` alone."""
    generator = {"family": "FS", "forge": "swap"}
    return {
        "domains": {"a": {"images": {"folder": "x"}, "role": "train"}},
        "generators": {
            "swap": generator | ({"finetune": {"tuning": own}} if own else {}),
            "up": {"family": "EFS", "forge": "up"},
        },
        "merge": {"methods": {"weight_averaging": {}}},
        "finetune": {"tuning": tuning} if tuning else {},
    }


def test_methods_by_name_alone_or_with_options():
    assert parse(config()).finetune.tuning.method == "full"
    assert parse(config("norms")).finetune.tuning == parse(config({"method": "norms"})).finetune.tuning
    tuning = parse(config({"method": "lora", "rank": 4, "alpha": 8})).finetune.tuning
    assert (tuning.rank, tuning.alpha, tuning.targets) == (4, 8, ["qkv", "proj"])


@pytest.mark.parametrize(
    ("tuning", "expected"),
    [
        ("loar", "unknown tuning method 'loar'; did you mean 'lora'?"),
        ({"method": "xyz"}, "unknown tuning method 'xyz'; expected one of effort, full, lora, norms"),
        ({"rank": 2}, "expected a method, alone or as `method`: effort, full, lora, norms"),
        (["norms"], "expected a method, alone or as `method`: effort, full, lora, norms (got ['norms'])"),
        ({"method": "norms", "rank": 2}, "unknown key 'rank'; expected one of method"),
        ({"method": "lora", "rnk": 2}, "unknown key 'rnk'; did you mean 'rank'?"),
        ({"method": "effort", "orthogonal": 2}, "unknown key 'orthogonal'; did you mean 'orthogonality'?"),
        ({"method": "lora", "rank": 0}, ".rank: expected a number greater than 0 (got 0)"),
        ({"method": "lora", "rank": "8"}, ".rank: expected an integer, not text (got '8')"),
        ({"method": "lora", "targets": []}, ".targets: expected at least 1 value"),
        ({"method": "lora", "targets": ["a", "a"]}, ".targets: 'a' stands there twice"),
        ({"method": "effort", "orthogonality": -1.0}, ".orthogonality: expected a number of at least"),
    ],
)
@pytest.mark.parametrize("key", ["finetune.tuning", "generators.swap.finetune.tuning"])
def test_mistakes_name_the_key(tuning, expected, key):
    given = config(tuning) if key == "finetune.tuning" else config(own=tuning)
    with pytest.raises(R2MError) as caught:
        parse(given)
    place = key if expected.startswith(".") else f"{key}: "
    assert str(caught.value).startswith(f"params.yaml: {place}{expected}")


def test_one_generator_may_be_tuned_otherwise():
    params = parse(config("norms", {"method": "lora", "rank": 3}))
    own = params.finetune_options("swap").tuning
    assert (own.method, own.rank) == ("lora", 3)
    assert params.finetune_options("up").tuning.method == "norms"
    assert params.joint_options().tuning.method == "norms"
    assert FinetuneOverrides().applied(params.finetune) == params.finetune


@pytest.mark.parametrize("name", registry.names())
def test_options_come_back_from_what_models_say(name):
    options = FinetuneOptions(tuning=TuningOptions.model_validate(name))
    assert FinetuneOptions.model_validate_json(options.model_dump_json()) == options


@pytest.mark.parametrize(
    ("tuning", "is_valid"),
    [
        ("norms", True),
        ({"method": "full"}, True),
        ({"method": "lora", "rank": 8, "alpha": 16, "targets": ["qkv", "proj"]}, True),
        ({"method": "effort", "rank": 1, "singular_values": 0.5}, True),
        ("loar", False),
        ({"method": "norms", "rank": 8}, False),
        ({"method": "lora", "rank": "8"}, False),
        ({"method": "lora", "orthogonality": 1.0}, False),
    ],
)
def test_the_schema_covers_methods_and_their_options(tuning, is_valid):
    schema = jsonschema.Draft202012Validator(Params.model_json_schema())
    assert schema.is_valid(config(tuning)) == is_valid
    assert schema.is_valid(config(own=tuning)) == is_valid


@pytest.mark.parametrize("name", registry.names())
def test_a_job_depends_on_the_code_of_its_method_alone(name):
    plan = Plan(parse(config(name)))
    job = plan.finetune_job("up", ["up"], plan.params.finetune, "0", {})
    reached = modules_of([job.function, *job.modules])
    methods = {registry.module_of(other) for other in registry.names()}
    assert reached & methods == {registry.module_of(name)}


def test_downstream_a_light_specialist_is_as_any_other(
    tmp_path, image_sets, trunk_files, base_files, one_thread
):
    base = base_files["vit"]
    written = {}
    for name in registry.names():
        options = FinetuneOptions(
            steps=2, pairs=2, lr=1e-3, validate_every=1, tuning=TuningOptions.model_validate(name)
        )
        training.finetune(
            files=SessionFiles(
                tuple(image_sets.paths("drawn", "swap")),
                tuple(trunk_files[image_set] for image_set in ("drawn", "swap")),
                base,
            ),
            initial_head=base.parent / "initial_head.safetensors",
            name="swap",
            generators=["swap"],
            options=options,
            augment=AugmentOptions(),
            objective="binary",
            seed=0,
            compute=Compute(VIT, "cpu", "fp32"),
            state=tmp_path / "state",
            model=tmp_path / name,
            history=tmp_path / "history.csv",
        )
        merging.task_vector(
            base=base, specialist=tmp_path / name, task_vector=tmp_path / "tau", head=tmp_path / "head"
        )
        written[name] = (checkpoint.load(tmp_path / name), checkpoint.load(tmp_path / "tau")[0])
    (model, metadata), vector = written["full"]
    for name, ((own, own_metadata), own_vector) in written.items():
        assert [(key, t.shape, t.dtype) for key, t in own.items()] == [
            (key, t.shape, t.dtype) for key, t in model.items()
        ]
        assert own_vector.keys() <= vector.keys()
        assert all(own_vector[key].shape == vector[key].shape for key in own_vector)
        assert own_metadata.keys() == metadata.keys()
        assert json.loads(own_metadata["options"])["tuning"]["method"] == name
        assert name == "full" or own_metadata["code"] != metadata["code"]
    assert all("norm" in key for key in written["norms"][1])
    assert rank_of(written["lora"][1]["blocks.5.attn.qkv.weight"]) <= 8


def rank_of(matrix):
    import torch

    values = torch.linalg.svdvals(matrix.double())
    return int((values > 1e-4 * values[0]).sum())
