"""Running chains: `sample` gathers a run's draws, `stream` gives them chunk by chunk.

While the caller looks at a chunk the next one is computed. The draws depend on the kernel, the
start and the seed alone: not on the size of chunks, on how chains are shared out among tasks, or on
where a checkpoint cut the run in two.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..tensor.random import RandomStreams
from .arguments import Options, check_kernel, metrics, names, position_of, users, whole
from .checkpoint import Checkpoint, Point, Saved, digest, load
from .executors import Tasks, Work, task_size
from .kernel import Chunk, Kernel
from .online import Moments, NonFinite
from .output import Coords, Dims, Gathered, dataset, labelled, provenance, require
from .program import Arrays, build, initial_streams
from .progress import Progress

_CHUNK_BYTES = 64 << 20
_CHUNK_SECONDS = 0.25  # what a chunk is to take: long beside its overhead, short beside a wait
_FIRST_CHUNK, _GROWTH = 8, 8  # steps, and how many times longer the next chunk may be
_SAVE_SECONDS, _SAVE_BYTES = 60.0, 256 << 20  # between checkpoints, where `every` says nothing


def sample(
    kernel: Kernel, init: Any = None, *, draws: int = 1000, tune: int = 1000,
    chains: int | None = None, thin: int = 1, seed: Any = None, keep: Any = None,
    reduce: Any = None, discard_tuned_samples: bool = True, progressbar: bool = True,
    dims: Dims | None = None, coords: Coords | None = None, executor: Any = None,
    chains_per_task: int | None = None, checkpoint: str | os.PathLike[str] | None = None,
    every: int | None = None, chunk: int | None = None, chunk_bytes: int | None = None,
    device: str | None = None,
) -> Any:  # fmt: skip
    """Runs chains and gives their draws as an xarray.DataTree, as ArviZ reads it.

    kernel       from `gibbs`, `random_walk_metropolis`, `hmc`, or one of your own
    init         where the chains start: an array for each variable, by name, whose first axis is
                 the chains. One array is the variable "x". A list of Python floats is of floatX.
    draws        how many draws of each chain are kept
    tune         steps of the warm-up before them, in which a kernel adapts
    chains       how many there are, if that is to be checked: init has them
    thin         a kept draw is the last of so many steps; those between take no memory
    seed         an int of any size or several ints; None takes entropy from the system. The
                 result's attribute "seed" is an int that gives the same draws.
    keep         names of variables whose draws are kept, by default all. With none of them, (),
                 statistics are not kept either.
    reduce       of "mean", "variance" and "r_hat" (split R-hat, not rank-normalised) those that
                 are computed while the chains run, for all variables, kept or not: over all
                 draws of all chains, as the group "reduced"
    discard_tuned_samples  False keeps the warm-up's draws: warmup_posterior, warmup_sample_stats
    progressbar  shows progress where stderr is a terminal
    dims, coords names of the axes after chain and draw, by variable, and values along them
    executor     runs tasks of some chains each: anything with `submit` as in concurrent.futures.
                 A task uses one thread, or config.threads.
    chains_per_task  default: a task for each worker of the executor, or for each core of this
                 machine where the executor doesn't say how many it has
    checkpoint   an .npz file that is written while the run goes on, beside it a folder of draws.
                 If it is there, the run goes on from it, and the draws are bit for bit those of
                 a run without a break on this device; init may then be left out. With more draws
                 than before a finished run becomes longer.
    every        steps of the warm-up or draws between checkpoints; default: about a minute, or
                 256 MiB of draws
    chunk        how many draws are computed at once; default: as many as take about 0.25 s
    chunk_bytes  the most that they may take; default: 64 MiB, or one draw where that is more
    device       where to run; None is `config.device`

    The draws of a chain depend on the kernel, the chains' start, the chain's number and the seed.
    Values that are not finite are counted and do not concern other chains.

    Raises ValueError and TypeError for what does not fit before anything runs, and RuntimeError
    that names the chains where a task of an executor fails.
    """
    options = Options(
        draws=whole("draws", draws, 0), tune=tune, chains=chains, thin=thin, seed=seed, keep=keep,
        reduce=reduce, discard_tuned_samples=discard_tuned_samples, dims=dims, coords=coords,
        executor=executor, chains_per_task=chains_per_task, checkpoint=checkpoint, every=every,
        chunk=chunk, chunk_bytes=chunk_bytes, device=device, kind="sample",
    )  # fmt: skip
    with Stream(kernel, init, options) as run:
        return run._gathered(progressbar)


def stream(
    kernel: Kernel, init: Any = None, *, draws: int | None = None, tune: int = 1000,
    chains: int | None = None, thin: int = 1, seed: Any = None, keep: Any = None,
    reduce: Any = None, discard_tuned_samples: bool = True, dims: Dims | None = None,
    coords: Coords | None = None, executor: Any = None, chains_per_task: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None, every: int | None = None,
    chunk: int | None = None, chunk_bytes: int | None = None, device: str | None = None,
) -> Stream:  # fmt: skip
    """A run as an iterator over chunks: consecutive draws of all chains, each a DataTree with the
    groups and the numbers of draws that it would have in the whole. While one is looked at the
    next one is computed, and a run of any length takes the memory of some chunks.

    The arguments are those of `sample`. draws: None goes on for ever. checkpoint: it is written
    when the next chunk is asked for, so it counts what has been looked at; a chunk that was being
    looked at when the process was killed comes again.
    """
    options = Options(
        draws=draws, tune=tune, chains=chains, thin=thin, seed=seed, keep=keep, reduce=reduce,
        discard_tuned_samples=discard_tuned_samples, dims=dims, coords=coords, executor=executor,
        chains_per_task=chains_per_task, checkpoint=checkpoint, every=every, chunk=chunk,
        chunk_bytes=chunk_bytes, device=device, kind="stream",
    )  # fmt: skip
    return Stream(kernel, init, options)


class Stream:
    """A run on its way: an iterator over its chunks, and what is known so far. See `stream`.

    It can be left at any time; a `with` block, or `close`, also waits until nothing is computed.
    """

    def __init__(self, kernel: Kernel, init: Any, options: Options) -> None:
        require("xarray")
        self._options = o = options
        self._schedule = check_kernel(kernel, o.tune)
        saved = None if o.checkpoint is None else load(o.checkpoint)
        position = _start(init, saved, o)
        count = len(next(iter(position.values())))
        if o.chains is not None and o.chains != count:
            raise ValueError(f"chains is {o.chains}, and init has {count}")
        self.chains = np.arange(count)
        self._keep, self._metrics = names(o.keep, position), metrics(o.reduce)
        self.seed = RandomStreams.word_of(o.seed)
        if o.seed is None and saved is not None:
            self.seed = saved.about["seed"]
        traced = list(position) if self._metrics else self._keep
        self._program = build(
            kernel, position, self._schedule, o.tune > 0, o.thin > 1, traced, bool(self._keep),
            not o.discard_tuned_samples, task_size(count, o.executor, o.chains_per_task) < count,
            o.device,
        )  # fmt: skip
        self.device = self._program.draw.run.device
        self._seconds = 0.0
        self._check_room(position, traced)
        self._check_labels(position)
        self._moments = Moments(o.draws or None, position) if self._metrics else None
        self._nonfinite = NonFinite()
        start = digest(position) if init is not None or saved is None else saved.about["start"]
        self._identity = self._what(position, start)
        self._file = None if o.checkpoint is None else Checkpoint(o.checkpoint, self._identity)
        if saved is None or self._file is None:
            state = self._begin(kernel, position)
            self._at = Point(0, 0, state, initial_streams(self.seed, self._program.streams))
        else:
            self._resume(saved, self._file)
        if self._file is not None:
            self._file.sweep(parts=saved is None)
        self._saved_at, self._saved = time.monotonic(), None if saved is None else self._at
        self._unsaved: list[Chunk] = []
        self._given = _Given()
        self._pace: dict[bool, tuple[int, float]] = {}  # last chunk's steps, and seconds a step
        self._pending: tuple[Work, list[Any]] | None = None
        self._tasks: Tasks | None = Tasks(self._program, count, o.executor, o.chains_per_task)

    def _what(self, position: Arrays, start: str) -> dict[str, Any]:
        """What a checkpoint of another run differs in."""
        o = self._options
        return {
            "version": provenance()["inference_library_version"],
            "kind": o.kind,
            "kernel": self._program.name,
            "variables": [[n, x.dtype.name, list(x.shape)] for n, x in position.items()],
            "model": self._program.fingerprint,
            "start": start,
            "seed": self.seed,
            "tune": o.tune,
            "thin": o.thin,
            "keep": self._keep,
            "reduce": self._metrics,
            "warmup": not o.discard_tuned_samples,
        }

    def _begin(self, kernel: Kernel, position: Arrays) -> Arrays:
        state = self._program.begin(position)
        kernel.check(state)
        for name, x in state.items():
            if len(x) != len(self.chains):
                raise ValueError(
                    f"{kernel.name}: {name!r} has {len(x)} rows for {len(self.chains)} chains"
                )
        return state

    def _resume(self, saved: Saved, file: Checkpoint) -> None:
        file.check(saved)
        draws, there = self._options.draws, f"the checkpoint {file.path}"
        if draws is not None and saved.point.drawn > draws:
            raise ValueError(f"{there} has {saved.point.drawn} draws, and draws is {draws}")
        if self._moments is not None:
            variables = np.array(self._moments.names)
            self._moments = Moments.from_arrays({**saved.moments, "names": variables})
            if self._moments.total != (draws or None):
                raise ValueError(
                    f"{there} reduces a run of {self._moments.total} draws, and draws is {draws}"
                )
        self._nonfinite = NonFinite.from_json(saved.about["non_finite"])
        self._seconds = saved.about["seconds"]
        self._at = saved.point

    def _check_room(self, position: Arrays, traced: Sequence[str]) -> None:
        """Raises ValueError where a chunk has no room for one draw of all chains."""
        stats = sum(np.dtype(d).itemsize for d in self._program.draw.stats.values())
        self._bytes = sum(position[n].nbytes for n in traced) + len(self.chains) * stats
        room = self._options.chunk_bytes
        if room is not None and room < self._bytes:
            raise ValueError(
                f"chunk_bytes is {room}, and one draw of all chains takes {self._bytes}"
            )

    def _check_labels(self, position: Arrays) -> None:
        """Raises ValueError where dims and coords don't fit."""
        o = self._options
        self._dims = {
            n: d for n, d in (o.dims or {}).items() if n not in position or n in self._keep
        }
        every = {n: x[:0, None] for n, x in position.items()}
        dataset(every, {"chain": [], "draw": [0]}, o.dims or {}, o.coords or {})
        if self._keep:
            self._labelled(self._no_draws(position))

    # ---- chunks ---------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """The next chunk, as a DataTree."""
        while True:
            self._save_if_due()
            chunk = self._advance()
            if chunk is None:
                self._save_if_due(at_end=True)
                self.close()
                raise StopIteration
            if not chunk.warmup or not self._options.discard_tuned_samples:
                return self._given.kept([self._labelled(chunk)])

    def _advance(self) -> Chunk | None:
        """Waits for the next chunk and has the one after it computed; None at the end."""
        if self._tasks is None:
            return None
        work, futures = self._pending or self._submitted() or (None, [])
        self._pending = None
        if work is None:
            return None
        done = self._tasks.join(work, futures)
        old, moved, o = self._at, done.moved, self._options
        tuned, drawn = (work.steps, 0) if work.warmup else (0, work.steps)
        self._at = Point(old.tuned + tuned, old.drawn + drawn, moved.state, moved.streams)
        self._pace[work.warmup] = work.steps, done.seconds / work.steps
        self._seconds += done.seconds
        with contextlib.suppress(Exception):  # where it fails, it fails again when it is asked for
            self._pending = self._submitted()

        samples = {n: x.swapaxes(0, 1) for n, x in moved.samples.items()}
        stats = {n: x.swapaxes(0, 1) for n, x in moved.stats.items()}
        first = old.tuned if work.warmup else old.drawn
        found = Chunk(work.warmup, first, self.chains, samples, stats)
        self._nonfinite.update(found)
        if self._moments is not None and not work.warmup:
            self._moments.update(found)
        kept = {n: samples[n] for n in self._keep} if samples else {}
        chunk = Chunk(work.warmup, first, self.chains, kept, stats)
        if self._file is not None and o.kind == "sample" and (kept or stats):
            self._unsaved.append(chunk)
        return chunk

    def _submitted(self) -> tuple[Work, list[Any]] | None:
        """The chunk after where the run is, on its way; None at the end."""
        assert self._tasks is not None
        o, at = self._options, self._at
        warmup = at.tuned < o.tune
        reached, end = (at.tuned, o.tune) if warmup else (at.drawn, o.draws)
        steps = self._length(warmup)
        if o.every is not None:
            steps = min(steps, o.every - reached % o.every)
        if end is not None:
            steps = min(steps, end - reached)
        if not steps:
            return None
        rows = slice(reached, reached + steps)
        told = {n: x[rows] for n, x in self._schedule.items()} if warmup else {}
        work = Work(warmup, steps, o.thin, at.state, at.streams, told)
        return work, self._tasks.submit(work)

    def _length(self, warmup: bool) -> int:
        """How many steps the next chunk may have."""
        o = self._options
        if o.chunk is not None:
            return o.chunk
        steps = _FIRST_CHUNK
        if warmup in self._pace:
            last, pace = self._pace[warmup]
            steps = max(1, min(last * _GROWTH, int(_CHUNK_SECONDS / max(pace, 1e-9))))
        if warmup and o.discard_tuned_samples:
            return steps
        return min(steps, max(1, (o.chunk_bytes or _CHUNK_BYTES) // max(1, self._bytes)))

    def _labelled(self, chunk: Chunk) -> Any:
        found = NonFinite()
        found.update(chunk)
        about = self._about() | {"non_finite": found.to_json()}
        if chunk.samples or chunk.stats:
            return labelled(chunk, about, dims=self._dims, coords=self._options.coords)
        import xarray

        return xarray.DataTree(xarray.Dataset(attrs=about))

    # ---- what is known so far -------------------------------------------------------------------

    @property
    def state(self) -> Arrays:
        """Where the chains are after the last chunk: arrays by variable, as `init` takes them."""
        return {n: x.copy() for n, x in users(self._at.state).items()}

    @property
    def draws(self) -> int:
        """How many draws of each chain there have been, the warm-up's not counted."""
        return self._at.drawn

    @property
    def reduced(self) -> Any:
        """What `reduce` asked for, of the draws so far: an xarray.Dataset of the variables, with a
        first dim `metric`."""
        if self._moments is None:
            raise ValueError("reduce names nothing that is computed while the chains run")
        found = [getattr(self._moments, metric)() for metric in self._metrics]
        stacked = {n: np.stack([of[n] for of in found]) for n in found[0]}
        o = self._options
        made = dataset(stacked, {"metric": self._metrics}, o.dims or {}, o.coords or {})
        return made.assign_attrs(chains=len(self.chains), draws=self._moments.count)

    def checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Writes where the run is after the last chunk, as `stream` does by itself: with this file
        as its checkpoint, it goes on from there."""
        load(path)  # raises where none can be
        self._save(Checkpoint(path, self._identity | {"kind": "stream"}))

    def _about(self) -> dict[str, Any]:
        return {
            "kernel": self._program.name, "seed": self.seed, "thin": self._options.thin,
            "tuning_steps": self._options.tune, "sampling_time": self._seconds,
            "device": self.device,
        }  # fmt: skip

    # ---- the whole ------------------------------------------------------------------------------

    def _gathered(self, progressbar: bool) -> Any:
        """All draws as one DataTree."""
        o = self._options
        assert o.draws is not None
        gathered = Gathered(self.chains, o.draws, 0 if o.discard_tuned_samples else o.tune)
        for part in self._file.chunks() if self._file is not None else ():
            gathered.add(part)
        steps = self._at.tuned + self._at.drawn
        progress = Progress(
            o.tune + o.draws - steps, self._program.name, chains=len(self.chains),
            progressbar=progressbar,
        )  # fmt: skip
        with progress:
            while (chunk := self._advance()) is not None:
                if chunk.samples or chunk.stats:
                    gathered.add(chunk)
                self._save_if_due()
                done = self._at.tuned + self._at.drawn - steps
                steps += done
                diverged = chunk.stats.get("diverging") if progress.shown else None
                progress.update(
                    done, warmup=chunk.warmup, moments=None if chunk.warmup else self._moments,
                    divergences=0 if diverged is None else int(diverged.sum()),
                )  # fmt: skip
        self._save_if_due(at_end=True)
        if not o.draws and self._keep:
            gathered.add(self._no_draws(self._at.state))
        found = self._nonfinite.merge(self._at_the_end())
        tree = gathered.tree(
            self._about() | {"non_finite": found.to_json()}, dims=self._dims, coords=o.coords
        )
        if self._moments is not None and self._moments.count:
            import xarray

            tree["reduced"] = xarray.DataTree(self.reduced)
        return tree

    def _no_draws(self, state: Arrays) -> Chunk:
        samples = {n: state[n][:, None][:, :0] for n in self._keep}
        stats = {n: np.empty((len(self.chains), 0), d) for n, d in self._program.draw.stats.items()}
        return Chunk(False, 0, self.chains, samples, stats)

    def _at_the_end(self) -> NonFinite:
        """Of the variables that were not recorded, by their last values."""
        found = NonFinite()
        if self._at.drawn:
            traced = self._program.draw.samples
            last = {n: x[:, None] for n, x in users(self._at.state).items() if n not in traced}
            found.update(Chunk(False, self._at.drawn - 1, self.chains, last, {}))
        return found

    # ---- checkpoints, and the end ---------------------------------------------------------------

    def _save_if_due(self, at_end: bool = False) -> None:
        if self._file is None or self._saved is self._at:
            return
        reached = self._at.drawn or self._at.tuned
        if self._options.every is not None:
            due = reached > 0 and reached % self._options.every == 0
        else:
            parts = [part for c in self._unsaved for part in (c.samples, c.stats)]
            held = sum(x.nbytes for part in parts for x in part.values())
            due = held > _SAVE_BYTES or time.monotonic() - self._saved_at > _SAVE_SECONDS
        if due or at_end:
            self._save(self._file)
            self._unsaved = []
            self._saved_at, self._saved = time.monotonic(), self._at

    def _save(self, file: Checkpoint) -> None:
        moments = {} if self._moments is None else self._moments.arrays()
        notes = {"non_finite": self._nonfinite.to_json(), "seconds": self._seconds}
        file.save(self._at, moments, notes, self._unsaved)

    def close(self) -> None:
        """Ends the run; the chunk that is being computed is waited for and lost."""
        if self._pending is not None:
            for future in self._pending[1]:
                future.cancel()
            self._pending = None
        if self._tasks is not None:
            self._tasks.close()
            self._tasks = None

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _start(init: Any, saved: Saved | None, options: Options) -> Arrays:
    """Where the chains start, or where the checkpoint has them."""
    if init is not None:
        return position_of(init)
    if saved is None:
        path = options.checkpoint
        raise ValueError("init is missing" + (f", and there is no file {path}" if path else ""))
    return {name: saved.point.state[name] for name, *_ in saved.about["variables"]}


class _Given:
    """The last trees that the caller was given.

    A tree and its groups refer to each other, so one that is let go waits for the garbage
    collector, which counts objects and not their bytes. Here the one before the last is taken
    apart at once if nobody else refers to it or its groups; their variables stay whole in any case.
    """

    def __init__(self) -> None:
        self._places: list[tuple[list[Any], list[int]]] = []

    def kept(self, place: list[Any]) -> Any:
        """The tree at `place`, a list that so far holds the only reference to it."""
        self._places.append((place, _references(place)))
        if len(self._places) > 2:
            old, alone = self._places.pop(0)
            if _references(old) == alone:
                old[0].children = {}
        return place[0]


def _references(place: list[Any]) -> list[int]:
    """How many there are to the tree and to each of its groups."""
    groups = list(place[0].children.values())
    return [sys.getrefcount(place[0]), *map(sys.getrefcount, groups)]
