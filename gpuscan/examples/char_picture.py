"""The learning curve of the character model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def write(path: Path, epochs: Sequence[Mapping[str, Any]], baselines: Mapping[str, float]) -> None:
    """Writes a PNG: bits per character in training and held out, epoch by epoch, and the
    baselines as lines."""
    figure = Figure((8.0, 4.8), layout="constrained")
    axes = figure.add_subplot()
    numbers = [e["epoch"] for e in epochs]
    for key, label, colour in (
        ("training", "LSTM, in training, mean of the epoch", "#9aa5b1"),
        ("held_out", "LSTM, held out", "#c1443c"),
    ):
        axes.plot(numbers, [e[key] for e in epochs], "o-", color=colour, label=label, markersize=3)
    last = epochs[-1]
    axes.annotate(
        f"{last['held_out']:.2f}", (last["epoch"], last["held_out"]), (6, 0),
        textcoords="offset points", va="center", color="#c1443c", weight="bold",
    )  # fmt: skip
    for (name, bits), dash in zip(baselines.items(), ("--", ":")):
        axes.axhline(bits, color="#30577d", linestyle=dash, label=f"{name}, {bits:.2f}")
    axes.set_xlabel("epoch")
    axes.set_ylabel("bits per character")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, format="png", dpi=110)
