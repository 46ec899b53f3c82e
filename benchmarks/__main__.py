"""Loops timed on gpuscan and on its peers: python -m benchmarks

Every case is first computed by all and compared, then timed by turns. The table goes to the
screen, the same and more to benchmarks.json and benchmarks.png in the folder --out.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DEVICES = ("native", "reference")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument("--case", action="append", metavar="TEXT", help="only cases with this in their "
                   "name; may be given again")  # fmt: skip
    p.add_argument("--device", action="append", metavar="NAME", help="only this device of gpuscan; "
                   f"may be given again (otherwise {' and '.join(DEVICES)})")  # fmt: skip
    p.add_argument("--repeat", type=positive, default=5, help="samples, of which the median counts")
    p.add_argument("--threads", type=positive, default=2, help="cores that may be used, at most")
    p.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: the processor's "
                   "time, of all threads, for a busy machine with --threads 1")  # fmt: skip
    p.add_argument("--quick", action="store_true", help="a tenth of the steps")
    p.add_argument("--list", action="store_true", help="name the cases and stop")
    p.add_argument("--out", default=".", type=Path, help="the folder of the JSON and the picture")
    return p


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def surroundings(threads: int, jax: str = "cpu") -> int:
    """What must be set before NumPy is imported, and for JAX where it runs; how many cores there
    are to use."""
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # NumPy's products as users have them
        os.environ.pop(name, None)
    cores = sorted(os.sched_getaffinity(0))[:threads]
    os.sched_setaffinity(0, cores)  # all libraries go by it, JAX has nothing else
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(len(cores))
    os.environ.setdefault("JAX_PLATFORMS", jax)
    return len(cores)


def chosen(command: argparse.ArgumentParser, options: Any, cases: Sequence[Any]) -> list[Any]:
    """The cases that the options name. Ends the program where there are none, and where they are
    to be timed without a folder for what comes of it."""
    words = options.case or [""]
    found = [c for c in cases if any(w in c.name for w in words)]
    if options.list:
        return found
    if not found:
        command.error(f"no case has {' or '.join(words)} in its name; --list names them")
    if not options.out.is_dir():
        command.error(f"there is no folder {options.out}")
    return found


def conditions(options: Any, peers: Mapping[str, str | None]) -> dict[str, Any]:
    """What a run depends on, as its JSON begins."""
    import gpuscan

    from . import timing

    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "gpuscan": gpuscan.__version__,
        "python": sys.version.split()[0],
        "peers": peers,
        "before": timing.machine(),
        "repeat": options.repeat,
        "quick": options.quick,
        "clock": options.clock,
    }


def main(arguments: list[str] | None = None) -> int:
    command = parser()
    options = command.parse_args(arguments)
    cores = surroundings(options.threads)
    from . import report, timing
    from .cases import CASES
    from .peers import installed

    cases = chosen(command, options, CASES)
    if options.list:
        print("\n".join(f"{c.name:24}{c.text}" for c in cases))
        return 0
    peers = installed()
    run = conditions(options, peers)
    known = {name: version for name, version in peers.items() if version}
    print(f"{run['before']['cpu']}, {cores} cores, load {run['before']['load'][0]:.1f}; gpuscan "
          f"{run['gpuscan']}, {', '.join(f'{n} {v}' for n, v in known.items())}")  # fmt: skip
    peaks = timing.peaks(options.clock)
    print(f"at best {peaks[0] / 1e9:.0f} Gflop/s (a product), {peaks[1] / 1e9:.1f} GB/s (a copy)")
    rows = []
    with tempfile.TemporaryDirectory(prefix="gpuscan-") as cache:
        os.environ["GPUSCAN_CACHE_DIR"] = cache  # so that a first call is one
        for case in cases:
            timings = timing.time_case(
                case,
                options.device or DEVICES,
                options.repeat,
                options.quick,
                options.clock,
                progress,
            )
            rows.append((case, case.made(options.quick), timings))
            progress("")
            write(options.out, report, rows, peaks, run)  # a run that is stopped leaves these
    run["after"] = timing.machine()
    print(f"{report.table(rows, peaks, peers)}\n\nload {run['after']['load'][0]:.1f} at the end")
    write(options.out, report, rows, peaks, run)
    try:
        cpu, day = run["before"]["cpu"], run["date"]
        title = f"{cpu}, {cores} cores, {day}, {options.clock} time"
        report.picture(options.out / "benchmarks.png", rows, title)
        print(f"wrote benchmarks.json and benchmarks.png in {options.out}")
    except ImportError as e:
        print(f"wrote benchmarks.json in {options.out}; no picture: no module {e.name}")
    return 0


def write(out: Path, report: Any, rows: Any, peaks: Any, run: Any) -> None:
    import json

    text = json.dumps(report.record(rows, peaks, run), indent=1)
    (out / "benchmarks.json").write_text(text + "\n")


def progress(text: str) -> None:
    """One line that the next overwrites, where somebody looks on."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
