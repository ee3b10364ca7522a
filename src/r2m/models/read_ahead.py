"""Reading ahead of the model: batches are made in threads of their own, and come in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Batch = TypeVar("Batch")


def read_ahead(read: Callable[[Item], Batch], items: Iterable[Item], threads: int) -> Iterator[Batch]:
    """Yield `read(item)` in the order of `items`, computed in `threads` threads while the caller works.

    At most as many batches as there are threads are read or being read beyond the one that the caller has.
    `items` are drawn in the caller's thread. What `read` raises is raised where its batch would have come,
    and nothing more is read. OpenCV, Pillow and torch release the interpreter's lock, so threads are enough.
    """
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="read_ahead") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
