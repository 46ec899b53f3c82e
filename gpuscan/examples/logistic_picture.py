"""The picture of the logistic regression: traces and rank plots by ArviZ."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gpuscan import mc

HEIGHT, WIDTH = 2.3, 13.0  # of a row, in inches
MOST = 8  # chains, beyond which neither traces nor ranks can be told apart


def write(path: Path, draws: Any, rows: Sequence[str]) -> None:
    """Writes a PNG with a row for each variable of a Dataset that `rows` names: the density of its
    draws, where the chains went, and how the draws of each rank among those of all."""
    import xarray

    arviz, chains = mc.output.import_arviz(), draws.sizes["chain"]
    tree = xarray.DataTree.from_dict({"posterior": draws[list(rows)].isel(chain=slice(MOST))})
    size = (WIDTH, HEIGHT * len(rows) + 0.6)
    with warnings.catch_warnings():
        # ArviZ 0.23 asks Matplotlib 3.11 for colours in the way of before
        warnings.filterwarnings("ignore", category=matplotlib.MatplotlibDeprecationWarning)
        warnings.filterwarnings("ignore", "Your data appears to have a single value")
        if hasattr(arviz, "combine_plots"):
            figure = by_arviz_1(arviz, tree, size)
        else:
            figure = by_arviz_0(arviz, mc.to_arviz(tree), len(rows), size)
    for axes in figure.axes:
        axes.title.set_fontsize(11)
        axes.tick_params(labelsize=9)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_fontsize(9)
    which = f"{chains} chains" if chains <= MOST else f"{MOST} of the {chains} chains"
    figure.suptitle(
        f"The parameters with the fewest independent draws: density, traces and ranks of {which}"
    )
    figure.savefig(path, format="png", dpi=110)


def by_arviz_1(arviz: Any, tree: Any, size: tuple[float, float]) -> Figure:
    lines = {"linewidth": 0.6, "alpha": 0.6}
    plots = [
        (arviz.plot_dist, {"visuals": {"point_estimate_text": False}}),
        (arviz.plot_trace, {"visuals": {"trace": lines}}),
        (arviz.plot_rank, {"visuals": {"ecdf_lines": {"linewidth": 1}}}),
    ]
    found = arviz.combine_plots(
        tree, plots, plot_names=["density", "trace", "rank"], backend="matplotlib",
        figure_kwargs={"figsize": size, "layout": "constrained"},
    )  # fmt: skip
    figure: Figure = found.viz["figure"].item()
    return figure


def by_arviz_0(arviz: Any, draws: Any, rows: int, size: tuple[float, float]) -> Figure:
    figure = Figure(size, layout="constrained")
    axes = figure.subplots(rows, 3, squeeze=False)
    arviz.plot_trace(draws, axes=axes[:, :2], compact=False, trace_kwargs={"linewidth": 0.6})
    arviz.plot_rank(
        draws, ax=axes[:, 2], bins=10, bar_kwargs={"linewidth": 0.5},
        ref_line_kwargs={"linewidth": 0.7},
    )  # fmt: skip
    for ranks in axes[:, 2]:
        ranks.xaxis.set_major_locator(MaxNLocator(5))
    return figure
