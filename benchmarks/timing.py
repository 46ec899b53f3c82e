"""Times the versions of a case, by turns, in one process."""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .cases import Case, Family, Version, mismatch
from .peers import versions

SAMPLE = 0.02  # seconds that a sample takes at least: short versions run several times in one
PATIENCE = 3.0  # seconds for the samples of one version, the first call apart
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}  # cpu: of all threads together
PAUSE = 0.01  # seconds before a sample: the threads of the version before stop spinning


@dataclass
class Timing:
    """One version of a case. Times in seconds."""

    name: str
    first: float | None = None  # building it, compiling it, calling it once
    samples: list[float] = field(default_factory=list)  # of a call, each
    runs: int = 1  # calls in a sample
    problem: str | None = None  # why there are no samples
    explanation: str | None = None  # of gpuscan: how the function runs

    @property
    def median(self) -> float | None:
        return statistics.median(self.samples) if self.samples else None

    @property
    def ours(self) -> bool:
        return self.name.startswith("gpuscan")


def ours(family: Family, device: str, timing: Timing) -> Callable[[], Version]:
    def make() -> Version:
        version, function = family.ours(device)
        timing.explanation = str(function.explain())
        return version

    return make


def time_case(
    case: Case, devices: Sequence[str], repeat: int, quick: bool, clock: str,
    say: Callable[[str], None],
) -> list[Timing]:  # fmt: skip
    """Every version of the case: first checked against NumPy's, then timed."""
    family = case.made(quick)
    makers: dict[str, Callable[[], Version]] = dict(versions(family))
    timings = {name: Timing(name) for name in makers}
    for device in devices:
        t = timings[f"gpuscan {device}"] = Timing(f"gpuscan {device}")
        makers[t.name] = ours(family, device, t)
    ready: dict[str, Version] = {}
    expected = None
    for name, make in makers.items():
        t = timings[name]
        say(f"{case.name}: {name}, first call")
        began = CLOCKS[clock]()
        try:
            version = make()
            result = version()
        except Exception as e:
            t.problem = f"{type(e).__name__}: {e}".splitlines()[0]
            continue
        t.first = CLOCKS[clock]() - began
        if expected is None:
            expected = result  # NumPy's: the first peer, always there
        elif difference := mismatch(family, result, expected):
            t.problem = f"differs from NumPy: {difference}"
            continue
        ready[name] = version
    _by_turns(ready, timings, repeat, clock, lambda text: say(f"{case.name}: {text}"))
    return list(timings.values())


def _by_turns(
    ready: Mapping[str, Version], timings: Mapping[str, Timing], repeat: int, clock: str,
    say: Callable[[str], None], sample: float = SAMPLE,
) -> None:  # fmt: skip
    left = dict.fromkeys(ready, PATIENCE)
    for turn in range(repeat):
        for name, version in ready.items():
            t = timings[name]
            if turn == 0:
                if (t.first or 0) > 3 * PATIENCE:  # its first call has to do
                    t.samples.append(t.first or 0)
                    left[name] = 0
                    continue
                once = _seconds(version, 1, clock)
                left[name] -= once
                t.runs = max(1, round(sample / once))
            if t.samples and left[name] <= 0:
                continue
            say(f"{name}, sample {turn + 1} of {repeat}")
            t.samples.append(_seconds(version, t.runs, clock))
            left[name] -= t.samples[-1] * t.runs


def _seconds(version: Callable[[], Any], runs: int, clock: str) -> float:
    """Of one call, the mean of so many."""
    time.sleep(PAUSE)
    gc.collect()
    began = CLOCKS[clock]()
    for _ in range(runs):
        version()
    return max(1e-9, CLOCKS[clock]() - began) / runs


def peaks(clock: str) -> tuple[float, float]:
    """What this machine does at best: flops a second of a float32 product, bytes a second of a
    copy (read and written)."""
    a = np.random.default_rng(0).random((1536, 1536), "float32")
    product = min(_seconds(lambda: a @ a, 1, clock) for _ in range(4))
    x = np.ones(1 << 24, "float32")
    y = np.empty_like(x)

    def copy() -> Any:
        y[:] = x

    copied = min(_seconds(copy, 1, clock) for _ in range(4))
    return 2 * len(a) ** 3 / product, 2 * x.nbytes / copied


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    cpu = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as f:
            cpu = next((x.split(":")[1].strip() for x in f if x.startswith("model name")), cpu)
    except OSError:
        pass
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()}
