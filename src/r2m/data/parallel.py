"""Worker threads for OpenCV: it releases the interpreter lock, so threads are enough."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import cv2

Item = TypeVar("Item")
Result = TypeVar("Result")


def thread_map(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield `function(item)` in the order of `items`; OpenCV itself stays at one thread."""
    cv2.setNumThreads(1)
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        yield from pool.map(function, items)
