from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from r2m import manifest
from r2m.data.faces import Settings, build_domain
from r2m.data.images import Image, encode, read_crop
from r2m.data.options import FacesOptions
from r2m.errors import R2MError
from r2m.forge import identify, registry
from r2m.forge.generate import build_generator, donors_within, read_reals
from r2m.forge.options import GeneratorOptions
from r2m.forge.registry import Face, Forgery, NoFake
from r2m.report.figures.contact_sheet import draw_contact_sheet
from r2m.report.stages import contact_sheet
from r2m.seeding import rng

SETTINGS = Settings(FacesOptions(detector="none", crop_size=64, min_images=2), image_size=48, seed=0)


def photographs(folder: Path, numbers: range, suffix: str = ".png", noise: int = 0) -> Path:
    for i in numbers:
        stream = np.random.default_rng([i, noise])
        image = cv2.GaussianBlur(stream.integers(0, 255, (80, 80, 3)).astype(np.uint8), (0, 0), 2)
        path = folder / f"p{i // 3}" / f"{i:03d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)
    return folder


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A training domain of 60 photographs of 20 people and a test domain of 9 of 3."""
    root = tmp_path_factory.mktemp("faces")
    build_domain("a", photographs(root / "raw_a", range(60)), "train", "folder", None, SETTINGS, root / "a")
    build_domain(
        "b", photographs(root / "raw_b", range(100, 109)), "test", "folder", None, SETTINGS, root / "b"
    )
    return [root / "a", root / "b"]


def forged(name: str, domains: list[Path], out: Path, **options: object) -> pd.DataFrame:
    build_generator(name, GeneratorOptions(family="FS", **options), domains, SETTINGS, out)
    return manifest.read(out / "manifest.parquet")


def test_fakes_stand_beside_their_reals(domains: list[Path], tmp_path: Path) -> None:
    fakes = forged("my_sbi", domains, tmp_path / "f", forge="sbi").set_index("source_image")
    reals = manifest.concat(manifest.read(domain / "manifest.parquet") for domain in domains)
    paired = reals.set_index("image_id").loc[fakes.index]
    assert len(fakes) == len(reals) == 69
    for column in ("identity", "split", "domain"):
        assert list(fakes[column]) == list(paired[column])
    assert set(fakes["generator"]) == {"my_sbi"}
    assert all(Path(path).is_file() for path in fakes["path"])
    assert all(
        Path(f).read_bytes() != Path(r).read_bytes()
        for f, r in zip(fakes["path"], paired["path"], strict=True)
    )


def test_unseen_generator_has_fakes_of_the_test_split_only(domains: list[Path], tmp_path: Path) -> None:
    fakes = forged("g", domains, tmp_path / "f", forge="tps", role="unseen")
    assert set(fakes["split"]) == {"test"}
    assert set(fakes["domain"]) == {"a", "b"}


def test_a_fake_does_not_depend_on_its_neighbours(domains: list[Path], tmp_path: Path) -> None:
    both = forged("g", domains, tmp_path / "both", forge="inp")
    alone = forged("g", domains[1:], tmp_path / "alone", forge="inp").set_index("image_id")["path"]
    paths = both.set_index("image_id")["path"]
    assert len(alone) == 9
    assert all(Path(paths[name]).read_bytes() == Path(path).read_bytes() for name, path in alone.items())


def test_rerun_and_threads_give_the_same_bytes(domains: list[Path], tmp_path: Path) -> None:
    made = []
    for threads in (1, 2):
        settings = Settings(SETTINGS.options, 48, 0, threads=threads)
        build_generator("g", GeneratorOptions(family="FS", forge="swap"), domains, settings, tmp_path / "g")
        made.append({p.name: p.read_bytes() for p in (tmp_path / "g").rglob("*") if p.is_file()})
    assert made[0] == made[1]


def test_donors_stay_inside_domain_and_split_and_are_others(domains: list[Path]) -> None:
    reals = read_reals(domains)
    donors = donors_within(reals)
    assert (donors >= 0).all()
    chosen = reals.iloc[donors].reset_index(drop=True)
    assert (chosen["domain"] == reals["domain"]).all()
    assert (chosen["split"] == reals["split"]).all()
    assert (chosen["identity"] != reals["identity"]).all()


def test_a_real_without_a_donor_is_listed(tmp_path: Path) -> None:
    build_domain(
        "a", photographs(tmp_path / "raw", range(3)), "test", "folder", None, SETTINGS, tmp_path / "a"
    )
    rows = forged("g", [tmp_path / "a"], tmp_path / "f", forge="swap", role="unseen")
    skipped = pd.read_csv(tmp_path / "f" / "skipped.csv")
    assert rows.empty
    assert len(skipped) == 3
    assert skipped["reason"].str.contains("no donor").all()


def test_photographs_of_which_no_fake_can_be_made_are_listed(
    domains: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def now_and_then(face: Face, donor: Face | None, rng: np.random.Generator) -> Image:
        if rng.random() < 0.3:
            raise NoFake("no face in the generated image")
        return 255 - face.image

    known = {**registry._forgeries(), "odd": Forgery("odd", "FS", now_and_then)}
    monkeypatch.setattr(registry, "_forgeries", lambda: known)
    rows = forged("g", domains, tmp_path / "f", forge="odd")
    skipped = pd.read_csv(tmp_path / "f/skipped.csv")
    assert 0 < len(skipped) < 40
    assert len(rows) + len(skipped) == 69
    assert set(skipped["reason"]) == {"no face in the generated image"}
    reals = read_reals(domains).set_index("image_id")["path"]
    assert not set(skipped["path"]) & set(reals[rows["source_image"]])
    written = {path.as_posix() for path in (tmp_path / "f/images").rglob("*.jpg")}
    assert written == set(rows["path"])


def test_reals_and_fakes_share_the_encoder(domains: list[Path]) -> None:
    reals = read_reals(domains)
    row = reals.iloc[0]
    stream = rng(0, "encode", row["image_id"])
    expected = encode(read_crop(Path(row["crop"])), 48, SETTINGS.options.jpeg_quality, stream)
    assert Path(row["path"]).read_bytes() == expected


def test_unknown_option_and_missing_crops_leave_nothing(domains: list[Path], tmp_path: Path) -> None:
    with pytest.raises(R2MError, match=r"generators\.g\.options\.nope"):
        forged("g", domains, tmp_path / "f", forge="swap", options={"nope": 1.0})
    with pytest.raises(R2MError, match=r"manifest\.parquet"):
        forged("g", [tmp_path / "absent"], tmp_path / "f", forge="swap")
    assert list(tmp_path.iterdir()) == []


def test_own_fakes_named_like_reals_take_their_identity_and_split(
    domains: list[Path], tmp_path: Path
) -> None:
    images = photographs(tmp_path / "own", range(60), suffix=".jpg")
    fakes = forged("mine", domains, tmp_path / "f", images=str(images))
    reals = manifest.read(domains[0] / "manifest.parquet").set_index("image_id")
    assert len(fakes) == 60
    assert set(fakes["domain"]) == {"a"}
    paired = reals.loc[fakes["source_image"]]
    assert list(fakes["split"]) == list(paired["split"])
    assert list(fakes["identity"]) == list(paired["identity"])


def test_own_fakes_of_strangers_are_split_by_hash(domains: list[Path], tmp_path: Path) -> None:
    images = photographs(tmp_path / "own", range(200, 300))
    fakes = forged("mine", domains, tmp_path / "f", images=str(images))
    assert fakes["source_image"].isna().all()
    assert set(fakes["split"]) == {"train", "val", "test"}
    fewer = photographs(tmp_path / "fewer", range(200, 290))
    again = forged("mine", domains, tmp_path / "g", images=str(fewer)).set_index("image_id")["split"]
    assert (fakes.set_index("image_id")["split"].loc[again.index] == again).all()


def test_own_reals_make_a_domain_of_their_own(domains: list[Path], tmp_path: Path) -> None:
    reals = photographs(tmp_path / "reals", range(60))
    images = photographs(tmp_path / "fakes", range(60), noise=1)
    rows = forged("mine", domains, tmp_path / "f", images=str(images), reals=str(reals))
    assert set(rows["domain"]) == {"mine"}
    assert rows["label"].value_counts().to_dict() == {0: 60, 1: 60}
    assert set(rows.loc[rows["label"] == 0, "generator"]) == {"real"}
    own_reals = rows[rows["label"] == 0].set_index("image_id")
    fakes = rows[rows["label"] == 1]
    assert list(fakes["split"]) == list(own_reals.loc[fakes["source_image"], "split"])
    assert (rows.groupby("identity")["split"].agg(lambda splits: len(set(splits))) == 1).all()
    assert all(Path(path).is_file() for path in rows["path"])


def test_unseen_fakes_of_people_that_training_knows_are_left_out(domains: list[Path], tmp_path: Path) -> None:
    images = photographs(tmp_path / "own", range(60), noise=1)
    fakes = forged("mine", domains, tmp_path / "f", images=str(images), role="unseen")
    skipped = pd.read_csv(tmp_path / "f" / "skipped.csv")
    assert set(fakes["split"]) == {"test"}
    assert len(fakes) + len(skipped) == 60
    assert skipped["reason"].str.contains("tested only").all()


def test_own_folder_that_cannot_be_used_is_an_error(domains: list[Path], tmp_path: Path) -> None:
    with pytest.raises(R2MError, match="no such folder"):
        forged("mine", domains, tmp_path / "f", images=str(tmp_path / "absent"))
    few = photographs(tmp_path / "few", range(200, 202))
    with pytest.raises(R2MError, match=r"generators\.mine \(fakes\)"):
        forged("mine", domains, tmp_path / "f", images=str(few))
    with pytest.raises(R2MError, match="role 'train'"):
        forged("mine", domains[1:], tmp_path / "f", images=str(few))
    (few / "p66" / "200.png").write_bytes(b"broken")
    (few / "p67" / "201.png").write_bytes(b"broken")
    with pytest.raises(R2MError, match="no usable image"):
        forged("mine", domains, tmp_path / "f", images=str(few))


def test_names_match_whole_paths_first_and_unique_last_parts_then() -> None:
    known = ["a/1", "b/1", "c/2", "3"]
    assert identify.by_name(["b/1", "x/c/2", "x/1", "9", "x/3"], known).tolist() == [1, 2, -1, -1, 3]


def test_names_match_within_folders_that_correspond() -> None:
    known = ["real/frames/7", "c/2"]
    assert identify.by_name(["1_fake/7", "x/2", "d/2"], known).tolist() == [0, -1, -1]


def test_contact_sheet_with_and_without_pairs(domains: list[Path], tmp_path: Path) -> None:
    forged("g", domains, tmp_path / "g", forge="attr")
    forged("mine", domains, tmp_path / "m", images=str(photographs(tmp_path / "own", range(200, 300))))
    reals = [domain / "manifest.parquet" for domain in domains]
    known = manifest.concat(map(manifest.read, reals))
    for name, axes in {"g": 12, "m": 4}.items():
        fakes = manifest.read(tmp_path / name / "manifest.parquet")
        figure = draw_contact_sheet(fakes, known, "A label", rng(0), n=4)
        assert len(figure.axes) == axes
        assert f"A label ({fakes['family'].iloc[0]})" in [text.get_text() for text in figure.texts]
        contact_sheet(
            fakes=tmp_path / name / "manifest.parquet", reals=reals, label=name, out=tmp_path / "out" / name
        )
    written = {f"{name}.{suffix}" for name in "gm" for suffix in ("pdf", "svg", "png")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == written
