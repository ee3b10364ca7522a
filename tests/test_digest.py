import pytest

from r2m import digest
from r2m.digest import closure, code_digest, modules_of
from r2m.experiments import registry as experiments
from r2m.merge import registry

CACHES = (digest._parsed, digest._uses, digest._file, digest._digest, digest._definition_digest)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a function that writes modules of a package that stands in for r2m."""
    monkeypatch.setattr(digest, "SOURCE", tmp_path)

    def write(**modules):
        for name, text in modules.items():
            path = tmp_path / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        forget()

    def forget():
        for cached in CACHES:
            cached.cache_clear()

    yield write
    forget()


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
    assert modules_of(["r2m.a"]) == expected
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


def test_only_what_a_function_uses_counts(package):
    text = (
        "from r2m import b\nfrom r2m.c import g\n\nLIMIT = 1\n\n"
        "def f():\n    return b.used(LIMIT)\n\ndef h():\n    return g()\n"
    )
    package(
        a=text, b="def used(x):\n    return x\n\ndef unused():\n    return 1\n", c="def g():\n    return 2\n"
    )
    assert closure(["r2m.a:f"]) == {"r2m.a:", "r2m.a:f", "r2m.a:LIMIT", "r2m.b:", "r2m.b:used"}
    before = code_digest(["r2m.a:f"])
    package(a=text.replace("return g()", "return g() + 1"), c="def g():\n    return 3\n")
    assert code_digest(["r2m.a:f"]) == before
    package(a=text.replace("LIMIT = 1", "LIMIT = 2"))
    assert code_digest(["r2m.a:f"]) != before


@pytest.mark.parametrize(
    "use",
    [
        "from r2m.b import g\n\ndef f():\n    return g()\n",
        "from r2m.b import g as other\n\ndef f():\n    return [other]\n",
        "from r2m import b\n\ndef f():\n    return b.g()\n",
        "from r2m import b\n\ndef f(module=b):\n    return module\n",
        "import r2m.b as b\n\ndef f():\n    return b.g\n",
        "import r2m.b\n\ndef f():\n    return r2m.b.g()\n",
        "def f():\n    from r2m.b import g\n\n    return g()\n",
        "def f():\n    import r2m.b\n\n    return r2m.b.g()\n",
        "from r2m.b import g\n\nclass A:\n    x = g()\n\nclass B(A):\n    pass\n\n@B\ndef f():\n    pass\n",
        "from r2m.b import g\n\nTABLE = {1: g}\n\ndef f(key=1):\n    return TABLE[key]()\n",
        "from r2m.b import g\n\nif g():\n    pass\n\ndef f():\n    pass\n",
        "from r2m.d import g\n\ndef f():\n    return g()\n",
    ],
)
def test_every_way_of_use_counts(package, use):
    package(a=use, b="def g():\n    return 1\n", d="from r2m.b import g\n")
    before = code_digest(["r2m.a:f"])
    package(b="def g():\n    return 2\n")
    assert code_digest(["r2m.a:f"]) != before


def test_modules_that_are_found_at_run_time_count(package):
    finding = "from r2m import folder\n\n{name} = folder\n\ndef f():\n    pass\n"
    package(
        a=finding.format(name="PLUG_INS"),
        b=finding.format(name="OTHER"),
        **{"folder/__init__": "", "folder/c": "from r2m import d\n\nx = d.x\n"},
        d="x = 1\n",
    )
    assert modules_of(["r2m.a"]) == {"r2m.a", "r2m.folder", "r2m.folder.c", "r2m.d"}
    assert modules_of(["r2m.b"]) == {"r2m.b", "r2m.folder"}
    before = code_digest(["r2m.a"])
    package(d="x = 2\n")
    assert code_digest(["r2m.a"]) != before


def test_unknown_name(package):
    package(a="x = 1\n")
    with pytest.raises(FileNotFoundError, match=r"no y in r2m\.a"):
        code_digest(["r2m.a:y"])


def test_carriers_of_values_do_not_count():
    reached = closure(["r2m.train.stages:finetune"])
    assert "r2m.train.finetune:finetune" in reached
    classes = {"r2m.errors:R2MError", "r2m.train.options:FinetuneOptions", "r2m.options:Section"}
    assert not reached & classes


def test_digests_do_not_depend_on_how_they_are_made():
    """Stages note the digest of their code, and a faster way to it must not train every model again."""
    assert "r2m.digest" not in modules_of(["r2m.train.stages:finetune"])


def test_the_expansion_of_a_grid_counts():
    """Which candidate is which must not change unseen, as options may."""
    assert "r2m.options:combinations" in closure(["r2m.evaluate.stages:tune"])


@pytest.mark.parametrize("method", registry.names())
def test_a_merge_method_does_not_touch_the_others(method):
    own = f"r2m.merge.methods.{method}"
    others = {f"r2m.merge.methods.{name}" for name in registry.names()} - modules_of([own])
    for stage in ("r2m.evaluate.stages:tune", "r2m.merge.stages:merge"):
        reached = modules_of([stage, own])
        assert own in reached
        assert not reached & others


def test_methods_that_build_on_others():
    methods = {name: f"r2m.merge.methods.{name}" for name in registry.names()}
    built = {
        name for name, module in methods.items() if modules_of([module]) & set(methods.values()) != {module}
    }
    assert built == {"della", "esm", "knots_ties", "nuslerp", "svc"}


def test_a_calibrated_merge_depends_on_all_methods():
    """Which of them is calibrated, its options say."""
    reached = modules_of(["r2m.merge.methods.svc"])
    assert {f"r2m.merge.methods.{name}" for name in registry.names()} <= reached


@pytest.mark.parametrize(
    "stage",
    [
        *("video.stages:faces", "trunk.stages:trunk", "models.stages:base", "merge.stages:task_vector"),
        *("train.stages:finetune", "train.stages:probe", "train.stages:statistics"),
    ],
)
def test_training_does_not_depend_on_merging_or_figures(stage):
    later = ("r2m.evaluate", "r2m.report", "r2m.experiments", "r2m.merge.methods")
    assert not [name for name in modules_of([f"r2m.{stage}"]) if name.startswith(later)]


def test_imports_for_type_checkers_do_not_count(package):
    text = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from r2m.b import B\nelse:\n    from r2m.c import C\n"
        "def f(b: 'B'):\n    return 1\n"
    )
    package(a=text, b="class B:\n    pass\n", c="class C:\n    pass\n")
    assert modules_of(["r2m.a:f"]) == {"r2m.a"}


@pytest.mark.parametrize("experiment", [name for name in experiments.names() if name != "inversion"])
def test_what_an_experiment_computes_does_not_depend_on_how_it_is_shown(experiment):
    reached = closure([f"r2m.experiments.{experiment}:run"])
    shown = ("r2m.report.table", "r2m.report.figures", "r2m.plan", "r2m.experiments.experiment")
    assert not [name for name in reached if name.startswith(shown)]
    assert f"r2m.experiments.{experiment}:table" not in reached
