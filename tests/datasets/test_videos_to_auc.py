"""Video files in plain folders, by way of an index, to the AUC of videos in the tables."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from detector_samples import VIT, random_weights
from drawn_videos import colour, disc_detector, two_faces, write_video
from r2m import manifest
from r2m.data.images import Image, read_image
from r2m.datasets import stages
from r2m.errors import R2MError
from r2m.evaluate.protocols import DomainContext, EvaluationContext, GeneratorContext, read_table
from r2m.evaluate.stages import score
from r2m.index import build
from r2m.input_files import check_inputs
from r2m.models.stages import base
from r2m.params import parse
from r2m.report.stages import tables
from r2m.session_files import Compute, SessionFiles
from r2m.train.options import FinetuneOptions
from r2m.train.stages import finetune
from r2m.trunk.options import AugmentOptions

FRAMES = 4
PEOPLE = 12
# By this seed four people are in each split.
SPLIT_SEED = 5
FAKES = {"simswap": "train", "uniface": "unseen"}
BACKBONE = VIT.model_copy(update={"trainable_blocks": "all"})
CONFIG = {
    "datasets": {"films": {"index": "films.parquet", "frames": FRAMES}},
    "domains": {"films": {"dataset": "films", "role": "train"}},
    "generators": {name: {"family": "FS", "role": role, "dataset": "films"} for name, role in FAKES.items()},
    "faces": {"detector": "none", "crop_size": 48, "min_images": 4},
    "backbone": {"image_size": 32},
    "merge": {"methods": {"weight_averaging": {}}},
}
PARAMS = parse(CONFIG)
CONTEXT = EvaluationContext(
    generators={name: GeneratorContext(family="FS", role=role) for name, role in FAKES.items()},
    domains={"films": DomainContext(role="train")},
)


def film(person: int, bar: int | None = None) -> list[Image]:
    """Draw two faces that move, in light that differs from person to person; a fake has a bar over both."""
    light = np.random.default_rng(person).integers(0, 25, 3)
    pictures = [(picture + light).clip(0, 255).astype(np.uint8) for picture in two_faces(16)]
    for picture in pictures:
        if bar is not None:
            picture[bar : bar + 4] = 128
    return pictures


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of drawn films, of which three give no face."""
    folder = tmp_path_factory.mktemp("tree")
    root = folder / "films"
    for i in range(PEOPLE):
        write_video(root / f"real/{i:03}.mp4", film(i))
        for name, bar in zip(FAKES, (64, 90), strict=True):
            write_video(root / f"fake/{name}/{i:03}_{i ^ 1:03}.mp4", film(i, bar))
    whole = (root / "real/000.mp4").read_bytes()
    (root / "real/090.mp4").write_bytes(whole[: len(whole) // 2])
    write_video(root / "real/091.mp4", [np.full((64, 64, 3), 128, np.uint8)] * 12)
    (root / "fake/simswap/090_091.mp4").write_bytes(b"no video")
    built = build.build(build.Request([root], seed=SPLIT_SEED))
    assert built.skipped == []
    build.write(built, folder / "films.parquet")
    return folder / "films.parquet"


@dataclass(frozen=True)
class Run:
    """Image sets of an index, models that were made from them, and the tables of these."""

    folder: Path
    index: Path
    detector: Path
    faces: str

    def sets(self) -> None:
        """Take the reals of the domain, then the fakes of all generators."""
        options = PARAMS.datasets["films"].model_copy(update={"index": str(self.index), "faces": self.faces})
        common = {
            "options": options,
            "root": self.index.parent / "films",
            "faces": PARAMS.faces,
            "image_size": 32,
            "seed": 0,
            "detector": self.detector,
            "embedder": None,
            "state": self.folder / "state",
            "threads": 1,
        }
        (part,) = PARAMS.parts_of("films")
        stages.reals(domain="films", part=part, out=self.folder / "films", **common)
        for name, role in FAKES.items():
            stages.fakes(
                generator=name,
                family="FS",
                is_trained=role == "train",
                parts=PARAMS.parts_of(name),
                domains={"films": self.folder / "films/manifest.parquet"},
                out=self.folder / name,
                **common,
            )

    def rows(self, name: str) -> pd.DataFrame:
        return manifest.read(self.folder / name / "manifest.parquet")

    def skipped(self, name: str) -> dict[str, str]:
        """Return file → reason."""
        rows = pd.read_csv(self.folder / name / "skipped.csv")
        return {Path(path).name: reason for path, reason in zip(rows["path"], rows["reason"], strict=True)}

    def models(self) -> dict[str, Path]:
        """Make the base and a specialist; return those as kind → file of the model."""
        weights = self.folder / "weights.pt"
        torch.save(random_weights(BACKBONE), weights)
        head = self.folder / "head.safetensors"
        base(
            weights=weights,
            backbone=BACKBONE,
            faces=PARAMS.faces,
            precision="fp32",
            encodes=PARAMS.encodes_reals,
            seed=0,
            base=self.files.base,
            head=head,
        )
        specialist = self.folder / "simswap.safetensors"
        finetune(
            files=self.files,
            initial_head=head,
            name="simswap",
            generators=["simswap"],
            options=FinetuneOptions(steps=4, pairs=4, lr=1e-3, validate_every=2, checkpoint_every=4),
            augment=AugmentOptions(),
            objective="binary",
            seed=0,
            compute=self.compute,
            state=self.folder / "state.safetensors",
            model=specialist,
            history=self.folder / "history.csv",
        )
        return {"base": head, "specialist": specialist}

    @property
    def files(self) -> SessionFiles:
        manifests = tuple(self.folder / name / "manifest.parquet" for name in ("films", *FAKES))
        return SessionFiles(manifests, (), self.folder / "base.safetensors")

    @property
    def compute(self) -> Compute:
        return Compute(BACKBONE, "cpu", "fp32")

    def scored(self, models: dict[str, Path]) -> None:
        """Score the models and write their tables."""
        for kind, model in models.items():
            score(
                files=self.files,
                model=model,
                kind=kind,
                name=kind,
                label=kind,
                method=None,
                seed=None,
                batch_size=16,
                compute=self.compute,
                scores=self.scores(kind),
            )
        tables(
            scores=[self.scores(kind) for kind in models],
            context=CONTEXT,
            resamples=20,
            seed=0,
            reference=None,
            video="mean",
            built_in=(),
            members={},
            out=self.folder / "tables",
        )

    def scores(self, kind: str) -> Path:
        return self.folder / f"{kind}.scores.parquet"

    def videos(self) -> pd.DataFrame:
        return read_table(self.folder / "tables/video.csv")

    def colours(self, name: str) -> dict[str, set[str]]:
        """Return video → the drawn faces that its crops show."""
        rows = self.rows(name)
        seen = [colour(read_image(Path(path))[0]) for path in rows["path"]]
        return rows.assign(colour=seen).groupby("video")["colour"].agg(set).to_dict()


def run_of(faces: str, index: Path, folder: Path) -> Iterator[Run]:
    torch.set_num_threads(1)
    with disc_detector(folder) as detector:
        run = Run(folder, index, detector, faces)
        run.sets()
        run.scored(run.models())
        yield run


@pytest.fixture(scope="module")
def largest(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    yield from run_of("largest", index, tmp_path_factory.mktemp("largest"))


@pytest.fixture(scope="module")
def every(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The same films, every face of which is followed."""
    yield from run_of("all", index, tmp_path_factory.mktemp("all"))


def auc_by_hand(scores: pd.DataFrame, generator: str) -> float:
    """Return how often a fake video's mean probability exceeds a real one's; a tie is half."""
    rows = scores[(scores["split"] == "test") & scores["generator"].isin(["real", generator])]
    probability = 1 / (1 + np.exp(-rows["logit"].astype(float)))
    means = probability.groupby([rows[key] for key in ("label", "generator", "domain", "video")]).mean()
    fakes, reals = means.loc[1].to_numpy()[:, None], means.loc[0].to_numpy()
    return float(((fakes > reals) + 0.5 * (fakes == reals)).mean())


@pytest.mark.parametrize(("name", "faces"), [("largest", 1), ("every", 2)])
def test_a_row_of_videos_for_each_model_and_test_set(
    name: str, faces: int, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(name)
    table = run.videos()
    assert list(zip(table["model"], table["test_set"], strict=True)) == [
        (model, f"films/{generator}") for model in ("base", "specialist") for generator in FAKES
    ]
    counts = table[["n_real", "n_fake", "frames", "frames_least", "frames_most"]]
    assert (counts == [4 * faces, 4 * faces, 8 * faces * FRAMES, FRAMES, FRAMES]).all(axis=None)
    assert set(table["sampling"]) == {"up to 4 of each video, evenly"}
    for row in table.itertuples():
        scores = pd.read_parquet(run.scores(row.model))
        assert row.auc == pytest.approx(auc_by_hand(scores, row.generator), abs=1e-6)
    assert table.groupby("test_set")["auc"].nunique().gt(1).any(), "training changes something"


def test_the_largest_face_alone_is_taken(largest: Run) -> None:
    reals, fakes = largest.rows("films"), largest.rows("simswap")
    assert Counter(reals["split"]) == dict.fromkeys(manifest.SPLITS, 4 * FRAMES)
    assert set(reals["frame"]) == {"2", "6", "10", "14"}
    for name in ("films", "simswap"):
        assert set(map(frozenset, largest.colours(name).values())) == {frozenset({"red"})}
    sources = reals.set_index("image_id").loc[fakes["source_image"]]
    assert list(sources["video"]) == [video[:3] for video in fakes["video"]]
    for key in ("frame", "identity", "split"):
        assert list(sources[key]) == list(fakes[key])


def test_each_face_that_is_followed_is_a_video_of_its_own(every: Run) -> None:
    for name, videos in (("films", PEOPLE), ("simswap", PEOPLE), ("uniface", 4)):
        colours = every.colours(name)
        assert Counter(map(tuple, colours.values())) == {("red",): videos, ("green",): videos}
        assert {video.rpartition("/")[2] for video, seen in colours.items() if "red" in seen} == {"track0"}
        assert set(every.rows(name)["video"].value_counts()) == {FRAMES}
    splits = every.rows("films").groupby("identity")["split"].nunique()
    assert (splits == 1).all()


def test_fakes_are_paired_with_the_same_face_of_the_real(every: Run) -> None:
    reals, fakes = every.rows("films"), every.rows("simswap")
    sources = reals.set_index("image_id").loc[fakes["source_image"]]
    assert list(sources["frame"]) == list(fakes["frame"])
    assert [video[-7:] for video in sources["video"]] == [video[-7:] for video in fakes["video"]]


def test_videos_that_give_nothing_are_counted_and_the_run_goes_on(largest: Run) -> None:
    assert largest.skipped("films") == {
        "090.mp4": "cannot be read: no whole video that FFmpeg knows",
        "091.mp4": "no face found with a score of 0.6 or more: none of 4 frames",
    }
    assert largest.skipped("simswap") == {"090_091.mp4": "cannot be read: no whole video that FFmpeg knows"}
    assert largest.rows("films")["video"].nunique() == PEOPLE


def test_video_files_without_a_detector_are_refused(index: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"x")
    config = {
        **CONFIG,
        "datasets": {"films": {"index": index.as_posix()}},
        "backbone": {"image_size": 32, "weights": {"file": str(weights)}},
    }
    with pytest.raises(R2MError) as refused:
        check_inputs(parse(config))
    assert str(refused.value) == (
        f"params.yaml: datasets.films: {index} holds video files, whose faces have to be found, and"
        " `faces.detector` is `none`; expected a detector"
    )
