"""MPI, by mpi4py: arrays in host memory. Importing this initialises MPI.

Before arrays are exchanged, the ranks exchange what they are about to do. So ranks that do not do
the same find out, all of them, and none is left waiting: not by one that has ended, either, as
that is a call, too.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np
from mpi4py import MPI

from ..config import config
from ..runtime import memory
from .communicator import AllReduce, Call, Communicator, DistributedError, total_weight

_ENDED = Call("the end of the program")
_SPIN = 1e-3  # seconds before a wait begins to sleep
_NOTICE = 5.0  # seconds until one that waits says so
_PRINTED = 0.25  # seconds in which mpiexec reads what was printed, before it ends the job
_WIDE = {"float16": "float32", "bool": "uint8"}  # in which dtype others are reduced


class MPICommunicator(Communicator):
    """All processes of MPI.COMM_WORLD. Calls are made one at a time, from any thread."""

    backend = "mpi"

    def __init__(self) -> None:
        super().__init__()
        if not MPI.Is_initialized():  # a program that imported mpi4py may have put it off
            MPI.Init_thread()
        world = MPI.COMM_WORLD
        self.rank, self.size = world.rank, world.size
        self._world, self._notices = world.Dup(), world.Dup()
        self._pid = os.getpid()
        self._calls = 0
        self._over = ""  # why there can be no more calls
        self._failed = False  # in the middle of one: others may wait for what won't come
        self._notices_sent: list[Any] = []  # with their arrays, which MPI reads
        self._operators: dict[tuple[str, str], Any] = {}
        _share_cores()
        if self.size > 1:
            _end_all_when_one_fails(self)
            atexit.register(self._leave)

    def library(self) -> str:
        return MPI.Get_library_version().partition("\n")[0].strip()

    def processes(self) -> str:
        found = self._world.allgather((socket.gethostname(), self._pid))
        hosts = {host: [str(p) for h, p in found if h == host] for host, _ in found}
        if self.size > 16:
            return f"on {len(hosts)} host{'s' * (len(hosts) != 1)}"
        texts = [f"{', '.join(numbers)} on {host}" for host, numbers in hosts.items()]
        return f"process{'es' * (self.size != 1)} {'; '.join(texts)}"

    # ---- meeting ---------------------------------------------------------------------------------

    def _meet(self, call: Call, weight: float = 1.0) -> float:
        if os.getpid() != self._pid:
            raise DistributedError("a forked process is no rank: it can't call the others")
        if self._over:
            raise DistributedError(f"no more calls can be made: {self._over}")
        with self._turn:
            weights, calls = self._met(call, weight, self.timeout)
            if calls:
                raise DistributedError(_difference(calls, self._calls))
            return total_weight(weights.tolist())

    def _met(self, call: Call, weight: float, limit: float) -> tuple[np.ndarray, list[Call]]:
        """Waits for all ranks to make a call; their weights, and where they do not make the same
        one, what each makes."""
        self._calls += 1
        key = hashlib.blake2b(repr((call.what, call.arrays)).encode(), digest_size=8).digest()
        row = np.frombuffer(key + np.float64(weight).tobytes(), "int64")
        table = np.empty((self.size, 2), "int64")
        calls: list[Call] = []
        with self._undivided(call):
            self._wait(self._world.Iallgather(row, table), call, limit)
            if (table[:, 0] != row[0]).any():
                calls = self._world.allgather(call)
        if ended := [rank for rank, other in enumerate(calls) if other == _ENDED]:
            self._over = f"{_ranks(ended)} ended"
        return table[:, 1].copy().view("float64"), calls

    @contextlib.contextmanager
    def _undivided(self, call: Call) -> Iterator[None]:
        """What is broken off here leaves other ranks waiting for what won't come."""
        try:
            yield
        except BaseException as e:
            self._over, self._failed = f"{call} failed ({type(e).__name__})", True
            raise

    def _wait(self, request: Any, call: Call, limit: float) -> None:
        """Until a request is done; `limit`: seconds for which it waits for ranks to come."""
        start, told = time.monotonic(), limit == math.inf
        while not request.Test():
            waited = time.monotonic() - start
            if waited < _SPIN:
                time.sleep(0)
                continue
            time.sleep(min(1e-3, waited / 20))
            if not told and waited > min(_NOTICE, limit / 2):
                told = True
                self._tell()
            if waited > limit:
                missing = sorted({*range(self.size)} - self._told() - {self.rank})
                raise DistributedError(
                    f"call number {self._calls}, {call}: {_ranks(missing)} did not come within "
                    f"{limit:g} seconds"
                )

    def _tell(self) -> None:
        """Lets the others know for which call this rank is waiting."""
        for rank in {*range(self.size)} - {self.rank}:
            number = np.array([self._calls])
            self._notices_sent.append((self._notices.Isend(number, rank), number))

    def _told(self) -> set[int]:
        """The ranks that have said that they wait for the same call."""
        found, number, status = set(), np.zeros(1, "int64"), MPI.Status()
        while self._notices.Iprobe(status=status):
            self._notices.Recv(number, status.source)
            if number[0] == self._calls:
                found.add(status.source)
        return found

    def _leave(self) -> None:
        """At the program's end: it waits for the others, as MPI itself does then, and those that
        wait in a call hear of it."""
        if os.getpid() != self._pid or MPI.Is_finalized():
            return
        if self._failed:
            _abort(self, f"ends the job: {self._over}")
        elif not self._over:
            self._met(_ENDED, 1.0, math.inf)
            self._told()  # what was said on the way is received before MPI ends

    # ---- arrays ----------------------------------------------------------------------------------

    def _reduced(
        self, call: Call, arrays: Sequence[Any], reduce: AllReduce, weight: float | None,
        total: float,
    ) -> list[Any]:  # fmt: skip
        found: list[Any] = [None] * len(arrays)
        with self._undivided(call):
            for bucket in buckets(arrays, reduce.limit):
                some = self._bucket([arrays[i] for i in bucket], call, reduce.how, weight, total)
                for i, x in zip(bucket, some):
                    found[i] = x
        return found

    def _bucket(
        self, arrays: Sequence[Any], call: Call, how: str, weight: float | None, total: float
    ) -> Sequence[Any]:
        """Arrays of one dtype, reduced as one."""
        dtype = np.dtype(arrays[0].dtype)
        wide = np.dtype(_WIDE.get(dtype.name, dtype))
        buffer = memory.empty([sum(x.size for x in arrays)], wide)
        parts, start = [], 0
        for x in arrays:
            parts.append(buffer[start : start + x.size].reshape(x.shape))
            _fill(parts[-1], x, weight)
            start += x.size
        if start:
            op = self._operator(how, wide)
            self._wait(self._world.Iallreduce(MPI.IN_PLACE, buffer, op), call, math.inf)
        if how == "mean":
            np.true_divide(buffer, wide.type(total), out=buffer)
        return parts if dtype == wide else [x.astype(dtype) for x in parts]

    def _operator(self, how: str, dtype: np.dtype) -> Any:
        if how in ("mean", "sum"):
            return MPI.SUM
        if dtype.kind != "f":
            return MPI.MAX if how == "max" else MPI.MIN
        key = how, dtype.name
        if key not in self._operators:
            self._operators[key] = MPI.Op.Create(_of_floats(*key), commute=True)
        return self._operators[key]

    def _sent(self, call: Call, arrays: Sequence[Any], root: int) -> Sequence[Any]:
        found = [np.array(x, order="C") for x in arrays]
        with self._undivided(call):
            for x in found:
                request = self._world.Ibcast(x.reshape(-1).view("uint8"), root)
                self._wait(request, call, math.inf)
        return () if self.rank == root else found


def buckets(arrays: Sequence[Any], limit: int) -> Iterator[list[int]]:
    """The positions of arrays that are reduced together: of one dtype, and together of up to
    `limit` bytes, or alone."""
    open_: dict[Any, tuple[list[int], int]] = {}
    for i, x in enumerate(arrays):
        bucket, size = open_.get(x.dtype, ([], 0))
        if bucket and size + x.nbytes > limit:
            yield bucket
            bucket, size = [], 0
        open_[x.dtype] = [*bucket, i], size + x.nbytes
    for bucket, _ in open_.values():
        yield bucket


def _fill(part: np.ndarray, x: Any, weight: float | None) -> None:
    """What a rank adds to a reduction: x, weighted. Of nothing that is nothing, also of NaN."""
    if weight is None or weight == 1:
        part[...] = x
    elif weight == 0:
        part[...] = 0
    else:
        np.multiply(x, part.dtype.type(weight), out=part, dtype=part.dtype)


def _of_floats(how: str, dtype: str) -> Callable[[Any, Any, Any], None]:
    """The maximum or minimum of floats as MPI's operator: MPI's own may lose a NaN."""
    function = np.maximum if how == "max" else np.minimum

    def reduce(given: Any, found: Any, datatype: Any) -> None:
        x, y = np.frombuffer(given, dtype), np.frombuffer(found, dtype)
        function(x, y, out=y)

    return reduce


def _share_cores() -> None:
    """Ranks of a machine that mpiexec has not given cores of their own share them evenly."""
    local = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)
    own = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    cores = local.allgather(own or [*range(os.cpu_count() or 1)])
    if not config.threads and all(c == cores[0] for c in cores):
        config.threads = max(1, len(cores[0]) // local.size)
    local.Free()


# ---- errors --------------------------------------------------------------------------------------


def _ranks(ranks: Sequence[int]) -> str:
    return f"rank{'s' * (len(ranks) != 1)} {', '.join(map(str, ranks))}"


def _difference(calls: Sequence[Call], number: int) -> str:
    """What ranks do that do not do the same."""
    groups: dict[str, list[int]] = {}
    first = calls[0]
    alike = all((c.what, len(c.arrays)) == (first.what, len(first.arrays)) for c in calls)
    if alike:  # then it is an array that differs
        at = next(i for i, same in enumerate(zip(*(c.arrays for c in calls))) if len({*same}) > 1)
        texts = [f"array {at} is {c.arrays[at]}" for c in calls]
        head = f"call number {number}, {first}, differs between ranks"
    else:
        texts = [str(c) for c in calls]
        head = f"the ranks do not make the same call number {number}"
    for rank, text in enumerate(texts):
        groups.setdefault(text, []).append(rank)
    return f"{head}: " + "; ".join(f"{_ranks(r)}: {text}" for text, r in groups.items())


def _abort(comm: MPICommunicator, why: str) -> NoReturn:
    name = f"rank {comm.rank} of {comm.size} (process {comm._pid} on {socket.gethostname()})"
    print(f"gpuscan.distributed: {name} {why}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    time.sleep(_PRINTED)
    MPI.COMM_WORLD.Abort(1)
    os._exit(1)  # it may come back, and what the program does at its end would wait for others


def _end_all_when_one_fails(comm: MPICommunicator) -> None:
    """An exception that nobody catches would end one rank and leave the others waiting."""
    shown, shown_of_thread = sys.excepthook, threading.excepthook

    def hook(kind: Any, error: Any, trace: Any) -> None:
        shown(kind, error, trace)
        if os.getpid() == comm._pid:
            _abort(comm, f"ends the job: {kind.__name__}")

    def hook_of_thread(args: Any) -> None:
        shown_of_thread(args)
        if os.getpid() == comm._pid and not issubclass(args.exc_type, SystemExit):
            name = getattr(args.thread, "name", "?")
            _abort(comm, f"ends the job: {args.exc_type.__name__} in thread {name}")

    sys.excepthook, threading.excepthook = hook, hook_of_thread
