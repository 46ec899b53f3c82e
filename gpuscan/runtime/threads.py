"""Threads that share a kernel's rows. Kernels give the interpreter's lock back while they run."""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

from ..config import config

WORTH_SHARING = 32768  # elements; handing over a share costs some 30 microseconds


def count() -> int:
    """How many threads to use: `config.threads`, or the cores that this process may use."""
    return config.threads or len(os.sched_getaffinity(0))


@functools.cache
def _pool(size: int, process: int) -> ThreadPoolExecutor:
    """The other threads; a forked process makes its own."""
    return ThreadPoolExecutor(size, thread_name_prefix="gpuscan")


Work = Callable[[threading.Event], int]


def share(rows: int, prepare: Callable[[int, int], Work]) -> int:
    """All rows, shared out over the threads; the least of what they gave. prepare(first, last)
    is called for each share before the first one starts, and gives what a thread runs. That is
    told to end early by its event, where another failed or the caller was interrupted."""
    n = max(1, min(count(), rows))
    stop = threading.Event()
    own, *rest = [
        prepare(*part) for part in itertools.pairwise(rows * k // n for k in range(n + 1))
    ]
    others = [_pool(count() - 1, os.getpid()).submit(work, stop) for work in rest]
    try:
        return min([own(stop), *(f.result() for f in others)])
    except BaseException:
        stop.set()
        wait(others)
        raise
