"""Checks of labels: against the names of folders, against what tells them without looking, and by part."""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from r2m.data.naming import ImageClass, class_of_part
from r2m.index import methods
from r2m.manifest import SPLITS
from r2m.validate.check import Finding, of_files

# A value tells the label if its shares among reals and fakes differ by more.
TELLING = 0.5
# Folders within a method's for what it was given.
_INPUTS = frozenset(
    {"0", "source", "sources", "src", "target", "targets", "driving", "reference", "input", "inputs"}
)
# Methods that are called as data sets of both classes are, or as any folder may be.
_AMBIGUOUS = frozenset(
    {
        "whichisreal",
        "whichfaceisreal",
        "deepfakedetection",
        "deeperforensics",
        "methoda",
        "methodb",
        "oneshot",
    }
)
# Shorter names, such as LIA, SiT and MJ, are words and people's names, too.
_SHORTEST = 4


def mislabelled(frame: pd.DataFrame) -> Finding:
    """Find files whose folder says that they are of the other class: by whole words, or as a method's name.

    The innermost folder that says anything by words counts; where none does, a folder called after a method
    that forges says fake. Folders that all files of an index of both labels lie in say nothing.
    """
    folders = list(frame["folder"].cat.categories)
    is_mixed = frame["label"].min() != frame["label"].max()
    shared = len(PurePosixPath(os.path.commonpath(folders)).parts) if is_mixed else 0
    parts = [PurePosixPath(folder).parts[shared:] for folder in folders]
    classes = [_class_said(names) for names in parts]
    names = pd.Categorical(classes, categories=["real", "fake"])
    said = names.codes[frame["folder"].cat.codes.to_numpy()]
    is_wrong = (said >= 0) & (said != frame["label"].to_numpy())
    return of_files(frame, is_wrong, ["label"], ["domain", "method", "split", "dataset"])


def format_tells(frame: pd.DataFrame) -> Finding:
    """Find generators whose files have by their suffix another format than the reals of their domain."""
    images = frame[frame["media"] == "image"]
    return _telling(images, images["suffix"], "suffix")


def size_tells(frame: pd.DataFrame) -> Finding:
    """Find generators whose images have other sizes than the reals of their domain."""
    images = frame[(frame["media"] == "image") & (frame["width"] > 0)]
    return _telling(images, sizes(images), "size")


def one_class(frame: pd.DataFrame) -> Finding:
    """Find splits of domains that have fakes without reals."""
    keys = ["domain", "split"]
    counts = frame.pivot_table(index=keys, columns="label", aggfunc="size", fill_value=0, observed=True)
    counts = counts.reindex(columns=[0, 1], fill_value=0)
    alone = counts[(counts[0] == 0) & (counts[1] > 0)].reset_index()
    where = alone[["domain", "split", 1]].rename(columns={1: "fakes"}).rename_axis(columns=None)
    return Finding(len(where), where=where)


def empty_splits(frame: pd.DataFrame) -> Finding:
    """Find splits val and test without a file, of domains that have files to train on."""
    counts = frame.pivot_table(
        index="domain", columns="split", aggfunc="size", fill_value=0, observed=True
    ).reindex(columns=list(SPLITS), fill_value=0)
    trained = counts[counts["train"] > 0]
    rows = [
        (domain, split, row["train"])
        for domain, row in trained.iterrows()
        for split in SPLITS[1:]
        if not row[split]
    ]
    return Finding(len(rows), where=pd.DataFrame(rows, columns=["domain", "split", "files of train"]))


def sizes(frame: pd.DataFrame) -> pd.Series:
    """Return `WIDTH×HEIGHT` of each row, a category."""
    key = frame["width"].to_numpy().astype(np.int64) << 32 | frame["height"].to_numpy()
    values, codes = np.unique(key, return_inverse=True)
    names = pd.Index([f"{value >> 32}×{value & 0xFFFFFFFF}" for value in values.tolist()], dtype="object")
    return pd.Series(pd.Categorical.from_codes(codes, names), index=frame.index)


def _class_said(parts: Sequence[str]) -> ImageClass | None:
    """Return the class that the folders of a path, the outermost first, say."""
    said: ImageClass | None = next(filter(None, map(class_of_part, reversed(parts))), None)
    if said is not None:
        return said
    for part in reversed(parts):
        if part.casefold() in _INPUTS:
            return None
        if methods.key(part) in _forgers():
            return "fake"
    return None


@cache
def _forgers() -> frozenset[str]:
    """Return keys of the methods' names but those that may as well be a person's or a data set's."""
    known = (*methods.DF40, *methods.FACEFORENSICS, *methods.OTHERS)
    names = {methods.key(name) for method in known for name in (method.name, *method.aliases)}
    return frozenset(name for name in names - _AMBIGUOUS if len(name) >= _SHORTEST)


def _telling(frame: pd.DataFrame, values: pd.Series, name: str) -> Finding:
    """Return the generators of which a value's share differs from that among the reals of the domain."""
    keys = ["domain", "method", "label"]
    counts = frame[keys].assign(value=values).groupby([*keys, "value"], observed=True).size()
    shares = counts / counts.groupby(level=keys, observed=True).transform("sum")
    listed = shares.rename("share").reset_index().astype({"value": "object"})
    table = listed.pivot_table(index=keys, columns="value", values="share", fill_value=0.0, observed=True)
    rows = []
    for domain, part in table.groupby(level="domain", observed=True):
        is_fake = part.index.get_level_values("label") == 1
        if is_fake.all():
            continue
        real = part[~is_fake].to_numpy().mean(axis=0)
        for method, fake in zip(
            part.index.get_level_values("method")[is_fake], part[is_fake].to_numpy(), strict=True
        ):
            at = int(np.abs(fake - real).argmax())
            if abs(fake[at] - real[at]) > TELLING:
                rows.append((domain, method, table.columns[at], fake[at], real[at]))
    where = pd.DataFrame(rows, columns=["domain", "method", name, "share of fakes", "share of reals"])
    return Finding(len(where), where=where.round(3))
