"""The host's team of threads: `kernels/host.c`, built and loaded. Kernels are started and joined
without the interpreter's lock."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence
from typing import Any

from ..config import config
from ..kernel_files import kernels_dir
from . import compiler

WORTH_SHARING = (
    32768  # elements of elementwise work; to start and join a team takes some microseconds
)

Share = tuple[int, int, bytes, bytes]  # first, last, and the kernel's pointers and integers


def count() -> int:
    """How many threads to use: `config.threads`, or the cores that this process may use."""
    return config.threads or len(os.sched_getaffinity(0))


@functools.cache
def library() -> ctypes.CDLL:
    """What `kernels/host.c` holds."""
    found = compiler.library((kernels_dir() / "host.c").read_text())
    found.gs_size.restype = found.gs_run.restype = ctypes.c_longlong
    found.gs_size.argtypes = [ctypes.c_longlong]
    found.gs_run.argtypes = [ctypes.c_void_p, ctypes.c_longlong, *[ctypes.c_void_p] * 4]
    return found


def size(most: int) -> int:
    """How many shares can run side by side: `count()`, at most `most`, at least 1."""
    wanted = min(count(), most)
    return int(library().gs_size(wanted)) if wanted > 1 else 1


def run(kernel: Any, shares: Sequence[Share]) -> int:
    """All shares side by side; the least of what they gave. There may be as many as `size`
    said. Another thread's shares wait for these."""
    if len(shares) == 1:
        return int(kernel(*shares[0]))
    n = len(shares)
    first = (ctypes.c_longlong * n)(*[s[0] for s in shares])
    last = (ctypes.c_longlong * n)(*[s[1] for s in shares])
    memory = (ctypes.c_char_p * n)(*[s[2] for s in shares])
    integers = (ctypes.c_char_p * n)(*[s[3] for s in shares])
    address = ctypes.cast(kernel, ctypes.c_void_p)
    return int(library().gs_run(address, n, first, last, memory, integers))
