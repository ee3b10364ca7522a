"""What an index holds and leaves out, as text and as sections of params.yaml."""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from r2m.files import write_text
from r2m.index import methods
from r2m.index.clips import Skipped
from r2m.index.splits import Placed
from r2m.index.table import REAL
from r2m.options import as_yaml

SPLITS = ("train", "val", "test")
HEAD = ("data set", "domain", "method", "family", "videos", "files", *SPLITS)


def contents(placed: Iterable[Placed]) -> str:
    """Return a table of data sets, domains and methods: videos, files, and files by split."""
    videos: dict[tuple[str, ...], set[Any]] = defaultdict(set)
    files: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for item in placed:
        traits = item.clip.traits
        row = (traits.dataset, traits.domain, traits.method, traits.family)
        files[row][item.split] += len(item.clip.files)
        if item.clip.video is not None:
            videos[row].add(item.clip.video)
    ordered = sorted(files, key=lambda row: (row[0], row[1], row[2] != REAL, row[2]))
    lines = [
        (*row, len(videos[row]), files[row].total(), *(files[row][split] for split in SPLITS))
        for row in ordered
    ]
    by_split = sum(files.values(), Counter[str]())
    count = sum(map(len, videos.values()))
    total = ("all", "", "", "", count, by_split.total(), *(by_split[split] for split in SPLITS))
    return _aligned([HEAD, *lines, total], left=4)


def left_out(skipped: Sequence[Skipped]) -> str:
    """Return a table of the reasons why files are left out, with the first of each; empty if none are."""
    by_reason: dict[str, list[Skipped]] = defaultdict(list)
    for item in skipped:
        by_reason[item.reason].append(item)
    lines = [
        (reason, items[0].file, len(items), sum(item.files for item in items))
        for reason, items in sorted(by_reason.items())
    ]
    return _aligned([("left out", "such as", "rows", "files"), *lines], left=2) if lines else ""


def without_reals(placed: Iterable[Placed]) -> dict[str, int]:
    """Return domain → number of fakes of the domains that have no reals."""
    fakes: Counter[str] = Counter()
    reals = set()
    for item in placed:
        if item.clip.traits.label:
            fakes[item.clip.traits.domain] += len(item.clip.files)
        else:
            reals.add(item.clip.traits.domain)
    return {domain: count for domain, count in sorted(fakes.items()) if domain not in reals}


def without_split(placed: Iterable[Placed]) -> list[str]:
    """Return which domains, and methods of other domains, have files in train and none in val or in test."""
    files: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for item in placed:
        files[item.clip.traits.domain][item.clip.traits.method].add(item.split)
    texts = []
    for domain, methods_of in sorted(files.items()):
        present = set().union(*methods_of.values())
        for split in SPLITS[1:]:
            if "train" in present and split not in present:
                texts.append(f"{domain}: no file in the split {split}")
                continue
            lacking = [name for name, of in sorted(methods_of.items()) if "train" in of and split not in of]
            if lacking:
                texts.append(f"{domain}: {', '.join(lacking)}: no file in the split {split}")
    return texts


def write_skipped(skipped: Sequence[Skipped], path: Path) -> None:
    """Write all that is left out as CSV, atomically."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "key", "files", "reason"))
    writer.writerows((item.file, item.key, item.files, item.reason) for item in skipped)
    write_text(path, text.getvalue())


def params(placed: Sequence[Placed], index: Path) -> str:
    """Return the sections `datasets`, `domains` and `generators` of params.yaml for an index.

    As in DF40's protocols, `ff` is trained on and other domains are tested on, and a method is trained on if
    it has training files there and is no test-only one.
    """
    name = methods.slug(index.stem) or "index"
    trained: Counter[str] = Counter()
    domains: dict[str, set[str]] = defaultdict(set)
    families: dict[str, str] = {}
    for item in placed:
        traits = item.clip.traits
        if traits.method == REAL:
            domains[traits.domain].add(item.split)
        else:
            families[traits.method] = traits.family
            if item.split == "train":
                trained[traits.domain] += len(item.clip.files)
    shared = {domain: splits for domain, splits in domains.items() if domain not in families}
    training = _training_domain(shared, trained)
    train = {
        item.clip.traits.method
        for item in placed
        if item.clip.traits.label and item.split == "train" and item.clip.traits.domain == training
    }
    generators = {}
    for method, family in sorted(families.items(), key=lambda pair: (_role(pair[0], train), pair[0])):
        generators[method] = {
            "family": family,
            "role": _role(method, train),
            "dataset": name,
            "method": method,
        }
    sections = {
        "datasets": {name: {"index": index.as_posix()}},
        "domains": {
            domain: {"dataset": name, "domain": domain, "role": "train" if domain == training else "test"}
            for domain in sorted(shared, key=lambda domain: (domain != training, domain))
        },
        "generators": generators,
    }
    return as_yaml(sections, flow=True)


def _role(method: str, train: set[str]) -> str:
    known = methods.of_name(method)
    return "unseen" if method not in train or (known and known.is_test_only) else "train"


def _training_domain(domains: dict[str, set[str]], trained: Counter[str]) -> str | None:
    """Return `ff`, or else the domain with reals and most fakes to train on."""
    able = [domain for domain, splits in domains.items() if "train" in splits]
    return "ff" if "ff" in able else max(sorted(able), key=lambda domain: trained[domain], default=None)


def _aligned(lines: Sequence[Sequence[Any]], left: int) -> str:
    """Return lines as columns, the first `left` of them flush left, the others flush right."""
    texts = [[str(value) for value in line] for line in lines]
    widths = [max(len(line[column]) for line in texts) for column in range(len(texts[0]))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column < left else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in texts
    )
