"""Options of some tensors, given by patterns of their names."""

import json

import pytest
import torch
import yaml
from click.testing import CliRunner
from merge_samples import random_task_vectors
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from r2m.cli import r2m as group
from r2m.errors import R2MError
from r2m.merge import api, recipe
from r2m.merge.engine import Settings, merge_files

# Options of the merge, those that a rule changes, and what comes of both; of methods of every sort: with
# passes over the model and without, with other treatment of what is no matrix, and one that calibrates.
METHODS = {
    "task_arithmetic": ({"scaling": 0.3}, {"scaling": 0.9}, {"scaling": 0.9}),
    "consensus": ({"min_tasks": 1, "scaling": 0.2}, {"min_tasks": 3}, {"min_tasks": 3, "scaling": 0.2}),
    "ties": ({"keep": 0.2}, {"keep": 0.9}, {"keep": 0.9}),
    "tsv_m": ({"scaling": 1.0}, {"scaling": 0.5}, {"scaling": 0.5}),
    "lines": ({"alpha": 0.2}, {"alpha": 0.4}, {"alpha": 0.4}),
    "knots_ties": ({"keep": 0.2}, {"keep": 0.6}, {"keep": 0.6}),
    "svc": (
        {"inner": {"method": "ties", "keep": 0.2}},
        {"inner.keep": 0.8},
        {"inner": {"method": "ties", "keep": 0.8}},
    ),
    "r2m": (
        {"residual.rank.ratio": 0.1, "residual.definition": "shift"},
        {"residual": {"rank": {"energy": 0.9}}},
        {"residual.rank.energy": 0.9, "residual.definition": "shift"},
    ),
}
PATTERN = "blocks.?.attn.*"


@pytest.fixture
def models():
    generator = torch.Generator().manual_seed(0)
    changes = random_task_vectors(3)
    base = {key: torch.randn(one.shape, generator=generator) for key, one in changes["s0"].items()}
    return base, {name: {key: base[key] + one for key, one in tau.items()} for name, tau in changes.items()}


@pytest.fixture
def folder(tmp_path, models):
    base, specialists = models
    for name, tensors in {"base": base, **specialists}.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
    return tmp_path


def asked(folder, method="task_arithmetic", **fields):
    content = {
        "method": method,
        "base": folder / "base.safetensors",
        "specialists": {name: folder / f"{name}.safetensors" for name in ("s0", "s1", "s2")},
        "out": folder / "m.safetensors",
    }
    return recipe.build({**content, **fields}, "test")


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_is_that_of_the_merge_with_its_rule(folder, models, method):
    base, specialists = models
    options, changes, both = METHODS[method]
    plain, other = (api.merge(method, base, specialists, one) for one in (options, both))
    rules = [{"match": PATTERN, "options": changes}]
    merged = api.merge(method, base, specialists, options, rules=rules, threads=2)
    fitting = {"blocks.0.attn.qkv.weight", "blocks.1.attn.proj.weight"}
    assert not torch.equal(plain["blocks.0.attn.qkv.weight"], other["blocks.0.attn.qkv.weight"])
    for key, tensor in merged.items():
        assert torch.equal(tensor, (other if key in fitting else plain)[key]), key
    merge_files(asked(folder, method, options=options, rules=rules), Settings())
    for key, tensor in load_file(folder / "m.safetensors").items():
        torch.testing.assert_close(tensor, merged[key], atol=1e-6, rtol=0)


def test_of_the_rules_that_fit_the_first_counts(folder, models):
    base, specialists = models
    rules = [
        {"match": "blocks.0.attn.*", "options": {"scaling": 0.0}},
        {"match": "blocks.*", "options": {"scaling": 1.0}},
    ]
    report = merge_files(asked(folder, rules=rules), Settings())
    merged = load_file(folder / "m.safetensors")
    for key, tensor in merged.items():
        scaling = 0.0 if ".0.attn" in key else 1.0 if key.startswith("blocks") else 0.3
        expected = base[key] + scaling * sum(one[key] - base[key] for one in specialists.values())
        torch.testing.assert_close(tensor, expected)
    told = [(rule["match"], rule["options"], rule["tensors"]) for rule in report["rules"]]
    others = sorted(key for key in base if key.startswith("blocks") and ".0.attn" not in key)
    assert told == [
        ("blocks.0.attn.*", {"scaling": 0.0}, ["blocks.0.attn.qkv.weight"]),
        ("blocks.*", {"scaling": 1.0}, others),
    ]
    assert json.loads((folder / "m.json").read_text())["rules"] == report["rules"]
    with safe_open(folder / "m.safetensors", "pt") as file:
        assert json.loads(file.metadata()["rules"]) == [
            {"match": match, "options": options} for match, options, _ in told
        ]
    shadowed = [rules[1], rules[0]]
    with pytest.raises(R2MError, match=r"rules\[1\] 'blocks\.0\.attn\.\*': every tensor that it fits has an"):
        merge_files(asked(folder, rules=shadowed), Settings(force=True))


def test_rules_that_change_nothing_give_the_same_bytes(folder):
    for method, (options, *_) in METHODS.items():
        merge_files(asked(folder, method, options=options), Settings(force=True))
        tensors = load_file(folder / "m.safetensors")
        rules = [{"match": "*", "options": options}]
        merge_files(asked(folder, method, options=options, rules=rules), Settings(force=True, threads=2))
        assert all(torch.equal(one, tensors[key]) for key, one in load_file(folder / "m.safetensors").items())


def test_the_report_has_the_details_of_every_rule(folder):
    rules = [{"match": PATTERN, "options": {"scale.relative": 0.2}}]
    details = merge_files(asked(folder, "r2m", rules=rules), Settings())["details"]
    alone = merge_files(asked(folder, "r2m", options={"scale.relative": 0.2}), Settings(force=True))
    assert details["rules"] == {PATTERN: alone["details"]}
    assert details["lambda"] > alone["details"]["lambda"] > 0


@pytest.mark.parametrize(
    ("method", "rule", "message"),
    [
        ("ties", {"match": "blok*", "options": {"keep": 0.1}}, r"rules\[0\] 'blok\*': fits no tensor"),
        ("ties", {"match": "head.*", "options": {"keep": 0.1}}, r"rules\[0\] 'head\.\*': fits no tensor"),
        (
            "ties",
            {"match": "*", "options": {"kep": 0.1}},
            r"rules\[0\] '\*': options of ties: unknown key 'k",
        ),
        ("ties", {"match": "*", "options": {"calibrate": "svc"}}, "calibrate holds for all tensors"),
        ("ties", {"match": "*", "options": {}}, "options: expected at least 1 entry"),
        ("ties", {"match": "*", "option": {}}, "unknown key 'option'; did you mean 'options'"),
        ("svc", {"match": "*", "options": {"inner": {"method": "dare"}}}, r"'\*': names another method"),
        ("consensus", {"match": "*", "options": {"min_tasks": 9}}, "min_tasks"),
    ],
)
def test_rules_that_are_refused(folder, models, method, rule, message):
    base, specialists = models
    with pytest.raises(R2MError, match=message):
        api.merge(method, base, specialists, rules=[rule])
    with pytest.raises(R2MError, match=message):
        merge_files(asked(folder, method, rules=[rule]), Settings())
    assert not (folder / "m.safetensors").exists()


def test_running_statistics_have_no_rule(models):
    base, specialists = models
    running = {"bn.running_mean": torch.zeros(3)}
    specialists = {name: one | {"bn.running_mean": torch.ones(3)} for name, one in specialists.items()}
    rules = [{"match": "*", "options": {"scaling": 9.0}}]
    merged = api.merge("task_arithmetic", base | running, specialists, rules=rules)
    torch.testing.assert_close(merged["bn.running_mean"], torch.ones(3))
    with pytest.raises(R2MError, match=r"'bn\.\*': fits no tensor that is merged"):
        api.merge("task_arithmetic", base | running, specialists, rules=[{**rules[0], "match": "bn.*"}])


def test_rules_of_a_recipe_file_stay_beside_options_of_the_command_line(folder, models):
    base, specialists = models
    content = {
        "method": "task_arithmetic",
        "base": "base.safetensors",
        "specialists": {name: f"{name}.safetensors" for name in specialists},
        "rules": [{"match": "blocks.1.*", "options": {"scaling": 0.5}}],
        "out": "m.safetensors",
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    call = ["merge", "--recipe", str(folder / "recipe.yaml"), "--set", "scaling=0.1"]
    assert CliRunner().invoke(group, call, catch_exceptions=False).exit_code == 0
    for key, tensor in load_file(folder / "m.safetensors").items():
        scaling = 0.5 if key.startswith("blocks.1.") else 0.1
        expected = base[key] + scaling * sum(one[key] - base[key] for one in specialists.values())
        torch.testing.assert_close(tensor, expected)
