"""Chains timed on gpuscan and on its peers: python -m benchmarks.monte_carlo

Every sampler first draws on its own and is compared with the others by what it estimates, then all
are timed by turns. The table goes to the screen, the same and more to monte_carlo.json and
monte_carlo.png in the folder --out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .__main__ import chosen, conditions, positive, progress, surroundings

# name: the module that must be importable, the module here that uses it
PEERS = {
    "JAX": ("jax", "peer_mc_jax"),
    "BlackJAX": ("blackjax", "peer_blackjax"),
    "NumPyro": ("numpyro", "peer_numpyro"),
}


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.monte_carlo",
        description=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument("--case", action="append", metavar="TEXT", help="only cases with this in their "
                   "name; may be given again")  # fmt: skip
    p.add_argument("--device", default="native", help="of gpuscan")
    p.add_argument("--repeat", type=positive, default=7, help="samples, of which the median counts")
    p.add_argument("--threads", type=positive, default=2, help="cores that may be used, at most")
    p.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: the processor's "
                   "time, of all threads, for a busy machine with --threads 1")  # fmt: skip
    p.add_argument("--quick", action="store_true", help="a tenth of the draws")
    p.add_argument("--list", action="store_true", help="name the cases and stop")
    p.add_argument("--out", default=".", type=Path, help="the folder of the JSON and the picture")
    return p


def main(arguments: list[str] | None = None) -> int:
    command = parser()
    options = command.parse_args(arguments)
    cores = surroundings(options.threads)
    from . import report, timing
    from .mc_cases import CASES
    from .peers import installed

    cases = chosen(command, options, CASES)
    if options.list:
        print("\n".join(f"{c.name:16}{c.text}" for c in cases))
        return 0
    peers = installed(PEERS)
    run = conditions(options, peers)
    known = {name: version for name, version in peers.items() if version}
    title = f"{run['before']['cpu']}, {cores} cores, {run['date']}, {options.clock} time"
    print(f"{title}, load {run['before']['load'][0]:.1f}; gpuscan {run['gpuscan']}, "
          f"{', '.join(f'{n} {v}' for n, v in known.items())}")  # fmt: skip
    rows: list[Any] = []
    with tempfile.TemporaryDirectory(prefix="gpuscan-") as cache:
        os.environ["GPUSCAN_CACHE_DIR"] = cache  # so that a first call is one
        for case in cases:
            rows.append(timed(case, options, progress))
            progress("")
            write(options.out, rows, run)  # a run that is stopped leaves these
    run["after"] = timing.machine()
    print(f"{table(rows, peers)}\n\nload {run['after']['load'][0]:.1f} at the end")
    write(options.out, rows, run)
    try:
        report.picture(options.out / "monte_carlo.png", [r[:3] for r in rows], title)
        print(f"wrote monte_carlo.json and monte_carlo.png in {options.out}")
    except ImportError as e:
        print(f"wrote monte_carlo.json in {options.out}; no picture: no module {e.name}")
    ours = [t for _, _, timings, _ in rows for t in timings if t.ours]
    return 1 if any(t.problem for t in ours) else 0


def timed(case: Any, options: Any, say: Callable[[str], None]) -> Any:
    """The case, its family, a timing for each version, and the estimates of those that agree."""
    from . import timing
    from .mc_cases import estimates, joined, mismatch
    from .peers import versions

    family = case.made(options.quick)
    makers = dict(versions(family, PEERS))
    timings = {name: timing.Timing(name) for name in makers}
    t = timings[f"gpuscan {options.device}"] = timing.Timing(f"gpuscan {options.device}")

    def ours() -> Any:
        version, t.explanation = family.ours(options.device)
        return version

    makers[t.name] = ours
    ready, found, firsts = {}, {}, {}
    for name, make in makers.items():
        t = timings[name]
        say(f"{case.name}: {name}, first call and draws to compare")
        began = time.perf_counter()  # a compiler is a process of its own
        try:
            version = make()
            version()
            firsts[name] = time.perf_counter() - began
            result = estimates(family, joined(version, case.forget, case.keep))
        except Exception as e:
            t.problem = f"{type(e).__name__}: {e}".splitlines()[0]
            continue
        reference = next(iter(found), None)
        if reference is not None and (difference := mismatch(result, found[reference])):
            t.problem = f"differs from {reference}: {difference}"
            continue
        found[name], ready[name] = result, version
    timing._by_turns(
        ready, timings, options.repeat, options.clock, lambda text: say(f"{case.name}: {text}")
    )
    for name, first in firsts.items():  # only now: a first call, which compiles, is no sample
        timings[name].first = first
    return case, family, list(timings.values()), found


def rates(family: Any, t: Any, found: Mapping[str, Any]) -> tuple[float, float] | None:
    """Chain-steps a second, and effective samples a second."""
    if t.median is None:
        return None
    per_draw = found[t.name].size / found[t.name].draws
    draws = family.draws * (1 if family.independent else family.chains)
    return family.steps / t.median, per_draw * draws / t.median


def table(rows: Sequence[Any], peers: Mapping[str, str | None]) -> str:
    """In Markdown: of each version chain-steps a second, effective samples a second, and in
    brackets the time of the first call; `x` the ratio of gpuscan's time to the fastest peer's."""
    from . import report

    present = [p for p in PEERS if peers[p] is not None]
    ours = next(t.name for t in rows[0][2] if t.ours)
    lines = [["case", "chain-steps", ours, "x", "promised x", *present]]
    notes = []
    for case, family, timings, found in rows:
        named = {t.name: t for t in timings}
        best = report.best_peer(timings)
        r = report.ratio(named[ours], timings)
        line = [case.text, family.unit, _cell(family, named[ours], found),
                "-" if r is None else f"{r:.2f}", f"{case.promise:g}"]  # fmt: skip
        for p in present:
            text = _cell(family, named[p], found) if p in named else "-"
            line.append(f"**{text}**" if best is not None and p == best.name else text)
        lines.append(line)
        notes += [f"- {case.name}: {t.name}: {t.problem}" for t in timings if t.problem]
    notes += [f"- absent: {p} (no module {PEERS[p][0]})" for p in PEERS if peers[p] is None]
    return report.markdown(lines, notes, left=2)


def _cell(family: Any, t: Any, found: Mapping[str, Any]) -> str:
    from . import report

    r = rates(family, t, found)
    if r is None:
        return "-"
    return f"{report.amount(r[0])}/s, {report.amount(r[1])} ESS/s ({report.seconds(t.first)})"


def write(out: Path, rows: Sequence[Any], run: Mapping[str, Any]) -> None:
    from . import report

    cases = []
    for case, family, timings, found in rows:
        versions = []
        for t in timings:
            r = rates(family, t, found) or (None, None)
            ess = found[t.name].size / found[t.name].draws if t.name in found else None
            versions.append({
                **vars(t), "median": t.median, "ratio": report.ratio(t, timings),
                "chain-steps per second": r[0], "effective samples per second": r[1],
                "effective samples per draw": ess,
            })  # fmt: skip
        best = report.best_peer(timings)
        cases.append({
            "name": case.name, "text": case.text, "sizes": family.sizes, "unit": family.unit,
            "chain-steps": family.steps, "promise": case.promise,
            "best peer": None if best is None else best.name, "versions": versions,
        })  # fmt: skip
    text = json.dumps({**run, "cases": cases}, indent=1)
    (out / "monte_carlo.json").write_text(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
