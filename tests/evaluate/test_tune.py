import numpy as np
import pandas as pd
import pytest
import torch

from detector_samples import CONVNET, VIT, load_detector, session_of
from r2m.errors import R2MError
from r2m.evaluate.bench import Bench
from r2m.evaluate.tune import tune
from r2m.merge import merging, registry
from r2m.merge.tensors import apply, merged_shapes
from r2m.merge.variants import MergeVariant
from r2m.models import checkpoint
from r2m.options import combinations, with_dotted
from r2m.train.rows import rows_of
from r2m.train.validation import aucs
from r2m.trunk.inputs import Inputs

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("drawn", "swap", "up")
GENERATORS = ["swap", "up"]
VARIANTS = {
    "weight_averaging": MergeVariant(),
    "task_arithmetic": MergeVariant(tune={"scaling": [0.1, 0.5, 1.0]}),
    "ties": MergeVariant(tune={"keep": [0.2, 0.5], "scaling": [1.0, 2.0]}),
    "slerp": MergeVariant(tune={"t": [0.2, 0.7]}),
    "fisher": MergeVariant(),
    "r2m": MergeVariant(
        real={"space": "matrix"}, tune={"residual.rank.ratio": [0.1, 0.5], "scale.relative": [1.0, 4.0]}
    ),
}


@pytest.fixture
def setting(image_sets, trunk_files, base_files):
    base, _ = checkpoint.load(base_files["vit"])
    generator = torch.Generator().manual_seed(0)
    trained = [name for name in base if name.startswith(("blocks.4.", "blocks.5.", "norm."))]
    task_vectors = {
        name: {key: torch.randn(base[key].shape, generator=generator) * 0.05 for key in trained}
        for name in GENERATORS
    }
    inputs = Inputs(image_sets.paths(*NAMES), [trunk_files[name] for name in NAMES], VIT)
    inputs.asked = []
    fetch = inputs.fetch
    inputs.fetch = lambda rows, *args: (inputs.asked.append(rows), fetch(rows, *args))[1]
    return {
        "detector": load_detector(base_files["vit"], VIT),
        "base": base,
        "task_vectors": task_vectors,
        "head": checkpoint.load(base_files["vit"].parent / "initial_head.safetensors")[0],
        "inputs": inputs,
    }


def tuned(setting, method, options, candidates):
    """Tune on a bench with the parts of a setting, as its files would give them."""
    session = vars(session_of(setting["detector"], setting["inputs"])) | {"base": setting["base"]}
    shapes = merged_shapes(setting["base"])
    bench = Bench(**session, shapes=shapes, task_vectors=setting["task_vectors"], heads={}, initial_head={})
    asked = {"head": setting["head"], "generators": GENERATORS, "statistics": setting.get("statistics")}
    return tune(bench, method, options, candidates, **asked)


def by_hand(setting, method, options, base_file):
    """Val AUC of one candidate, merged by itself into a fresh detector."""
    chosen = registry.get(method)
    complete = chosen.options.model_validate(options)
    known = {"base": setting["base"], "statistics": setting.get("statistics")}
    update, _ = merging.merge(chosen, setting["task_vectors"], complete, **known)
    detector = load_detector(base_file, VIT)
    detector.load_tensors(apply(setting["base"], update))
    fakes, reals = rows_of(setting["inputs"], GENERATORS, "val")
    session = session_of(detector, setting["inputs"])
    found = aucs(fakes, session.predict(fakes), reals, session.predict(reals))
    return np.mean(list(found.values()))


@pytest.mark.parametrize("method", VARIANTS)
def test_candidates_equal_merging_by_hand(setting, base_files, method):
    variant = VARIANTS[method]
    if registry.get(method).statistics is not None:
        setting["statistics"] = {
            name: {key: tensor.abs() for key, tensor in tensors.items()}
            for name, tensors in setting["task_vectors"].items()
        }
    chosen, _, rows = tuned(setting, method, variant.options, combinations(variant.tune))
    assert len(rows) == len(combinations(variant.tune))
    assert [row["candidate"] for row in rows] == list(range(len(rows)))
    for row, values in zip(rows, combinations(variant.tune), strict=True):
        assert {key: row[key] for key in values} == values
        options = with_dotted(variant.options, values)
        assert row["val_auc"] == by_hand(setting, method, options, base_files["vit"])
        assert row["val_auc"] == pytest.approx((row["val_auc.swap"] + row["val_auc.up"]) / 2)
    best = max(row["val_auc"] for row in rows)
    first = next(row for row in rows if row["val_auc"] == best)
    assert [row["chosen"] for row in rows] == [row is first for row in rows]
    values = combinations(variant.tune)[first["candidate"]]
    expected = registry.get(method).options.model_validate(with_dotted(variant.options, values))
    assert chosen == expected.model_dump(mode="json")


def test_only_val_images_are_read(setting):
    variant = VARIANTS["ties"]
    tuned(setting, "ties", variant.options, combinations(variant.tune))
    assert set(pd.concat(setting["inputs"].asked)["split"]) == {"val"}


def test_of_equals_the_first_is_chosen(setting):
    candidates = [{"scaling": 0.0}, {"scaling": 0.5}, {"scaling": 0.5}, {"scaling": 0.0}]
    chosen, _, rows = tuned(setting, "task_arithmetic", {}, candidates)
    assert rows[0]["val_auc"] == rows[3]["val_auc"]
    assert rows[1]["val_auc"] == rows[2]["val_auc"]
    assert [row["chosen"] for row in rows].count(True) == 1
    best = 0 if rows[0]["val_auc"] >= rows[1]["val_auc"] else 1
    assert rows[best]["chosen"]
    assert chosen == {"scaling": candidates[best]["scaling"]}


def test_a_candidate_that_breaks_down_is_not_chosen(setting):
    candidates = [{"scaling": 1e38}, {"scaling": 0.1}]
    _, _, rows = tuned(setting, "task_arithmetic", {}, candidates)
    assert rows[1]["chosen"]
    assert pd.isna(rows[0]["val_auc"])
    with pytest.raises(R2MError, match="task_arithmetic: no candidate gives finite logits on the val split"):
        tuned(setting, "task_arithmetic", {}, candidates[:1])


def test_statistics_of_other_specialists(setting):
    setting["statistics"] = {"swap": {}, "lip": {}}
    with pytest.raises(R2MError, match="statistics: expected those of swap, up, got lip, swap"):
        tuned(setting, "fisher", {}, [{}])


def test_no_trunk(image_sets, base_files, setting):
    base, _ = checkpoint.load(base_files["convnet"])
    tau = {key: torch.full_like(t, 1e-3) for key, t in base.items() if t.is_floating_point()}
    setting |= {
        "base": base,
        "detector": load_detector(base_files["convnet"], CONVNET),
        "head": checkpoint.load(base_files["convnet"].parent / "initial_head.safetensors")[0],
        "task_vectors": {"swap": tau, "up": {key: -t for key, t in tau.items()}},
        "inputs": Inputs(image_sets.paths(*NAMES), [], CONVNET),
    }
    _, _, rows = tuned(setting, "weight_averaging", {}, [{}])
    assert 0 <= rows[0]["val_auc"] <= 1
    assert rows[0]["chosen"]


def test_missing_val_images(setting, image_sets):
    setting["inputs"] = Inputs(image_sets.paths("drawn", "sketch"), [], CONVNET)
    with pytest.raises(R2MError, match="generator swap: no fakes in the split 'val'"):
        tuned(setting, "weight_averaging", {}, [{}])
