"""Threads that share a kernel's rows. Kernels give the interpreter's lock back while they run."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ..config import config

WORTH_SHARING = 32768  # elements; handing over a share costs some 30 microseconds


def count() -> int:
    """How many threads to use: `config.threads`, or the cores that this process may use."""
    return config.threads or len(os.sched_getaffinity(0))


@functools.cache
def _pool(size: int, process: int) -> ThreadPoolExecutor:
    """The other threads; a forked process makes its own."""
    return ThreadPoolExecutor(size, thread_name_prefix="gpuscan")


def share(rows: int, run: Callable[[int, int], int]) -> int:
    """run(first, last) for all rows, shared out over the threads; the least of what it gave."""
    n = min(count(), rows)
    if n <= 1:
        return run(0, rows)
    own, *rest = itertools.pairwise(rows * k // n for k in range(n + 1))
    pool = _pool(count() - 1, os.getpid())
    others = [pool.submit(run, *part) for part in rest]
    return min([run(*own), *(f.result() for f in others)])
