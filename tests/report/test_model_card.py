"""The model card of small models: its facts, and its code, which has to load the model."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from detector_samples import BACKBONES, IDENTITIES, SIZE, load_detector
from r2m.data.options import FacesOptions
from r2m.errors import R2MError
from r2m.evaluate.metrics import METRICS, Metric
from r2m.models import checkpoint
from r2m.models.config import KEY, config_of
from r2m.models.decision import Decision, OperatingPoint
from r2m.models.precision import autocast
from r2m.models.preprocess import normalization
from r2m.report.model_card import Sources, training_counts
from r2m.report.origins import CardContext
from r2m.report.stages import model_card

pytestmark = pytest.mark.usefixtures("one_thread")

CONTEXT = CardContext.model_validate(
    {
        "generators": {
            "up": {"family": "EFS", "forge": "up", "label": "Upsampler"},
            "swap": {"family": "FS", "forge": "swap", "label": "Face swap"},
            "inp": {"family": "FE", "role": "unseen", "images": "my/fakes"},
        },
        "domains": {
            "drawn": {"role": "train", "label": "Drawn", "images": {"folder": "drawn"}, "identity": "file"},
            "sketch": {"role": "test", "images": {"folder": "sketch"}, "identity": "file"},
        },
    }
)
FACES = FacesOptions(crop_size=48)
OPTIONS = {"real": {"space": "matrix", "center": False}, "scale": {"relative": 2.0}}
HEADER = "s\tmax_rss\tcpu_time\n"


def row(generator: str, domain: str, protocol: str, auc: float, model: str = "r2m") -> dict[str, Any]:
    metrics = {"auc": auc, "ap": 0.8, "eer": 0.2, "tpr_at_fpr_1": 0.3, "ece": 0.1, "accuracy": 0.7}
    return {
        "model": model,
        "kind": "merge",
        "generator": generator,
        "domain": domain,
        "protocol": protocol,
        **metrics,
    }


@pytest.fixture
def make(tmp_path: Path, base_files: dict[str, Path], image_sets: Any) -> Callable[[str], Sources]:
    """Write what a card is made from, for one of the small backbones."""

    def make_files(backbone: str) -> Sources:
        base, _ = checkpoint.load(base_files[backbone])
        head, _ = checkpoint.load(base_files[backbone].parent / "initial_head.safetensors")
        checkpoint.save(
            tmp_path / "base.safetensors",
            base,
            {"source": "w.pt", "backbone": BACKBONES[backbone].model_dump()},
        )
        merged = {"variant": "r2m", "method": "r2m", "head": "average", "options": OPTIONS}
        points = (OperatingPoint(fpr=0.01, threshold=0.8), OperatingPoint(fpr=0.05, threshold=0.6))
        fitted = Decision(slope=0.5, offset=1.25, threshold=0.7, operating_points=points)
        config = config_of(BACKBONES[backbone], FACES, "fp32").model_copy(update=dict(fitted))
        checkpoint.save(
            tmp_path / "model.safetensors", base | head, {**merged, KEY: config.model_dump(mode="json")}
        )
        for name, auc in {"swap": 0.91, "up": 0.82}.items():
            provenance = {"generators": [name], "selected": {"step": 2, "val_auc": auc}}
            checkpoint.save(tmp_path / f"{name}.safetensors", head, provenance)
        numbers = {
            "lambda": 1.234,
            "core_norm": 0.5,
            "update_norm": 0.6,
            "mean_residual_norm": 0.2,
            "remaining_share": 0.25,
        }
        (tmp_path / "report.json").write_text(json.dumps(numbers))
        (tmp_path / "chosen.json").write_text(
            json.dumps({"tuned": {"scale.relative": 2.0}, "val_auc": 0.876})
        )
        rows = [
            row("swap", "drawn", "in_distribution", 0.9),
            row("up", "drawn", "in_distribution", 0.7),
            row("inp", "drawn", "unseen_generator", 0.4),
            row("swap", "drawn", "in_distribution", 0.1, model="ties"),
        ]
        pd.DataFrame(rows).to_csv(tmp_path / "auc.csv", index=False)
        models = [("r2m", "merge", -0.5, 0.75), ("ties", "merge", 9.0, 0.5)]
        columns = ["model", "kind", "threshold", "val_balanced_accuracy"]
        pd.DataFrame(models, columns=columns).to_csv(tmp_path / "models.csv", index=False)
        means = [
            {"model": model, "kind": "merge", "protocol": protocol, "part": part}
            | {"auc": auc, "low": auc - 0.05, "high": auc + 0.05}
            for model, protocol, part, auc in (
                ("r2m", "in_distribution", "FS", 0.9),
                ("r2m", "in_distribution", "mean", 0.8),
                ("r2m", "unseen_generator", "mean", 0.4),
                ("ties", "in_distribution", "mean", 0.1),
            )
        ]
        pd.DataFrame(means).to_csv(tmp_path / "intervals.csv", index=False)
        protocols = ("in_distribution", "unseen_generator")
        estimates = {"fpr_reached": 0.03, "fpr_low": 0.01, "fpr_high": 0.05}
        estimates |= {"tpr": 0.9, "tpr_low": 0.8, "tpr_high": 0.95}
        points = [
            {"model": "r2m", "kind": "merge", "protocol": protocol, "fpr": fpr, **estimates}
            for protocol in protocols
            for fpr in (0.01, 0.05)
        ]
        pd.DataFrame(points).to_csv(tmp_path / "operating.csv", index=False)
        errors = {"ece_before": 0.3, "ece_before_low": 0.25, "ece_before_high": 0.35}
        errors |= {"ece": 0.1, "ece_low": 0.05, "ece_high": 0.15}
        calibrated = [
            {"model": "r2m", "kind": "merge", "protocol": protocol, **errors} for protocol in protocols
        ]
        pd.DataFrame(calibrated).to_csv(tmp_path / "calibration.csv", index=False)
        formats = {
            "torch": {"auc": 0.9, "difference": 0.0},
            "fp32": {"auc": 0.9, "difference": 0.0, "megabytes": 230.4},
            "int8": {"auc": 0.8976, "difference": 4.1, "megabytes": 60.0},
        }
        parity = {"images": 240, "opset": 18, "formats": formats}
        (tmp_path / "onnx.json").write_text(json.dumps(parity))
        benchmarks = {
            "finetune/swap": 100,
            "finetune/up": 50,
            "tune/r2m": 7,
            "tune/ties": 500,
            "residual/r2m/up": 3,
        }
        measured: dict[str, dict[str, Path]] = {}
        for name, seconds in {**benchmarks, "merge/r2m_task": 1000, "joint": 2000}.items():
            path = tmp_path / "benchmarks" / f"{name}.tsv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{HEADER}{2 * seconds}\t{10 * seconds}\t{seconds}\n")
            stage, _, job = name.partition("/")
            measured.setdefault(stage, {})[job] = path
        receipt = {"package": "P", "version": "1", "sha256": "00", "licence": "research only", "files": {}}
        (tmp_path / "receipt.json").write_text(json.dumps(receipt))
        return Sources(
            model=tmp_path / "model.safetensors",
            report=tmp_path / "report.json",
            chosen=tmp_path / "chosen.json",
            base=tmp_path / "base.safetensors",
            specialists={name: tmp_path / f"{name}.safetensors" for name in ("swap", "up")},
            manifests=image_sets.paths("drawn", "swap", "up"),
            receipts=[tmp_path / "receipt.json"],
            table=tmp_path / "auc.csv",
            models=tmp_path / "models.csv",
            intervals=tmp_path / "intervals.csv",
            operating=tmp_path / "operating.csv",
            calibration=tmp_path / "calibration.csv",
            onnx=tmp_path / "onnx.json",
            benchmarks=measured,
        )

    return make_files


@pytest.fixture
def files(make: Callable[[str], Sources]) -> Sources:
    return make("vit")


def card(files: Sources, out: Path, context: CardContext = CONTEXT, precision: str = "fp32") -> str:
    described = {"label": "R²M, matrix space", "context": context, "faces": FACES}
    model_card(**vars(files), **described, device="cpu", precision=precision, out=out)
    return out.read_text(encoding="utf-8")


def test_parts_and_their_hashes(files: Sources, tmp_path: Path) -> None:
    text = card(files, tmp_path / "card.md")
    assert text.startswith("# Model card: R²M, matrix space\n")
    train = IDENTITIES["train"]
    for name, title, auc in (("swap", "Face swap", "0.910"), ("up", "Upsampler", "0.820")):
        digest = checkpoint.digest(checkpoint.load(tmp_path / f"{name}.safetensors")[0])
        counts = f"{train} fakes of {title}, {train} reals of Drawn"
        assert re.search(rf"\| specialist {title} \(\w+\) \| {counts} \| {auc} \| `{digest}` \|", text)
    assert text.index("specialist Upsampler") < text.index("specialist Face swap"), "as in params.yaml"
    assert checkpoint.digest(checkpoint.load(tmp_path / "base.safetensors")[0]) in text
    assert (
        f"| **merged model** | – | 0.876 | `{checkpoint.digest(checkpoint.load(files.model)[0])}` |" in text
    )
    assert hashlib.sha256(files.model.read_bytes()).hexdigest() in text


def test_onnx(files: Sources, tmp_path: Path) -> None:
    text = card(files, tmp_path / "card.md")
    assert "opset 18" in text
    assert "on 240 aligned faces of the val split" in text
    assert "| ONNX, fp32 | 0.9000 | 0.000 | 230 |" in text
    assert "| ONNX, matrices in 8 bits (`--int8`) | 0.8976 | 4.100 | 60 |" in text
    files.onnx.write_text(json.dumps({"opset": 18, "reason": "torch cannot write this network as ONNX"}))
    text = card(files, tmp_path / "card.md")
    assert "It cannot be written as ONNX: torch cannot write this network as ONNX\n" in text


def test_merge_metrics_and_cost(files: Sources, tmp_path: Path) -> None:
    text = card(files, tmp_path / "card.md")
    assert "| `scale.relative` | 2.0 | yes |" in text
    assert "| `real.center` | false |  |" in text
    assert "λ = 1.234" in text
    assert "Classifier head: the mean of the specialists' heads." in text
    metrics = "0.800 | 0.200 | 0.300 | 0.100 | 0.700 |"
    assert f"| In distribution | 0.700 (Upsampler, Drawn) | 0.800 [0.750, 0.850] | 2 | {metrics}" in text
    assert f"| Unseen generators | 0.400 (inp, Drawn) | 0.400 [0.350, 0.450] | 1 | {metrics}" in text
    assert "the logit -0.5000, which has the greatest balanced accuracy on the val split (0.750)" in text
    assert "| finetune | 2 | 150 | 300 | 1000 |" in text
    assert "| tune | 1 | 7 | 14 | 70 |" in text
    assert "| all | 4 | 160 | 320 | 1000 |" in text
    assert "| P 1 | research only |" in text


def test_decisions(files: Sources, tmp_path: Path) -> None:
    text = card(files, tmp_path / "card.md")
    assert "sigmoid(0.5 · logit + 1.25)" in text
    assert "What has at least 0.7000 is best called fake there." in text
    cells = "0.03 [0.01, 0.05] / 0.90 [0.80, 0.95]"
    assert f"| 1 % | 0.8000 | {cells} | {cells} |" in text
    assert f"| 5 % | 0.6000 | {cells} | {cells} |" in text
    assert "| before | 0.30 [0.25, 0.35] | 0.30 [0.25, 0.35] |" in text
    assert "| after | 0.10 [0.05, 0.15] | 0.10 [0.05, 0.15] |" in text


def test_videos_have_a_column_where_there_are_some(files: Sources, tmp_path: Path) -> None:
    assert "of videos" not in card(files, tmp_path / "card.md")
    means = pd.read_csv(files.intervals)
    of_videos = means["auc"].where(means["protocol"] == "in_distribution") + 0.123
    means.assign(video_auc=of_videos).to_csv(files.intervals, index=False)
    text = card(files, tmp_path / "card.md")
    assert "| mean AUC | mean AUC of videos | test sets |" in text
    assert "| 0.800 [0.750, 0.850] | 0.923 | 2 |" in text
    assert "| 0.400 [0.350, 0.450] | – | 1 |" in text


def test_images_of_a_data_set_are_told(files: Sources, tmp_path: Path) -> None:
    raw = CONTEXT.model_dump()
    raw["datasets"] = {"df40": {"index": "df40.parquet"}}
    raw["domains"]["drawn"] |= {"images": None, "dataset": "df40"}
    text = card(files, tmp_path / "card.md", CardContext.model_validate(raw))
    assert (
        "Images of Drawn were not encoded again, all others were encoded as JPEG of quality 70 to 95" in text
    )
    assert "Images: the aligned crops of df40 as they are, then brought to" in text
    raw["datasets"]["df40"] |= {"encode": "jpeg", "aligned": False}
    text = card(files, tmp_path / "card.md", CardContext.model_validate(raw))
    assert "All images were encoded as JPEG" in text
    assert "YuNet finds the largest face" in text


def test_limits_are_those_of_the_run(files: Sources, tmp_path: Path) -> None:
    text = card(files, tmp_path / "card.md")
    assert "none is of DF40" in text
    assert "(AUC below 0.5): inp (Drawn)." in text
    raw = CONTEXT.model_dump()
    for name in ("up", "swap"):
        raw["generators"][name] |= {"forge": None, "images": "x"}
    auc = pd.read_csv(files.table).assign(auc=0.6)
    auc.to_csv(files.table, index=False)
    text = card(files, tmp_path / "card.md", CardContext.model_validate(raw))
    assert "DF40" not in text
    assert "below 0.5" not in text


def test_results_from_another_machine(files: Sources, tmp_path: Path) -> None:
    text = card(replace(files, benchmarks={}), tmp_path / "card.md")
    assert "Not measured: the model was made on another machine than this card." in text


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_code_of_the_card_loads_the_model(
    make: Callable[[str], Sources], base_files: dict[str, Path], tmp_path: Path, backbone: str, precision: str
) -> None:
    text = card(make(backbone), tmp_path / "card.md", precision=precision)
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found
    assert ("img_size=32" in found[1]) == (backbone == "vit")
    namespace: dict[str, Any] = {}
    exec(found[1], namespace)
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    options = BACKBONES[backbone].model_copy(update={"trainable_blocks": "all"})
    detector = load_detector(base_files[backbone], options).eval()
    mean, std = normalization(options.name)
    with torch.inference_mode(), autocast(torch.device("cpu"), precision):
        expected = detector((images - mean) / std)
    torch.testing.assert_close(namespace["logits"](images), expected.float())
    torch.testing.assert_close(
        namespace["probabilities"](images), torch.sigmoid(0.5 * expected.float() + 1.25)
    )


def test_metrics_of_the_card_are_those_of_the_registry(
    files: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS, "half", Metric("half of it", lambda predictions: 0.5, digits=1))
    pd.read_csv(files.table).assign(half=0.5).to_csv(files.table, index=False)
    text = card(files, tmp_path / "card.md")
    assert "| ECE | accuracy | half of it |" in text
    assert "| 0.100 | 0.700 | 0.5 |" in text
    monkeypatch.setitem(METRICS, "half", replace(METRICS["half"], averaged=False))
    assert "half of it" not in card(files, tmp_path / "card.md")


def test_counts_are_of_the_training_split(image_sets: Any) -> None:
    images = pd.concat(pd.read_parquet(path) for path in image_sets.paths("drawn", "sketch", "swap", "up"))
    count = IDENTITIES["train"]
    assert training_counts(images, ["swap"]) == ({"swap": count}, {"drawn": count})
    assert training_counts(images, ["swap", "up"]) == ({"swap": count, "up": count}, {"drawn": count})


def test_wrong_files_are_named(files: Sources, tmp_path: Path) -> None:
    with pytest.raises(
        R2MError, match=r"swap\.safetensors: expected a checkpoint of the workflow; its metadata lack variant"
    ):
        card(replace(files, model=tmp_path / "swap.safetensors"), tmp_path / "card.md")
    with pytest.raises(
        R2MError,
        match=r"swap\.safetensors: expected a checkpoint of the workflow; its metadata lack backbone",
    ):
        card(replace(files, base=tmp_path / "swap.safetensors"), tmp_path / "card.md")
    with pytest.raises(R2MError, match=r"model\.safetensors: expected a checkpoint .* lack generators"):
        card(replace(files, specialists={"swap": files.model}), tmp_path / "card.md")
    with pytest.raises(R2MError, match=r"chosen\.json: expected the report of a merge with update_norm"):
        card(replace(files, report=files.chosen), tmp_path / "card.md")
    with pytest.raises(R2MError, match=r"gone\.json: cannot read the chosen options"):
        card(replace(files, chosen=tmp_path / "gone.json"), tmp_path / "card.md")
    pd.read_csv(files.table).query("model == 'ties'").to_csv(files.table, index=False)
    with pytest.raises(R2MError, match=r"auc\.csv: no merged model 'r2m'"):
        card(files, tmp_path / "card.md")
    assert not (tmp_path / "card.md").exists()
