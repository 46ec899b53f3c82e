"""Where chains run: in a thread of this process, or shared out among the workers of an executor.

An executor is anything with `submit` as `concurrent.futures` has it: its process pools, Dask's
`client.get_executor()`, mpi4py's `MPIPoolExecutor`, ... A task is some consecutive chains for some
steps. Its random streams leave out the rows of the chains before, so a chain draws the same numbers
in every task.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..config import config
from ..record import record
from ..runtime import threads
from .kernel import Array
from .program import Arrays, Moved, Program

_KEPT = 4  # programs that a worker keeps at hand


@record
class Work:
    """What a task is to do."""

    warmup: bool
    steps: int
    thin: int
    state: Arrays
    streams: Array
    told: Arrays


@record
class Done:
    """What all chains gave, and for how many seconds the slowest task computed."""

    moved: Moved
    seconds: float


class Tasks:
    """All chains of a run, as tasks of `chains_per_task` chains (None: as many tasks as the
    executor has workers; without an executor one)."""

    def __init__(
        self, program: Program, chains: int, executor: Any, chains_per_task: int | None
    ) -> None:
        self._program, self._executor = program, executor
        self._own = ThreadPoolExecutor(1, "gpuscan.mc") if executor is None else None
        size = task_size(chains, executor, chains_per_task)
        self.shares = [slice(i, min(i + size, chains)) for i in range(0, chains, size)]
        self._blob = b"" if executor is None else pickle.dumps(program)
        self._key = hashlib.sha256(self._blob).hexdigest()
        self._sent = False

    def submit(self, work: Work) -> list[Any]:
        """Futures of the tasks. RuntimeError, which names chains, where the executor takes none."""
        futures: list[Any] = []
        for share in self.shares:
            part = self._part(work, share)
            if self._own is not None:
                futures.append(self._own.submit(_here, self._program, part))
                continue
            try:
                futures.append(self._send(part, not self._sent))
            except Exception as e:  # such as a pool whose worker died after the last chunk
                raise _failed(share, e, futures) from e
        self._sent = True
        return futures

    def _send(self, part: Work, with_program: bool) -> Any:
        settings = {"threads": config.threads or 1, "dot_precision": config.dot_precision}
        blob = self._blob if with_program else None
        return self._executor.submit(_there, self._key, blob, part, os.getpid(), settings)

    def _part(self, work: Work, share: slice) -> Work:
        streams = work.streams.copy()
        streams[:, 2] += np.uint64(share.start)
        state = {n: x[share] for n, x in work.state.items()}
        return Work(work.warmup, work.steps, work.thin, state, streams, work.told)

    def join(self, work: Work, futures: list[Any]) -> Done:
        """Waits for the tasks.

        Raises what a task in this process raised, and for one elsewhere RuntimeError, which names
        its chains.
        """
        found: list[Done] = []
        for share, future in zip(self.shares, futures):
            try:
                done = future.result()
                if done is None:  # a worker that has not seen the program yet
                    done = self._send(self._part(work, share), True).result()
                found.append(done)
            except Exception as e:
                failed = _failed(share, e, futures)
                if self._own is not None:
                    raise
                raise failed from e
        if len(found) == 1:
            return found[0]
        parts = [d.moved for d in found]
        streams = parts[0].streams.copy()
        streams[:, 2] = work.streams[:, 2]
        return Done(
            Moved(
                _joined([p.samples for p in parts], 1), _joined([p.stats for p in parts], 1),
                _joined([p.state for p in parts], 0), streams,
            ),
            max(d.seconds for d in found),
        )  # fmt: skip

    def close(self) -> None:
        """Waits for what runs in this process. The caller's executor stays open."""
        if self._own is not None:
            self._own.shutdown(cancel_futures=True)


def task_size(chains: int, executor: Any, chains_per_task: int | None) -> int:
    """How many chains a task has."""
    if chains_per_task is not None:
        return min(chains, chains_per_task)
    if executor is None:
        return chains
    workers = getattr(executor, "num_workers", 0) or getattr(executor, "_max_workers", 0)
    return -(-chains // (workers or threads.count()))


def _failed(share: slice, error: Exception, others: list[Any]) -> RuntimeError:
    """What is said of a task that failed; the others are called off."""
    for other in others:
        other.cancel()
    which = f"{share.start} to {share.stop - 1}"
    return RuntimeError(f"chains {which}: {type(error).__name__}: {error}")


def _joined(parts: list[Arrays], axis: int) -> Arrays:
    return {name: np.concatenate([p[name] for p in parts], axis) for name in parts[0]}


# ---- in a worker ---------------------------------------------------------------------------------


def _here(program: Program, work: Work) -> Done:
    start = time.perf_counter()
    moved = program.move(work.warmup, work.steps, work.thin, work.state, work.streams, work.told)
    return Done(moved, time.perf_counter() - start)


class _Programs(threading.local):
    """The programs that were met last; each thread has its own functions."""

    def __init__(self) -> None:
        self.known: OrderedDict[str, Program] = OrderedDict()


_programs = _Programs()


def _there(
    key: str, blob: bytes | None, work: Work, sender: int, settings: dict[str, Any]
) -> Done | None:
    """A task in a worker; None where it lacks the program, which is sent only when asked for."""
    known = _programs.known
    if os.getpid() != sender:  # the settings of this process belong to the run
        for name, value in settings.items():
            setattr(config, name, value)
    if key not in known:
        if blob is None:
            return None
        known[key] = pickle.loads(blob)
        if len(known) > _KEPT:
            known.popitem(last=False)
    known.move_to_end(key)
    return _here(known[key], work)
