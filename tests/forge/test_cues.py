"""What cheap cues are, and what a regression on them finds and does not find."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from r2m import manifest
from r2m.data.images import Image, encode
from r2m.errors import R2MError
from r2m.forge import cues as module
from r2m.forge.cues import (
    BINS,
    COLUMNS,
    GROUPS,
    colour_cues,
    cue_table,
    file_cues,
    folds_of,
    read_cues,
    sample,
    spectrum_cues,
    table_cues,
)
from r2m.forge.stages import cues
from r2m.seeding import rng


def noise(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def picture(seed: int) -> Image:
    return cv2.GaussianBlur(noise(64, 64, seed), (0, 0), 1.5).astype(np.uint8)


def saved(image: Image, suffix: str, **options: object) -> bytes:
    buffer = BytesIO()
    Pillow.fromarray(image[:, :, ::-1]).save(buffer, suffix, **options)
    return buffer.getvalue()


# Cues


def test_file_tells_size_and_format() -> None:
    image = picture(0)
    jpeg, png = saved(image, "jpeg"), saved(image, "png")
    assert file_cues(jpeg) == pytest.approx([np.log(len(jpeg)), 1])
    assert file_cues(png) == pytest.approx([np.log(len(png)), 0])
    assert np.isfinite(file_cues(b"")).all()


def test_tables_are_those_of_the_quality() -> None:
    image = picture(0)
    low, high = (table_cues(saved(image, "jpeg", quality=quality)) for quality in (60, 90))
    assert low.shape == high.shape == (128,)
    assert (low > high).sum() > 100
    assert (table_cues(saved(picture(1), "jpeg", quality=60)) == low).all(), "whatever the image shows"


@pytest.mark.parametrize(
    "content", [saved(picture(0), "png"), saved(picture(0), "webp"), b"", b"\xff\xd8\xff"]
)
def test_files_without_tables_have_zeros(content: bytes) -> None:
    assert not table_cues(content).any()


def test_a_grey_jpeg_has_one_table() -> None:
    buffer = BytesIO()
    Pillow.fromarray(picture(0)[:, :, 0]).save(buffer, "jpeg", quality=80)
    values = table_cues(buffer.getvalue())
    assert values[:64].all()
    assert not values[64:].any()


def test_colour_tells_lightness_from_tint() -> None:
    image = picture(0) // 2 + 50
    brighter, redder = image + np.uint8(40), image + np.array([0, 0, 40], dtype=np.uint8)
    lightness, green_red, _ = (colour_cues(brighter) - colour_cues(image))[:3]
    assert lightness > 30
    assert abs(green_red) < 2
    assert (colour_cues(redder) - colour_cues(image))[1] > 10
    assert colour_cues(np.full((20, 30, 3), 7, np.uint8))[3:] == pytest.approx([0, 0, 0])


def test_a_blurred_image_has_less_of_high_frequencies() -> None:
    image = noise(64, 64)
    blurred = cv2.GaussianBlur(image, (0, 0), 2).astype(np.uint8)
    fallen = spectrum_cues(image) - spectrum_cues(blurred)
    assert abs(fallen[0]) < 1
    assert (fallen[BINS // 2 :] > 5).all()


def test_an_upsampled_image_has_none_of_the_highest_frequencies() -> None:
    small = cv2.GaussianBlur(noise(64, 64), (0, 0), 1)
    large = cv2.resize(small, (128, 128), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    assert spectrum_cues(large)[-1] < spectrum_cues(noise(128, 128))[-1] - 5


@given(height=st.integers(32, 150), width=st.integers(32, 150), seed=st.integers(0, 99))
def test_noise_has_one_spectrum_in_all_sizes(height: int, width: int, seed: int) -> None:
    values = spectrum_cues(noise(height, width, seed))
    assert values.shape == (BINS,)
    # The lowest frequencies of a small image are few, and grey levels are a mean of three.
    assert np.median(values) == pytest.approx(np.median(spectrum_cues(noise(300, 300))), abs=0.35)


@given(level=st.integers(0, 255), side=st.integers(2, 40))
def test_a_plain_image_has_the_power_of_rounding(level: int, side: int) -> None:
    plain = np.full((side, side, 3), level, dtype=np.uint8)
    assert spectrum_cues(plain) == pytest.approx(np.full(BINS, np.log(module.ROUNDING)))


@pytest.mark.parametrize("suffix", ["png", "jpeg", "webp", "bmp", "tiff", "gif"])
def test_images_of_any_format(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{suffix}"
    path.write_bytes(saved(picture(0), suffix))
    values = read_cues(str(path))
    assert tuple(values) == GROUPS
    assert {group: len(value) for group, value in values.items()} == {
        **{"file": 2, "tables": 128, "colour": 6, "spectrum": BINS}
    }
    assert all(np.isfinite(value).all() for value in values.values())


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(R2MError, match=r"gone\.png"):
        read_cues(str(tmp_path / "gone.png"))


# The regression

Rows = Callable[..., pd.DataFrame]


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    """Return a function that writes images of 30 people and gives the rows of their manifest."""

    def written(
        generator: str, quality: tuple[int, int] = (85, 95), per_person: int = 4, split: str = "train"
    ) -> pd.DataFrame:
        names = [f"{split}{i:03d}" for i in range(30 * per_person)]
        paths = [tmp_path / generator / f"{name}.jpg" for name in names]
        for seed, path in enumerate(paths):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encode(picture(seed), 48, quality, rng(0, generator, path.stem)))
        return pd.DataFrame(
            {
                "image_id": [f"{generator}/{name}" for name in names],
                "path": [path.as_posix() for path in paths],
                "label": int(generator != "real"),
                "generator": generator,
                "family": "real" if generator == "real" else "FS",
                "domain": "photos",
                "identity": [f"{split}-{i % 30}" for i in range(len(names))],
                "source_image": None,
                "video": None,
                "split": split,
            }
        )

    return written


def aucs(*frames: pd.DataFrame) -> pd.DataFrame:
    images = manifest.concat(map(manifest.check, frames))
    return cue_table(images, seed=0).set_index(["domain", "generator"])


def test_a_planted_cue_is_found_and_equal_sets_tell_nothing(rows: Rows) -> None:
    found = aucs(rows("real"), rows("coarse", (60, 70)), rows("alike"))
    assert found.loc[("photos", "coarse"), "tables"] > 0.95
    assert found.loc[("photos", "coarse"), "all"] > 0.95
    alike = found.loc[("photos", "alike"), [*GROUPS, "all"]]
    assert alike.astype(float).between(0.35, 0.65).all(), alike


def test_fakes_stand_against_the_reals_of_their_splits_and_domain(rows: Rows) -> None:
    """Reals of another split or domain, of another quality, would give the fakes away."""
    elsewhere = rows("real", (60, 70), split="val").assign(domain="other")
    frames = [rows("real", (60, 70)), rows("real", split="test"), elsewhere, rows("unseen", split="test")]
    found = aucs(*frames)
    assert list(found.index) == [("photos", "unseen")], "there are no fakes in the other domain"
    assert found.loc[("photos", "unseen"), ["fakes", "reals"]].tolist() == [120, 120]
    assert found.loc[("photos", "unseen"), "tables"] < 0.65


def test_the_same_images_give_the_same_table(rows: Rows) -> None:
    frames = [rows("real"), rows("coarse", (80, 90))]
    pd.testing.assert_frame_equal(aucs(*frames), aucs(*(frame[::-1] for frame in frames)))


def test_sets_of_one_person_or_one_label_are_left_out(rows: Rows, caplog: pytest.LogCaptureFixture) -> None:
    reals, fakes = rows("real"), rows("swap")
    assert aucs(reals).empty
    assert aucs(fakes).empty
    assert aucs(reals, fakes.assign(identity="x")).empty
    assert list(aucs(reals, fakes.assign(identity="x")).reset_index().columns) == list(COLUMNS)
    assert "photos/swap: fewer than two people" in caplog.text
    two = reals["identity"].isin(["train-0", "train-1"])
    assert len(aucs(reals[two], fakes)) == 1


def test_a_part_of_many_images_is_read(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(module, "sample", lambda frame, stream: sample(frame, stream, most=40))
    monkeypatch.setattr(module, "read_cues", lambda path: read.append(path) or read_cues(path))
    found = aucs(rows("real"), rows("one"), rows("other"))
    assert found[["fakes", "reals"]].to_numpy().tolist() == [[40, 40], [40, 40]]
    assert len(read) == len(set(read)) == 3 * 40, "reals are read once"


def test_people_take_turns_in_a_sample() -> None:
    frame = pd.DataFrame(
        {"image_id": [f"{i:03d}" for i in range(100)], "identity": ["a"] * 90 + list("bcde") * 2 + ["f", "g"]}
    )
    drawn = sample(frame, rng(0, "test"), most=14)
    assert drawn["identity"].value_counts().to_dict() == {**dict.fromkeys("abcde", 2), "f": 1, "g": 1} | {
        "a": 4
    }
    assert drawn["image_id"].is_monotonic_increasing
    pd.testing.assert_frame_equal(drawn, sample(frame[::-1], rng(0, "test"), most=14))
    assert len(sample(frame, rng(0, "test"))) == 100


@given(
    people=st.lists(st.sampled_from([(0,), (1,), (0, 1), (0, 0, 1), (1, 1, 1)]), min_size=2, max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_nobody_is_in_two_folds(people: list[tuple[int, ...]], order) -> None:
    images = [(f"p{i}", label) for i, labels in enumerate(people) for label in labels]
    order.shuffle(images)
    identities, labels = zip(*images, strict=True)
    frame = pd.DataFrame({"identity": identities, "label": labels})
    frame["fold"] = folds_of(identities, np.array(labels))
    assert all(len(set(members)) == 1 for _, members in frame.groupby("identity")["fold"])
    assert set(frame["fold"]) == set(range(min(module.FOLDS, len(people))))
    for _, members in frame.groupby("label"):
        if len(set(members["identity"])) > 1:
            assert len(set(members["fold"])) > 1, "both labels are learned from, whichever fold is left out"


# The stage


def test_the_table_as_a_file(rows: Rows, tmp_path: Path) -> None:
    own = rows("swap").assign(domain="swap")
    reals = rows("real").assign(domain="swap")
    manifest.write(pd.concat([own, reals]), tmp_path / "swap.parquet")
    manifest.write(rows("real", split="test"), tmp_path / "photos.parquet")
    paths = [tmp_path / "photos.parquet", tmp_path / "swap.parquet"]
    cues(manifests=paths, seed=0, out=tmp_path / "tables" / "cues.csv")
    table = pd.read_csv(tmp_path / "tables" / "cues.csv")
    assert list(table.columns) == list(COLUMNS)
    assert table[["domain", "generator", "fakes", "reals"]].to_numpy().tolist() == [
        ["swap", "swap", 120, 120]
    ]
