import importlib.util
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

import r2m.cli
import r2m.cli.json_type
from r2m.cli import r2m as group
from r2m.digest import closure
from r2m.train.options import FinetuneOptions

pytestmark = pytest.mark.usefixtures("one_thread")

REPOSITORY = Path(__file__).parents[1]
COMMANDS = sorted(
    module.name for module in pkgutil.iter_modules(r2m.cli.__path__) if module.name not in r2m.cli._SHARED
)
WITH_TORCH = {
    "ablation",
    "composability",
    "families",
    "two_sources",
    "heads",
    "hostile",
    "rationale",
    "robustness",
    "similarity",
    "task_vector",
    "real_component",
    "residual",
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
