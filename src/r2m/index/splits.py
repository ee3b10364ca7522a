"""Splits: official where there are any, else by identity, with both people of a pair on one side."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from r2m.data.split import split_by_hash
from r2m.index.clips import NO_TEST, Clip, Said, Skipped, Split

SplitBy = Literal["official", "protocol", "identity"]

# Pairs tie people together up to so many; where they would tie more, some fakes are left out instead.
MOST_TIED = 4


@dataclass(frozen=True)
class Placed:
    """A clip in its split; `scope`: prefix of the people who are called after their photographs."""

    clip: Clip
    split: Split
    by: SplitBy
    scope: str | None = None


@dataclass(frozen=True)
class Draw:
    """How splits are drawn where nothing official tells: shares of the people, and a seed."""

    shares: Mapping[str, float]
    seed: int

    def split(self, name: str, allowed: Said) -> Split:
        """Return the split of a person, or a photograph, among those that are allowed."""
        shares = {split: share for split, share in self.shares.items() if not allowed or split in allowed}
        total = sum(shares.values())
        scaled = {split: share / total for split, share in shares.items()}
        return split_by_hash(name, scaled, self.seed)  # type: ignore[return-value]


def place(
    clips: Sequence[Clip], listed: Mapping[str, Split], earlier: Mapping[str, Split], draw: Draw
) -> Iterator[Placed | Skipped]:
    """Yield every clip in its split, or as left out because its two people are on two sides.

    What counts, in this order: the official lists of people (`listed`), what the data set says of the
    clip, the split that other clips or an `earlier` index gave its people, and the seeded hash of their
    names. So a method that is added later moves nobody who was there before.
    """
    by_lists = [_listed(clip, listed) for clip in clips]
    said = [of_lists or clip.said for of_lists, clip in zip(by_lists, clips, strict=True)]
    sides = _Sides(clips, said, {**earlier, **_official(clips, said), **listed}, draw)
    for clip, says, of_lists in zip(clips, said, by_lists, strict=True):
        if _torn(clip, listed):
            yield _left_out(clip, {person: listed.get(person) for person in clip.persons})
        elif len(says) == 1:
            yield Placed(clip, next(iter(says)), "official" if of_lists else clip.traits.said_by)
        elif not clip.persons:
            yield from _by_name(clip, says, draw)
        else:
            yield _by_people(clip, says, sides)


def _listed(clip: Clip, listed: Mapping[str, Split]) -> Said:
    """Return the split in which official lists have all people of a clip."""
    if not listed or not clip.persons or not all(person in listed for person in clip.persons):
        return frozenset()
    sides = frozenset(listed[person] for person in clip.persons)
    return sides if len(sides) == 1 else frozenset()


def _torn(clip: Clip, listed: Mapping[str, Split]) -> bool:
    return len({listed[person] for person in clip.persons if person in listed}) > 1


def _official(clips: Sequence[Clip], said: Sequence[Said]) -> dict[str, Split]:
    """Return person → split of those whose clips are officially in one split only."""
    sides: dict[str, set[Split]] = defaultdict(set)
    for clip, says in zip(clips, said, strict=True):
        if len(says) == 1:
            for person in clip.persons:
                sides[person] |= says
    return {person: next(iter(splits)) for person, splits in sides.items() if len(splits) == 1}


class _Sides:
    """The split of every person: a few people whom pairs tie together are on one side."""

    def __init__(
        self, clips: Sequence[Clip], said: Sequence[Said], known: Mapping[str, Split], draw: Draw
    ) -> None:
        self._known, self._draw = known, draw
        self._root: dict[str, str] = {}
        self._members: dict[str, list[str]] = {}
        self._no_test: set[str] = set()
        open_clips = [(clip, says) for clip, says in zip(clips, said, strict=True) if len(says) != 1]
        for clip, says in open_clips:
            if says:
                self._no_test |= set(clip.persons)
        for first, second in _pairs(clip for clip, _ in open_clips):
            self._tie(first, second)

    def of(self, person: str, says: Said) -> Split:
        """Return the split of a person, among those that the data set allows."""
        root = self._root.get(person, person)
        members = self._members.get(root, [person])
        of_others = (self._known[name] for name in members if name in self._known)
        known = self._known.get(person) or next(of_others, None)
        if known == "test" and person not in self._known and person in self._no_test:
            known = None  # its other clips must not be tested on
        if known is not None and (not says or known in says):
            return known
        allowed = says or (NO_TEST if any(name in self._no_test for name in members) else frozenset())
        return self._draw.split(root, allowed)

    def _tie(self, first: str, second: str) -> None:
        one, other = (self._root.get(person, person) for person in (first, second))
        if one == other:
            return
        # The root of a group stays, and two groups are not tied, so that those who are tied do not move.
        one, other = sorted((one, other), key=lambda root: (root not in self._members, root))
        members = [*self._members.get(one, [one]), *self._members.get(other, [other])]
        known = {self._known[name] for name in members if name in self._known}
        if other in self._members or len(members) > MOST_TIED or len(known) > 1:
            return
        self._members[one] = members
        self._root.update(dict.fromkeys(members, one))


def _pairs(clips: Iterable[Clip]) -> list[tuple[str, str]]:
    """Return the pairs of people, those that most methods have first."""
    methods: dict[tuple[str, str], set[str]] = defaultdict(set)
    for clip in clips:
        if len(clip.persons) == 2:
            first, second = sorted(clip.persons)
            methods[first, second].add(clip.traits.method)
    return sorted(methods, key=lambda pair: (-len(methods[pair]), pair))


def _by_people(clip: Clip, says: Said, sides: _Sides) -> Placed | Skipped:
    splits = {person: sides.of(person, says) for person in clip.persons}
    if len(set(splits.values())) > 1:
        return _left_out(clip, splits)
    return Placed(clip, splits[clip.persons[0]], "official" if says else "identity")


def _left_out(clip: Clip, splits: Mapping[str, Split | None]) -> Skipped:
    key = ", ".join(f"{person} {split}" for person, split in splits.items())
    file = f"{clip.folder}/{min(clip.files)}"
    return Skipped(file, key, "its two people are in different splits", len(clip.files))


def _by_name(clip: Clip, says: Said, draw: Draw) -> Iterator[Placed]:
    """Yield the photographs of a folder by split: photographs of one name are of one person."""
    scope = clip.traits.people
    files: dict[Split, dict[str, int]] = {}
    for file, size in clip.files.items():
        split = draw.split(f"{scope}/{file.rpartition('.')[0]}", says)
        files.setdefault(split, {})[file] = size
    for split in sorted(files):
        yield Placed(replace(clip, files=files[split]), split, "official" if says else "identity", scope)
