import pytest

from r2m import digest
from r2m.digest import closure, code_digest
from r2m.merge import registry


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a function that writes modules of a package that stands in for r2m."""
    monkeypatch.setattr(digest, "SOURCE", tmp_path)

    def write(**modules):
        for name, text in modules.items():
            path = tmp_path / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        digest._tree.cache_clear()

    yield write
    digest._tree.cache_clear()


BODY = '"""Doc."""\nimport os\n\n\nclass A:\n    """Doc."""\n\n    def f(self):\n        return 1\n'
SAME = '"""Other."""\nimport os  # !\n\nclass A:\n    def f(self):\n        """Doc."""\n        return (1)\n'


def test_layout_comments_and_docstrings_do_not_count(package):
    package(a=BODY)
    before = code_digest(["r2m.a"])
    package(a=SAME)
    assert code_digest(["r2m.a"]) == before
    package(a=BODY.replace("return 1", "return 2"))
    assert code_digest(["r2m.a"]) != before


def test_imports_are_followed_however_they_are_written(package):
    package(
        a="import r2m.b\n\ndef f():\n    from r2m import c\n    from r2m.folder import d, name\n",
        b="if 1:\n    from r2m.e import x\n",
        c="import numpy\n",
        e="",
        unrelated="",
        **{"folder/d": "", "folder/__init__": "name = 1\n"},
    )
    expected = {"r2m.a", "r2m.b", "r2m.c", "r2m.e", "r2m.folder", "r2m.folder.d"}
    assert closure(["r2m.a"]) == expected
    before = code_digest(["r2m.a"])
    package(e="x = 1\n")
    assert code_digest(["r2m.a"]) != before
    before = code_digest(["r2m.a"])
    package(unrelated="x = 1\n")
    assert code_digest(["r2m.a"]) == before


def test_cycles_and_order(package):
    package(a="import r2m.b\n", b="import r2m.a\n")
    assert code_digest(["r2m.a", "r2m.b"]) == code_digest(["r2m.b"])


def test_a_module_that_moves_counts(package):
    package(a="x = 1\n", b="x = 1\n")
    assert code_digest(["r2m.a"]) != code_digest(["r2m.b"])


def test_unknown_module(package):
    with pytest.raises(FileNotFoundError, match=r"no module r2m\.absent"):
        code_digest(["r2m.absent"])


def test_carriers_of_values_do_not_count():
    found = closure(["r2m.cli.finetune"])
    assert "r2m.train.finetune" in found
    assert not found & {"r2m.params", "r2m.errors", "r2m.cli.json_type"}


def test_the_expansion_of_a_grid_counts():
    """Which candidate is which must not change unseen, as it would in `r2m.params`."""
    assert "r2m.dotted" in closure(["r2m.cli.tune"])


@pytest.mark.parametrize("method", registry.names())
def test_a_merge_method_does_not_touch_the_others(method):
    own = f"r2m.merge.methods.{method}"
    others = {f"r2m.merge.methods.{one}" for one in registry.names()} - closure([own])
    for command in ("tune", "merge_variant"):
        found = closure([f"r2m.cli.{command}", own])
        assert own in found
        assert not found & others


def test_methods_that_build_on_others():
    methods = {name: f"r2m.merge.methods.{name}" for name in registry.names()}
    built = {name for name, one in methods.items() if closure([one]) & set(methods.values()) != {one}}
    assert built == {"knots_ties"}


def test_training_does_not_depend_on_merging_or_figures():
    for command in ("faces", "trunk", "finetune", "probe", "base", "statistics", "task_vector"):
        found = closure([f"r2m.cli.{command}"])
        later = ("r2m.evaluate", "r2m.figures", "r2m.merge.methods", "r2m.merge.merging", "r2m.merge.real")
        assert not [name for name in found if name.startswith(later)]
