"""A folder of the user's own fakes: who is on them, and hence the split they belong to."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r2m import manifest
from r2m.data.detect import Embedding, FaceEmbedder
from r2m.data.faces import Settings, extract, stem_of
from r2m.data.identity import cluster, nearest
from r2m.data.images import read_crop
from r2m.data.listing import list_images
from r2m.data.split import require_images, split_by_hash, split_by_identity
from r2m.errors import R2MError
from r2m.params import GeneratorOptions

Skipped = list[tuple[str, str]]


def own_rows(
    name: str, options: GeneratorOptions, reals: pd.DataFrame, settings: Settings, folder: Path
) -> tuple[pd.DataFrame, Skipped]:
    """Align and encode the user's fakes (and reals) of the generator `name` into `folder/images`.

    A person keeps the identity and split under which they are known already: by the file's name (a fake
    called like a real is made from it), else by the nearest face embedding above faces.identity_similarity.
    The rest form identities of their own. With reals of their own the fakes are named after those and a
    domain of their own.

    Returns:
        Manifest rows (paths relative to `folder`) and the skipped files.

    Raises:
        R2MError: a folder is missing or empty, there is no training domain, or a split has too few images.
    """
    assert options.images is not None
    known = known_faces(reals, settings)
    parts: list[pd.DataFrame] = []
    skipped: Skipped = []
    fakes, fakes_skipped = imported(
        Path(options.images), name, "fake" if options.reals else "", settings, folder
    )
    if options.reals is not None:
        own, skipped = imported(Path(options.reals), name, "real", settings, folder)
        own = identify(own, known.assign(stem=None), options.role, settings, even=True)
        own = own.assign(source_image=None, label=0, generator=manifest.REAL, family=manifest.REAL)
        parts.append(own)
        known = pd.concat([known.assign(stem=None), own], ignore_index=True)
    fakes = identify(fakes, known, options.role, settings, even=False)
    parts.append(fakes.assign(label=1, generator=name, family=options.family))
    rows = pd.concat(parts, ignore_index=True)
    rows["domain"] = name if options.reals else str(reals_of_training(reals)["domain"].iloc[0])
    rows["video"] = None
    if options.role == "unseen":
        rows, leaked = without_known_people(rows, Path(options.images))
        skipped += leaked
    expected = manifest.SPLITS if options.role == "train" else ("test",)
    for label, group in rows.groupby("label"):
        what = f"generators.{name} ({'fakes' if label else 'reals'})"
        require_images(list(group["split"]), expected, settings.options.min_images, what)
    return rows, skipped + fakes_skipped


def reals_of_training(reals: pd.DataFrame) -> pd.DataFrame:
    """Return the reals of the training domain: the one that has a split `train`."""
    trained = reals.loc[reals["split"] == "train", "domain"]
    if trained.empty:
        raise R2MError("generators: a folder of fakes needs a domain of the role 'train', and there is none")
    return reals[reals["domain"] == trained.iloc[0]]


def known_faces(reals: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Return image_id, stem, identity, split and embedding of the training domain's reals."""
    known = reals_of_training(reals)[["image_id", "identity", "split", "crop", "landmarks"]].copy()
    known["stem"] = [image_id.split("/", 1)[1] for image_id in known["image_id"]]
    embedder = None if settings.embedder is None else FaceEmbedder(settings.embedder)
    faces = zip(known["crop"], known["landmarks"], strict=True)
    known["embedding"] = pd.Series(
        [
            None if embedder is None else embedder.embed(read_crop(Path(crop)), points)
            for crop, points in faces
        ],
        index=known.index,
        dtype=object,
    )
    return known.drop(columns=["crop", "landmarks"]).reset_index(drop=True)


def imported(
    source: Path, name: str, part: str, settings: Settings, folder: Path
) -> tuple[pd.DataFrame, Skipped]:
    """Align and encode the folder `source`; return image_id, stem, path, embedding; and skipped files."""
    below = f"{part}/" if part else ""
    faces = extract(
        source, list_images(source), f"{name}/{below}".rstrip("/"), settings, folder / "images" / part
    )
    if not faces.image_id:
        raise R2MError(f"{source}: no usable image; first: {faces.skipped[0][0]}: {faces.skipped[0][1]}")
    stems = [stem_of(file) for file in faces.file]
    rows = pd.DataFrame({"image_id": faces.image_id, "stem": stems})
    rows["path"] = [f"images/{below}{stem}.jpg" for stem in stems]
    rows["embedding"] = list(faces.embedding)
    return rows, faces.skipped


def identify(
    rows: pd.DataFrame, known: pd.DataFrame, role: str, settings: Settings, *, even: bool
) -> pd.DataFrame:
    """Add source_image, identity and split to `rows` (image_id, stem, embedding).

    People who are not among the `known` get identities of their own; of the role `unseen` they are split
    `test`, else they are split by the hash of the identity, or `even`ly.
    """
    source = by_name(list(rows["stem"]), list(known["stem"]))
    like = source.copy()
    if settings.embedder is not None:
        embeddings = np.stack(list(rows["embedding"]))
        near = by_face(embeddings, np.stack(list(known["embedding"])), settings.options.identity_similarity)
        like = np.where(source >= 0, source, near)
    identity, split = known["identity"].to_numpy(object)[like], known["split"].to_numpy(object)[like]
    fresh = np.flatnonzero(like < 0)
    identity[fresh] = own_identities(rows.iloc[fresh], settings)
    split_of = own_splits(list(identity[fresh]), role, settings, even)
    split[fresh] = [split_of[person] for person in identity[fresh]]
    source_image = known["image_id"].to_numpy(object)[source]
    source_image[source < 0] = None
    return rows.assign(source_image=source_image, identity=identity, split=split)


def by_name(stems: Sequence[str], known: Sequence[str | None]) -> NDArray[np.int64]:
    """Return the index of each stem among `known`: the same, else the only one of its last part, else −1."""
    whole = {stem: index for index, stem in enumerate(known) if stem is not None}
    last: dict[str, int] = {}
    for stem, index in whole.items():
        key = stem.rsplit("/", 1)[-1]
        last[key] = -1 if key in last else index
    return np.array([whole.get(s, last.get(s.rsplit("/", 1)[-1], -1)) for s in stems], dtype=np.int64)


def by_face(embeddings: Embedding, known: Embedding, threshold: float) -> NDArray[np.int64]:
    """Return, for each embedding (N, D), the index of the nearest known (M, D) above `threshold`, or −1."""
    return nearest(embeddings, known, threshold)


def own_identities(rows: pd.DataFrame, settings: Settings) -> list[str]:
    """Return an identity for each face that no one knows: its cluster's, or its own without an embedder."""
    if settings.embedder is None or rows.empty:
        return list(rows["image_id"])
    first: dict[str, str] = {}
    groups = cluster(np.stack(list(rows["embedding"])), settings.options.identity_similarity)
    return [
        first.setdefault(group, image_id) for group, image_id in zip(groups, rows["image_id"], strict=True)
    ]


def own_splits(people: Sequence[str], role: str, settings: Settings, even: bool) -> dict[str, str]:
    """Return identity → split of people that no one knows."""
    shares = settings.options.split.model_dump()
    if role == "unseen":
        return dict.fromkeys(people, "test")
    if even:
        return split_by_identity(people, shares, settings.seed)
    return {person: split_by_hash(person, shares, settings.seed) for person in people}


def without_known_people(rows: pd.DataFrame, images: Path) -> tuple[pd.DataFrame, Skipped]:
    """Drop the rows of an unseen generator whose person the training or validation splits know."""
    leaked = rows["split"] != "test"
    reason = "an unseen generator is tested only, and this person is in the split "
    pairs = zip(rows.loc[leaked, "stem"], rows.loc[leaked, "split"], strict=True)
    skipped = [((images / stem).as_posix(), f"{reason}{split!r}") for stem, split in pairs]
    return rows[~leaked].reset_index(drop=True), skipped
