"""`r2m merge` of specialists that patterns and folders stand for."""

import json
import logging
import re
from contextlib import ExitStack

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from cli_calls import invoke
from r2m.errors import R2MError
from r2m.models.weights import open_weights

pytestmark = pytest.mark.usefixtures("one_thread")


def weights(seed):
    generator = torch.Generator().manual_seed(seed)
    return {f"blocks.{i}.weight": torch.randn(4, 3, generator=generator) for i in range(2)}


def sharded(folder, stem, tensors):
    """Write an index and a shard for every tensor."""
    shards = {key: f"{stem}-{number:05}-of-00002.safetensors" for number, key in enumerate(tensors, start=1)}
    for key, name in shards.items():
        save_file({key: tensors[key]}, folder / name)
    index = {"metadata": {"total_size": 96}, "weight_map": shards}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models = tmp_path / "models"
    models.mkdir()
    for seed, name in enumerate(("base", "b", "a")):
        save_file(weights(seed), models / f"{name}.safetensors")
    return tmp_path


def merged(folder, *specialists, out="m.safetensors"):
    """Average what is given, and return the files by name from the report."""
    flags = [part for text in specialists for part in ("--specialist", text)]
    base = ["--base", folder / "models" / "base.safetensors"]
    invoke("merge", "--method", "weight_averaging", *base, *flags, "--out", folder / out, "--force")
    files = {
        name: one["file"]
        for name, one in json.loads((folder / out).with_suffix(".json").read_text())["inputs"].items()
    }
    with ExitStack() as stack:
        opened = [stack.enter_context(open_weights(file)) for file in files.values()]
        for key, tensor in load_file(folder / out).items():
            torch.testing.assert_close(tensor, sum(one.tensor(key) for one in opened) / len(opened))
    return files


def test_a_pattern_stands_for_its_files_without_the_base(folder, caplog):
    caplog.set_level(logging.INFO)
    files = merged(folder, "models/*.safetensors")
    assert list(files.items()) == [("a", "models/a.safetensors"), ("b", "models/b.safetensors")]
    assert "specialists: a (models/a.safetensors), b (models/b.safetensors)" in caplog.text
    named = merged(folder, "a=models/a.safetensors", "b=models/b.safetensors", out="n.safetensors")
    assert named == files
    assert (folder / "n.safetensors").read_bytes() == (folder / "m.safetensors").read_bytes()
    assert merged(folder, f"{folder}/m*/[ab].safetensors").keys() == {"a", "b"}
    assert merged(folder, "**/[ab].safetensors").keys() == {"a", "b"}


def test_names_and_patterns_beside_each_other(folder):
    files = merged(folder, "models/a.safetensors", "swap=models/b.safetensors", "models/a*")
    assert files == {"a": "models/a.safetensors", "swap": "models/b.safetensors"}
    text = invoke("merge", "--specialist", "a=x", "--specialist", "a=y", code=2)
    assert "'a' is given twice" in text


def test_a_file_whose_name_looks_like_a_pattern(folder):
    (folder / "models" / "a.safetensors").rename(folder / "models" / "a[1].safetensors")
    assert merged(folder, "models/a[1].safetensors", "models/b.safetensors").keys() == {"a[1]", "b"}


def test_a_folder_stands_for_the_weights_in_it(folder):
    (folder / "models" / "notes.txt").write_text("no weights")
    (folder / "models" / "a.json").write_text("{}")
    torch.save({"state_dict": weights(3)}, folder / "models" / "c.pth.tar")
    torch.save(weights(4), folder / "models" / "b.pt")
    torch.save(weights(4), folder / "models" / "optimizer.pt")
    sharded(folder / "models", "d", weights(5))
    files = merged(folder, "models")
    assert files == {
        "a": "models/a.safetensors",
        "b": "models/b.safetensors",
        "c": "models/c.pth.tar",
        "d": "models/d.safetensors.index.json",
    }
    assert merged(folder, "models/[ad]*.safetensors").keys() == {"a", "d"}


def test_folders_that_hold_one_model_each(folder):
    for seed, name in enumerate(("lip", "swap"), start=1):
        (folder / "tuned" / name).mkdir(parents=True)
        save_file(weights(seed), folder / "tuned" / name / "model.safetensors")
        (folder / "tuned" / name / "config.json").write_text("{}")
    files = merged(folder, "tuned/*")
    assert files == {
        "lip": "tuned/lip/model.safetensors",
        "swap": "tuned/swap/model.safetensors",
    }
    assert merged(folder, "tuned/lip", "tuned/swap/") == files
    with pytest.raises(
        R2MError, match=r"'model' stands for tuned/lip/model\.safetensors and tuned/swap/model"
    ):
        merged(folder, "tuned/*/model.safetensors")


def test_a_folder_laid_out_as_the_workflow_does(folder):
    for seed, name in enumerate(("lip", "swap"), start=1):
        for number in (0, 1):
            (folder / "specialists" / name / f"seed{number}").mkdir(parents=True)
            save_file(weights(seed), folder / "specialists" / name / f"seed{number}" / "model.safetensors")
    assert merged(folder, "specialists") == {
        name: f"specialists/{name}/seed0/model.safetensors" for name in ("lip", "swap")
    }


def test_patterns_of_a_recipe_are_from_its_folder(folder, monkeypatch, tmp_path_factory):
    expected = merged(folder, "models/*.safetensors")
    recipe = {"method": "weight_averaging", "base": "models/base.safetensors", "out": "n.safetensors"}
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    for given in (
        "models/*.safetensors",
        "models",
        ["models/a*", "models/b*"],
        ["models/a*", {"b": "models/b.safetensors"}],
    ):
        (folder / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "specialists": given}))
        invoke("merge", "--recipe", folder / "recipe.yaml", "--force")
        assert (folder / "n.safetensors").read_bytes() == (folder / "m.safetensors").read_bytes()
        report = json.loads((folder / "n.json").read_text())
        assert report["inputs"].keys() == expected.keys()
    invoke("merge", "--recipe", folder / "recipe.yaml", "--force", "--specialist", folder / "models/b.*")
    assert json.loads((folder / "n.json").read_text())["inputs"].keys() == {"b"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("models/x*", "specialists 'models/x*': fits no file or folder"),
        ("models/base.*", "specialists 'models/base.*': the base alone"),
        ("empty", "empty: neither a file of weights in it nor */seed*/model.safetensors"),
        ("odd", "odd/a b.safetensors: 'a b' is no name of a specialist"),
    ],
)
def test_what_stands_for_no_specialists(folder, given, message):
    (folder / "empty").mkdir()
    (folder / "odd").mkdir()
    save_file(weights(1), folder / "odd" / "a b.safetensors")
    with pytest.raises(R2MError, match=re.escape(message)):
        merged(folder, given)
    assert not (folder / "m.safetensors").exists()


def test_a_clash_of_names(folder):
    (folder / "more").mkdir()
    save_file(weights(7), folder / "more" / "a.safetensors")
    with pytest.raises(
        R2MError, match=r"specialists: 'a' stands for models/a\.safetensors and more/a\.safet"
    ):
        merged(folder, "models/*", "more/*")
    assert merged(folder, "models", "models/*.safetensors").keys() == {"a", "b"}


def test_a_pattern_that_the_shell_replaced_by_its_files(folder):
    text = invoke("merge", "--specialist", "models/a.safetensors", "models/b.safetensors", code=2)
    assert "(models/b.safetensors); put a pattern in quotes: --specialist 'models/*.safetensors'" in text
