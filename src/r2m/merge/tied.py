"""Tensors that a model holds under several names: tied weights, which a random method must keep equal."""

from collections.abc import Callable, Iterable, Mapping


def first_names(
    shapes: Mapping[str, tuple[int, ...]], keys: Iterable[str], equal: Callable[[str, str], bool]
) -> dict[str, str]:
    """Return of every tensor in `keys` the first one in their order that is equal to it, often itself."""
    alike: dict[tuple[int, ...], list[str]] = {}
    firsts = {}
    for key in keys:
        some = alike.setdefault(shapes[key], [])
        firsts[key] = next((other for other in some if equal(other, key)), key)
        if firsts[key] == key:
            some.append(key)
    return firsts
