"""The model card: what a merged detector is made of, how well it does, what it is for, and how to load it."""

import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import timm

from r2m import manifest
from r2m.data.options import FacesOptions
from r2m.data.sources import read_receipt
from r2m.errors import R2MError
from r2m.evaluate.metrics import METRICS
from r2m.evaluate.protocols import PROTOCOLS, read_table
from r2m.merge import registry
from r2m.models import checkpoint
from r2m.models.config import read_config
from r2m.models.decision import Decision
from r2m.models.digests import weights_digest
from r2m.models.options import BackboneOptions
from r2m.models.preprocess import normalization
from r2m.models.weights import open_weights
from r2m.report.data_card import not_encoded
from r2m.report.numbers import limits, number
from r2m.report.origins import CardContext, built_in
from r2m.report.runtimes import TOTAL, read_benchmarks, runtime_table
from r2m.report.table import MISSING, markdown_table
from r2m.version import __version__

SHARED_STAGES = ("finetune", "task_vector")
OWN_STAGES = ("statistics", "tune", "real_component", "residual", "merge")
USE = (
    "Research on merging detectors in weight space, and on how far detectors generalise to forgeries that "
    "they were not trained on. It is not made for decisions about people: a score is no evidence that a "
    "photograph is forged, or that it is not."
)
LOADING = '''\
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

tensors = load_file("{path}")
backbone = timm.create_model("{name}", num_classes=0{arguments}).eval()
backbone.load_state_dict({{key: one for key, one in tensors.items() if not key.startswith("head.")}})
mean = torch.tensor({mean}).view(3, 1, 1)
std = torch.tensor({std}).view(3, 1, 1)


def logits(images: torch.Tensor) -> torch.Tensor:
    """Logits (B,) of "fake" for RGB images (B, 3, {size}, {size}) in [0, 1]."""
    with torch.inference_mode(){autocast}:
        features = backbone((images - mean) / std)
        return F.linear(features, tensors["head.weight"], tensors["head.bias"]).squeeze(1).float()


def probabilities(images: torch.Tensor) -> torch.Tensor:
    """Calibrated probabilities (B,) of "fake", which is best called what has at least {threshold:.4f}."""
    return torch.sigmoid({slope:.6g} * logits(images) + {offset:.6g})
'''


@dataclass(frozen=True)
class Sources:
    """What the card is made from: `specialists` by name, `benchmarks` by stage and job, if there are any."""

    model: Path
    report: Path
    chosen: Path
    base: Path
    specialists: Mapping[str, Path]
    manifests: Sequence[Path]
    receipts: Sequence[Path]
    table: Path
    models: Path
    intervals: Path
    operating: Path
    calibration: Path
    onnx: Path
    benchmarks: Mapping[str, Mapping[str, Path]]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: its metadata, the hash of its tensors, and how many tensors and parameters it has."""

    metadata: dict[str, str]
    digest: str
    tensors: int
    parameters: int


def compose_model_card(
    sources: Sources, faces: FacesOptions, label: str, context: CardContext, reduced: bool
) -> str:
    """Compose the card of a merged model, scored in bf16 autocast (`reduced`) or in fp32, as Markdown.

    Raises:
        R2MError: a file that is missing or of another kind, or a model that the tables do not hold.
    """
    merged = read_checkpoint(sources.model, "variant", "method", "head", "options")
    base = read_checkpoint(sources.base, "backbone")
    specialists = {
        name: read_checkpoint(path, "generators", "selected") for name, path in sources.specialists.items()
    }
    variant = merged.metadata["variant"]
    backbone = BackboneOptions.model_validate_json(base.metadata["backbone"])
    images = manifest.concat(manifest.read(path) for path in sources.manifests)
    scores, models, means, operating, calibration = (
        read_metrics(path, variant)
        for path in (
            *(sources.table, sources.models, sources.intervals),
            *(sources.operating, sources.calibration),
        )
    )
    config = read_config(merged.metadata, sources.model)
    row = models.iloc[0]
    report = _read_json(sources.report, "update_norm", "the report of a merge")
    chosen = _read_json(sources.chosen, "val_auc", "the chosen options")
    onnx = _read_json(sources.onnx, "opset", "the comparison with ONNX")
    sections = [
        [f"# Model card: {label}", "", *_summary(merged, specialists, backbone)],
        ["## What it is made of", "", *_parts(sources, merged, base, specialists, images, chosen, context)],
        ["## How it was merged", "", *_merging(merged, report, chosen, context)],
        ["## Metrics", "", *_metrics(scores, row, means, context)],
        ["## Probabilities and decisions", "", *_decisions(config, operating, calibration)],
        ["## Intended use", "", USE],
        ["## Limits", "", *_limits(scores, images, backbone, faces, context)],
        [
            "## How to load it",
            "",
            *_loading(sources.model, backbone, _alignment(faces, context), config, reduced),
        ],
        ["## As ONNX", "", *_onnx(onnx, sources.model)],
        ["## What it took", "", *_cost(sources.benchmarks, variant)],
        ["## Versions", "", *_versions(merged)],
        ["## Licences", "", *_licences(sources.receipts)],
    ]
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def read_checkpoint(path: Path, *required: str) -> Checkpoint:
    """Read a checkpoint's metadata and hash its tensors; raises R2MError if `required` keys are missing."""
    with open_weights(path) as weights:
        stated = checkpoint.read_metadata(path)
        missing = [key for key in required if key not in stated]
        if missing:
            raise R2MError(f"{path}: expected a checkpoint of the workflow; its metadata lack {missing[0]}")
        count = sum(entry.numel for entry in weights.entries.values())
        return Checkpoint(stated, weights_digest(weights), len(weights.entries), count)


def read_metrics(path: Path, variant: str) -> pd.DataFrame:
    """Return a merge's rows of one of results/tables; raises R2MError if there are none."""
    table = read_table(path)
    rows = table[(table["model"] == variant) & (table["kind"] == "merge")]
    if rows.empty:
        raise R2MError(f"{path}: no merged model {variant!r}")
    return rows


def training_counts(images: pd.DataFrame, generators: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the number of fakes per generator and of reals per domain that `generators` are learned from."""
    train = images[images["split"] == "train"]
    fakes = train[train["generator"].isin(generators) & (train["label"] == 1)]
    reals = train[train["domain"].isin(set(fakes["domain"])) & (train["label"] == 0)]
    by_generator = {name: int((fakes["generator"] == name).sum()) for name in generators}
    return by_generator, {str(name): int(count) for name, count in reals["domain"].value_counts().items()}


def _summary(
    merged: Checkpoint, specialists: Mapping[str, Checkpoint], backbone: BackboneOptions
) -> list[str]:
    method = registry.get(merged.metadata["method"])
    kept = "" if backbone.blocks == "all" else f"the lowest {backbone.blocks} blocks of "
    return [
        f"A detector of forged faces with one logit, that of “fake”. Backbone: {kept}`{backbone.name}` of"
        f" timm at {backbone.image_size} px. Its weights are merged from {len(specialists)} specialists by"
        f" {method.title}, without training on their generators together.",
        "",
        f"Method: {method.citation}.",
    ]


def _parts(
    sources: Sources,
    merged: Checkpoint,
    base: Checkpoint,
    specialists: Mapping[str, Checkpoint],
    images: pd.DataFrame,
    chosen: Mapping[str, Any],
    context: CardContext,
) -> list[str]:
    rows = [(f"base, from `{base.metadata.get('source', sources.base.name)}`", "–", "–", f"`{base.digest}`")]
    for name in sorted(specialists, key=_position(context)):
        specialist = specialists[name]
        fakes, reals = training_counts(images, json.loads(specialist.metadata["generators"]))
        counted = [f"{n} fakes of {context.generator_label(generator)}" for generator, n in fakes.items()]
        counted += [f"{n} reals of {context.domain_label(domain)}" for domain, n in reals.items()]
        selected = json.loads(specialist.metadata["selected"])["val_auc"]
        origin = context.generators.get(name)
        title = f"specialist {context.generator_label(name)}{f' ({origin.family})' if origin else ''}"
        rows.append((title, ", ".join(counted), number(selected), f"`{specialist.digest}`"))
    rows.append(("**merged model**", "–", number(chosen["val_auc"]), f"`{merged.digest}`"))
    with open(sources.model, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return [
        *markdown_table(["part", "training images", "val AUC", "digest of the tensors"], rows, "llll"),
        "",
        f"The merged model is `{sources.model}`: {merged.tensors} tensors, {merged.parameters / 1e6:.1f}"
        f" million parameters, {sources.model.stat().st_size / 1e6:.1f} MB. SHA-256 of the file: `{digest}`."
        " The digests in the table are of names, types, shapes and values, whatever file holds them.",
        "",
        "Val AUC: of a specialist on its own generators, of the merged model the mean over all trained ones."
        " The test split took part in neither. `results/data_card.md` says what the images are.",
    ]


def _merging(
    merged: Checkpoint, report: Mapping[str, Any], chosen: Mapping[str, Any], context: CardContext
) -> list[str]:
    tuned = chosen.get("tuned", {})
    options = _dotted(json.loads(merged.metadata["options"]))
    rows = [
        (f"`{name}`", value if isinstance(value, str) else json.dumps(value), "yes" if name in tuned else "")
        for name, value in options.items()
    ]
    head, _, name = merged.metadata["head"].partition(":")
    heads = {
        "average": "the mean of the specialists' heads",
        "base": "the initial head of all specialists",
        "specialist": f"that of {context.generator_label(name)}",
    }
    header = ["option", "value", "chosen on val"]
    lines = [*markdown_table(header, rows, "lll"), ""] if rows else ["No options.", ""]
    if "lambda" in report:
        lines += [
            f"The residuals are added with λ = {report['lambda']:.4g}. The Real component has the norm"
            f" {report['core_norm']:.4g}, the mean residual {report['mean_residual_norm']:.4g}:"
            f" {100 * report['remaining_share']:.0f} % of what the residuals have before averaging.",
            "",
        ]
    return [*lines, f"Classifier head: {heads.get(head, head)}. It is no part of the merge of the weights."]


def _metrics(scores: pd.DataFrame, row: pd.Series, means: pd.DataFrame, context: CardContext) -> list[str]:
    averages = means[means["part"] == "mean"].set_index("protocol")
    # The column is there only where some test set is of videos.
    of_videos = pd.to_numeric(averages.get("video_auc", pd.Series(dtype=float)))
    averaged = {name: metric for name, metric in METRICS.items() if name != "auc" and metric.averaged}
    rows = []
    for protocol, title in PROTOCOLS.items():
        on_protocol = scores[scores["protocol"] == protocol]
        if len(on_protocol):
            least = on_protocol.nsmallest(1, "auc").iloc[0]
            where = f"{context.generator_label(least['generator'])}, {context.domain_label(least['domain'])}"
            auc, low, high = (float(averages[column][protocol]) for column in ("auc", "low", "high"))
            other_metrics = [
                number(on_protocol[name].mean(), metric.digits) for name, metric in averaged.items()
            ]
            interval = f"{number(auc)} {limits(low, high)}"
            lowest = f"{number(least['auc'])} ({where})"
            video = [] if of_videos.empty else [number(of_videos[protocol]).replace("nan", MISSING)]
            rows.append((title, lowest, interval, *video, len(on_protocol), *other_metrics))
    titles = [metric.title for metric in averaged.values()]
    video_title = [] if of_videos.empty else ["mean AUC of videos"]
    header = ["protocol", "lowest AUC", "mean AUC", *video_title, "test sets", *titles]
    return [
        *markdown_table(header, rows, "lll" + "r" * (len(header) - 3)),
        "",
        "Means over the test sets of a protocol; a test set is the fakes of one generator against the reals"
        " of the same domain. In brackets: 95 % intervals, from a bootstrap of people. Every model on every"
        " set, and what the metrics are: `results/tables/auc.csv` and its caption. Accuracy is at one"
        f" threshold for all sets, the logit {row['threshold']:.4f}, which has the greatest balanced accuracy"
        f" on the val split ({number(row['val_balanced_accuracy'])}).",
    ]


def _decisions(fitted: Decision, operating: pd.DataFrame, calibration: pd.DataFrame) -> list[str]:
    protocols = {name: title for name, title in PROTOCOLS.items() if (operating["protocol"] == name).any()}
    rows = []
    for point in fitted.operating_points:
        own = operating[operating["fpr"] == point.fpr].set_index("protocol")
        reached, caught = _with_limits(own, "fpr_reached", "fpr"), _with_limits(own, "tpr", "tpr")
        told = [f"{reached[name]} / {caught[name]}" for name in protocols]
        rows.append((f"{100 * point.fpr:g} %", f"{point.threshold:.4f}", *told))
    errors = calibration.set_index("protocol")
    before, after = (_with_limits(errors, column, column) for column in ("ece_before", "ece"))
    columns = [f"{title}: FPR / TPR" for title in protocols.values()]
    return [
        f"The probability of “fake” is sigmoid({fitted.slope:.6g} · logit + {fitted.offset:.6g}). It"
        " was fitted on the val split, where reals and fakes weigh the same (Platt scaling). What has at"
        f" least {fitted.threshold:.4f} is best called fake there. Between the thresholds of the operating"
        " points, which had the stated false positive rates on val, `r2m detect` answers `unsure`.",
        "",
        *markdown_table(["FPR on val", "probability", *columns], rows, "l" * (2 + len(columns))),
        "",
        "FPR: the false positive rate that a threshold reaches on test. TPR: the share of fakes it catches.",
        "",
        *markdown_table(
            ["expected calibration error", *protocols.values()],
            [
                (name, *(cells[p] for p in protocols))
                for name, cells in (("before", before), ("after", after))
            ],
            "l" * (1 + len(protocols)),
        ),
    ]


def _with_limits(rows: pd.DataFrame, column: str, name: str) -> pd.Series:
    """Return the values of a column, with the limits of their intervals, by the rows' index."""
    columns = (rows[key].astype(float) for key in (column, f"{name}_low", f"{name}_high"))
    values = zip(*columns, strict=True)
    told = [f"{number(value, 2)} {limits(low, high, digits=2)}" for value, low, high in values]
    return pd.Series(told, index=rows.index)


def _limits(
    scores: pd.DataFrame,
    images: pd.DataFrame,
    backbone: BackboneOptions,
    faces: FacesOptions,
    context: CardContext,
) -> list[str]:
    trained = [name for name, generator in context.generators.items() if generator.role == "train"]
    _, reals = training_counts(images, trained)
    domains = " and ".join(context.domain_label(name) for name in reals)
    low, high = faces.jpeg_quality
    encoding = f"All images were encoded as JPEG of quality {low} to {high}"
    if as_found := not_encoded(context):
        labels = ", ".join(context.domain_label(name) for name in as_found)
        is_all = len(as_found) == len(context.domains) + len(context.generators)
        others = "" if is_all else f", all others{encoding.removeprefix('All images')}"
        encoding = f"Images of {labels} were not encoded again{others}"
    lines = [
        *built_in(context),
        f"Its specialists saw {len(trained)} generators, and real photographs of {domains} alone. How it does"
        " on others is what the protocols *unseen generators* and *cross-dataset* measure, and no more.",
        f"It takes one aligned face at {backbone.image_size} px. {encoding}; thresholds and"
        " probabilities hold for images like those of the val split.",
        "The numbers are of one seed. How far they move between seeds is not in this card.",
    ]
    inverted = scores.loc[scores["auc"] < 0.5, ["generator", "domain"]].astype(str)
    if len(inverted):
        pairs = inverted.itertuples(index=False)
        sets = ", ".join(f"{context.generator_label(g)} ({context.domain_label(d)})" for g, d in pairs)
        lines.append(f"On these test sets fakes look more real to it than the reals (AUC below 0.5): {sets}.")
    return [f"- {line}" for line in lines]


def _alignment(faces: FacesOptions, context: CardContext) -> str:
    """Return what is done to a photograph before it is brought to the size of the backbone's input."""
    training = [domain.dataset for domain in context.domains.values() if domain.role == "train"]
    if any(name is not None and context.datasets[name].aligned for name in training):
        return f"the aligned crops of {training[0]} as they are"
    if faces.detector == "none":
        return "as they are: no face detector was used"
    return (
        f"YuNet finds the largest face, its five points are aligned by a similarity with a margin of"
        f" {faces.margin:g}, cut at {faces.crop_size} px"
    )


def _loading(
    path: Path, backbone: BackboneOptions, alignment: str, fitted: Decision, reduced: bool
) -> list[str]:
    mean, std = (
        [round(value, 8) for value in statistic.flatten().tolist()]
        for statistic in normalization(backbone.name)
    )
    config = timm.get_pretrained_cfg(backbone.name)
    fixed = config is not None and config.fixed_input_size
    arguments = f", img_size={backbone.image_size}" if fixed else ""
    if backbone.blocks != "all":
        arguments += f", depth={backbone.blocks}"
    code = LOADING.format(
        path=path,
        name=backbone.name,
        arguments=arguments,
        size=backbone.image_size,
        mean=mean,
        std=std,
        threshold=fitted.threshold,
        slope=fitted.slope,
        offset=fitted.offset,
        autocast=", torch.autocast(images.device.type, torch.bfloat16)" if reduced else "",
    )
    arithmetic = (
        "The metrics are of scores in bf16 autocast, as in this code; in fp32 the logits differ."
        if reduced
        else "The metrics are of scores in fp32."
    )
    return [
        "Tensors are named as in timm, those of the head `head.weight` (1, D) and `head.bias` (1,).",
        "",
        "```python",
        *code.splitlines(),
        "```",
        "",
        f"Images: {alignment}, then brought to {backbone.image_size} px (the stage `faces` does all of it).",
        "",
        arithmetic,
    ]


def _onnx(parity: Mapping[str, Any], model: Path) -> list[str]:
    if "reason" in parity:
        return [f"It cannot be written as ONNX: {parity['reason']}"]
    titles = {"torch": "torch, fp32", "fp32": "ONNX, fp32", "int8": "ONNX, matrices in 8 bits (`--int8`)"}
    rows = []
    for name, title in titles.items():
        measured = parity["formats"][name]
        is_file = "megabytes" in measured
        off = number(measured["difference"], 3) if is_file else MISSING
        size = f"{measured['megabytes']:.0f}" if is_file else MISSING
        rows.append((title, number(measured["auc"], 4), off, size))
    return [
        f"`r2m export {model} --onnx detector.onnx` writes it as one file of opset {parity['opset']}, with"
        f" normalization and calibration inside. ONNX Runtime beside torch, on {parity['images']} aligned"
        " faces of the val split:",
        "",
        *markdown_table(["format", "mean AUC", "logits off by, at most", "MB"], rows, "lrrr"),
        "",
        "Calibration and thresholds were fitted on scores by torch. They hold for fp32, not for 8 bits.",
    ]


def _cost(files: Mapping[str, Mapping[str, Path]], variant: str) -> list[str]:
    benchmarks = read_benchmarks(files)
    of_variant = benchmarks["job"].map(lambda job: job.split("/")[0] == variant).astype(bool)
    counted = benchmarks["stage"].isin(SHARED_STAGES) | (benchmarks["stage"].isin(OWN_STAGES) & of_variant)
    if not counted.any():
        return ["Not measured: the model was made on another machine than this card."]
    header = ["stage", "jobs", "CPU seconds", "wall-clock seconds", "peak MiB of a job"]
    rows = [
        (row.stage, row.jobs, f"{row.cpu_seconds:.0f}", f"{row.wall_seconds:.0f}", f"{row.peak_mib:.0f}")
        for row in runtime_table(benchmarks[counted]).itertuples()
    ]
    return [
        *markdown_table(header, rows, "lrrrr"),
        "",
        "From the benchmark files of the jobs: the specialists, which all merges share, and the stages of"
        f" this merge; `{TOTAL}` is their sum. Data, trunk and scores are in `results/runtimes.csv`.",
    ]


def _versions(merged: Checkpoint) -> list[str]:
    rows = [
        ("r2m, of the merge", merged.metadata.get("r2m_version", "not recorded")),
        ("r2m, of this card", __version__),
        ("Python", platform.python_version()),
        *((name, metadata.version(name)) for name in ("torch", "timm", "safetensors", "numpy")),
    ]
    return markdown_table(["package", "version"], rows, "ll")


def _licences(receipts: Sequence[Path]) -> list[str]:
    rows = [
        (f"{receipt['package']} {receipt['version']}", receipt["licence"])
        for receipt in map(read_receipt, receipts)
    ]
    lines = [*markdown_table(["made from", "licence and terms"], rows, "ll"), ""] if rows else []
    return [
        *lines,
        "The code is under the Apache License 2.0. Folders and files of one's own: their owner's terms.",
    ]


def _position(context: CardContext) -> Callable[[str], int]:
    """Return the key that sorts specialists as their generators stand in params.yaml."""
    generators = list(context.generators)
    return lambda name: generators.index(name) if name in generators else len(generators)


def _dotted(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested options as one mapping of dotted names."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        flat |= (
            _dotted(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
        )
    return flat


def _read_json(path: Path, required: str, description: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise R2MError(f"{path}: cannot read {description}: {error}") from error
    if required not in content:
        raise R2MError(f"{path}: expected {description} with {required}")
    return content
