"""Names of tensors: which a file can hold, and how those of two files of one model correspond."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from r2m.errors import R2MError

# Attributes that hold the backbone in detectors and training scripts.
PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.")
# Attributes that hold the classifier.
HEADS = ("head.", "head_dist.", "fc.", "classifier.", "last_linear.", "lm_head.")
# Segments that DistributedDataParallel, torch.compile, FSDP and checkpointing put into names, at any depth.
WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
RESERVED = "__metadata__"


def check_name(name: Any, path: Path) -> str:
    """Return a tensor's name if safetensors files can hold it.

    Raises:
        R2MError: no text, empty, the name that the format reserves, or characters that it has not.
    """
    if not isinstance(name, str):
        raise R2MError(f"{path}: a tensor's name is {name!r} ({type(name).__name__}); expected a text")
    if name == RESERVED:
        raise R2MError(f"{path}: tensor {name!r}: safetensors files reserve this name; rename the tensor")
    if not name or "\0" in name or any("\ud800" <= character <= "\udfff" for character in name):
        raise R2MError(
            f"{path}: tensor {name!r}: safetensors files cannot hold this name; expected a text in UTF-8,"
            " not empty and without NUL"
        )
    return name


def without_prefixes(names: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """Return name → name without the known prefixes that all but the classifier's tensors have, and those.

    Raises:
        ValueError: two names would become the same.
    """
    shorter = {name: name for name in names}
    removed: list[str] = []
    while True:
        prefix = next((shared for shared in PREFIXES if _is_shared(shared, shorter.values())), None)
        if prefix is None:
            return shorter, removed
        removed.append(prefix)
        taken = {name: short.removeprefix(prefix) for name, short in shorter.items()}
        if len(set(taken.values())) < len(taken):
            twice = next(short for short in shorter.values() if f"{prefix}{short}" in shorter.values())
            raise ValueError(f"holds both {twice!r} and {prefix + twice!r}")
        shorter = taken


def canonical(names: Collection[str]) -> dict[str, str]:
    """Return name → what digests call it, the same whatever known prefix all names have."""
    try:
        return without_prefixes(names)[0]
    except ValueError:
        return {name: name for name in names}


def correspondence(
    base: Collection[str], names: Collection[str], head_prefix: str | None = None
) -> dict[str, str]:
    """Return name → what the base calls that tensor, for the `names` of a model fine-tuned from `base`.

    Names may differ by a prefix that all tensors of the base but the head's have, or lack, and by segments
    that wrappers such as DistributedDataParallel put in (`module`, `_orig_mod`, at any depth). The prefixes
    are those under which most names coincide. A tensor that the base lacks, the head perhaps, loses the
    prefix as the others do, or keeps it if `head_prefix` says it so. Where less than half of either side's
    names coincide, all stay as they are. `head_prefix` begins the head's names, on either side; without it
    usual names of heads count as such.

    Raises:
        ValueError: several prefixes fit equally well, or two names would become the same.
    """
    own, theirs = _keys(names), _keys(base)
    base_of = {key: name for name, key in theirs.items()}
    body = {
        name: key
        for name, key in theirs.items()
        if not any(_is_head(form, head_prefix) for form in (name, key))
    }
    body = body or theirs
    unchanged = len(body.keys() & set(names))
    if unchanged == len(body):
        return {name: name for name in names}
    counts = _coinciding(body.values(), own.values())
    most = max(counts.values(), default=0)
    if most <= unchanged or 2 * most < min(len(body), len(own)):
        return {name: name for name in names}
    pairs = sorted(pair for pair, count in counts.items() if count == most)
    if len(pairs) > 1 and pairs[0] != ("", ""):
        choices = " and ".join(repr(pair[1]) for pair in pairs[:2])
        raise ValueError(
            f"holds the base's tensors several times, with the prefixes {choices}; save those of one alone"
        )
    put_on, taken_off = pairs[0]
    result = {}
    for name, key in own.items():
        bare = key.removeprefix(taken_off)
        forms = [put_on + bare, bare, key] if key.startswith(taken_off) else [key]
        known = [base_of[form] for form in (forms[0], key) if form in base_of]
        heads = [form for form in forms if head_prefix is not None and form.startswith(head_prefix)]
        result[name] = [*known, *heads, forms[0] if taken_off else key][0]
    repeated = [target for target, times in Counter(result.values()).items() if times > 1]
    if repeated:
        both = " and ".join(repr(name) for name, target in result.items() if target == repeated[0])
        raise ValueError(f"{both} both correspond to {repeated[0]!r} of the base; save one model alone")
    return result


def _coinciding(body: Collection[str], names: Collection[str]) -> Counter[tuple[str, str]]:
    """Return (prefix of all of `body`, prefix in `names`) → how many names coincide without the two."""
    counts: Counter[tuple[str, str]] = Counter()
    for prefix in _shared(body):
        tails = {name.removeprefix(prefix) for name in body}
        for name in names:
            counts.update((prefix, start) for start in _starts(name) if name[len(start) :] in tails)
    # Prefixes with the same last segment are those of a pair without it, and say nothing more.
    return Counter({pair: count for pair, count in counts.items() if not _end_alike(*pair)})


def _keys(names: Iterable[str]) -> dict[str, str]:
    """Return name → name without wrappers' segments; the names themselves where two would become one."""
    names = list(names)
    shorter = {
        name: ".".join(segment for segment in name.split(".") if segment not in WRAPPERS) for name in names
    }
    if len(set(shorter.values())) < len(names) or "" in shorter.values():
        return {name: name for name in names}
    return shorter


def _is_head(name: str, prefix: str | None) -> bool:
    return name.startswith(HEADS if prefix is None else prefix)


def _starts(name: str) -> Iterator[str]:
    """Yield the beginnings of a name that end before a segment, the empty one first."""
    yield ""
    for index, character in enumerate(name[:-1]):
        if character == ".":
            yield name[: index + 1]


def _shared(names: Collection[str]) -> list[str]:
    """Return the beginnings that all `names` have, the empty one first."""
    if not names:
        return []
    return [start for start in _starts(min(names)) if all(name.startswith(start) for name in names)]


def _end_alike(first: str, second: str) -> bool:
    return bool(first and second) and first.split(".")[-2] == second.split(".")[-2]


def _is_shared(prefix: str, names: Iterable[str]) -> bool:
    names = list(names)
    others = [name for name in names if not name.startswith(prefix)]
    return len(others) < len(names) and all(name.startswith(HEADS) for name in others)
