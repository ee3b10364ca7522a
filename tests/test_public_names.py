"""What `import r2m` offers."""

import pydoc
import subprocess
import sys

import pytest

import r2m

NAMES = ["load", "score", "detect", "merge_models", "methods", "inspect", "finetune"]


def test_import_is_light():
    code = "import sys, r2m; dir(r2m); print({'torch', 'numpy', 'pandas', 'timm'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize("name", NAMES)
def test_public_names_are_documented_functions(name):
    assert callable(getattr(r2m, name))
    assert getattr(r2m, name).__doc__
    assert f"    {name} " in r2m.__doc__
    assert name in r2m.__all__
    assert name in dir(r2m)


def test_help_is_a_front_page():
    text = pydoc.render_doc(r2m, renderer=pydoc.plaintext)
    assert text.index("r2m.load(") < text.index("PACKAGE CONTENTS")
    functions = text[text.index("FUNCTIONS") :]
    assert all(f"    {name}(" in functions or f"    {name} = " in functions for name in NAMES)


def test_unknown_names():
    with pytest.raises(AttributeError, match="module 'r2m' has no attribute 'lode'"):
        r2m.lode  # noqa: B018


def test_methods_by_name():
    found = r2m.methods()
    assert {"r2m", "ties", "weight_averaging"} <= found.keys()
    assert found["ties"].options(keep=0.4).scaling == 1
    assert all(method.name == name and method.title and method.citation for name, method in found.items())


@pytest.mark.parametrize("specialists", [[{}], {}.values(), None])
def test_specialists_are_a_mapping(specialists):
    with pytest.raises(r2m.R2MError, match="specialists: expected a mapping of names"):
        r2m.merge_models("ties", {}, specialists)


@pytest.mark.parametrize("paths", ["swap.safetensors", []])
def test_files_to_inspect_are_a_list(paths):
    with pytest.raises(r2m.R2MError, match="paths: expected a list of weights files"):
        r2m.inspect(paths)
