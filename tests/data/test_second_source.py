"""A test domain of which some people are trained on."""

import pandas as pd
import pytest

from r2m import manifest
from r2m.data.second_source import with_training_people, write_second_source
from r2m.errors import R2MError


def domain(people: int, images: int = 2) -> pd.DataFrame:
    rows = [
        {
            "image_id": f"b/{person}/{image}",
            "path": f"b/{person}/{image}.jpg",
            "label": 0,
            "generator": "real",
            "family": "real",
            "domain": "b",
            "identity": f"p{person}",
            "source_image": None,
            "video": None,
            "split": "test",
        }
        for person in range(people)
        for image in range(images)
    ]
    return manifest.check(pd.DataFrame(rows))


@pytest.mark.parametrize(
    ("people", "share", "taken"), [(40, 0.5, 20), (7, 0.3, 2), (2, 0.01, 1), (3, 0.99, 2)]
)
def test_people_are_in_one_split_each(people: int, share: float, taken: int) -> None:
    before = domain(people)
    frame = with_training_people(before, share, 0)
    splits = frame[["identity", "split"]].drop_duplicates()
    assert len(splits) == people
    assert splits["split"].value_counts().to_dict() == {"train": taken, "test": people - taken}
    pd.testing.assert_frame_equal(frame.drop(columns="split"), before.drop(columns="split"))
    assert set(before["split"]) == {"test"}


def test_the_choice_depends_on_the_seed_and_not_on_the_order() -> None:
    frame = domain(40)
    chosen = with_training_people(frame, 0.5, 0)
    shuffled = with_training_people(frame.sample(frac=1, random_state=1), 0.5, 0)
    pd.testing.assert_frame_equal(shuffled.sort_index(), chosen)
    assert not with_training_people(frame, 0.5, 1).equals(chosen)


def test_what_cannot_be_parted_is_refused() -> None:
    with pytest.raises(R2MError, match="domain b: expected a domain of the role `test` with two people"):
        with_training_people(domain(1), 0.5, 0)
    with pytest.raises(R2MError, match="role `test`"):
        with_training_people(domain(4).assign(split="train"), 0.5, 0)


def test_a_folder_to_forge_from_is_written(tmp_path) -> None:
    given = {"domain": tmp_path / "b", "share": 0.5, "seed": 0, "out": tmp_path / "c"}
    manifest.write(domain(4), tmp_path / "b" / "manifest.parquet")
    with pytest.raises(R2MError, match=r"landmarks\.parquet: no such file; run `faces` again"):
        write_second_source(**given)
    assert not (tmp_path / "c").exists()
    (tmp_path / "b" / "landmarks.parquet").write_bytes(b"points")
    write_second_source(**given)
    assert manifest.read(tmp_path / "c/manifest.parquet")["split"].value_counts().to_dict() == {
        "test": 4,
        "train": 4,
    }
    assert (tmp_path / "c/landmarks.parquet").read_bytes() == b"points"
