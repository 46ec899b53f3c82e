"""Threads that share a kernel's work: the team of `kernels/team.c`, built and loaded. They run
without the interpreter's lock.

A function's nodes run one after the other, and threads run nothing but kernels: a kernel and a
product by NumPy's BLAS never run at once, unless a program calls functions from threads of its own.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence
from typing import Any

from ..config import config
from ..kernel_files import kernels_dir
from . import compiler

WORTH_SHARING = 32768  # elements; to start and join a team takes some microseconds

Share = tuple[int, int, bytes, bytes]  # first, last, and the kernel's pointers and integers


def count() -> int:
    """How many threads to use: `config.threads`, or the cores that this process may use."""
    if config.threads:
        return config.threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def library() -> ctypes.CDLL:
    """What `kernels/team.c` holds."""
    found = compiler.library((kernels_dir() / "team.c").read_text())
    for name in ("gs_size", "gs_workers", "gs_run"):
        getattr(found, name).restype = ctypes.c_longlong
    found.gs_size.argtypes = [ctypes.c_longlong]
    found.gs_run.argtypes = [ctypes.c_void_p, ctypes.c_longlong, ctypes.c_int]
    found.gs_run.argtypes += [ctypes.c_void_p] * 4
    return found


def size(most: int) -> int:
    """How many shares can run side by side: `count()`, at most `most`, at least 1."""
    wanted = min(count(), most)
    return int(library().gs_size(wanted)) if wanted > 1 else 1


def run(kernel: Any, shares: Sequence[Share], meet: bool = False) -> int:
    """All shares; the least of what they gave. `meet`: they wait for each other inside, so there
    may be no more of them than `size` said."""
    if len(shares) == 1:
        return int(kernel(*shares[0]))
    first, last, memory, integers = zip(*shares)
    n = len(shares)
    return int(
        library().gs_run(
            ctypes.cast(kernel, ctypes.c_void_p), n, meet,
            (ctypes.c_longlong * n)(*first), (ctypes.c_longlong * n)(*last),
            (ctypes.c_char_p * n)(*memory), (ctypes.c_char_p * n)(*integers),
        )
    )  # fmt: skip
