"""Freed memory stays with the process while a network is trained on a CPU.

glibc gives large blocks back to the system when they are freed, and has to have them again, page by page and zeroed, a
moment later: a step of the example's network took 26,000 page faults, and a fifth of its time for them.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["kept_memory"]

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of malloc.h
_NEVER = -1
_USUAL_TRIM, _USUAL_MMAPS = 64 << 20, 65536  # what glibc arrives at by itself when blocks are large
_SET_BY_USER = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


@contextmanager
def kept_memory() -> Iterator[None]:
    """Take all memory from the heap and keep it there; afterwards as usual, and what is free goes back.

    Nothing happens with another C library than glibc, or where the environment says how malloc is to work.
    """
    library = _glibc()
    if library is None or any(name in os.environ for name in _SET_BY_USER):
        yield
        return
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        library.mallopt(_MMAP_MAX, _USUAL_MMAPS)
        library.mallopt(_TRIM_THRESHOLD, _USUAL_TRIM)
        library.malloc_trim(0)


def _glibc() -> Any:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
