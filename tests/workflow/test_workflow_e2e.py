"""One run of everything: which files come out, and that tables, scores and checkpoints belong together."""

import hashlib
import json
import re
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from sklearn.metrics import roc_auc_score
from workflow_project import Project

from r2m import manifest
from r2m.models import checkpoint
from r2m.models.backbone import Detector
from r2m.models.options import BackboneOptions
from r2m.models.preprocess import load_images, normalization
from r2m.params import load

pytestmark = pytest.mark.slow

FAMILIES = {"swap": "FS", "up": "EFS", "inp": "EFS"}
METHODS = {"weight_averaging": "weight_averaging", "ties": "ties", "r2m_task": "r2m", "r2m": "r2m"}
KINDS = {
    "base": "base",
    "swap": "specialist",
    "up": "specialist",
    "joint": "joint",
    **dict.fromkeys(METHODS, "merge"),
}
PAGES = (
    "main",
    "main_intervals",
    "auc",
    "delong",
    "cross_auc",
    "operating",
    "closest",
    "protocols",
    "protocols_p4",
    "data_card",
    "model_card",
    "settings",
    "runtimes",
)
COLUMNS = [
    *("model", "kind", "method", "test_set", "generator", "family", "domain", "protocol"),
    *(
        "n_real",
        "n_fake",
        "auc",
        "auc_sd",
        "auc_low",
        "auc_high",
        "ap",
        "eer",
        "tpr_at_fpr_1",
        "ece",
        "accuracy",
    ),
]


@pytest.fixture(scope="module")
def table(finished_run: Project) -> pd.DataFrame:
    return pd.read_csv(finished_run / "results/tables/auc.csv", keep_default_na=False)


def backbone(project: Project) -> BackboneOptions:
    return load(project / "params.yaml").backbone


def scores(project: Project, kind: str, model: str) -> pd.DataFrame:
    seed = "" if kind == "base" else "seed0/"
    return pq.read_table(project / f"results/scores/{kind}/{model}/{seed}scores.parquet").to_pandas()


def test_everything_is_there(finished_run: Project) -> None:
    by_variant = [f"{figure}/{name}" for figure in ("pipeline", "spectra") for name in ("r2m", "r2m_task")]
    figures = ["heatmap", "dumbbell", "intervals", "reliability", "tune", *by_variant]
    tables = ["auc", "models", "dumbbell", "intervals", "delong", "reliability", "video", "cross_auc"]
    tables += ["protocols", "protocols_p4", "operating", "calibration", "closest", "cues"]
    expected = [
        *(f"tables/{name}.csv" for name in tables),
        *(
            f"tables/{name}.{suffix}"
            for name in ("main", "main_intervals", "operating", "closest", "protocols", "protocols_p4")
            for suffix in ("md", "tex")
        ),
        *("tables/metrics.json", "tables/onnx.json"),
        *(f"figures/{name}.{suffix}" for name in figures for suffix in ("png", "pdf", "svg")),
        *(f"contact/{name}.png" for name in FAMILIES),
        *(f"pages/{name}.html" for name in PAGES),
        *("data_card.md", "model_card.md", "settings.md", "runtimes.csv", "report.html"),
    ]
    results = finished_run / "results"
    assert [name for name in expected if not results.joinpath(name).is_file()] == []
    assert [name for name in expected if results.joinpath(name).stat().st_size < 20] == []
    assert sorted(path.stem for path in results.glob("figures/spectra/*.png")) == ["r2m", "r2m_task"]
    assert not list(results.rglob("*.tmp*")), "temporary files are left"


def test_table_has_every_model_on_every_test_set(table: pd.DataFrame) -> None:
    assert list(table.columns) == COLUMNS
    expected = {
        (model, f"{domain}/{one}") for model in KINDS for domain in ("drawn", "sketch") for one in FAMILIES
    }
    assert set(zip(table["model"], table["test_set"], strict=True)) == expected
    assert len(table) == len(expected)
    for row in table.to_dict("records"):
        assert row["kind"] == KINDS[row["model"]]
        assert row["method"] == METHODS.get(row["model"], "")
        assert row["family"] == FAMILIES[row["generator"]]
        assert row["test_set"] == f"{row['domain']}/{row['generator']}"
        within = "unseen_generator" if row["generator"] == "inp" else "in_distribution"
        assert row["protocol"] == ("cross_dataset" if row["domain"] == "sketch" else within)
        assert row["n_real"] == row["n_fake"] == 6
    assert (table["auc_sd"] == "").all(), "there is one seed"
    for metric in (one for one in COLUMNS[COLUMNS.index("auc") :] if one != "auc_sd"):
        assert table[metric].between(0, 1).all()
    assert (table["auc_low"] <= table["auc"]).all()
    assert (table["auc"] <= table["auc_high"]).all()


def test_tables_beside_the_metrics(finished_run: Project) -> None:
    tables = {
        name: pd.read_csv(finished_run / f"results/tables/{name}.csv", keep_default_na=False)
        for name in ("delong", "intervals", "video", "cross_auc")
    }
    assert len(tables["delong"]) == (len(KINDS) - 1) * 6
    assert set(tables["delong"]["reference"]) == {"r2m"}
    assert set(tables["intervals"]["model"]) == set(KINDS)
    assert len(tables["video"]) == 0
    assert (
        "no image of the test split names a video" in (finished_run / "results/logs/tables.log").read_text()
    )
    assert set(zip(tables["cross_auc"]["domain"], tables["cross_auc"]["real_domain"], strict=True)) == {
        ("drawn", "sketch"),
        ("sketch", "drawn"),
    }


def test_scores_name_the_people_of_the_manifests(finished_run: Project) -> None:
    rows = scores(finished_run, "merge", "r2m").set_index("image_id")
    known = pd.concat(
        manifest.read(path) for path in finished_run.root.glob("results/f*/*/manifest.parquet")
    ).set_index("image_id")
    assert rows["identity"].tolist() == known.loc[rows.index, "identity"].tolist()
    assert rows["video"].isna().all()


def test_table_is_computed_from_the_scores(finished_run: Project, table: pd.DataFrame) -> None:
    for row in table.to_dict("records"):
        all_rows = scores(finished_run, row["kind"], row["model"])
        test = all_rows[(all_rows["split"] == "test") & (all_rows["domain"] == row["domain"])]
        part = test[test["generator"].isin(["real", row["generator"]])]
        assert row["auc"] == pytest.approx(roc_auc_score(part["label"], part["logit"]), abs=1e-6)


def test_unseen_generators_have_test_images_only(finished_run: Project) -> None:
    splits = {
        name: set(manifest.read(finished_run / f"results/forged/{name}/manifest.parquet")["split"])
        for name in FAMILIES
    }
    assert splits == {"swap": {"train", "val", "test"}, "up": {"train", "val", "test"}, "inp": {"test"}}


@pytest.mark.parametrize("variant", METHODS)
def test_merged_checkpoint_is_a_whole_detector_and_gives_the_scores(
    finished_run: Project, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors, metadata = checkpoint.load(finished_run / f"results/merged/{variant}/seed0/model.safetensors")
    assert metadata["variant"] == variant
    detector = Detector(backbone(finished_run)).eval()
    is_head = {key: key.startswith("head.") for key in tensors}
    detector.backbone.load_state_dict({k: t for k, t in tensors.items() if not is_head[k]}, strict=True)
    detector.head.load_state_dict(
        {k.removeprefix("head."): t for k, t in tensors.items() if is_head[k]}, strict=True
    )
    rows = scores(finished_run, "merge", variant).query("split == 'test'")
    monkeypatch.chdir(finished_run.root)
    paths = pd.concat(
        manifest.read(path)[["image_id", "path"]]
        for path in finished_run.root.glob("results/f*/*/manifest.parquet")
    ).set_index("image_id")["path"]
    mean, std = normalization("test_vit")
    images = (load_images(list(paths[rows["image_id"]]), 32) - mean) / std
    with torch.inference_mode():  # timm's own forward pass, from images and not from cached activations
        logits = detector.head(detector.backbone(images)).squeeze(1)
    torch.testing.assert_close(logits, torch.tensor(rows["logit"].to_numpy()), atol=5e-3, rtol=5e-3)


def test_averaged_weights_are_the_mean_of_the_specialists(finished_run: Project) -> None:
    merged, _ = checkpoint.load(finished_run / "results/merged/weight_averaging/seed0/model.safetensors")
    base, _ = checkpoint.load(finished_run / "results/base/base.safetensors")
    swap, up = (
        checkpoint.load(finished_run / f"results/specialists/{name}/seed0/model.safetensors")[0]
        for name in ("swap", "up")
    )
    assert set(merged) == set(base) | {"head.weight", "head.bias"}
    for key, tensor in merged.items():
        expected = (swap[key] + up[key]) / 2 if key in swap else base[key]
        torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=1e-5)


def test_tuned_methods_tried_equally_many_candidates(finished_run: Project) -> None:
    paths = {name: finished_run / f"results/tune/{name}/seed0/candidates.csv" for name in METHODS}
    tried = {name: len(pd.read_csv(path)) for name, path in paths.items()}
    assert tried == {"weight_averaging": 1, "ties": 4, "r2m_task": 4, "r2m": 4}


def test_a_method_that_needs_statistics(project: Project) -> None:
    project.edit("merge.methods.fisher.enabled", True)
    project.snakemake("--", "results/scores/merge/fisher/seed0/scores.parquet")
    for name in ("swap", "up"):
        path = project / f"results/statistics/fisher/seed0/{name}.safetensors"
        statistics, metadata = checkpoint.load(path)
        specialist, _ = checkpoint.load(project / f"results/specialists/{name}/seed0/model.safetensors")
        assert metadata["count"] == "8"
        assert metadata["specialist_hash"] == checkpoint.digest(specialist)
        assert statistics.keys() == {key for key in specialist if not key.startswith("head.")}
    merged, _ = checkpoint.load(project / "results/merged/fisher/seed0/model.safetensors")
    average, _ = checkpoint.load(project / "results/merged/weight_averaging/seed0/model.safetensors")
    assert not merged["blocks.4.mlp.fc1.weight"].equal(average["blocks.4.mlp.fc1.weight"])
    assert len(scores(project, "merge", "fisher")) == len(scores(project, "merge", "weight_averaging"))


def test_report_holds_every_page_and_figure(finished_run: Project) -> None:
    found = re.search(
        r"var results = (\{.*?\});\n", (finished_run / "results/report.html").read_text(), re.DOTALL
    )
    assert found
    results = json.loads(found[1])
    figures = [
        "heatmap",
        "dumbbell",
        "intervals",
        "reliability",
        "tune",
        "pipeline/r2m",
        "pipeline/r2m_task",
        "spectra/r2m",
        "spectra/r2m_task",
    ]
    assert set(results) == {
        *(f"results/pages/{name}.html" for name in PAGES),
        *(f"results/figures/{name}.svg" for name in figures),
        *(f"results/contact/{name}.png" for name in FAMILIES),
    }
    assert [path for path, one in results.items() if not one["caption"] or not one["labels"]] == []
    assert {one["mime_type"] for one in results.values()} == {"text/html", "image/svg+xml", "image/png"}


def test_report_has_a_runtime_of_every_job(finished_run: Project) -> None:
    """One that is not above zero breaks the logarithmic axis of the report's page of runtimes."""
    text = (finished_run / "results/report.html").read_text()
    found = re.search(r"var runtimes_spec = (\{.*?\});\n", text, re.DOTALL)
    assert found
    assert min(one["runtime"] for one in json.loads(found[1])["data"]["values"]) > 0


def test_code_of_the_model_card_gives_the_scores(
    finished_run: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (finished_run / "results/model_card.md").read_text()
    assert card.startswith("# Model card: r2m\n")
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    threshold = re.search(r"the logit (-?[\d.]+), which", card)
    assert code
    assert threshold
    monkeypatch.chdir(finished_run.root)
    namespace: dict[str, Any] = {}
    exec(code[1], namespace)
    rows = scores(finished_run, "merge", "r2m").query("split == 'test' and set == 'swap'")
    paths = manifest.read("results/forged/swap/manifest.parquet").set_index("image_id")["path"]
    logits = namespace["logits"](load_images(list(paths[rows["image_id"]]), 32))
    torch.testing.assert_close(logits, torch.tensor(rows["logit"].to_numpy()), atol=5e-3, rtol=5e-3)
    models = pd.read_csv(finished_run / "results/tables/models.csv").set_index("model")
    assert float(threshold[1]) == pytest.approx(models.loc["r2m", "threshold"], abs=1e-4)


def test_settings_and_runtimes(finished_run: Project) -> None:
    settings = (finished_run / "results/settings.md").read_text()
    commit = finished_run.git("rev-parse", "HEAD").strip()
    assert f"| git commit | `{commit}` |" in settings
    for path in ("base/base", "joint/seed0/model", "specialists/swap/seed0/model", "merged/r2m/seed0/model"):
        file = finished_run / f"results/{path}.safetensors"
        assert hashlib.sha256(file.read_bytes()).hexdigest() in settings, path
    ran = yaml.safe_load(settings.partition("```yaml\n")[2].partition("```")[0])
    assert set(ran["merge"]["methods"]) == set(METHODS), "fisher is not enabled"
    runtimes = pd.read_csv(finished_run / "results/runtimes.csv").set_index("stage")
    assert runtimes["jobs"].to_dict() == {
        **{"base": 1, "faces": 2, "forge": 3, "trunk": 5, "finetune": 2, "joint": 1, "probe": 1},
        **{
            "task_vector": 2,
            "tune": 4,
            "real_component": 2,
            "residual": 4,
            "merge": 4,
            "score": 8,
            "all": 39,
        },
    }


def test_metrics_name_every_model(finished_run: Project) -> None:
    metrics = json.loads((finished_run / "results/tables/metrics.json").read_text())
    assert set(metrics) == set(KINDS)


def test_second_run_has_nothing_to_do(project: Project) -> None:
    assert "Nothing to be done" in project.snakemake("--quiet", "rules")
