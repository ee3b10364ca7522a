"""A test domain of which some people are trained on: the same images, another split."""

import shutil
from pathlib import Path

import pandas as pd

from r2m import manifest
from r2m.errors import R2MError
from r2m.files import atomic_path
from r2m.seeding import derive


def with_training_people(frame: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """Return a test domain's manifest in which all images of a `share` of the people are the split `train`.

    People stand in the order of a seeded hash of their name, and the first are taken: at least one, and not
    all. Nobody goes to `val`, so that choices rest on the same images with and without this domain.

    Raises:
        R2MError: fewer than two people, or images that are not of the split `test`.
    """
    people = sorted(set(frame["identity"]), key=lambda name: derive(seed, "second source", name))
    if len(people) < 2 or (frame["split"] != "test").any():
        raise R2MError(
            f"domain {', '.join(sorted(set(frame['domain'])))}: expected a domain of the role `test` with two"
            f" people or more, got {len(people)}"
        )
    trained = people[: min(max(1, round(share * len(people))), len(people) - 1)]
    return frame.assign(split=frame["split"].mask(frame["identity"].isin(trained), "train"))


def write_second_source(*, domain: Path, share: float, seed: int, out: Path) -> None:
    """Write manifest and landmarks of the folder `results/faces/<domain>` into `out`, with the new split.

    The images stay where they are. Raises R2MError like `with_training_people`, and where a file is missing.
    """
    rows = with_training_people(manifest.read(domain / "manifest.parquet"), share, seed)
    landmarks = domain / "landmarks.parquet"
    if not landmarks.is_file():
        raise R2MError(f"{landmarks}: no such file; run `faces` again")
    with atomic_path(out) as folder:
        folder.mkdir()
        manifest.write(rows, folder / "manifest.parquet")
        shutil.copyfile(landmarks, folder / "landmarks.parquet")
