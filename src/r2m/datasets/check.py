"""Whether the index of a data set holds what params.yaml asks of it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from r2m.datasets.options import DatasetOptions
from r2m.datasets.slices import REAL, SPLITS, Index, Part
from r2m.errors import R2MError
from r2m.options import nearest


def check_dataset(key: str, options: DatasetOptions, index: Index, detector: bool) -> None:
    """Raise R2MError, which begins with a key of params.yaml, where files cannot be there or be read.

    `detector` tells whether there is a face detector.
    """
    root = Path(options.root or index.root)
    if not root.is_dir():
        if options.root is not None:
            raise R2MError(f"{key}.root: {root}: no such folder")
        raise R2MError(
            f"{key}.root: {options.index} says that its files lie below {root}, which is no folder; expected"
            " `root: FOLDER`"
        )
    if not detector and any(one.videos for one in index.slices):
        raise R2MError(
            f"{key}: {options.index} holds video files, whose faces have to be found, and `faces.detector` is"
            " `none`; expected a detector"
        )


def check_domain(key: str, options: DatasetOptions, index: Index, part: Part) -> None:
    """Raise R2MError, which begins with a key of params.yaml, where the index lacks a domain or a split."""
    if index.of(part) is None:
        known = {one.domain for one in index.slices if one.method == REAL}
        raise R2MError(
            f"{key}.domain: {options.index} holds no reals of the domain {part.domain!r}"
            f"{nearest(part.domain, known)}"
        )
    _check_splits(key, options, index, [part], is_trained=part.splits == "all")


def check_generator(
    key: str, options: DatasetOptions, index: Index, parts: Sequence[Part], family: str, is_trained: bool
) -> None:
    """Raise R2MError, which begins with a key of params.yaml, where the index lacks a method or its splits.

    `parts` are those of the generator: fakes of one method in some domains, and its own reals.
    """
    fakes = [part for part in parts if part.method != REAL]
    method = fakes[0].method
    slices = [one for one in index.slices if one.method == method]
    if not slices:
        known = {one.method for one in index.slices} - {REAL}
        raise R2MError(f"{key}.method: {options.index} holds no method {method!r}{nearest(method, known)}")
    if slices[0].family != family:
        raise R2MError(
            f"{key}.family: {family}, but in {options.index} {method!r} is of the family {slices[0].family}"
        )
    if not any(index.of(part) for part in fakes):
        domains = ", ".join(sorted({one.domain for one in slices}))
        raise R2MError(
            f"{key}: {options.index} holds fakes of {method!r} in {domains} only; expected one of these among"
            " `domains`, or reals of its own"
        )
    for part in parts:
        if part.method == REAL:
            _check_own_reals(key, options, index, part, method)
    _check_splits(key, options, index, fakes, is_trained)


def _check_own_reals(key: str, options: DatasetOptions, index: Index, reals: Part, method: str) -> None:
    """Raise R2MError where fakes have a domain of their own, and a split of it has no reals."""
    fakes = next((one for one in index.slices if (one.domain, one.method) == (reals.domain, method)), None)
    own = index.of(reals)
    if fakes is None:
        return
    if own is None:
        known = {one.domain for one in index.slices if one.method == REAL}
        raise R2MError(
            f"{key}: {options.index} holds fakes of {method!r} in the domain {reals.domain!r}, and no reals"
            f" of it; it has reals of {', '.join(sorted(known)) or 'no domain'}"
        )
    if reals.splits == "all":
        for split in fakes.counts:
            if not own.counts.get(split):
                raise R2MError(
                    f"{key}: {options.index} holds fakes of {method!r} in the split {split!r}, and no reals"
                    f" of the domain {reals.domain!r} there"
                )


def _check_splits(
    key: str, options: DatasetOptions, index: Index, parts: Sequence[Part], is_trained: bool
) -> None:
    """Raise R2MError where a set that is trained on lacks a split, or one that is tested has no rows."""
    rows: Counter[str] = Counter()
    for part in parts:
        held = index.of(part)
        if held is None:
            continue
        if part.splits == "all":
            rows.update(held.counts)
        else:
            tested = held.counts.get("test", 0)
            rows["test"] += tested or (sum(held.counts.values()) if part.splits == "test_if_any" else 0)
    for split in SPLITS if is_trained else ("test",):
        if not rows[split]:
            what = f"{parts[0].method!r}" if parts[0].label else "reals"
            where = " and ".join(dict.fromkeys(part.domain for part in parts))
            raise R2MError(
                f"{key}: {options.index} holds no {split!r} rows of {what} in {where}; expected some in"
                f" {', '.join(SPLITS) if is_trained else 'test'}"
            )
