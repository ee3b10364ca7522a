import csv
import importlib.util
import json
import pkgutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import jsonschema
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score

import r2m.cli
import r2m.cli.json_type
from detector_samples import CONVNET, VIT, random_weights
from r2m.cli import r2m as group
from r2m.digest import closure
from r2m.errors import R2MError
from r2m.merge.variants import MergeVariant
from r2m.models import checkpoint
from r2m.train.options import FinetuneOptions

pytestmark = pytest.mark.usefixtures("one_thread")

REPOSITORY = Path(__file__).parents[1]
COMMANDS = sorted(
    module.name for module in pkgutil.iter_modules(r2m.cli.__path__) if module.name not in r2m.cli._SHARED
)
WITH_TORCH = {
    "base",
    "trunk",
    "ablation",
    "composability",
    "families",
    "two_sources",
    "finetune",
    "heads",
    "hostile",
    "rationale",
    "robustness",
    "similarity",
    "probe",
    "score",
    "tune",
    "task_vector",
    "real_component",
    "residual",
    "statistics",
    "merge_variant",
    "merge",
    "inspect",
    "model_card",
    "settings",
    "methods",  # in the types of what it lists
}


def invoke(*arguments, code=0):
    result = CliRunner().invoke(group, [str(one) for one in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def as_json(section):
    return json.dumps(section.model_dump(mode="json"))


def test_every_command_is_found_and_has_help():
    listed = invoke("--help")
    for module in COMMANDS:
        name = module.replace("_", "-")
        assert f"  {name} " in listed
        text = invoke(name, "--help")
        assert text.startswith(f"Usage: r2m {name} [OPTIONS]")
        assert len(text.splitlines()[2].strip()) > 10


def test_no_command_imports_torch_to_start():
    code = (
        "import importlib, sys\n"
        f"for name in {COMMANDS}: importlib.import_module('r2m.cli.' + name)\n"
        "found = {'torch', 'timm', 'sklearn', 'matplotlib', 'onnx'} & set(sys.modules)\n"
        "print(sorted(found))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_checking_params_does_not_import_torch():
    code = (
        "import sys\n"
        "from r2m.params import load\n"
        "import r2m.input_files, r2m.digest\n"
        "load('params.yaml')\n"
        "print(sorted({'torch', 'pandas', 'timm', 'sklearn'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert result.stdout.strip() == "[]", result.stderr


def test_commands_without_torch_are_told_apart():
    for module in COMMANDS:
        found = closure([f"r2m.cli.{module}"])
        uses = any("import torch" in Path(importlib.util.find_spec(one).origin).read_text() for one in found)
        assert uses == (module in WITH_TORCH), module


def test_errors_are_one_line_and_exit_with_1(tmp_path):
    arguments = ["task-vector", "--base", tmp_path / "a", "--specialist", tmp_path / "b"]
    arguments += ["--out", tmp_path / "c", "--head", tmp_path / "d"]
    result = subprocess.run(
        [sys.executable, "-m", "r2m", *map(str, arguments)], capture_output=True, text=True
    )
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1] == f"r2m: error: {tmp_path / 'a'}: no such file"
    assert "Traceback" not in result.stderr


def test_unknown_command_and_version():
    assert "No such command 'fintune'" in invoke("fintune", code=2)
    assert "No such command 'compute'" in invoke("compute", code=2)
    assert r2m.cli.__version__ in invoke("--version")


def test_options_are_json_or_a_file(tmp_path):
    options = r2m.cli.json_type.Options(FinetuneOptions)
    expected = FinetuneOptions(steps=3)
    assert options.convert('{"steps": 3}', None, None) == expected
    (tmp_path / "o.json").write_text('{"steps": 3}')
    assert options.convert(f"@{tmp_path / 'o.json'}", None, None) == expected
    assert options.convert(expected, None, None) is expected
    for text, message in {
        '{"step": 3}': "unknown key 'step'; did you mean 'steps'",
        '{"steps": 0}': "FinetuneOptions: steps: Input should be greater than 0",
        "{steps}": "Invalid JSON",
        "@absent.json": "cannot read absent.json: No such file",
    }.items():
        with pytest.raises(Exception, match=message):
            options.convert(text, None, None)


def test_schema():
    printed = invoke("schema")
    assert printed == (REPOSITORY / "workflow/schemas/params.schema.yaml").read_text(encoding="utf-8")
    schema = yaml.safe_load(printed)
    jsonschema.Draft202012Validator.check_schema(schema)
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(params, schema)
    with pytest.raises(jsonschema.ValidationError, match="stepz"):
        jsonschema.validate(params | {"finetune": {"stepz": 3}}, schema)


def test_prune(tmp_path):
    for name in ("faces/a", "faces/old", "tune/ties.json", "tune/old.json", "other/x", "scores/merge/old"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x") if path.suffix else path.mkdir()
    (tmp_path / "faces" / ".gitignore").write_text("x")
    (tmp_path / "faces" / "link").symlink_to(tmp_path / "other")
    keep = ["faces=a,b", "tune=ties", "scores/merge=", "absent=a"]
    invoke("prune", "--results", tmp_path, *(part for one in keep for part in ("--keep", one)))
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.name != "merge"}
    assert left == {
        "faces",
        "faces/a",
        "faces/.gitignore",
        "tune",
        "tune/ties.json",
        "other",
        "other/x",
        "scores",
    }
    assert "expected FOLDER=NAME" in invoke("prune", "--results", tmp_path, "--keep", "faces", code=2)


def test_members(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"a")
    (tmp_path / "m").write_bytes(b"m")

    def digests():
        files = f"{tmp_path / 'm'},{folder}"
        invoke("members", "--model", f"swap={files}", "--model", f"up={folder}", "--out", tmp_path / "out")
        return [json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in ("swap", "up")]

    swap, up = digests()
    assert swap.keys() == {str(tmp_path / "m"), str(folder)}
    assert up[str(folder)] == swap[str(folder)]
    assert digests() == [swap, up]
    (folder / "a.jpg").rename(folder / "b.jpg")
    assert digests()[1] != up
    assert "expected NAME=FILE" in invoke("members", "--model", "swap", "--out", tmp_path / "out", code=2)


def test_base(tmp_path):
    torch.save({"state_dict": random_weights(VIT, size=160)}, tmp_path / "w.pt")
    options = ["--backbone", as_json(VIT), "--seed", 3]
    for name in ("a", "b"):
        outputs = ["--head", tmp_path / f"{name}.head", "--out", tmp_path / f"{name}.base"]
        invoke("base", "--weights", tmp_path / "w.pt", *options, *outputs)
    tensors, metadata = checkpoint.load(tmp_path / "a.base")
    assert tensors["pos_embed"].shape == (1, 5, 64)
    assert metadata["base_hash"] == checkpoint.sha256(tensors)
    assert checkpoint.read_metadata(tmp_path / "a.head")["base_hash"] == metadata["base_hash"]
    for kind in ("base", "head"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    with pytest.raises(R2MError, match="do not fit the backbone"):
        invoke("base", "--weights", tmp_path / "w.pt", "--backbone", as_json(CONVNET), "--seed", 3, *outputs)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, image_sets, base_files):
    """The commands from the trunk to two specialists and a probe; returns the folder and shared options."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained")
    shared = [
        "--base",
        base_files["vit"],
        "--backbone",
        as_json(VIT),
        "--precision",
        "fp32",
        "--device",
        "cpu",
    ]
    sets = {}
    for name, manifest in image_sets.manifests.items():
        sets[name] = ["--manifest", manifest, "--trunk", folder / f"{name}.trunk"]
        invoke("trunk", "--manifest", manifest, "--out", folder / f"{name}.trunk", *shared)
    head = base_files["vit"].parent / "initial_head.safetensors"
    options = FinetuneOptions(steps=4, pairs=4, lr=1e-3, validate_every=2, checkpoint_every=2)
    for name in ("swap", "up"):
        images = [*sets["drawn"], *sets[name], "--generator", name]
        settings = ["--options", as_json(options), "--initial-head", head, "--augment", "{}"]
        outputs = ["--state", folder / f"{name}.state", "--history", folder / f"{name}.csv"]
        invoke("finetune", "--name", name, *shared, *images, *settings, *outputs, "--out", folder / name)
        vectors = ["--out", folder / f"{name}.tau", "--head", folder / f"{name}.head"]
        invoke("task-vector", "--base", base_files["vit"], "--specialist", folder / name, *vectors)
    both = [*sets["drawn"], *sets["swap"], *sets["up"]]
    return folder, shared, both, head


def test_finetune_writes_model_and_history(trained):
    folder, *_ = trained
    tensors, metadata = checkpoint.load(folder / "swap")
    assert {name.split(".")[0] for name in tensors} == {"blocks", "norm", "head"}
    assert json.loads(metadata["generators"]) == ["swap"]
    assert json.loads(metadata["augment"]) is None
    with open(folder / "swap.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4"]
    selected = json.loads(metadata["selected"])
    assert selected["val_auc"] == max(float(row["val_auc"]) for row in rows)
    assert not (folder / "swap.state").exists()


def test_probe_and_score(trained, tmp_path):
    _, shared, images, _ = trained
    generators = ["--generator", "swap", "--generator", "up"]
    invoke("probe", *shared, *images, *generators, "--out", tmp_path / "head")
    assert set(checkpoint.load(tmp_path / "head")[0]) == {"head.weight", "head.bias"}
    description = ["--checkpoint", tmp_path / "head", "--model", "base", "--kind", "base"]
    invoke("score", *shared, *images, *description, "--out", tmp_path / "s.parquet")
    frame = pd.read_parquet(tmp_path / "s.parquet")
    assert set(frame["split"]) == {"val", "test"}
    assert set(frame["generator"]) == {"real", "swap", "up"}


def test_scores_of_what_is_no_model_are_refused(trained, tmp_path, image_sets):
    folder, shared, images, head = trained
    description = ["--model", "swap", "--kind", "specialist", "--out", tmp_path / "s.parquet"]
    with pytest.raises(R2MError, match=r"swap\.tau: holds no head \(head\.weight\)"):
        invoke("score", *shared, *images, "--checkpoint", folder / "swap.tau", *description)
    with pytest.raises(R2MError, match="expected each manifest once"):
        invoke("score", *shared, *images, *images[:4], "--checkpoint", head, *description)
    assert "0 is not in the range" in invoke(
        "score", *shared, *images, "--checkpoint", head, *description, "--batch-size", 0, code=2
    )
    assert not (tmp_path / "s.parquet").exists()


def test_base_without_a_tensor_of_the_backbone_is_refused(trained, tmp_path, image_sets):
    """What the file does not give would stay as it was drawn."""
    folder, shared, images, head = trained
    tensors, metadata = checkpoint.load(shared[1])
    del tensors["blocks.0.attn.qkv.weight"]
    checkpoint.save(tmp_path / "base", tensors, metadata)
    base = ["--base", tmp_path / "base", *shared[2:]]
    generator, out = ["--generator", "swap"], ["--out", tmp_path / "out"]
    parts = [f"--task-vector=swap={folder / 'swap.tau'}", f"--head=swap={folder / 'swap.head'}"]
    parts += ["--initial-head", head]
    named = ["--name", "swap", *generator]
    history = ["--history", tmp_path / "h", "--state", tmp_path / "s"]
    variant = ["--variant", "weight_averaging", "--options", "{}"]
    chosen = {"variant": "average", "method": "weight_averaging", "head": "average", "options": {}}
    (tmp_path / "average.json").write_text(json.dumps(chosen))
    training = ["--options", "{}", "--initial-head", head, "--augment", "{}", *history]
    manifests = [part for name, part in pairwise(images) if name == "--manifest"]
    levels = ["--options", '{"enabled": true, "jpeg": [80]}', "--domain", "drawn", "--model", f"base={head}"]
    for arguments in (
        ["probe", *images, *generator],
        ["score", *images, "--checkpoint", head, "--model", "base", "--kind", "base"],
        ["statistics", *images, *named, "--kind", "fisher", "--specialist", folder / "swap"],
        ["finetune", *images, *named, *training],
        ["tune", *variant, *images, *generator, *parts, "--candidates", tmp_path / "c"],
        ["heads", *images, *generator, *parts, "--tune", tmp_path / "average.json"],
        ["trunk", "--manifest", image_sets.manifests["swap"]],
        ["robustness", *(f"--manifest={path}" for path in manifests), *generator, *levels],
    ):
        with pytest.raises(R2MError, match=r"base: tensors do not fit .* missing blocks.0.attn.qkv.weight"):
            invoke(*arguments, *base, *out)
        assert not (tmp_path / "out").exists(), arguments[0]


def test_tune_and_merge_agree(trained, tmp_path):
    folder, shared, images, head = trained
    variant = MergeVariant(method="ties", tune={"keep": [0.2, 0.5], "scaling": [1.0, 2.0]})
    parts = [f"--task-vector=swap={folder / 'swap.tau'}", f"--task-vector=up={folder / 'up.tau'}"]
    heads = [f"--head=swap={folder / 'swap.head'}", f"--head=up={folder / 'up.head'}", "--initial-head", head]
    generators = ["--generator", "swap", "--generator", "up"]
    arguments = ["--variant", "mine", "--options", as_json(variant), *parts, *heads, *generators]
    outputs = ["--candidates", tmp_path / "c.csv", "--out", tmp_path / "c.json"]
    invoke("tune", *shared, *images, *arguments, *outputs)
    rows = pd.read_csv(tmp_path / "c.csv")
    assert list(rows) == ["candidate", "keep", "scaling", "val_auc", "val_auc.swap", "val_auc.up", "chosen"]
    chosen = json.loads((tmp_path / "c.json").read_text())
    assert chosen["method"] == "ties"
    assert chosen["tuned"] == chosen["options"]
    assert chosen["val_auc"] == rows["val_auc"].max()
    reversed_parts = [*reversed(parts), *heads]
    invoke("tune", *shared, *images, *arguments[:4], *reversed_parts, *generators, *outputs)
    assert json.loads((tmp_path / "c.json").read_text()) == chosen
    merged = ["--out", tmp_path / "m", "--report", tmp_path / "m.json"]
    invoke("merge-variant", "--tune", tmp_path / "c.json", "--base", shared[1], *parts, *heads, *merged)
    description = ["--checkpoint", tmp_path / "m", "--model", "mine", "--kind", "merge", "--method", "ties"]
    invoke("score", *shared, *images, *description, "--out", tmp_path / "s.parquet")
    scores = pd.read_parquet(tmp_path / "s.parquet")
    val = scores[scores["split"] == "val"]
    aucs = [
        roc_auc_score(part["label"], part["logit"])
        for part in (val[val["generator"].isin(["real", one])] for one in ("swap", "up"))
    ]
    assert sum(aucs) / 2 == pytest.approx(chosen["val_auc"])


def statistics_of(trained, kind, tmp_path):
    """Make the statistics of both specialists; return the options that name them."""
    folder, shared, images, _ = trained
    options = []
    for name in ("swap", "up"):
        arguments = ["--kind", kind, "--name", name, "--specialist", folder / name, "--generator", name]
        invoke("statistics", *shared, *images, *arguments, "--images", 4, "--out", tmp_path / name)
        options.append(f"--statistics={name}={tmp_path / name}")
    return options


@pytest.mark.parametrize("method", ["fisher", "regmean"])
def test_methods_that_need_statistics(trained, tmp_path, method):
    folder, shared, images, head = trained
    statistics = statistics_of(trained, method, tmp_path)
    tensors, metadata = checkpoint.load(tmp_path / "swap")
    specialist, specialist_metadata = checkpoint.load(folder / "swap")
    assert set(tensors) < set(specialist)
    assert metadata["kind"] == method
    assert metadata["count"] == "4"
    assert metadata["base_hash"] == specialist_metadata["base_hash"]
    assert metadata["specialist_hash"] == checkpoint.sha256(specialist)
    parts = [f"--task-vector={name}={folder / name}.tau" for name in ("swap", "up")]
    heads = [f"--head={name}={folder / name}.head" for name in ("swap", "up")] + ["--initial-head", head]
    arguments = ["--variant", method, "--options", "{}", *parts, *heads, "--generator", "swap"]
    outputs = ["--candidates", tmp_path / "c.csv", "--out", tmp_path / "c.json"]
    invoke("tune", *shared, *images, *arguments, *statistics, *outputs)
    merge = ["--tune", tmp_path / "c.json", "--base", shared[1], *parts, *heads]
    merge += ["--out", tmp_path / "m", "--report", tmp_path / "m.json"]
    invoke("merge-variant", *merge, *statistics)
    key = "blocks.4.mlp.fc1.weight"
    average = (specialist[key] + checkpoint.load(folder / "up")[0][key]) / 2
    assert not checkpoint.load(tmp_path / "m")[0][key].allclose(average, atol=1e-7)
    with pytest.raises(R2MError, match="--statistics"):
        invoke("merge-variant", *merge)
    with pytest.raises(R2MError, match="statistics: expected those of swap, up, got swap"):
        invoke("merge-variant", *merge, statistics[0])


def test_statistics_of_a_specialist_of_another_base(trained, tmp_path):
    folder, shared, images, _ = trained
    tensors, _ = checkpoint.load(folder / "swap")
    checkpoint.save(tmp_path / "other", tensors, {"base_hash": "other"})
    arguments = ["--kind", "fisher", "--name", "swap", "--generator", "swap", "--out", tmp_path / "s"]
    with pytest.raises(R2MError, match="other: made from base other, expected"):
        invoke("statistics", *shared, *images, *arguments, "--specialist", tmp_path / "other")


def test_a_trunk_of_another_base_is_refused(trained, tmp_path):
    _, shared, images, _ = trained
    tensors, _ = checkpoint.load(shared[1])
    checkpoint.save(tmp_path / "base", tensors, {"base_hash": "other"})
    with pytest.raises(R2MError, match="was made with other base weights; make it again"):
        invoke(
            "probe", *images, "--base", tmp_path / "base", *shared[2:], "--generator", "swap", "--out", "x"
        )
