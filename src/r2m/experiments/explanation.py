"""Whether relevance maps show what the reference merge decides by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from r2m.errors import R2MError
from r2m.experiments.experiment import ROOT, Experiment, ExperimentOptions, scores_stage
from r2m.plan.stage import Captioned, Job, Stage

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from r2m.evaluate.protocols import EvaluationContext
    from r2m.models.image_detector import ImageDetector
    from r2m.plan.plan import Plan
    from r2m.report.table import Table
    from r2m.session_files import Compute

TITLE = "Explanations of decisions"
CAPTION = (
    "Maps of what raises the logit of *fake* (Chefer et al. 2021, or Grad-CAM) of the reference merge on test"
    " images of the training domain. Deletion and insertion (Petsiuk et al. 2018) are areas under the curve"
    " of the probability of being fake while the pixels of the greatest relevance become those of a"
    " photograph of another person, or appear on it, beside those of random patches and of a Gaussian in the"
    " middle. A good map has less deletion and more insertion than both. Look at whether it has, before you"
    " look at a map. A map is no proof of where an image was forged: it tells what this detector reacts to,"
    " right or wrong, on the grid of its patches, which mix with their neighbours on the way. Each is scaled"
    " to its own maximum, so that a real's is as bright as a fake's."
)
ORDERS = {"map": "Relevance map", "random": "Random patches", "centre": "Gaussian in the middle"}
COLOURS = {"map": "#CC3311", "random": "#999999", "centre": "#222222"}
MARKERS = {"map": "o", "random": "^", "centre": "s"}
BATCH = 16


class ExplanationOptions(ExperimentOptions):
    """Faithfulness of relevance maps of the reference merge, and a sheet of some."""

    images: Annotated[int, Field(ge=1)] = Field(
        default=16, description="most test images of a generator, and of the reals, drawn by the seed"
    )
    shown: Annotated[int, Field(ge=1, le=8)] = Field(default=4, description="images of each on the sheet")


def stages(plan: Plan, options: ExplanationOptions) -> Sequence[Stage]:
    """Return the stage of the maps and of what they are worth, and that of the sheet."""
    from r2m.plan.reporting import figure_files

    domain = plan.params.train_domain
    manifests = [plan.manifest(name) for name in [domain, *plan.generators]]

    def job(seed: str) -> Job:
        return Job(
            "r2m.experiments.explanation:run",
            {"model": plan.model("merge", plan.reference, seed), "manifests": manifests},
            measured.paths(seed=seed),
            {
                "domain": domain,
                "images": options.images,
                "shown": options.shown,
                "seed": plan.params.seed,
                "compute": plan.compute,
            },
        )

    def draw(seed: str) -> Job:
        files = measured.paths(seed=seed)
        return Job(
            "r2m.experiments.explanation:sheet",
            {**files, "manifests": manifests},
            {"out": files["maps"].with_name("sheet")},
            {"context": plan.experiment_context},
        )

    measured = scores_stage(plan, "explanation", job, memory=3000, maps="maps.safetensors")
    drawn = Stage(
        "figure_explanation_sheet",
        figure_files(f"{ROOT}/explanation/seed{{seed}}/sheet"),
        draw,
        [{"seed": seed} for seed in plan.seeds],
        is_benchmarked=False,
        place="experiments/explanation/sheet",
        report={"png": Captioned("experiment", "Experiments", {"experiment": TITLE, "what": "sheet"})},
        caption=CAPTION,
    )
    return [measured, drawn]


def run(
    *,
    model: Path,
    manifests: Sequence[Path],
    domain: str,
    images: int,
    shown: int,
    seed: int,
    compute: Compute,
    scores: Path,
    maps: Path,
    threads: int,
) -> None:
    """Write the deletion and insertion scores of some test images, and the maps of those that are shown.

    Rows are images and `ORDERS`, with the probability of the whole image. A map is a tensor (S, S) under the
    name of its image.

    Raises:
        R2MError: no test images, an image that cannot be read, or a backbone that has no maps.
    """
    import pandas as pd
    import torch

    from r2m import manifest
    from r2m.evaluate.protocols import KEPT
    from r2m.evaluate.scores import write
    from r2m.models import checkpoint
    from r2m.models.image_detector import load
    from r2m.models.precision import make_deterministic
    from r2m.seeding import rng

    torch.set_num_threads(threads)
    detector = load(model, device=compute.device, precision=compute.precision)
    if compute.deterministic:
        make_deterministic(detector.device)
    every = pd.concat(
        [manifest.read(path).assign(set=path.parent.name) for path in manifests], ignore_index=True
    )
    parts: list[pd.DataFrame] = []
    kept: dict[str, torch.Tensor] = {}
    for name, rows in drawn(every, domain, images, seed):
        others = photographs(every, domain, rows, rng(seed, "explanation", name, "others"))
        measured, found = faithfulness(detector, rows, others, seed)
        parts.append(measured[[*KEPT, "order", "whole", "deletion", "insertion"]])
        kept |= {
            name: torch.from_numpy(one) for name, one in zip(rows["image_id"][:shown], found, strict=False)
        }
    notes = {"experiment": "explanation", "model": str(model)}
    write(pd.concat(parts, ignore_index=True), notes, scores)
    checkpoint.save(maps, kept, notes)


def sheet(
    *, scores: Path, maps: Path, manifests: Sequence[Path], context: EvaluationContext, out: Path
) -> None:
    """Draw the images that have a map beside it, a row per generator, as `out`.pdf, .svg and .png.

    Raises:
        R2MError: a file is missing or damaged.
    """
    import pandas as pd

    from r2m import manifest
    from r2m.evaluate.experiment_means import read_columns
    from r2m.models import checkpoint
    from r2m.models.preprocess import load_image
    from r2m.report.figures.map_sheet import MapRow, draw_map_sheet
    from r2m.report.figures.style import save

    found = {name: tensor.numpy() for name, tensor in checkpoint.load(maps)[0].items()}
    said = read_columns(scores, ["image_id", "generator", "whole"]).drop_duplicates("image_id")
    said = said[said["image_id"].isin(found.keys())]
    paths = pd.concat([manifest.read(path) for path in manifests]).set_index("image_id")["path"]
    rows = []
    for name, own in said.groupby("generator", sort=False):
        shown = [found[image] for image in own["image_id"]]
        images = [
            load_image(paths[image], len(one)) for image, one in zip(own["image_id"], shown, strict=True)
        ]
        rows.append(MapRow(_label(str(name), context), images, shown, own["whole"].tolist()))
    save(draw_map_sheet(rows), out)


def _label(generator: str, context: EvaluationContext) -> str:
    from r2m.manifest import REAL

    return "Reals" if generator == REAL else context.generator_label(generator)


def drawn(rows: pd.DataFrame, domain: str, count: int, seed: int) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield name and at most `count` test images in `domain` of every generator among `rows`, reals last.

    Raises:
        R2MError: no test images of the domain.
    """
    from r2m.manifest import REAL
    from r2m.seeding import rng

    rows = rows[(rows["split"] == "test") & (rows["domain"] == domain)]
    if rows.empty:
        raise R2MError(f"domain {domain}: no images in the split 'test'")
    for name in sorted(rows["generator"].unique(), key=lambda name: name == REAL):
        own = rows[rows["generator"] == name]
        places = rng(seed, "explanation", name).permutation(len(own))[:count]
        yield name, own.iloc[np.sort(places)].reset_index(drop=True)


def photographs(
    every: pd.DataFrame, domain: str, rows: pd.DataFrame, random: np.random.Generator
) -> list[str]:
    """Return for every row the path of a test photograph of `domain` that shows another person.

    Raises:
        R2MError: there is none.
    """
    reals = every[(every["label"] == 0) & (every["split"] == "test") & (every["domain"] == domain)]
    paths = []
    for identity in rows["identity"]:
        others = reals.loc[reals["identity"] != identity, "path"]
        if others.empty:
            raise R2MError(f"domain {domain}: no test photograph of another person than {identity}")
        paths.append(str(others.iloc[random.integers(len(others))]))
    return paths


def faithfulness(
    detector: ImageDetector, rows: pd.DataFrame, others: Sequence[str], seed: int
) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """Return the scores of images, a row for every order and image, and the relevance maps (S, S).

    `others` are the paths of the photographs that pixels become those of.
    """
    import pandas as pd
    import torch

    from r2m.detection.explaining import relevance_maps
    from r2m.evaluate.faithfulness import centred_map, deletion_and_insertion, random_map
    from r2m.seeding import rng

    def probabilities(images: torch.Tensor) -> np.ndarray:
        return detector.config.probabilities(detector.logits_of_inputs([images]))

    size = detector.config.image_size
    paths = rows["path"].tolist()
    maps = list(relevance_maps(detector, paths, BATCH))
    orders = {
        "map": maps,
        "random": [random_map(size, rng(seed, "explanation", name)) for name in rows["image_id"]],
        "centre": [centred_map(size)] * len(rows),
    }
    parts = []
    batches = zip(detector.batches(paths, BATCH), detector.batches(others, BATCH), strict=True)
    for start, (images, photographs) in zip(range(0, len(rows), BATCH), batches, strict=True):
        ends = probabilities(images), probabilities(photographs)
        for name, order in orders.items():
            values = torch.from_numpy(np.stack(order[start : start + BATCH]))
            deletion, insertion = deletion_and_insertion(probabilities, images, photographs, values, ends)
            own = rows.iloc[start : start + BATCH]
            parts.append(own.assign(order=name, whole=ends[0], deletion=deletion, insertion=insertion))
    return pd.concat(parts, ignore_index=True), maps


def table(source: Path, context: EvaluationContext) -> Table:
    """Return the table of the scores in `source`: a row for every generator and order, all fakes first.

    Raises:
        R2MError: not the output of this experiment.
    """
    import pandas as pd

    from r2m.evaluate.experiment_means import read_columns
    from r2m.manifest import REAL
    from r2m.report.table import Table

    measures = ["whole", "deletion", "insertion"]
    found = read_columns(source, ["generator", "image_id", "order", *measures])
    present = set(found["generator"])
    known = [name for name in context.generators if name in present]
    named = [*known, *({REAL} & present)]
    groups = [("All fakes", found[found["generator"] != REAL])]
    groups += [(_label(name, context), found[found["generator"] == name]) for name in named]
    rows = [
        {"images": label, "count": len(own), "order": order, **own[measures].mean()}
        for label, part in groups
        for order, own in ((order, part[part["order"] == order]) for order in ORDERS)
        if len(own)
    ]
    frame = pd.DataFrame(rows).assign(name=lambda frame: frame["order"].map(ORDERS))
    wins = {measure: _wins(found[found["generator"] != REAL], measure) for measure in measures[1:]}
    return Table(
        frame,
        {
            "images": "Images",
            "count": "Number",
            "name": "Order of pixels",
            "whole": "Whole image",
            "deletion": "Deletion ↓",
            "insertion": "Insertion ↑",
        },
        caption=(
            "Probability of being fake: of the whole image, and the mean while pixels become those of a"
            " photograph of another person (deletion) or appear on it (insertion), in three orders. Means"
            " over images. On"
            f" {wins['deletion']} of the fakes the map's deletion is below that of random patches, on"
            f" {wins['insertion']} its insertion is above it. Best of each bold, second underlined."
        ),
        label="explanation",
        best=["insertion"],
        lowest=["deletion"],
        section="images",
    )


def _wins(fakes: pd.DataFrame, measure: str) -> str:
    """Return on what share of the fakes the map does better than random patches."""
    values = fakes.pivot_table(measure, "image_id", "order")
    gain = values["map"] - values["random"]
    return f"{100 * float(((gain < 0) if measure == 'deletion' else (gain > 0)).mean()):.0f} %"


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw deletion and insertion: a row per generator, a mark per order of pixels."""
    from r2m.report.figures.dots import Series, dot_rows

    measures = {"deletion": "Deletion: less is better", "insertion": "Insertion: more is better"}
    images = list(dict.fromkeys(table["images"]))
    own = {order: part.set_index("images") for order, part in table.groupby("order")}
    series = [
        Series(
            title,
            [float(own[order].loc[label, measure]) for measure in measures for label in images],
            COLOURS[order],
            MARKERS[order],
        )
        for order, title in ORDERS.items()
    ]
    sections = [title for title in measures.values() for _ in images]
    legend = (
        "Area under the curve of the probability of being fake, while the first pixels of an order become"
        " those of a photograph of another person or appear on it. Numbers are those of the map."
    )
    return dot_rows(sections, images * len(measures), series, legend, measure="area under the curve")


EXPERIMENT = Experiment(
    title=TITLE,
    caption=CAPTION,
    options=ExplanationOptions,
    stages=stages,
    table=table,
    figure=figure,
    order=9,
)
