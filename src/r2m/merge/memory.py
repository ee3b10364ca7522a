"""How a process that merges takes memory for tensors; without torch, which allocates after it."""

import ctypes
import platform

# glibc's M_MMAP_THRESHOLD, and the size from which a block is mapped by itself.
_MMAP_THRESHOLD, _MAPPED = -3, 4 << 20
# Its M_TRIM_THRESHOLD: heaps keep so much of their free end, and the next tensor's blocks need no new pages.
_TRIM_THRESHOLD, _KEPT = -1, 16 << 20


def map_large_blocks() -> None:
    """Have large blocks mapped one by one, so that they go back to the system when they are freed.

    glibc would soon take them from its heaps. That is faster, since the system zeroes mapped pages; but a few
    numbers that are kept for every specialist split the holes there, and the heaps grow with their number and
    with that of the decompositions.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _MAPPED)
        library.mallopt(_TRIM_THRESHOLD, _KEPT)
