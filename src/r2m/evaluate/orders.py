"""Orders in which specialists arrive, and the subsets that they pass through."""

import math
from collections.abc import Iterable, Sequence

from r2m.seeding import rng

# Columns that name what is scored, and those that a step of an order costs.
SETTING = ["subset", "kind", "model"]
COSTS = ["training_images", "tuning_images", "training_seconds", "merging_seconds"]


def random_orders(names: Iterable[str], count: int, seed: int) -> list[list[str]]:
    """Return `count` different random orders of `names`, or all there are if those are fewer."""
    known = sorted(names)
    random = rng(seed, "orders")
    orders: list[list[str]] = []
    while len(orders) < min(count, math.factorial(len(known))):
        order = [known[i] for i in random.permutation(len(known))]
        if order not in orders:
            orders.append(order)
    return orders


def subset_name(names: Iterable[str]) -> str:
    """Return the name of a set of specialists, in whatever order they arrived: `inp-lip`."""
    return "-".join(sorted(names))


def subsets(orders: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Return the distinct subsets that the orders pass through, small ones first: name → specialists."""
    count = len(orders[0]) if orders else 0
    firsts = [sorted(order[:k]) for k in range(1, count + 1) for order in orders]
    return {subset_name(names): names for names in firsts}
