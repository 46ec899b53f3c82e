"""Threads that share a kernel's work: the team of `kernels/team.c`, built and loaded. They run
without the interpreter's lock.

A function's nodes run one after the other, and threads run nothing but kernels: a kernel and a
product by NumPy's BLAS never run at once, unless a program calls functions from threads of its own.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import struct
from collections.abc import Sequence
from typing import Any

from ..config import config
from ..kernel_files import source_of
from ..record import record
from . import compiler
from .arrays import OF_DATA
from .recorder import Place, Run, recording

WORTH_SHARING = 32768  # elements; to start and join a team takes some microseconds

WATCH: Place = (-2, 0)  # where a call's watch is


@record
class Shares:
    """What each worker of a kernel is given, as `kernels/team.c` reads it. meet: whether they wait
    for each other inside, so that there may be no more of them than `size` said."""

    count: int
    meet: bool
    table: bytes

    def parts(self) -> list[tuple[tuple[int, ...], list[Place]]]:
        """Per share its integers and where its pointers point."""
        table = struct.unpack(f"{len(self.table) // 8}q", self.table)
        integers, pointers = table[2:4]
        parts = []
        for at in range(4, len(table), integers + 2 * pointers):
            behind = at + integers
            places = table[behind : behind + 2 * pointers]
            parts.append((table[at:behind], list(zip(places[::2], places[1::2]))))
        return parts


def shares(
    integers: Sequence[Sequence[int]], pointers: Sequence[Sequence[Place | None]],
    meet: bool = False,
) -> Shares:  # fmt: skip
    """Per share its integers, and per pointer where it points."""
    count = len(integers)
    table = [count, meet, len(integers[0]), len(pointers[0])]
    for own, places in zip(integers, pointers):
        table += own
        for place in places:
            table += (-1, 0) if place is None else place
    return Shares(count, meet, packed(table))


def packed(integers: Sequence[int]) -> bytes:
    return struct.pack(f"{len(integers)}q", *integers)


def count() -> int:
    """How many threads to use: `config.threads`, or the cores that this process may use."""
    if config.threads:
        return config.threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_order(ends: Sequence[int]) -> bytes:
    """Per share where it begins and ends, of shares that lie one behind the other."""
    return packed([end for pair in itertools.pairwise(ends) for end in pair])


@functools.cache
def library() -> ctypes.CDLL:
    """What `kernels/team.c` holds."""
    found = compiler.library(source_of("team.c", OF_DATA=OF_DATA))
    for name in ("gs_size", "gs_workers"):
        getattr(found, name).restype = ctypes.c_longlong
    found.gs_size.argtypes = [ctypes.c_longlong]
    found.gs_init.restype = None
    python = ctypes.pythonapi
    found.gs_init(python.PyEval_SaveThread, python.PyEval_RestoreThread, python.PyErr_CheckSignals)
    return found


@functools.cache
def _gs_run() -> Any:
    """That of the library, called with the interpreter's lock, which it gives back itself."""
    return ctypes.PYFUNCTYPE(ctypes.c_longlong, *[ctypes.c_void_p] * 4)(("gs_run", library()))


@functools.cache
def _gs_play() -> Any:
    return ctypes.PYFUNCTYPE(ctypes.c_longlong, *[ctypes.c_void_p] * 3)(("gs_play", library()))


def size(most: int) -> int:
    """How many shares can run side by side: `count()`, at most `most`, at least 1."""
    wanted = min(count(), most)
    return int(library().gs_size(wanted)) if wanted > 1 else 1


def run(kernel: int, shares: Shares, ends: bytes, arrays: Sequence[Any]) -> int:
    """All shares of the kernel at an address; the least of what they gave. ends: per share the
    integers `first` and `last`. Raises what a signal's handler raises meanwhile."""
    found = struct.pack(f"{len(arrays)}Q", *map(id, arrays))
    gave = int(_gs_run()(kernel, ends, shares.table, found))
    if (recorder := recording.recorder) is not None:
        recorder.ran(kernel, shares, ends, arrays, gave)
    return gave


def script(runs: Sequence[Run], aligned: Sequence[tuple[int, int]]) -> bytes:
    """Runs of kernels as `play` makes them again; aligned: arrays, and bytes of which their places
    must be multiples."""
    copying = compiler.kernel(library(), "gs_copy")
    numbers = [len(runs), len(aligned)]
    for array, size in aligned:
        numbers += array, size - 1
    parts = [packed(numbers)]
    for run in runs:
        made = shares([i for i, _ in run.shares], [at for _, at in run.shares], run.meet)
        behind = run.ends + made.table
        kernel = copying if run.kernel is None else run.kernel
        parts += packed((kernel, run.gave, made.count, len(behind) // 8)), behind
    return b"".join(parts)


def play(script: bytes, arrays: Sequence[Any], spent: bytearray | None) -> int:
    """Makes the runs of a script; how many gave what they were to, none being made behind one that
    did not. spent: where the nanoseconds of each are put. Raises as `run` does."""
    found = struct.pack(f"{len(arrays)}Q", *map(id, arrays))
    times = None if spent is None else (ctypes.c_char * len(spent)).from_buffer(spent)
    return int(_gs_play()(script, found, times))
