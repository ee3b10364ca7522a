"""`r2m merge`, `r2m methods` and `r2m inspect` as a user calls them."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from cli_calls import invoke
from r2m.errors import R2MError
from r2m.merge import api, registry

pytestmark = pytest.mark.usefixtures("one_thread")


def run(*arguments, **settings):
    command = [sys.executable, "-m", "r2m", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **settings)


@pytest.fixture
def folder(tmp_path):
    generator = torch.Generator().manual_seed(0)
    base = {"blocks.0.fc.weight": torch.randn(8, 6, generator=generator), "norm.bias": torch.zeros(6)}
    save_file(base, tmp_path / "base.safetensors")
    for name in ("a", "b"):
        tensors = {key: one + 0.1 * torch.randn(one.shape, generator=generator) for key, one in base.items()}
        save_file(tensors, tmp_path / f"{name}.safetensors", metadata={"generator": name})
    return tmp_path


def arguments(folder, method="task_arithmetic", out="m.safetensors"):
    specialists = [f"--specialist={name}={folder / f'{name}.safetensors'}" for name in ("a", "b")]
    return [
        "merge",
        "--method",
        method,
        "--base",
        folder / "base.safetensors",
        *specialists,
        "--out",
        folder / out,
    ]


def test_merge_with_options(folder):
    text = invoke(*arguments(folder), "--set", "scaling=0.5", "--threads", 1)
    assert text == f"{folder / 'm.safetensors'}: Task arithmetic of 2; report in {folder / 'm.json'}\n"
    tensors = {name: load_file(folder / f"{name}.safetensors") for name in ("base", "a", "b")}
    base = tensors.pop("base")
    for key, tensor in api.merge("task_arithmetic", base, tensors, {"scaling": 0.5}).items():
        torch.testing.assert_close(load_file(folder / "m.safetensors")[key], tensor)
        expected = base[key] + 0.5 * sum(one[key] - base[key] for one in tensors.values())
        torch.testing.assert_close(tensor, expected)


def test_weights(folder):
    invoke(*arguments(folder, "weight_averaging"), "--weight", "a=3")
    a, b = (load_file(folder / f"{name}.safetensors") for name in ("a", "b"))
    for key, tensor in load_file(folder / "m.safetensors").items():
        torch.testing.assert_close(tensor, 0.75 * a[key] + 0.25 * b[key])
    assert json.loads((folder / "m.json").read_text())["weights"] == {"a": 1.5, "b": 0.5}
    recipe = {
        "method": "weight_averaging",
        "base": "base.safetensors",
        "specialists": {"a": "a.safetensors", "b": "b.safetensors"},
        "weights": {"a": 1, "b": 9},
        "out": "n.safetensors",
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    invoke("merge", "--recipe", folder / "recipe.yaml", "--weight", "a=3")
    assert (folder / "n.safetensors").read_bytes() == (folder / "m.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (["a"], "expected NAME=NUMBER, got 'a'"),
        (["a="], "expected NAME=NUMBER, got 'a='"),
        (["a=much"], "expected NAME=NUMBER, got 'a=much'"),
        (["a=1", "a=2"], "'a' is given twice"),
    ],
)
def test_weights_that_are_none(folder, weights, message):
    assert message in invoke(*arguments(folder), *(f"--weight={one}" for one in weights), code=2)


def test_dotted_options(folder):
    settings = [
        "--set",
        "residual.rank.energy=0.5",
        "--set",
        "real.space=matrix",
        "--report",
        folder / "r.json",
    ]
    invoke(*arguments(folder, "r2m"), *settings)
    options = json.loads((folder / "r.json").read_text())["options"]
    assert options["residual"]["rank"] == {"energy": 0.5}
    assert options["real"]["space"] == "matrix"
    assert not (folder / "m.json").exists()


def test_recipe(folder, tmp_path_factory, monkeypatch):
    invoke(*arguments(folder, "ties"), "--set", "keep=0.5", "--exclude", "norm.*")
    recipe = {
        "method": "ties",
        "base": "base.safetensors",
        "specialists": {"a": "a.safetensors", "b": "b.safetensors"},
        "out": "n.safetensors",
        "options": {"keep": 0.9},
        "exclude": ["norm.*"],
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    invoke("merge", "--recipe", folder / "recipe.yaml", "--set", "keep=0.5")
    assert (folder / "n.safetensors").read_bytes() == (folder / "m.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": "ties"}, "recipe.yaml: unknown key 'methods'; did you mean 'method'?"),
        ({"base": None}, "recipe.yaml: base: Input is not a valid path for"),
        ({"specialists": {}}, "recipe.yaml: specialists: expected at least 1 entry"),
        ({"options": {"kep": 1}}, "options of ties: unknown key 'kep'; did you mean 'keep'?"),
        ({"options": {"keep": 2}}, "options of ties: keep: expected a number of at most 1 (got 2)"),
        ({"method": "tie"}, "unknown merging method 'tie'; did you mean 'ties'?"),
        ({"head": "mean"}, "recipe.yaml: head: expected average, base or specialist:NAME"),
        (
            {"dtype": "int8"},
            "recipe.yaml: dtype: expected 'float32', 'float16' or 'bfloat16' (got 'int8')",
        ),
        ({"report": "recipe.yaml"}, "recipe.yaml: is the recipe itself; expected another name"),
    ],
)
def test_mistakes_in_a_recipe(folder, change, message):
    recipe = {"method": "ties", "base": "base.safetensors", "specialists": {"a": "a"}, "out": "m.safetensors"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe | change))
    with pytest.raises(R2MError, match=re.escape(message)):
        invoke("merge", "--recipe", folder / "recipe.yaml")


def test_mistakes_on_the_command_line(folder):
    for extra, message in {
        ("--set", "scaling"): "--set scaling: expected KEY=VALUE",
        ("--set", "scaling=much"): "options of task_arithmetic: scaling: expected a number, not text",
        ("--set", "scaling=.nan"): "scaling: expected a finite number (got nan)",
        ("--set", "scaling=-.inf"): "scaling: expected a finite number (got -inf)",
        ("--set", "lambda=1"): "options of task_arithmetic: unknown key 'lambda'; expected one of scaling",
        ("--exclude", "blok*"): "exclude 'blok*': fits no tensor of the base",
        ("--set", "scaling=[1"): "--set scaling=[1: not valid YAML",
        ("--set", "scaling=!!python/none x"): "--set scaling=!!python/none x: not valid YAML",
        ("--specialist", "base=x.safetensors"): "specialists: 'base' is what reports call the base",
    }.items():
        with pytest.raises(R2MError, match=re.escape(message)):
            invoke(*arguments(folder), *extra)
    with pytest.raises(R2MError, match="r2m merge: method: is missing"):
        invoke("merge", "--out", folder / "m.safetensors")
    with pytest.raises(R2MError, match="--set scaling: is given twice"):
        invoke(*arguments(folder), "--set", "scaling=1", "--set", "scaling=2")
    assert "'a' is given twice" in invoke(*arguments(folder), "--specialist", "a=x", code=2)
    for wrong in ("swap", "=x", "swap="):
        assert "expected NAME=FILE" in invoke(*arguments(folder), "--specialist", wrong, code=2)
    assert not (folder / "m.safetensors").exists()


class Code:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_errors_exit_with_1_and_one_line(folder):
    (folder / "a.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    result = run(*arguments(folder))
    assert result.returncode == 1
    assert re.search(r"^r2m: error: .*a\.safetensors: corrupt or not a safetensors file", result.stderr)
    assert "Traceback" not in result.stderr
    (folder / "a.pt").write_bytes(pickle.dumps({"x": Code(folder / "ran")}))
    result = run(
        *arguments(folder)[:-2], f"--specialist=c={folder / 'a.pt'}", "--out", folder / "m.safetensors"
    )
    assert result.returncode == 1
    invoke_with = [one for one in arguments(folder) if "--specialist=a" not in str(one)]
    result = run(*invoke_with, f"--specialist=c={folder / 'a.pt'}")
    assert "holds pickled Python objects" in result.stderr
    assert not (folder / "ran").exists()
    assert {path.name for path in folder.iterdir()} == {
        "a.pt",
        *(f"{x}.safetensors" for x in ("a", "b", "base")),
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing(tmp_path, number):
    generator = torch.Generator().manual_seed(0)
    # So many candidates' steps that the merge cannot be over before the signal.
    shapes = {f"blocks.{i}.weight": (512, 512) for i in range(40)}
    for name in ("base", "a", "b"):
        tensors = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
        save_file(tensors, tmp_path / f"{name}.safetensors")
    before = set(tmp_path.iterdir())
    command = [sys.executable, "-m", "r2m", *map(str, arguments(tmp_path, "wudi")), "--set", "steps=100000"]
    # A shell that starts the tests in the background has them, and what they start, ignore Ctrl-C.
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 60
        while set(tmp_path.iterdir()) == before and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        assert set(tmp_path.iterdir()) != before
        os.kill(process.pid, number)
        assert process.wait(60) != 0
    finally:
        process.kill()
    assert set(tmp_path.iterdir()) == before


def test_methods():
    text = invoke("methods")
    for name in registry.names():
        method = registry.get(name)
        assert f"\n{name}: {method.title}\n    {method.citation}\n" in f"\n{text}"
    assert "    --set keep=0.2  share of" in invoke("methods", "ties")
    assert "--set residual.rank.ratio=0.1  share of min(m, n)" in invoke("methods", "r2m")
    with pytest.raises(R2MError, match="did you mean 'ties'"):
        invoke("methods", "tie")
    described = json.loads(invoke("methods", "--json"))
    assert described.keys() == set(registry.names())
    assert described["task_arithmetic"]["options"] == {"scaling": 0.3}
    assert described["fisher"]["needs_data"]
    assert described["tsv_m"]["others"] == "scaled_mean"
    assert described["tsv_m"]["takes_weights"]
    assert not described["slerp"]["takes_weights"]
    assert "    takes no --weight: its option t" in invoke("methods", "slerp")


def test_options_that_are_listed_are_accepted(folder):
    for name, one in json.loads(invoke("methods", "--json")).items():
        chosen = {key: value for key, value in one["options"].items() if value is not None}
        method = registry.get(name)
        if method.statistics is None:
            flags = [
                part for key, value in chosen.items() for part in ("--set", f"{key}={json.dumps(value)}")
            ]
            invoke(*arguments(folder, name, f"{name}.safetensors"), *flags)
            saved = json.loads((folder / f"{name}.json").read_text())["options"]
            assert saved == method.options().model_dump(mode="json", exclude_none=True)


def test_calibration_beside_a_method(folder):
    invoke(*arguments(folder, "ties", "one.safetensors"), "--set", "calibrate=svc", "--set", "keep=0.5")
    inner = ("--set", "inner.method=ties", "--set", "inner.keep=0.5")
    invoke(*arguments(folder, "svc", "two.safetensors"), *inner)
    one, two = (json.loads((folder / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one["method"] == two["method"] == "svc"
    assert one["options"] == two["options"] == {"inner": {"method": "ties", "keep": 0.5, "scaling": 1.0}}
    merged, again = (load_file(folder / f"{name}.safetensors") for name in ("one", "two"))
    assert all(torch.equal(tensor, again[key]) for key, tensor in merged.items())
    with pytest.raises(R2MError, match="calibrate: expected svc"):
        invoke(*arguments(folder, "ties", "three.safetensors"), "--set", "calibrate=iso")


def test_inspect(folder):
    files = [folder / "a.safetensors", folder / "b.safetensors"]
    found = json.loads(
        invoke("inspect", *files, "--base", folder / "base.safetensors", "--json", "--tensors")
    )
    base, a, b = (load_file(folder / f"{name}.safetensors") for name in ("base", "a", "b"))
    tau = [torch.cat([(one[key] - base[key]).reshape(-1).double() for key in base]) for one in (a, b)]
    assert found["files"][0]["norm"] == pytest.approx(tau[0].norm().item())
    cosine = torch.nn.functional.cosine_similarity(tau[0], tau[1], dim=0).item()
    assert found["cosines"][0][1] == pytest.approx(cosine)
    assert found["cosines"][1][1] == pytest.approx(1)
    weight = found["files"][1]["tensors"]["blocks.0.fc.weight"]
    assert weight["shape"] == [8, 6]
    assert weight["kind"] == "matrix"
    assert found["files"][1]["metadata"] == {"generator": "b"}
    text = invoke("inspect", *files)
    assert "[2] " in text
    assert "54 entries" in text
    assert "generator: a" in text
    assert "cosines\n" in text
    assert "blocks.0.fc.weight" not in text
    assert "blocks.0.fc.weight" in invoke("inspect", files[0], "--tensors")
    with pytest.raises(R2MError, match="absent: no such file"):
        invoke("inspect", folder / "absent")


def test_inspect_writes_null_for_what_json_has_not(folder):
    tensors = load_file(folder / "a.safetensors")
    next(iter(tensors.values())).reshape(-1)[0] = float("nan")
    save_file(tensors, folder / "nan.safetensors")
    text = invoke("inspect", folder / "nan.safetensors", folder / "a.safetensors", "--json")
    found = json.loads(text, parse_constant=pytest.fail)
    assert found["files"][0]["norm"] is None


def test_inspecting_other_shapes_is_refused(folder):
    save_file({"norm.bias": torch.zeros(5)}, folder / "c.safetensors")
    with pytest.raises(
        R2MError, match=r"c\.safetensors: norm.bias has shape \(5,\), but \(6,\) in .*a\.safe"
    ):
        invoke("inspect", folder / "a.safetensors", folder / "c.safetensors")


def test_a_grams_cache_knows_contents_not_times(folder):
    """Files that are copied with their times must not be taken for what stood there before."""
    shared = [*arguments(folder, "r2m"), "--specialist", f"c={folder / 'c.safetensors'}", "--force"]
    tensors = load_file(folder / "a.safetensors")
    save_file({key: one + 0.2 for key, one in tensors.items()}, folder / "c.safetensors")
    cached = ["--gram-cache", folder / "grams.safetensors"]
    invoke(*shared, *cached)
    times = (folder / "c.safetensors").stat()
    save_file({key: one * 1.1 for key, one in tensors.items()}, folder / "c.safetensors")
    os.utime(folder / "c.safetensors", ns=(times.st_atime_ns, times.st_mtime_ns))
    invoke(*shared, *cached)
    with_cache = (folder / "m.safetensors").read_bytes()
    invoke(*shared)
    assert (folder / "m.safetensors").read_bytes() == with_cache


def test_outputs_are_regular_files_in_folders_that_exist(folder):
    os.mkfifo(folder / "pipe.json")
    (folder / "link.safetensors").symlink_to(folder / "nowhere")
    for flag, name, message in (
        ("--report", "pipe.json", "no regular file"),
        ("--report", "none/r.json", "no such folder"),
        ("--out", "none/m.safetensors", "no such folder"),
        ("--out", "link.safetensors", "exists; --force"),
    ):
        force = ["--force"] if "link" not in name else []
        with pytest.raises(R2MError, match=message):
            invoke(*arguments(folder), flag, folder / name, *force)
    assert (folder / "pipe.json").is_fifo()
    assert not (folder / "m.safetensors").exists()


def test_a_closed_output_is_no_failure(folder):
    command = [sys.executable, "-m", "r2m", *map(str, arguments(folder))]
    for redirection in (">&-", "> /dev/full"):
        line = f'"$@" --force {redirection}'
        result = subprocess.run(["sh", "-c", line, "sh", *command], stderr=subprocess.PIPE, text=True)
        assert "Traceback" not in result.stderr
        assert result.returncode == 0, result.stderr
        assert (folder / "m.json").is_file()


def test_a_name_that_the_system_refuses_is_told_in_a_line(folder):
    result = run(*arguments(folder, out=f"{'x' * 300}.safetensors"))
    assert result.returncode == 1
    assert re.fullmatch(r"r2m: error: .*too long.*\n", result.stderr)


def test_settings_that_contradict_each_other(folder):
    settings = ["--set", "residual.rank.ratio=0.05", "--set", "residual.rank.fixed=3"]
    with pytest.raises(R2MError, match=r"residual\.rank\.fixed: contradicts residual\.rank\.ratio"):
        invoke(*arguments(folder, "r2m"), *settings)
    with pytest.raises(
        R2MError, match=r"scaling: expected a number within the range of float32 \(got 1e\+40"
    ):
        invoke(*arguments(folder), "--set", "scaling=1.0e+40")


def test_excluding_the_head_says_that_it_is_the_head(folder):
    with pytest.raises(R2MError, match="fits the head alone"):
        invoke(*arguments(folder), "--head-prefix", "norm.", "--exclude", "norm.*")


@pytest.mark.parametrize("method", ["wudi", "lines"])
def test_methods_of_layers_refuse_names_without_them(method):
    base = {"encoder.0.weight": torch.zeros(3, 2)}
    specialists = {name: {"encoder.0.weight": torch.rand(3, 2)} for name in ("a", "b")}
    with pytest.raises(R2MError, match=f"{method}: no tensor's name tells the block"):
        api.merge(method, base, specialists)


def test_a_merge_without_residuals_is_warned_of(folder):
    invoke(*arguments(folder, "r2m"), "--set", "real.rank=2")
    warnings = json.loads((folder / "m.json").read_text())["warnings"]
    assert warnings == ["no residual is left of any specialist: the merge is the Real component alone"]


def test_inspect_tells_what_does_not_fit(folder):
    tensors = load_file(folder / "a.safetensors")
    tensors["more.weight"] = torch.full((2,), float("nan"))
    del tensors["norm.bias"]
    save_file(tensors, folder / "odd.safetensors")
    text = invoke("inspect", "--base", folder / "base.safetensors", folder / "odd.safetensors")
    assert "    lacks norm.bias\n" in text
    assert "    has what the base lacks: more.weight\n" in text
    assert "    NaN or infinite values in more.weight\n" in text


def test_python_takes_named_tensors_only(folder):
    base = load_file(folder / "base.safetensors")
    trained = {key: torch.nn.Parameter(one + 1) for key, one in base.items()}
    merged = api.merge("weight_averaging", base, {"a": trained, "b": base})
    for key, one in base.items():
        torch.testing.assert_close(merged[key], one + 0.5)
    with pytest.raises(R2MError, match=r"specialist 'a': .*weight: expected a tensor, got ndarray"):
        api.merge("weight_averaging", base, {"a": {key: one.numpy() for key, one in base.items()}})
    with pytest.raises(R2MError, match="base: expected a mapping of names to tensors, got NoneType"):
        api.merge("weight_averaging", None, {"a": base})
