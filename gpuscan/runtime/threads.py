"""Threads that share a kernel's rows. Kernels give the interpreter's lock back while they run.

A function's nodes run one after the other, and threads run nothing but kernels: a kernel and a
product by NumPy's BLAS never run at once, unless a program calls functions from threads of its own.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from ..config import config

WORTH_SHARING = 32768  # elements; handing over a share costs some 30 microseconds


def count() -> int:
    """How many threads to use: `config.threads`, or the cores that this process may use."""
    if config.threads:
        return config.threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _pool(size: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(size, thread_name_prefix="gpuscan")


if hasattr(os, "register_at_fork"):  # the other threads stay behind: a child makes its own
    os.register_at_fork(after_in_child=_pool.cache_clear)


Work = Callable[[threading.Event], int]


def share(rows: int, prepare: Callable[[int, int], Work]) -> int:
    """All rows, shared out over the threads; the least of what they gave. prepare(first, last)
    is called for each share before the first one starts, and gives what a thread runs. That is
    told to end early by its event, where another failed or the caller was interrupted."""
    threads = count()
    n = max(1, min(threads, rows))
    stop = threading.Event()
    todo = deque(prepare(*part) for part in itertools.pairwise(rows * k // n for k in range(n + 1)))
    found: list[int] = []

    def run() -> None:
        """Shares until none is left: the caller does those that no other thread has come to."""
        while True:
            try:
                work = todo.popleft()
            except IndexError:
                return
            found.append(work(stop))

    others: list[Future[None]] = []
    starting = threading.Lock()

    def help(number: int) -> None:
        """Another thread's part, unless nobody waits for it: a pool that can't start a thread
        raises and keeps what it was given."""
        with starting:
            known = number < len(others)
        if known:
            run()

    try:
        with starting, contextlib.suppress(RuntimeError):  # no more threads, or no more work taken
            for number in range(n - 1):
                others.append(_pool(threads - 1).submit(help, number))
        run()
        for f in others:
            if not f.cancel():
                f.result()
    except BaseException:
        stop.set()
        todo.clear()
        wait([f for f in others if not f.cancel()])
        raise
    return min(found)
