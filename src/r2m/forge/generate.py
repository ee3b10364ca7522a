"""The image set of one generator: a forgery applied to the reals, or a folder of the user's own fakes."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r2m import manifest
from r2m.data.align import Landmarks
from r2m.data.faces import Settings, read_landmarks, report, thread_map, write_encoded, write_skipped
from r2m.data.images import Image, read_crop, resized, write_png
from r2m.data.intake import Skipped
from r2m.errors import R2MError
from r2m.files import atomic_path
from r2m.forge import registry
from r2m.forge.options import GeneratorOptions
from r2m.forge.registry import Face, Materials, NoFake
from r2m.forge.user_fakes import user_rows
from r2m.seeding import rng

# Faces whose distances to all others are in memory at once.
CHUNK = 1024


def build_generator(
    name: str,
    options: GeneratorOptions,
    domains: Sequence[Path],
    settings: Settings,
    out: Path,
    trained: Sequence[Path] = (),
    packages: Mapping[str, Path] | None = None,
    pool: Path | None = None,
) -> None:
    """Write the fakes of the generator `name` into the folder `out`, complete or not at all.

    A forgery makes a fake of every real of the `domains` (folders `results/faces/<domain>`), of the split
    `test` only if the generator is unseen; `packages` and `pool` are what it asks for. The user's own fakes
    are aligned and encoded as the reals were; people on them whom the manifests of `trained` generators show
    keep their split.

    Raises:
        R2MError: unknown forgery or option, missing reals, or a folder of fakes that cannot be used.
    """
    reals = read_reals(domains)
    with atomic_path(out) as folder:
        folder.mkdir()
        if options.forge is not None:
            rows, skipped = forged_rows(name, options, reals, settings, folder, packages or {}, pool)
        else:
            rows, skipped = user_rows(name, options, reals, settings, folder, trained)
        keep_only(folder / "images", {path.removeprefix("images/") for path in rows["path"]})
        rows["path"] = [f"{out.as_posix()}/{path}" for path in rows["path"]]
        manifest.write(rows, folder / "manifest.parquet")
        write_skipped(folder / "skipped.csv", skipped)


def keep_only(folder: Path, names: Collection[str]) -> None:
    """Remove the files below `folder` that are not among `names` (POSIX paths relative to it)."""
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in names:
            path.unlink()


def read_reals(domains: Sequence[Path]) -> pd.DataFrame:
    """Return the reals of all domains by image_id, with the columns of `read_landmarks` added."""
    frames = []
    for domain in domains:
        rows = manifest.read(domain / "manifest.parquet")
        table = read_landmarks(domain / "landmarks.parquet")
        if missing := set(rows["image_id"]) - set(table.index):
            raise R2MError(f"{domain}/landmarks.parquet: no landmarks of {min(missing)!r}; run `faces` again")
        rows = rows.join(table, on="image_id")
        frames.append(rows)
    return pd.concat(frames, ignore_index=True).sort_values("image_id", ignore_index=True)


def forged_rows(
    name: str,
    options: GeneratorOptions,
    reals: pd.DataFrame,
    settings: Settings,
    folder: Path,
    packages: Mapping[str, Path],
    pool: Path | None,
) -> tuple[pd.DataFrame, Skipped]:
    """Forge the reals into `folder/images`; return manifest rows (paths below `folder`) and skipped files."""
    assert options.forge is not None
    forgery = registry.get(options.forge)
    forgery.check_options(options.options, f"generators.{name}.options")
    arguments: dict[str, Any] = dict(options.options)
    if forgery.prepare is not None:
        materials = Materials(training_crops(reals), packages, pool, settings.detector, settings.embedder)
        arguments["state"] = forgery.prepare(materials)
    sources = reals if options.role == "train" else reals[reals["split"] == "test"].reset_index(drop=True)
    # Reals that are crops themselves were not encoded, and so their fakes are not.
    is_encoded = (sources["crop"] != sources["path"]).to_numpy(bool)
    donors = donors_within(sources) if forgery.needs_donor else np.full(len(sources), -1)
    usable = np.flatnonzero(donors >= 0) if forgery.needs_donor else np.arange(len(sources))
    rows = fake_rows(name, options.family, sources.iloc[usable], is_encoded[usable])

    def load(index: int) -> Face:
        crop, landmarks = read_crop(Path(sources["crop"][index])), sources["landmarks"][index]
        if not is_encoded[index]:
            crop, landmarks = squared(crop, landmarks, settings)
        return Face(crop, landmarks, np.asarray(sources["embedding"][index], np.float32))

    def write_fake(item: tuple[int, str, str]) -> str | None:
        """Write one fake; return why there is none, if there is none."""
        index, image_id, path = item
        face = load(index)
        donor = load(donors[index]) if forgery.needs_donor else None
        try:
            fake = forgery.function(face, donor, rng(settings.seed, name, image_id), **arguments)
        except NoFake as failure:
            return str(failure)
        fake = as_coloured(fake, face.image)
        if is_encoded[index]:
            write_encoded(folder / path, fake, image_id, settings)
        else:
            write_png(folder / path, fake)
        return None

    items = zip(usable.tolist(), rows["image_id"], rows["path"], strict=True)
    failures = np.array(list(thread_map(write_fake, items, settings.threads)), dtype=object)
    lonely = sources["path"][np.setdiff1d(np.arange(len(sources)), usable)]
    skipped = [(path, "no donor of another identity in its split") for path in lonely]
    failed = np.flatnonzero(failures)
    skipped += zip(sources["path"].iloc[usable[failed]], failures[failed], strict=True)
    rows = rows.drop(index=failed.tolist()).reset_index(drop=True)
    report(name, len(rows), skipped)
    return rows, skipped


def as_coloured(fake: Image, real: Image) -> Image:
    """Return a fake in grey if its real is grey: colour alone must not tell them."""
    if (real != real[:, :, :1]).any():
        return fake
    grey = cv2.cvtColor(fake, cv2.COLOR_BGR2GRAY)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR).astype(np.uint8, copy=False)


def squared(crop: Image, landmarks: Landmarks, settings: Settings) -> tuple[Image, Landmarks]:
    """Return a crop of any size as a square of its shorter side, and the landmarks (5, 2) in its pixels.

    The landmarks given are in pixels of a crop of `faces.crop_size`.
    """
    side = min(crop.shape[:2])
    return resized(crop, side), landmarks * np.float32(side / settings.options.crop_size)


def training_crops(reals: pd.DataFrame) -> Iterator[Image]:
    """Yield the crops of the reals that a forgery may be fitted on."""
    for crop in reals.loc[reals["split"] == "train", "crop"]:
        image = read_crop(Path(crop))
        yield resized(image, min(image.shape[:2])) if image.shape[0] != image.shape[1] else image


def donors_within(reals: pd.DataFrame) -> np.ndarray:
    """Return each real's donor (N,): the nearest of another identity in the same domain and split, or −1."""
    donors = np.full(len(reals), -1, dtype=np.int64)
    for rows in reals.groupby(["domain", "split"], sort=True).indices.values():
        group = reals.iloc[rows]
        nearest = nearest_donors(np.stack(list(group["landmarks"])), group["identity"].to_numpy(dtype=object))
        donors[rows] = np.where(nearest >= 0, rows[nearest], -1)
    return donors


def nearest_donors(landmarks: NDArray[np.float32], identities: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return, for each of N faces, the index of the nearest face of another identity, or −1 if there is none.

    `landmarks` is (N, 5, 2), `identities` (N,). Equal distances go to the lower index.
    """
    points = landmarks.reshape(len(landmarks), -1).astype(np.float64)
    norms = (points**2).sum(axis=1)
    donors = np.full(len(points), -1, dtype=np.int64)
    for start in range(0, len(points), CHUNK):
        rows = slice(start, start + CHUNK)
        distances = norms[None, :] - 2 * points[rows] @ points.T
        distances[identities[rows, None] == identities[None, :]] = np.inf
        best = distances.argmin(axis=1)
        possible = np.isfinite(distances[np.arange(len(best)), best])
        donors[rows] = np.where(possible, best, -1)
    return donors


def fake_rows(name: str, family: str, sources: pd.DataFrame, is_encoded: NDArray[np.bool_]) -> pd.DataFrame:
    """Return the manifest rows of the fakes of `sources` (N rows), with their identity, domain and split.

    `is_encoded` (N,) tells which become JPEG files; the others are PNG.
    """
    kept = ["domain", "identity", "split", "video", "frame", "sampling"]
    rows = sources[kept].reset_index(drop=True)
    rows["source_image"] = list(sources["image_id"])
    rows["image_id"] = [f"{name}/{source}" for source in sources["image_id"]]
    rows["path"] = [
        f"images/{source}{'.jpg' if encoded else '.png'}"
        for source, encoded in zip(sources["image_id"], is_encoded, strict=True)
    ]
    return rows.assign(label=1, generator=name, family=family)
