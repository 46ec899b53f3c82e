"""A training step of the character model, timed on gpuscan and on its peers:
python -m benchmarks.char_rnn

All compute the same loss, gradients and first steps, which is checked first; then they are timed by
turns. A step is forward, gradients, clipping and Adam.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from .__main__ import positive, progress, surroundings

PROMISE = 0.8  # of the time of the fastest peer
CHECKED = 5  # steps of training, by their losses
SAMPLE = 0.25  # seconds that a sample takes at least: in training one step follows another


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.char_rnn",
        description=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for name, value, words in (
        ("hidden", 256, "units of the LSTM"),
        ("embedding", 64, "numbers that stand for a character"),
        ("batch", 32, "streams"),
        ("steps", 64, "of a window"),
        ("repeat", 15, "samples, of which the median counts"),
        ("threads", 2, "cores that may be used, at most"),
    ):
        p.add_argument(f"--{name}", type=positive, default=value, help=words)
    p.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: the processor's "
                   "time, of all threads, for a busy machine with --threads 1")  # fmt: skip
    p.add_argument("--device", default="native", help="of gpuscan; with cupy or pycuda peers run "
                   "on the GPU, too")  # fmt: skip
    return p


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    on_gpu = options.device in ("cupy", "pycuda")
    cores = surroundings(options.threads, "cuda,cpu" if on_gpu else "cpu")
    from gpuscan.runtime.device import select

    from . import timing
    from .char_step import PEERS, GPUScan, Problem
    from .gpu import rate
    from .report import amount, seconds

    problem = Problem(
        hidden=options.hidden, embedding=options.embedding, batch=options.batch,
        steps=options.steps, on_gpu=on_gpu,
    )  # fmt: skip
    ours = f"gpuscan {options.device}"
    makers: dict[str, Any] = {ours: lambda: GPUScan(problem, options.device)}
    makers |= {name: lambda make=make: make(problem) for name, make in PEERS.items()}
    timings = {name: timing.Timing(name) for name in makers}
    ready = checked(problem, makers, timings)
    before = timing.machine()
    if on_gpu:
        gpu = select(options.device).limits
        where, flops = gpu.name, rate(gpu, "float32")
    else:
        where, (flops, _) = before["cpu"], timing.peaks(options.clock)
    steps = {name: version.step for name, version in ready.items()}
    timing._by_turns(steps, timings, options.repeat, options.clock, progress, SAMPLE)
    progress("")
    print(
        f"{where}, {cores} cores, {options.clock} time, load {before['load'][0]:.1f} "
        f"before and {os.getloadavg()[0]:.1f} after; at best {flops / 1e9:.0f} Gflop/s"
        "\n"
        f"an LSTM of {options.hidden} units, {problem.characters} characters as "
        f"{options.embedding} numbers, {options.batch} streams, {options.steps} steps: "
        f"{amount(problem.flops)}flop, floor {seconds(problem.flops / flops)}"
    )
    peers = [t.median for n, t in timings.items() if n != ours and t.median is not None]
    for name, t in timings.items():
        if t.median is None:
            print(f"{name:16} {t.problem}")
            continue
        ratio = f"  x {t.median / min(peers):.2f}" if peers else ""
        print(f"{name:16} {seconds(t.median):>8}  {problem.flops / t.median / 1e9:4.0f} Gflop/s"
              f"{ratio}")  # fmt: skip
    print(f"promised: {ours} x {PROMISE} of the fastest peer at most")
    return 0 if ours in ready else 1


def checked(problem: Any, makers: dict[str, Any], timings: dict[str, Any]) -> dict[str, Any]:
    """The versions that compute what the first one does; what is wrong with the others goes to
    their timings. The gradients are compared, and the losses of some steps."""
    import numpy as np

    from .cases import mismatch

    ready: dict[str, Any] = {}
    expected: Any = None
    for name, make in makers.items():
        try:
            version = make()
            found = {**version.gradients()}
            found["losses"] = np.array([version.step() for _ in range(CHECKED)])
        except ImportError as e:
            timings[name].problem = f"absent (no module {e.name})"
            continue
        except Exception as e:
            timings[name].problem = f"{type(e).__name__}: {e}".splitlines()[0]
            continue
        if expected is None:
            expected = found
        elif difference := mismatch(problem, found, expected):
            timings[name].problem = f"differs from {next(iter(ready))}: {difference}"
            continue
        ready[name] = version
    return ready


if __name__ == "__main__":
    sys.exit(main())
