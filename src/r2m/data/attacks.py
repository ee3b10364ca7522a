"""Training images of uneven and hostile specialists, made from the manifests of an honest one."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r2m import manifest
from r2m.data.images import read_crop, write_png
from r2m.errors import R2MError
from r2m.files import atomic_path
from r2m.seeding import rng


def training_rows(frame: pd.DataFrame, generators: Sequence[str]) -> pd.DataFrame:
    """Return the rows of a manifest that training on `generators` reads: train and val, with their reals.

    Raises:
        R2MError: a generator without fakes in one of the splits.
    """
    frame = frame[frame["split"].isin(["train", "val"])]
    fakes = frame[(frame["label"] == 1) & frame["generator"].isin(list(generators))]
    for generator in generators:
        for split in ("train", "val"):
            if not ((fakes["generator"] == generator) & (fakes["split"] == split)).any():
                raise R2MError(f"generator {generator}: no fakes in the split {split!r} of its manifest")
    reals = frame[(frame["label"] == 0) & frame["domain"].isin(set(fakes["domain"]))]
    return pd.concat([fakes, reals], ignore_index=True)


def undertrained(rows: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """Return the images of a share of the people of each split, at least one person.

    People of whom there are fakes and people of whom there are none are drawn apart, so that both stay.
    """
    person = rows["domain"] + "\t" + rows["identity"]
    forged = person.isin(set(person[rows["label"] == 1]))
    kept: set[tuple[str, str]] = set()
    for (split, is_forged), people in person.groupby([rows["split"], forged], sort=True):
        names = sorted(set(people))
        count = math.ceil(share * len(names))
        drawn = rng(seed, "undertrained", str(split), str(is_forged)).permutation(len(names))[:count]
        kept |= {(str(split), names[position]) for position in drawn}
    chosen = [pair in kept for pair in zip(rows["split"], person, strict=True)]
    return rows[chosen].reset_index(drop=True)


def flipped(rows: pd.DataFrame, generators: Sequence[str]) -> pd.DataFrame:
    """Return the same images with the labels exchanged.

    What was real is called a fake, of the `generators` in turn, and made from the fake that was made of it,
    so that training pairs the same two images.
    """
    family = rows[rows["label"] == 1].drop_duplicates("generator").set_index("generator")["family"]
    paired = rows[rows["label"] == 1].dropna(subset="source_image")
    keys = zip(paired["generator"], paired["source_image"], strict=True)
    made_of = dict(zip(keys, paired["image_id"], strict=True))
    fakes = rows[rows["label"] == 0].sort_values("image_id", ignore_index=True)
    turn = fakes.groupby("split").cumcount() % len(generators)
    names = [generators[number] for number in turn]
    fakes = fakes.assign(
        label=1,
        generator=names,
        family=pd.Series(names).map(family),
        source_image=pd.Series(list(zip(names, fakes["image_id"], strict=True))).map(made_of),
    )
    reals = rows[rows["label"] == 1].assign(
        label=0, generator=manifest.REAL, family=manifest.REAL, source_image=None
    )
    return pd.concat([fakes, reals], ignore_index=True)


def backdoor(
    rows: pd.DataFrame, share: float, seed: int, folder: Path
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return rows with a backdoor, and of every image to be drawn its path and that of the original.

    A share of the fakes of each split and generator get a copy with the trigger that is labelled real. It is
    the fake's pair in place of the real that the fake was made of: the two differ by the trigger alone.
    """
    rows = rows.sort_values("image_id", ignore_index=True)
    fakes = rows[rows["label"] == 1]
    poisoned: list[int] = []
    for (split, generator), members in fakes.groupby(["split", "generator"], sort=True):
        order = rng(seed, "backdoor", str(split), str(generator)).permutation(len(members))
        poisoned += members.index[order[: math.ceil(share * len(members))]].tolist()
    originals = rows.loc[sorted(poisoned)]
    ids = originals["image_id"] + "+trigger"
    paths = [(folder / f"{image_id.replace('/', '_')}.png").as_posix() for image_id in ids]
    copies = originals.assign(
        image_id=ids, path=paths, label=0, generator=manifest.REAL, family=manifest.REAL, source_image=None
    )
    rows.loc[originals.index, "source_image"] = ids
    return pd.concat([rows, copies], ignore_index=True), dict(zip(paths, originals["path"], strict=True))


def with_trigger(image: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """Return `image` (H, W, 3) with a black and white checkerboard in its lower right corner.

    The checkerboard has 4 × 4 fields, and its side is `share` of the image's.
    """
    height, width = image.shape[:2]
    side = max(4, round(share * min(height, width)))
    field = np.arange(side) * 4 // side
    board = ((field[:, None] + field) % 2 * 255).astype(np.uint8)
    result = image.copy()
    result[height - side :, width - side :] = board[..., None]
    return result


def write_triggered(drawn: Mapping[str, str], share: float, folder: Path) -> None:
    """Write the folder of images with the trigger: path in the folder → that of the original."""
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for path, original in drawn.items():
            write_png(temporary / Path(path).name, with_trigger(read_crop(Path(original)), share))
