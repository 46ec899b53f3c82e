"""The table, the JSON and the picture of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .cases import Case, Family
from .peers import PEERS
from .timing import Timing

Row = tuple[Case, Family, list[Timing]]


def best_peer(timings: Sequence[Timing]) -> Timing | None:
    return min((t for t in timings if not t.ours and t.samples), key=_median, default=None)


def _median(t: Timing) -> float:
    return t.median or float("inf")


def ratio(t: Timing, timings: Sequence[Timing]) -> float | None:
    """Its time over the best peer's."""
    peer = best_peer(timings)
    return None if peer is None or t.median is None else t.median / _median(peer)


def floor(family: Family, peaks: tuple[float, float]) -> float:
    """Seconds that the case takes at least on this machine: for its flops at the rate of a
    product, for its bytes at the rate of a copy."""
    return float(max(family.flops / peaks[0], family.bytes / peaks[1]))


def seconds(s: float | None) -> str:
    """Three digits, in s, ms or us."""
    if s is None:
        return "-"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if s >= size or unit == "us":
            return f"{s / size:.3g} {unit}" if s / size < 1000 else f"{s / size:.0f} {unit}"
    raise AssertionError


def amount(x: float) -> str:
    for letter, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if x >= size:
            return f"{x / size:.3g}{letter}"
    return f"{x:.0f}"


def table(rows: Sequence[Row], peaks: tuple[float, float], peers: Mapping[str, str | None]) -> str:
    """In Markdown: per case the floor, and of each version the time of a call, in brackets that of
    the first; `x` the ratio to the best peer. Absent peers and problems are named below."""
    devices = list(dict.fromkeys(t.name for _, _, ts in rows for t in ts if t.ours))
    present = [p for p in PEERS if peers[p] is not None]
    head = ["case", "flops", "bytes", "floor"]
    for d in devices:
        head += [d, "x"]
    lines: list[list[str]] = [[*head, "promised x", *present]]
    notes = []
    for case, family, timings in rows:
        named = {t.name: t for t in timings}
        best = best_peer(timings)
        line = [case.text, amount(family.flops), amount(family.bytes),
                seconds(floor(family, peaks))]  # fmt: skip
        for d in devices:
            t = named[d]
            r = ratio(t, timings)
            line += [_cell(t), "-" if r is None else f"{r:.2f}"]
        line.append(f"{case.promise:g}")
        for p in present:
            text = _cell(named[p]) if p in named else "-"
            line.append(f"**{text}**" if best is not None and p == best.name else text)
        lines.append(line)
        notes += [f"- {case.name}: {t.name}: {t.problem}" for t in timings if t.problem]
    notes += [f"- absent: {p} (no module {PEERS[p][0]})" for p in PEERS if peers[p] is None]
    return markdown(lines, notes)


def markdown(lines: Sequence[Sequence[str]], notes: Sequence[str], left: int = 1) -> str:
    """A table whose first line is the head and whose first `left` columns are texts, and notes."""
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    texts = [" | ".join(c.ljust(w) for c, w in zip(line, widths)) for line in lines]
    rule = "|".join(
        "-" * (w + 2) if k < left else "-" * (w + 1) + ":" for k, w in enumerate(widths)
    )
    body = [f"| {texts[0]} |", f"|{rule}|", *(f"| {t} |" for t in texts[1:])]
    return "\n".join([*body, *(["", *notes] if notes else [])])


def _cell(t: Timing) -> str:
    return "-" if t.median is None else f"{seconds(t.median)} ({seconds(t.first)})"


def record(rows: Sequence[Row], peaks: tuple[float, float], run: Mapping[str, Any]) -> Any:
    """All of it, for JSON."""
    return {
        **run,
        "peaks": {"flops per second": peaks[0], "bytes per second": peaks[1]},
        "cases": [
            {
                "name": case.name,
                "text": case.text,
                "sizes": family.sizes,
                "flops": family.flops,
                "bytes": family.bytes,
                "floor": floor(family, peaks),
                "promise": case.promise,
                "best peer": best.name if (best := best_peer(timings)) else None,
                "versions": [
                    {**vars(t), "median": t.median, "ratio": ratio(t, timings)} for t in timings
                ],
            }
            for case, family, timings in rows
        ],
    }


def picture(path: Path, rows: Sequence[Row], title: str) -> None:
    """Each version's time over the best peer's, a line a case. Raises ImportError without
    matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(t.name for _, _, ts in rows for t in ts))
    names.sort(key=lambda n: (not n.startswith("gpuscan"), n))
    colours = {"gpuscan native": "#d1495b", "gpuscan reference": "#edae49", "NumPy": "#4d77cf",
               "Numba": "#00a6d6", "PyTorch": "#7a4ea3", "JAX": "#3c8d5a",
               "NumPyro": "#7a4ea3", "BlackJAX": "#333333"}  # fmt: skip
    figure, axes = pyplot.subplots(figsize=(9, 1.6 + 0.42 * len(rows)), layout="constrained")
    for name in names:
        points = [
            (r, k)
            for k, (_, _, timings) in enumerate(rows)
            for t in timings
            if t.name == name and (r := ratio(t, timings)) is not None
        ]
        if points:
            axes.scatter(
                *zip(*points), label=name, color=colours.get(name, "#888888"), zorder=3,
                marker="D" if name.startswith("gpuscan") else "o",
                s=58 if name.startswith("gpuscan") else 34,
            )  # fmt: skip
    for k, (case, _, _) in enumerate(rows):
        axes.plot([case.promise] * 2, [k - 0.35, k + 0.35], color="black", linewidth=1.5)
    axes.plot([], [], color="black", linewidth=1.5, label="promised")
    axes.axvline(1, color="#999999", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [case.text for case, _, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    axes.set_xlabel("time of a call over that of the fastest peer (log scale; left is faster)")
    figure.suptitle(title, fontsize=10)
    figure.legend(loc="outside lower center", ncols=7, frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
