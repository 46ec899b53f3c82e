"""The picture of the Ising example: lattices, and magnetisation and energy by temperature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from . import ising

SHOWN = 5  # lattices
SPINS = ListedColormap(["#1d3557", "#f3ead7"])  # down, up
EXACT, FOUND = "#9aa5b1", "#c1443c"


def write(path: Path, lattices: np.ndarray, found: ising.Found) -> None:
    """Writes a PNG: some of the lattices (temperature, row, column), and |m| and the energy against
    the exact curves of the infinite lattice, with error bars of two standard errors."""
    t = found.temperatures
    size = lattices.shape[1]
    shown = sorted({round(i) for i in np.linspace(0, len(t) - 1, SHOWN)})
    figure = Figure((11.0, 7.2), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[1, 1.75])
    above, below = halves
    above.suptitle(f"Ising model of {size} x {size} spins: where the chains are at the end")
    for axes, i in zip(above.subplots(1, len(shown), squeeze=False)[0], shown):
        axes.imshow(lattices[i], cmap=SPINS, vmin=-1, vmax=1, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel(f"T = {t[i]:g}")

    left, right = below.subplots(1, 2)
    low, high = float(t.min()), float(t.max())
    margin = 0.04 * (high - low) or 0.1
    fine = np.linspace(max(low - margin, 1e-3), high + margin, 2000)
    for axes, name, words, exact in (
        (left, "magnetisation", "magnetisation |m|", ising.exact_magnetisation),
        (right, "energy", "energy", ising.exact_energy),
    ):
        axes.plot(fine, exact(fine), color=EXACT, label="exact, infinite lattice", zorder=1)
        (values, error), sure = found.estimates[name], found.sure(name)
        for which, face, label in (
            (sure, FOUND, "sampled ± 2 s.e."),
            (~sure, "white", f"ESS < {ising.ENOUGH}"),
        ):
            if which.any():
                bars(axes, t[which], values[which], 2 * error[which], face, label)
        if fine[0] < ising.CRITICAL < fine[-1]:
            axes.axvline(ising.CRITICAL, color="#30577d", linestyle=":", linewidth=1.2)
            axes.annotate(
                f"$T_c$ = {ising.CRITICAL:.4f}", (ising.CRITICAL, 1), (0, 3),
                xycoords=("data", "axes fraction"), textcoords="offset points", ha="center",
                color="#30577d",
            )  # fmt: skip
        axes.set_xlim(fine[0], fine[-1])
        axes.set_xlabel("temperature T, in units of the coupling")
        axes.set_ylabel(f"{words} per site")
        axes.grid(axis="y", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylim(-0.03, 1.03)
    left.legend(frameon=False, loc="upper right")
    right.legend(frameon=False, loc="lower right")
    figure.savefig(path, format="png", dpi=110)


def bars(axes: Any, x: np.ndarray, y: np.ndarray, error: np.ndarray, face: str, label: str) -> None:
    axes.errorbar(
        x, y, error, fmt="o", markersize=5, capsize=3, elinewidth=1.2, color=FOUND,
        markerfacecolor=face, label=label, zorder=2,
    )  # fmt: skip
