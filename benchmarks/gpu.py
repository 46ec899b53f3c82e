"""gpuscan's CUDA kernels timed on a GPU, beside peers: python -m benchmarks.gpu

The time of a step is the slope between two numbers of steps, which no fixed cost is in. Every
peer's result is compared with gpuscan's before anything is timed; then they take turns, in one
process. Tables go to the screen, all of it to a JSON file, the times of a step to a picture.
Without a GPU one line says what is missing, and the status is 3.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NO_DEVICE = 3  # the process's status
REPEAT, QUICK, TINY = 30, 5, 2  # samples, of which the median counts
PATIENCE = 120.0  # seconds
EMULATED, ON_CPU = "emulated: not a GPU time", "on the CPU: not a GPU time"
OURS = "gpuscan"
DEVICES = ("cuda", "cupy", "pycuda", "emulated")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument("--case", action="append", metavar="TEXT", help="only cases with this in their "
                   "name; may be given again")  # fmt: skip
    p.add_argument("--device", choices=DEVICES, default="cuda", help="cuda: cupy, or pycuda where "
                   "only that is here")  # fmt: skip
    p.add_argument("--peer", action="append", metavar="NAME", help="only this peer, or none for "
                   "none; may be given again")  # fmt: skip
    p.add_argument("--patience", type=float, default=PATIENCE, metavar="SECONDS", help="for the "
                   "first calls of gpuscan or a peer in a case: then it is given up, as soon as it "
                   "is back in Python; 0: no end")  # fmt: skip
    p.add_argument("--quick", action="store_true", help=f"{QUICK} samples instead of {REPEAT}")
    p.add_argument("--all", action="store_true", help="all sizes, which takes hours; else a short "
                   "set, which takes minutes")  # fmt: skip
    p.add_argument("--tiny", action="store_true", help="every kind of case at a size that shows "
                   "only that it works; the emulated device does no more")  # fmt: skip
    p.add_argument("--list", action="store_true", help="name the cases and stop")
    p.add_argument("--json", default="benchmarks_gpu.json", type=Path, metavar="FILE", help="all "
                   "that was found, written after each case")  # fmt: skip
    p.add_argument("--picture", default="benchmarks_gpu.png", type=Path, metavar="FILE",
                   help="a PNG file; needs matplotlib")  # fmt: skip
    return p


# ---- clocks --------------------------------------------------------------------------------------


class EventClock:
    """Seconds that a GPU counts: each reading puts an event on the default stream and waits for it.

    An event's distance is a float32 of milliseconds, so each is taken from the event before."""

    def __init__(self, event: Callable[[], Any], between: Callable[[Any, Any], float]) -> None:
        self.event, self.between = event, between
        self.last, self.total = event(), 0.0

    def __call__(self) -> float:
        now = self.event()
        self.total += 1e-3 * self.between(self.last, now)
        self.last = now
        return self.total


def clock_of(device: Any) -> tuple[str, Callable[[], float]]:
    """What times are measured by, and how it is read when all work is done."""
    if device.name == "cupy":
        return "events of CuPy's on the default stream", EventClock(*_cupy_events(device.cupy.cuda))
    if device.name == "pycuda":
        return "events of PyCUDA's on the default stream", EventClock(*_pycuda_events(device))
    return "the host's clock, when a call has waited for its results", time.perf_counter


def _cupy_events(cuda: Any) -> tuple[Callable[[], Any], Callable[[Any, Any], float]]:
    def event() -> Any:
        found = cuda.Event()
        found.record()
        found.synchronize()
        return found

    return event, cuda.get_elapsed_time


def _pycuda_events(device: Any) -> tuple[Callable[[], Any], Callable[[Any, Any], float]]:
    def event() -> Any:
        with device.active():
            found = device.drv.Event()
            found.record()
            found.synchronize()
            return found

    def between(first: Any, second: Any) -> float:
        with device.active():
            return float(first.time_till(second))

    return event, between


# ---- the GPU -------------------------------------------------------------------------------------

_ASKED = ("name,driver_version,pstate,clocks.sm,clocks.max.sm,clocks.mem,temperature.gpu,"
          "power.draw,power.limit,utilization.gpu")  # fmt: skip


def nvidia_smi() -> list[dict[str, str]] | str:
    """What nvidia-smi says of each GPU now, or why it says nothing."""
    if not (program := shutil.which("nvidia-smi")):
        return "no nvidia-smi"
    command = [program, f"--query-gpu={_ASKED}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as e:
        return f"nvidia-smi fails: {e}"
    rows = [[x.strip() for x in line.split(",")] for line in done.stdout.splitlines()]
    return [dict(zip(_ASKED.split(","), row)) for row in rows]


def free_memory(device: Any) -> int | None:
    """Bytes that the GPU has left when the device gave back what it keeps for later; None where
    the device does not tell."""
    if device.name == "cupy":
        device.cupy.get_default_memory_pool().free_all_blocks()
        return _left(device)
    if device.name == "pycuda":
        from gpuscan.runtime import pycuda

        with device.active():
            pycuda._own.pool.free_held()
        return _left(device)
    return None


def _left(device: Any) -> int:
    if device.name == "cupy":
        return int(device.cupy.cuda.runtime.memGetInfo()[0])
    with device.active():
        return int(device.drv.mem_get_info()[0])


def peak(device: Any, name: str, run: Callable[[], Any], on_gpu: bool) -> int | None:
    """Bytes of device memory that a call takes beside its inputs, at most, where that is told.
    CuPy's and PyCUDA's pools give nothing back by themselves, so what they have grown by is the
    peak, with what they lose by cutting blocks. JAX can't be asked for one call's, and a graph of
    CuPy's has had its memory since it was made."""
    from . import peer_gpu

    if not on_gpu or name.startswith("JAX") or name == "CuPy graph":
        return None
    if name in peer_gpu.BY_PYTORCH:
        import torch

        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated() - before)
    if (left := free_memory(device)) is None:
        return None
    results = run()  # held until memory is asked for
    after = _left(device)
    del results
    return max(0, left - after)


def rate(gpu: Any, precision: str) -> float:
    """Flops a second of products, at the GPU's clock: TF32 has half the rate of 16 bits."""
    if precision == "float32":
        clock = 2 * gpu.fma_clock
    else:
        clock = gpu.tensor_clock // (2 if precision == "tf32" else 1)
    return float(clock * gpu.multiprocessors * gpu.clock)


# ---- a case --------------------------------------------------------------------------------------


@dataclass
class Version:
    """gpuscan or a peer in a case. `samples` are seconds of a call, by the number of steps."""

    name: str
    lengths: tuple[int, ...]
    samples: dict[int, list[float]] = field(default_factory=dict)
    first: float | None = None  # seconds, by the host's clock: made, compiled, called once
    error: float | None = None  # relative to gpuscan's result, of results that are no draws
    peak: int | None = None  # bytes
    kernel: str = ""  # in which a peer spends most time
    problem: str | None = None  # why there are no samples
    wrong: bool = False  # whether it is a result that is the problem

    def median(self, n: int) -> float | None:
        import statistics

        return statistics.median(self.samples[n]) if self.samples.get(n) else None

    @property
    def total(self) -> float | None:
        """Seconds of the longest call."""
        return self.median(max(self.lengths))

    @property
    def slope(self) -> float | None:
        """Seconds of a step; None where the two lengths differ by less than they vary."""
        short, long = self.median(min(self.lengths)), self.median(max(self.lengths))
        if short is None or long is None or long <= short:
            return None
        return (long - short) / (max(self.lengths) - min(self.lengths))


@dataclass
class Row:
    """A case and what was found. Seconds are of a step."""

    case: Any
    floor: float
    flops: float  # of a step, as bytes
    bytes: float
    versions: list[Version] = field(default_factory=list)
    predicted: float | None = None  # of the loops' kernels, by explain()
    scopes: str = ""
    explanation: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def ours(self) -> Version:
        return self.versions[0]

    def best(self) -> Version | None:
        """The peer with the shortest step."""
        peers = [v for v in self.versions[1:] if v.slope is not None]
        return min(peers, key=lambda v: v.slope or 0.0, default=None)

    def ratio(self, peer: Version | None) -> float | None:
        """gpuscan's step over the peer's."""
        if peer is None or peer.slope is None or self.ours.slope is None:
            return None
        return self.ours.slope / peer.slope


class Measurement:
    """How cases are measured: on which device, by which clock, beside whom."""

    def __init__(
        self, device: Any, peers: Sequence[str], repeat: int, on_gpu: bool,
        say: Callable[[str], None], patience: float = 0,
    ) -> None:  # fmt: skip
        from . import timing

        self.device, self.peers, self.repeat, self.on_gpu = device, peers, repeat, on_gpu
        self.clock, timing.CLOCKS["gpu"] = clock_of(device)
        self.read, self.say, self.patience = timing.CLOCKS["gpu"], say, patience

    def micro(self, micro: Any) -> Any:
        from . import gpu_micro

        self.say(f"{micro.name}")
        with bounded(self.patience):
            return gpu_micro.measure(micro, self.device, self.repeat, self.read)

    def row(self, case: Any) -> Row:
        from . import peer_gpu

        gpu = self.device.limits
        family = case.made()
        speed = rate(gpu, case.precision)
        floor = max(family.flops / speed, family.bytes / gpu.memory_rate)
        steps = family.steps
        found = Row(case, floor / steps, family.flops / steps, family.bytes / steps)
        ours = Version(OURS, case.lengths)
        found.versions.append(ours)
        ready: dict[str, Any] = {}
        with _scope(type(self.device), family.scope):
            loop = self._ours(case, family, found)
            if loop is not None:
                ready[OURS] = loop
                for peer in self.peers:
                    if case.peers and peer not in case.peers:
                        continue
                    made = self._peer(peer, case, family, loop, found)
                    if made is not None:
                        ready[peer] = made
            self._time(ready, found)
        if family.scope and not ours.problem:
            found.notes.append(self._bare_meeting())
        del ready, loop
        peer_gpu.release(self.on_gpu)
        return found

    def _ours(self, case: Any, family: Any, row: Row) -> Any:
        version = row.ours
        self.say(f"{case.name}: {OURS}, first call")
        left = free_memory(self.device)
        if left is not None and family.room() > left:
            version.problem = f"needs about {family.room() / 2**30:.0f} GiB of memory, " + (
                f"{left / 2**30:.0f} are free"
            )
            return None
        began = time.perf_counter()
        try:
            with bounded(self.patience):
                loop = family.loop(self.device, case.precision)
                loop.run(min(case.lengths))
                version.first = time.perf_counter() - began
                for n in case.lengths[1:]:
                    loop.run(n)
            longest = max(case.lengths)
            version.peak = peak(self.device, OURS, lambda: loop.run(longest), self.on_gpu)
            explained = loop.function.explain()
        except Exception as e:
            version.problem = _first_line(e)
            return None
        row.explanation = str(explained)
        row.scopes = "/".join(p.scope or p.path for p in explained.scans)
        if all(p.kernel is not None for p in explained.scans):
            row.predicted = sum(p.kernel.predicted.seconds for p in explained.scans)
        return loop

    def _peer(self, peer: str, case: Any, family: Any, ours: Any, row: Row) -> Any:
        """The peer's loop, where it has one and it computes what gpuscan does."""
        from . import peer_gpu
        from .cases import mismatch
        from .gpu_cases import TOLERANCES, difference

        lengths = case.host_lengths or case.lengths
        version = Version(peer, lengths)
        self.say(f"{case.name}: {peer}, first call")
        try:
            expected = ours.host(ours.run(lengths[0]))  # before: a peer may need its draws
            began = time.perf_counter()
            with bounded(self.patience):
                loop = peer_gpu.version(peer, family, case.precision, self.on_gpu)
                if loop is None:
                    return None
                row.versions.append(version)
                result = loop.host(loop.run(lengths[0]))
                version.first = time.perf_counter() - began
                for n in lengths[1:]:
                    loop.run(n)
            version.peak = peak(self.device, peer, lambda: loop.run(max(lengths)), self.on_gpu)
            if peer == "PyTorch" and self.on_gpu:
                version.kernel = peer_gpu.busiest_kernel(lambda: loop.run(lengths[0]))
        except Exception as e:
            version.problem = _first_line(e)
            if version not in row.versions:
                row.versions.append(version)
            return None
        if family.random:
            version.problem = mismatch(family, result, expected)
        else:
            version.error = difference(result, expected)
            tolerance = TOLERANCES[case.precision]
            if version.error > tolerance:
                version.problem = f"{version.error:.2g} apart, {tolerance:.2g} is allowed"
        if version.problem:
            version.wrong = True
            version.problem = f"differs from gpuscan: {version.problem}"
            return None
        return loop

    def _time(self, ready: Mapping[str, Any], row: Row) -> None:
        from . import timing

        calls, timings = {}, {}
        for v in row.versions:
            for n in v.lengths if v.name in ready else ():
                key = f"{v.name}, {n} steps"
                calls[key] = _call(ready[v.name].run, n)
                timings[key] = timing.Timing(key)
                v.samples[n] = timings[key].samples

        def say(text: str) -> None:
            self.say(f"{row.case.name}: {text}")

        try:
            timing._by_turns(calls, timings, self.repeat, "gpu", say)
        except Exception as e:
            row.ours.problem = f"while timing: {_first_line(e)}"

    def _bare_meeting(self) -> str:
        from gpuscan.selftest import meeting_seconds

        seconds, blocks = meeting_seconds(self.device)
        mark = "" if self.on_gpu else f" ({EMULATED})"
        return (
            f"a bare meeting of {blocks} blocks takes {1e6 * seconds:.2f} us by the host's clock"
            f"{mark}"
        )


def _call(run: Callable[[int], Any], n: int) -> Callable[[], Any]:
    return lambda: run(n)


def _first_line(e: Exception) -> str:
    return f"{type(e).__name__}: {e}".splitlines()[0]


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Raises TimeoutError within it after so long, when Python's next line runs: a compiler, or a
    wait for the GPU, comes back first. No end where there is no alarm, or it is somebody else's."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"took over {seconds:.0f} s, and was given up")

    free = hasattr(signal, "setitimer") and not signal.getitimer(signal.ITIMER_REAL)[0]
    if not seconds or not free or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _scope(kind: Any, scope: str) -> Iterator[None]:
    """Loops run in this scope where they have a kernel of it, for a while."""
    before = kind.scope
    kind.scope = scope or before
    try:
        yield
    finally:
        kind.scope = before


# ---- what is shown -------------------------------------------------------------------------------


class Report:
    """Tables, JSON and picture. Where the device is emulated, every time says that it is no
    GPU's."""

    def __init__(self, run: Mapping[str, Any], peers: Sequence[str], on_gpu: bool) -> None:
        self.run, self.peers, self.on_gpu = run, peers, on_gpu
        self.title = f"{run['gpu']['name']}, {run['date']}, median of {run['repeat']}"
        if not on_gpu:
            self.title = f"{EMULATED}; {run['date']}"

    def time(self, seconds: float | None, name: str = OURS) -> str:
        from .report import seconds as text

        mark = "" if self.on_gpu else " emulated" if name == OURS else " CPU"
        return "-" if seconds is None else text(seconds) + mark

    def micros(self, found: Sequence[Any]) -> str:
        """The times of what bounds a step of blocks that meet."""
        lines = [["alone", "blocks", "time"]]
        lines += [[x.text, f"{x.blocks}", self.time(x.seconds)] for x in found]
        return _laid_out(lines, 1)

    def shown(self, rows: Sequence[Row]) -> list[str]:
        """The peers that have a version of a case."""
        return [p for p in self.peers if any(v.name == p for row in rows for v in row.versions)]

    def steps(self, rows: Sequence[Row]) -> str:
        """The times of a step."""
        from .report import amount

        peers = self.shown(rows)
        lines = [["case", "scope", "flops", "bytes", "floor", "gpuscan", "predicted", *peers, "x"]]
        for row in rows:
            best, named = row.best(), {v.name: v for v in row.versions}
            line = [row.case.text, row.scopes or "-", amount(row.flops), amount(row.bytes),
                    *map(self.time, (row.floor, row.ours.slope, row.predicted))]  # fmt: skip
            for peer in peers:
                text = self.time(named[peer].slope if peer in named else None, peer)
                line.append(f"**{text}**" if best is not None and best.name == peer else text)
            ratio = row.ratio(best)
            lines.append([*line, "-" if ratio is None else f"{ratio:.2f}"])
        return _laid_out(lines, 2)

    def calls(self, rows: Sequence[Row]) -> str:
        """The times of the longest calls, in brackets of the first ones, and their memory."""
        peers = self.shown(rows)
        lines = [["case", "steps", "gpuscan", *peers, "memory: gpuscan", *peers]]
        for row in rows:
            named = {v.name: v for v in row.versions}
            found = [named.get(name) for name in (OURS, *peers)]
            lines.append([
                row.case.text, f"{max(row.case.lengths)}", *map(self._call, found),
                *("-" if v is None or v.peak is None else _bytes(v.peak) for v in found),
            ])  # fmt: skip
        return _laid_out(lines, 1)

    def _call(self, v: Version | None) -> str:
        if v is None or v.total is None:
            return "-"
        return f"{self.time(v.total, v.name)} ({self.time(v.first, v.name)})"

    def notes(
        self, rows: Sequence[Row], absent: Mapping[str, str], micros: Sequence[Any] = ()
    ) -> list[str]:
        found = [f"- absent: {peer} ({why})" for peer, why in absent.items()]
        found += [f"- {x.name}: {x.problem}" for x in micros if x.problem]
        for row in rows:
            found += [f"- {row.case.name}: {text}" for text in row.notes]
            for v in row.versions:
                if v.problem:
                    found.append(f"- {row.case.name}: {v.name}: {v.problem}")
                elif v.samples and v.slope is None:
                    found.append(f"- {row.case.name}: {v.name}: more steps took no longer")
                elif v.lengths != row.case.lengths:
                    found.append(f"- {row.case.name}: {v.name}: {max(v.lengths)} steps at most")
                if v.kernel:
                    found.append(f"- {row.case.name}: {v.name} ran {v.kernel}")
        if rows and not any(v.peak is not None for row in rows for v in row.versions):
            found.append(f"- memory: device {self.run['device']} does not tell")
        return found

    def record(self, rows: Sequence[Row], micros: Sequence[Any] = ()) -> dict[str, Any]:
        def times(name: str) -> str:
            return "of a GPU" if self.on_gpu else EMULATED if name == OURS else ON_CPU

        return {
            **self.run,
            "times": times(OURS),
            "micro": [{**vars(x), "times": times(OURS)} for x in micros],
            "cases": [
                {
                    "name": row.case.name,
                    "text": row.case.text,
                    "sizes": dict(row.case.sizes),
                    "lengths": row.case.lengths,
                    "precision": row.case.precision,
                    "memory": row.case.memory,
                    "flops a step": row.flops,
                    "bytes a step": row.bytes,
                    "floor a step": row.floor,
                    "predicted a step": row.predicted,
                    "scopes": row.scopes,
                    "explanation": row.explanation,
                    "notes": row.notes,
                    "best peer": best.name if (best := row.best()) else None,
                    "versions": [
                        {**vars(v), "times": times(v.name), "a step": v.slope, "a call": v.total,
                         "gpuscan's step over it": row.ratio(v)}
                        for v in row.versions
                    ],
                }
                for row in rows
            ],
        }  # fmt: skip

    def picture(self, path: Path, rows: Sequence[Row]) -> None:
        """The time of a step, a line a case. Raises ImportError without matplotlib."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(10, 1.8 + 0.3 * len(rows)), layout="constrained")
        shown = [
            ("floor", "black", "|", 90, [row.floor for row in rows]),
            ("predicted", "#edae49", "x", 45, [row.predicted for row in rows]),
        ]
        colours = {
            OURS: "#d1495b",
            "PyTorch": "#7a4ea3",
            "JAX": "#3c8d5a",
            "CuPy": "#4d77cf",
            "PyTorch scan": "#c3a6dd",
            "JAX unroll=8": "#9ccfae",
            "CuPy graph": "#a9bfee",
        }
        for name, colour in colours.items():
            slopes = [next((v.slope for v in r.versions if v.name == name), None) for r in rows]
            marker, size = ("D", 46) if name == OURS else ("o", 30)
            shown.append((name, colour, marker, size, slopes))
        for name, colour, marker, size, values in shown:
            points = [(1e6 * x, k) for k, x in enumerate(values) if x]
            if points:
                axes.scatter(
                    *zip(*points), label=name, color=colour, marker=marker, s=size, zorder=3
                )
        axes.set_xscale("log")
        axes.set_yticks(range(len(rows)), [row.case.text for row in rows], fontsize=8)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="both", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(left=False)
        axes.set_xlabel("microseconds a step (log scale; left is faster)" + (
            "" if self.on_gpu else f"\n{EMULATED}"))  # fmt: skip
        figure.suptitle(self.title, fontsize=10)
        figure.legend(loc="outside lower center", ncols=6, frameon=False, fontsize=8)
        figure.savefig(path, dpi=110, format="png")
        pyplot.close(figure)


def _bytes(n: int) -> str:
    from gpuscan.codegen.limits import memory_text

    return memory_text(n)


def _laid_out(lines: Sequence[Sequence[str]], words: int) -> str:
    """A table in Markdown, of which so many columns are text."""
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    rule = ["-" * (w + 2) if k < words else "-" * (w + 1) + ":" for k, w in enumerate(widths)]
    texts = [" | ".join(c.ljust(w) for c, w in zip(line, widths)) for line in lines]
    return "\n".join([f"| {texts[0]} |", f"|{'|'.join(rule)}|", *(f"| {t} |" for t in texts[1:])])


# ---- the command ---------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    command = parser()
    options = command.parse_args(arguments)
    from gpuscan.runtime.device import missing, select

    if reason := missing(options.device):
        print(f"no benchmark: device {options.device!r} is not here: {reason}")
        return NO_DEVICE
    from gpuscan.runtime import driver

    device = select(options.device)
    on_gpu = device.name != "emulated" and not driver._stands_in()
    if not on_gpu and not options.tiny:
        command.error("an emulated device takes --tiny: it shows that the benchmark works, no more")
    from . import gpu_cases, gpu_micro, peer_gpu

    words = options.case or [""]
    with device.active():
        gpu = device.limits
    found = gpu_cases.tiny() if options.tiny else gpu_cases.chosen(gpu, options.all)
    cases = [c for c in found if any(w in c.name for w in words)]
    micros = [m for m in gpu_micro.chosen(options.tiny) if any(w in m.name for w in words)]
    if options.list:
        print("\n".join(f"{c.name:36}{c.text}" for c in (*micros, *cases)))
        return 0
    unknown = set(options.peer or ()) - {*peer_gpu.PEERS, "none"}
    if unknown:
        command.error(f"no peer {unknown.pop()}; there are {', '.join(peer_gpu.PEERS)}, or none")
    if not cases and not micros:
        command.error(f"no case has {' or '.join(words)} in its name; --list names them")
    for path in (options.json, options.picture):
        if not path.parent.is_dir():
            command.error(f"there is no folder {path.parent}")
    return _measured(options, device, on_gpu, micros, cases)


def _measured(
    options: Any, device: Any, on_gpu: bool, micros: Sequence[Any], cases: Sequence[Any]
) -> int:
    import gpuscan

    from . import peer_gpu
    from .__main__ import progress

    present: dict[str, str] = {}
    absent: dict[str, str] = {}
    for peer in peer_gpu.PEERS:
        if options.peer and peer not in options.peer:
            continue
        try:
            present[peer] = peer_gpu.version_of(peer, on_gpu)
        except peer_gpu.Absent as e:
            absent[peer] = f"{e}"
    repeat = TINY if options.tiny else QUICK if options.quick else REPEAT
    measurement = Measurement(device, list(present), repeat, on_gpu, progress, options.patience)
    gpu = device.limits
    described = ("name", "architecture", "multiprocessors", "clock", "memory_rate", "l2",
                 "shared_multiprocessor")  # fmt: skip
    run: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "gpuscan": gpuscan.__version__,
        "python": sys.version.split()[0],
        "device": device.name,
        "gpu": {name: getattr(gpu, name) for name in described},
        "clock": measurement.clock,
        "peers": present,
        "absent": absent,
        "before": nvidia_smi(),
        "repeat": repeat,
        "tiny": options.tiny,
    }
    report = Report(run, list(present), on_gpu)
    print(_heading(run, on_gpu))
    alone = [measurement.micro(m) for m in micros]
    progress("")
    if alone:
        print(f"\nWhat bounds a step of blocks that meet\n\n{report.micros(alone)}")
    rows: list[Row] = []
    gc.collect()
    gc.freeze()  # what the libraries hold is not looked at again before each sample
    for case in cases:
        rows.append(measurement.row(case))
        progress("")
        write(options.json, report.record(rows, alone))  # a run that is stopped leaves these
    gc.unfreeze()
    run["after"] = nvidia_smi()
    write(options.json, report.record(rows, alone))
    if rows:
        print("\nA step (x: gpuscan over the fastest peer, in bold; predicted: the loops alone)\n")
        print(report.steps(rows))
        print("\nA call (in brackets the first one; memory beside inputs)\n")
        print(f"{report.calls(rows)}\n")
    print("\n".join(report.notes(rows, absent, alone)))
    if not on_gpu:
        print(EMULATED)
    try:
        if rows:
            report.picture(options.picture, rows)
        print(f"wrote {options.json}{f' and {options.picture}' if rows else ''}")
    except ImportError as e:
        print(f"wrote {options.json}; no picture: no module {e.name}")
    wrong = any("read something else" in (x.problem or "") for x in alone)
    wrong |= any(row.ours.problem or any(v.wrong for v in row.versions) for row in rows)
    return 1 if wrong else 0


def _heading(run: Mapping[str, Any], on_gpu: bool) -> str:
    gpu, peers = run["gpu"], run["peers"]
    others = ", ".join(f"{n} {v}" for n, v in peers.items()) or "no peer"
    clocks = run["before"]
    if not isinstance(clocks, str):
        clocks = "; ".join(", ".join(f"{k} {v}" for k, v in c.items()) for c in clocks)
    lines = [
        f"{gpu['name']} ({gpu['architecture']}, {gpu['multiprocessors']} multiprocessors, "
        f"{gpu['clock'] / 1e6:.0f} MHz, {gpu['memory_rate'] / 1e9:.0f} GB/s) by {run['device']}; "
        f"gpuscan {run['gpuscan']}, {others}",
        f"clocks: {clocks}",
        f"measured by {run['clock']}; median of {run['repeat']}",
    ]
    return "\n".join(lines if on_gpu else [*lines, EMULATED])


def write(path: Path, found: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
