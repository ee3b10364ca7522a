import json
from pathlib import Path

import pytest
import torch
from merge_samples import SHAPES, random_task_vectors

from r2m.errors import R2MError
from r2m.merge import merging, registry, stages
from r2m.merge.heads import merge_heads
from r2m.merge.options import R2M
from r2m.merge.tensors import apply
from r2m.models import checkpoint

NAMES = ("lip", "swap", "up")
VARIANTS = [
    {},
    {"real": {"scope": "layer", "rank": 2}, "norm_match": "layer", "scale": {"absolute": 1.5}},
    {"real": {"center": True, "block_weight": "frobenius"}, "residual": {"definition": "shift"}},
    {"real": {"space": "matrix", "core_ratio": 0.3}, "residual": {"rank": {"energy": 0.8}}},
    {"residual": {"rank": {"optimal_threshold": True}, "vectors": "drop"}, "norm_match": "none"},
]


def files(folder):
    return {name: folder / f"{name}.safetensors" for name in NAMES}


class Workspace:
    """A base, three specialists of it, and the files that the stages make of them."""

    def __init__(self, folder):
        self.folder = folder
        generator = torch.Generator().manual_seed(9)
        self.base = {key: torch.randn(shape, generator=generator) for key, shape in SHAPES.items()}
        self.base |= {
            "frozen.weight": torch.randn(4, 4, generator=generator),
            "position_ids": torch.arange(5),
        }
        self.base_file = folder / "base.safetensors"
        checkpoint.save(self.base_file, self.base, {})
        self.heads = {
            name: {"head.weight": torch.randn(1, 6, generator=generator), "head.bias": torch.ones(1) * i}
            for i, name in enumerate(NAMES)
        }
        for name, one in zip(NAMES, random_task_vectors(3).values(), strict=True):
            tensors = {key: self.base[key] + change for key, change in one.items()}
            self.save_specialist(name, {**tensors, **self.heads[name]})
            self.subtract(name)
        self.task_vectors = {
            name: checkpoint.load(folder / "tau" / f"{name}.safetensors")[0] for name in NAMES
        }

    def save_specialist(self, name, tensors, base_hash=None):
        metadata = {
            "base_hash": base_hash or checkpoint.digest(self.base),
            "generator": name,
            "options": {"lr": 3e-5},
        }
        checkpoint.save(self.folder / "specialists" / f"{name}.safetensors", tensors, metadata)

    def subtract(self, name):
        file = f"{name}.safetensors"
        stages.task_vector(
            base=self.base_file,
            specialist=self.folder / "specialists" / file,
            task_vector=self.folder / "tau" / file,
            head=self.folder / "heads" / file,
        )

    def choose(self, method, options=None, head="average"):
        path = self.folder / "tune.json"
        complete = registry.get(method).options.model_validate(options or {}).model_dump(exclude_none=True)
        path.write_text(
            json.dumps({"variant": "v", "method": method, "head": head, "options": complete, "auc": 0.9})
        )
        return path

    def real_component(self, chosen, threads=1):
        core, report = self.folder / "real.safetensors", self.folder / "real.json"
        stages.real_component(chosen=chosen, task_vectors=self.tau, core=core, report=report, threads=threads)

    def residual(self, chosen, name, threads=1):
        stages.residual(
            chosen=chosen,
            core=self.folder / "real.safetensors",
            task_vectors=self.tau,
            specialist=name,
            residual=self.folder / "residuals" / f"{name}.safetensors",
            report=self.folder / "residuals" / f"{name}.json",
            threads=threads,
        )

    def merge(self, chosen, **inputs):
        none = {"task_vectors": {}, "core": None, "residuals": {}, "statistics": {}, "initial_head": None}
        stages.merge(
            chosen=chosen,
            base=self.base_file,
            heads=files(self.folder / "heads"),
            seed=7,
            model=self.folder / "merged.safetensors",
            report=self.folder / "merged.json",
            **{**none, "threads": 1, **inputs},
        )
        tensors, metadata = checkpoint.load(self.folder / "merged.safetensors")
        return tensors, metadata, json.loads((self.folder / "merged.json").read_text())

    def merge_r2m(self, chosen, threads=1):
        self.real_component(chosen, threads)
        for name in NAMES:
            self.residual(chosen, name, threads)
        return self.merge(chosen, **self.r2m_inputs, threads=threads)

    @property
    def tau(self):
        return files(self.folder / "tau")

    @property
    def r2m_inputs(self):
        return {"core": self.folder / "real.safetensors", "residuals": files(self.folder / "residuals")}


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def test_task_vector_files(workspace):
    tensors, metadata = checkpoint.load(workspace.folder / "tau" / "swap.safetensors")
    expected = random_task_vectors(3)["s1"]
    assert tensors.keys() == expected.keys()
    assert all(torch.allclose(tensors[key], expected[key], atol=1e-6) for key in expected)
    assert metadata["base_hash"] == checkpoint.digest(workspace.base)
    assert metadata["generator"] == "swap"
    assert json.loads(metadata["options"]) == {"lr": 3e-5}
    head, _ = checkpoint.load(workspace.folder / "heads" / "swap.safetensors")
    assert head.keys() == {"head.weight", "head.bias"}
    assert torch.equal(head["head.weight"], workspace.heads["swap"]["head.weight"])


@pytest.mark.parametrize("options", VARIANTS)
def test_staged_route_equals_the_single_function(workspace, options):
    tensors, metadata, report = workspace.merge_r2m(workspace.choose("r2m", options))
    chosen = R2M.model_validate(options)
    update, single_report = merging.merge(registry.get("r2m"), workspace.task_vectors, chosen)
    expected = apply(workspace.base, update)
    expected |= merge_heads(workspace.heads, "average")
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[key], tensor) for key, tensor in expected.items())
    for key, value in single_report.items():
        assert report[key] == value
    assert json.loads(metadata["options"]) == chosen.model_dump(exclude_none=True)
    assert metadata["method"] == "r2m"
    assert metadata["base_hash"] == checkpoint.digest(workspace.base)
    assert json.loads(metadata["inputs"]).keys() == set(NAMES)


@pytest.mark.parametrize("method", ["weight_averaging", "task_arithmetic", "ties", "karcher"])
def test_other_methods(workspace, method):
    tensors, metadata, report = workspace.merge(
        workspace.choose(method, head="specialist:up"), task_vectors=workspace.tau
    )
    chosen = registry.get(method)
    update, _ = merging.merge(chosen, workspace.task_vectors, chosen.options(), base=workspace.base)
    expected = {**apply(workspace.base, update), **workspace.heads["up"]}
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[key], expected[key]) for key in expected)
    assert torch.equal(tensors["position_ids"], torch.arange(5))
    assert (metadata["head"], metadata["seed"]) == ("specialist:up", "7")
    assert report["update_norm"] > 0


def test_a_method_with_statistics(workspace):
    inputs = {"task_vectors": workspace.tau}
    weights = {
        name: {key: torch.full(shape, i + 1.0) for key, shape in SHAPES.items()}
        for i, name in enumerate(NAMES)
    }
    for name, one in weights.items():
        path = workspace.folder / "statistics" / f"{name}.safetensors"
        checkpoint.save(path, one, {"base_hash": checkpoint.digest(workspace.base)})
    statistics = {"statistics": files(workspace.folder / "statistics")}
    tensors, _, _ = workspace.merge(workspace.choose("fisher"), **inputs, **statistics)
    tau = workspace.task_vectors
    expected = sum((i + 1) * tau[name]["pos_embed"] for i, name in enumerate(NAMES)) / 6
    torch.testing.assert_close(
        tensors["pos_embed"], workspace.base["pos_embed"] + expected, atol=1e-6, rtol=0
    )
    with pytest.raises(R2MError, match="fisher takes statistics of every specialist: "):
        workspace.merge(workspace.choose("fisher"), **inputs)
    with pytest.raises(R2MError, match="ties takes no statistics"):
        workspace.merge(workspace.choose("ties"), **inputs, **statistics)
    checkpoint.save(path, weights[NAMES[0]], {"base_hash": "other"})
    with pytest.raises(R2MError, match="made from base other, expected"):
        workspace.merge(workspace.choose("fisher"), **inputs, **statistics)


def test_residual_report(workspace):
    tune = workspace.choose("r2m", {"residual": {"rank": {"fixed": 2}}})
    workspace.real_component(tune)
    workspace.residual(tune, "swap")
    report = json.loads((workspace.folder / "residuals" / "swap.json").read_text())
    one = report["matrices"]["blocks.0.mlp.fc2.weight"]
    assert one["shape"] == [6, 14]
    assert one["rank"] == 2
    assert len(one["residual_values"]) == 6
    exact = torch.linalg.svdvals(workspace.task_vectors["swap"]["blocks.0.mlp.fc2.weight"].double())
    assert one["task_vector_values"] == pytest.approx(exact.tolist(), rel=1e-5)
    assert one["energy"] == pytest.approx(
        sum(value**2 for value in one["residual_values"][:2])
        / sum(value**2 for value in one["residual_values"]),
        rel=1e-5,
    )
    assert "frozen.weight" not in report["matrices"]


def test_reruns_are_identical(workspace):
    tune = workspace.choose("r2m")
    workspace.merge_r2m(tune)
    files = [one for one in sorted(workspace.folder.rglob("*")) if one.is_file()]
    before = {one: one.read_bytes() for one in files}
    workspace.merge_r2m(tune)
    assert {one: one.read_bytes() for one in files} == before


def test_base_head(workspace):
    initial = {"head.weight": torch.full((1, 6), 0.25), "head.bias": torch.zeros(1), "other": torch.ones(1)}
    checkpoint.save(workspace.folder / "initial.safetensors", initial, {})
    tune = workspace.choose("weight_averaging", head="base")
    inputs = {"task_vectors": workspace.tau}
    with pytest.raises(R2MError, match="expected the initial head"):
        workspace.merge(tune, **inputs)
    tensors, _, _ = workspace.merge(tune, **inputs, initial_head=workspace.folder / "initial.safetensors")
    assert torch.equal(tensors["head.weight"], initial["head.weight"])
    assert "other" not in tensors


def test_unchanged_specialist(workspace, caplog):
    workspace.save_specialist("swap", {key: workspace.base[key] for key in SHAPES} | workspace.heads["swap"])
    workspace.subtract("swap")
    assert "task vector is empty" in caplog.text
    tensors, _, _ = workspace.merge_r2m(workspace.choose("r2m"))
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_another_base(workspace):
    workspace.save_specialist("swap", {"pos_embed": workspace.base["pos_embed"]}, base_hash="abc")
    with pytest.raises(R2MError, match=r"swap.safetensors: made from base abc, but .*base.safetensors has"):
        workspace.subtract("swap")
    path = workspace.folder / "tau" / "up.safetensors"
    checkpoint.save(path, workspace.task_vectors["up"], {"base_hash": "other"})
    with pytest.raises(R2MError, match=r"up.safetensors: made from base other, expected"):
        workspace.real_component(workspace.choose("r2m"))
    with pytest.raises(R2MError, match=r"up.safetensors: made from base other, expected"):
        workspace.merge(workspace.choose("ties"), task_vectors=workspace.tau)


def test_specialist_without_head(workspace):
    workspace.save_specialist("swap", {"pos_embed": workspace.base["pos_embed"]})
    with pytest.raises(R2MError, match=r"swap.safetensors: expected tensors named head"):
        workspace.subtract("swap")


def test_specialist_that_diverged(workspace):
    nan = torch.full((1, 5, 6), float("nan"))
    workspace.save_specialist("swap", {"pos_embed": nan, **workspace.heads["swap"]})
    with pytest.raises(R2MError, match="pos_embed: the specialist or the base holds NaN"):
        workspace.subtract("swap")


def test_stale_inputs(workspace):
    tune = workspace.choose("r2m")
    workspace.merge_r2m(tune)
    changed = {**workspace.task_vectors["up"], "pos_embed": torch.ones(1, 5, 6)}
    metadata = checkpoint.read_metadata(workspace.folder / "tau" / "up.safetensors")
    checkpoint.save(workspace.folder / "tau" / "up.safetensors", changed, metadata)
    with pytest.raises(R2MError, match=r"real.safetensors: was made of other task vectors"):
        workspace.residual(tune, "swap")
    workspace.real_component(tune)
    with pytest.raises(R2MError, match="made with another Real component"):
        workspace.merge(tune, **workspace.r2m_inputs)


def test_changed_options(workspace):
    workspace.merge_r2m(workspace.choose("r2m"))
    with pytest.raises(R2MError, match=r"real.safetensors: made with the options .*'rank': 1"):
        workspace.merge(workspace.choose("r2m", {"real": {"rank": 2}}), **workspace.r2m_inputs)
    other = workspace.choose("r2m", {"residual": {"rank": {"ratio": 0.2}}})
    with pytest.raises(R2MError, match=r"lip.safetensors: made with the options .*'ratio': 0.1"):
        workspace.merge(other, **workspace.r2m_inputs)


def test_inputs_that_the_method_does_not_take(workspace):
    inputs = {"task_vectors": workspace.tau}
    with pytest.raises(R2MError, match="r2m takes a Real component and residuals"):
        workspace.merge(workspace.choose("r2m"), **inputs)
    with pytest.raises(R2MError, match="ties takes task vectors only"):
        workspace.merge(workspace.choose("ties"), **inputs, core=Path("x"))
    with pytest.raises(R2MError, match="expected the method r2m, got ties"):
        workspace.real_component(workspace.choose("ties"))
    tune = workspace.choose("r2m")
    workspace.real_component(tune)
    with pytest.raises(R2MError, match="specialist fomm: expected one of lip, swap, up"):
        workspace.residual(tune, "fomm")


def test_swapped_residual_files(workspace):
    tune = workspace.choose("r2m")
    workspace.merge_r2m(tune)
    folder = workspace.folder / "residuals"
    swapped = {**files(folder), "lip": folder / "swap.safetensors"}
    with pytest.raises(R2MError, match="is the residual of 'swap', not of 'lip'"):
        workspace.merge(tune, core=workspace.folder / "real.safetensors", residuals=swapped)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON"),
        ("[]", "expected JSON"),
        ('{"variant": "v", "method": "ties", "head": "average"}', "options"),
        ('{"variant": "v", "method": "tees", "head": "average", "options": {}}', "did you mean 'ties'"),
        (
            '{"variant": "v", "method": "ties", "head": "average", "options": {"keep": 2}}',
            r"tune.json: options.keep: expected a number of at most",
        ),
    ],
)
def test_wrong_tune_files(workspace, text, message):
    path = workspace.folder / "tune.json"
    path.write_text(text)
    with pytest.raises(R2MError, match=message):
        workspace.merge(path, task_vectors=workspace.tau)
    path.unlink()
    with pytest.raises(R2MError, match=r"tune.json: cannot be read"):
        workspace.merge(path, task_vectors=workspace.tau)
