"""Who is on images that the user brings: people who are known already, and strangers."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r2m.data.detect import Embedding
from r2m.data.faces import Settings
from r2m.data.identity import cluster, linked, nearest
from r2m.data.naming import meaningful, people_of, person_of_folder
from r2m.data.split import split_by_hash
from r2m.seeding import derive

Indices = NDArray[np.int64]
Label = TypeVar("Label", bound=Hashable)


def identify(rows: pd.DataFrame, known: pd.DataFrame, role: str, settings: Settings) -> pd.DataFrame:
    """Add source_image, identity, split and `objection` (why an image cannot be used, else None) to `rows`.

    Both tables have the columns image_id, file, video, people, source, frame, digest and embedding (empty
    where it is not known); `known` also has identity, split and `named` (whether names may link to it).

    Who is known keeps identity and split: the person of the real video or photograph that an image is called
    after, of a copy of the file, or of the nearest face above the threshold (for a person by name, the face
    that most of the images are near to). The split of strangers is a hash of their name alone, so that every
    generator has them in the same one; those of an unseen generator are tested on. There is an objection to
    images of people in different splits, and to those of an unseen generator that show anybody outside of
    `test`.
    """
    named = np.flatnonzero(known["named"].to_numpy(bool))
    videos, stills = known_videos(known, named), known_stills(known, named)
    people = stills | known_people(known, named)
    rows = rows.assign(people=people_of_pairs(rows, stills))
    source = made_from(rows, known, named, videos, stills)
    shown_first = [
        videos.get(source_video, people.get(names[0], -1) if names else people.get(_folder(file), -1))
        for source_video, names, file in zip(rows["source"], rows["people"], rows["file"], strict=True)
    ]
    matches = first_known(np.array(shown_first, dtype=np.int64), source, alike(rows, known, settings))
    keys = stranger_keys(rows, matches, settings)

    def split_of_stranger(key: str) -> str:
        if role == "unseen":
            return "test"
        return split_by_hash(key, settings.options.split.model_dump(), settings.seed)

    split = values_at(known["split"], matches, [split_of_stranger(key) for key in keys])
    split_of_first = {
        names[0]: own_split for names, own_split in zip(rows["people"], split, strict=True) if names
    }

    def split_of(person: str) -> str:
        if person in people:
            return str(known["split"].iloc[people[person]])
        return split_of_first.get(person) or split_of_stranger(person)

    # Who has the name of somebody that another generator shows, and is not that person, gets another one.
    taken_names = set(known["identity"])
    strangers = [f"stranger {key}" for key in keys]
    strangers = [
        f"{name} of {image_id.split('/')[0]}" if name in taken_names else name
        for name, image_id in zip(strangers, rows["image_id"], strict=True)
    ]
    companions = [{name: split_of(name) for name in names[1:]} for names in rows["people"]]
    objections = [
        objection(own_split, its_companions, role)
        for own_split, its_companions in zip(split, companions, strict=True)
    ]
    return rows.assign(
        source_image=values_at(known["image_id"], source, [None] * len(rows)),
        identity=values_at(known["identity"], matches, strangers),
        split=split,
        objection=pd.Series(objections, index=rows.index, dtype=object),
    )


def objection(split: str, companions: dict[str, str], role: str) -> str | None:
    """Return why an image of a split cannot be used; `companions`: the other people on it → their split."""
    for person, their_split in companions.items():
        if their_split != split:
            return f"people of different splits are on it: {split!r} and {their_split!r} ({person})"
    if role == "unseen" and split != "test":
        return f"an unseen generator is tested only, and this person is in the split {split!r}"
    return None


def known_people(known: pd.DataFrame, named: Indices) -> dict[str, int]:
    """Return person by name → an index of theirs in `known`; without names that stand for several identities.

    Names are those that videos say, and those of folders that are identities.
    """
    rows = known.iloc[named]
    names = [
        people[0] if people else _folder_identity(file, identity)
        for people, file, identity in zip(rows["people"], rows["file"], rows["identity"], strict=True)
    ]
    return unambiguous(names, named, known["identity"])


def known_videos(known: pd.DataFrame, named: Indices) -> dict[str, int]:
    """Return real video by name → an index of a frame in `known`; without names of several identities."""
    return unambiguous(list(known["source"].iloc[named]), named, known["identity"])


def known_stills(known: pd.DataFrame, named: Indices) -> dict[str, int]:
    """Return the name of a photograph → its index in `known`; without names of several identities."""
    stills = named[known["video"].iloc[named].isna().to_numpy()]
    return unambiguous([file.stem for file in known["file"].iloc[stills]], stills, known["identity"])


def people_of_pairs(rows: pd.DataFrame, stills: Mapping[str, int]) -> pd.Series:
    """Return the people on each image; on a photograph `003_007` those of the photographs `003` and `007`."""
    people = []
    for names, video, file in zip(rows["people"], rows["video"], rows["file"], strict=True):
        pair = () if names or video is not None else people_of(file.stem, "fake")[0]
        people.append(pair if pair and pair[0] != file.stem and pair[0] in stills else names)
    return pd.Series(people, index=rows.index, dtype=object)


def unambiguous(labels: Iterable[Label | None], indices: Indices, values: pd.Series) -> dict[Label, int]:
    """Return label → the first of its `indices`, for labels whose indices all have one of the `values`."""
    value = values.tolist()
    first: dict[Label, int] = {}
    differs = set()
    for label, index in zip(labels, indices.tolist(), strict=True):
        if label is not None and value[first.setdefault(label, index)] != value[index]:
            differs.add(label)
    return {label: index for label, index in first.items() if label not in differs}


def made_from(
    rows: pd.DataFrame,
    known: pd.DataFrame,
    named: Indices,
    videos: Mapping[str, int],
    stills: Mapping[str, int],
) -> Indices:
    """Return the index in `known` of the real that each image was made from, by name; −1 for none (N,).

    A frame is made from the frame of the same number of its real video, a photograph from that of its name,
    or of the first one in a pair of names.
    """
    frames = unambiguous(_frames(known.iloc[named], videos), named, known["identity"])
    source = np.array([-1 if f is None else frames.get(f, -1) for f in _frames(rows, videos)], dtype=np.int64)
    photographs = np.flatnonzero(rows["video"].isna().to_numpy())
    places = named[known["video"].iloc[named].isna().to_numpy()]
    matched = by_name(
        [_stem(file) for file in rows["file"].iloc[photographs]],
        [_stem(file) for file in known["file"].iloc[places]],
    )
    targets = [stills.get(names[0], -1) if names else -1 for names in rows["people"].iloc[photographs]]
    source[photographs] = np.array(
        [places[i] if i >= 0 else target for i, target in zip(matched.tolist(), targets, strict=True)],
        dtype=np.int64,
    )
    return source


def by_name(stems: Sequence[str], known: Sequence[str]) -> Indices:
    """Return the index of each stem among `known`: the same, else the only one of its name; −1 for none.

    For the latter they must lie in folders that correspond: one's folders are the last of the other's,
    but for those that only say how images are stored.
    """
    exact = {stem: index for index, stem in enumerate(known)}
    keys = [_key(stem) for stem in known]
    wholes = _distinct((key, index) for index, key in enumerate(keys))
    ends = _distinct((key[start:], index) for index, key in enumerate(keys) for start in range(len(key)))

    def corresponding(stem: str) -> int:
        key = _key(stem)
        fitting = {ends.get(key, -1), *(wholes.get(key[start:], -1) for start in range(len(key)))} - {-1}
        return max(fitting.pop(), -1) if len(fitting) == 1 else -1

    return np.array([exact[stem] if stem in exact else corresponding(stem) for stem in stems], dtype=np.int64)


def alike(rows: pd.DataFrame, known: pd.DataFrame, settings: Settings) -> Indices:
    """Return the index in `known` of the same person, by a copy of the file or the face; −1 for none (N,).

    Images of one person by name are all alike to the person whom most of them are alike to.
    """
    copies = dict(zip(known["digest"], range(len(known)), strict=True))
    matches = np.array([copies.get(digest, -1) for digest in rows["digest"]], dtype=np.int64)
    faces = np.flatnonzero([len(embedding) > 0 for embedding in known["embedding"]])
    if settings.embedder is not None and len(faces):
        near = nearest(_stacked(rows), _stacked(known.iloc[faces]), settings.options.identity_similarity)
        matches = first_known(matches, np.where(near >= 0, faces[near], -1))
    person = pd.Series([names[0] if names else None for names in rows["people"]], dtype=object)
    identity = known["identity"].to_numpy(object)
    for images in person.groupby(person).indices.values():
        matched = matches[images][matches[images] >= 0]
        if len(matched):
            most = pd.Series(identity[matched]).mode().iloc[0]
            matches[images] = matched[(identity[matched] == most).argmax()]
    return matches


def stranger_keys(rows: pd.DataFrame, matches: Indices, settings: Settings) -> list[str]:
    """Return a name for each image of a stranger (`matches` −1), the same for all of a person; else '' (N,).

    Frames of a video, videos of one person by name, copies, and faces of one cluster are of one person. Of
    their names the one with the least hash is taken: sets that share people mostly agree on it.
    """
    fresh = np.flatnonzero(matches < 0)
    strangers = rows.iloc[fresh]
    names = [
        people[0] if people else "/".join([*meaningful(file.parent), file.stem])
        for people, file in zip(strangers["people"], strangers["file"], strict=True)
    ]
    clusters: Sequence[Hashable | None] = [None] * len(fresh)
    if settings.embedder is not None and len(fresh):
        clusters = cluster(_stacked(strangers), settings.options.identity_similarity)
    groups = linked(names, list(strangers["digest"]), clusters)
    least: dict[int, str] = {}
    for group, name in zip(groups.tolist(), names, strict=True):
        least[group] = min(least.get(group, name), name, key=lambda text: derive(0, "stranger", text))
    keys = [""] * len(rows)
    for index, group in zip(fresh.tolist(), groups.tolist(), strict=True):
        keys[index] = least[group]
    return keys


def first_known(*indices: Indices) -> Indices:
    """Return the first index of each image that is not −1 (N,)."""
    chosen = indices[0].copy()
    for fallback in indices[1:]:
        chosen = np.where(chosen >= 0, chosen, fallback)
    return chosen


def values_at(values: pd.Series, indices: Indices, otherwise: Sequence[object]) -> NDArray[np.object_]:
    """Return the value at each of `indices`, or what stands in `otherwise` where there is none (−1)."""
    items = values.tolist()
    chosen = np.empty(len(indices), dtype=object)
    chosen[:] = [
        items[index] if index >= 0 else default
        for index, default in zip(indices.tolist(), otherwise, strict=True)
    ]
    return chosen


def _frames(rows: pd.DataFrame, videos: Mapping[str, int]) -> list[tuple[str, int] | None]:
    """Return video and number of every frame of one of `videos`."""
    return [
        (source, int(frame)) if source in videos and frame is not None else None
        for source, frame in zip(rows["source"], rows["frame"], strict=True)
    ]


def _folder(file: Path) -> str:
    return person_of_folder(file.parent)


def _folder_identity(file: Path, identity: str) -> str | None:
    person = person_of_folder(file.parent)
    return person if person and person == identity else None


def _key(stem: str) -> tuple[str, ...]:
    path = Path(stem)
    return (*meaningful(path.parent), path.name)


def _distinct(pairs: Iterable[tuple[Label, int]]) -> dict[Label, int]:
    """Return label → its index, or −2 for a label of several."""
    index_of: dict[Label, int] = {}
    for label, index in pairs:
        index_of[label] = index if index_of.get(label, index) == index else -2
    return index_of


def _stem(file: Path) -> str:
    return file.with_suffix("").as_posix()


def _stacked(rows: pd.DataFrame) -> Embedding:
    return np.stack(list(rows["embedding"])).astype(np.float32, copy=False)
