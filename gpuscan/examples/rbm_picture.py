"""The picture of the RBM example: what it learned, and its chains over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib.figure import Figure


def tiled(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Square images (n, pixels) laid out in rows and columns one pixel apart; gaps are NaN."""
    side = math.isqrt(images.shape[1])
    cell = side + 1
    sheet = np.full((rows * cell + 1, columns * cell + 1), np.nan)
    for i, image in enumerate(images):
        y, x = (i // columns) * cell + 1, (i % columns) * cell + 1
        sheet[y : y + side, x : x + side] = image.reshape(side, side)
    return sheet


def write(path: Path, weights: np.ndarray, frames: np.ndarray, steps: Sequence[int]) -> None:
    """Writes a PNG: the weights (pixels, hidden) as filters, and the frames
    (time, chain, pixels) as a grid whose columns are the given step numbers."""
    times, chains, pixels = frames.shape
    cell = math.isqrt(pixels) + 1
    strongest = weights.T[np.argsort(-np.abs(weights).sum(0))]
    columns = max(1, math.isqrt(len(strongest) // 2))
    rows = math.ceil(len(strongest) / columns)
    left = tiled(strongest, rows, columns)
    right = tiled(frames.transpose(1, 0, 2).reshape(-1, pixels), chains, times)

    height = 7.0
    widths = [sheet.shape[1] / sheet.shape[0] for sheet in (left, right)]
    figure = Figure((height * sum(widths) + 2.0, height + 1.3))
    grid = figure.add_gridspec(
        2, 2, width_ratios=widths, height_ratios=[1, 0.02], wspace=0.12, hspace=0.1,
        left=0.02, right=0.98, top=0.94, bottom=0.09,
    )  # fmt: skip
    filters, time = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])

    limit = float(np.quantile(np.abs(weights), 0.99)) or 1.0
    shown = filters.imshow(left, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    filters.set_title(f"Learned filters of {len(strongest)} hidden units")
    filters.axis("off")
    bar = figure.colorbar(shown, cax=figure.add_subplot(grid[1, 0]), orientation="horizontal")
    bar.outline.set_visible(False)
    bar.set_label("weight of the pixel")

    time.imshow(right, cmap="gray_r", vmin=0, vmax=1, aspect="auto")
    time.set_title("Chains that start from noise: probability of each pixel")
    time.set_xticks(np.arange(times) * cell + cell / 2, [f"{s:,}" for s in steps])
    time.set_yticks(np.arange(chains) * cell + cell / 2, [str(i + 1) for i in range(chains)])
    time.set_xlabel("Gibbs steps")
    time.set_ylabel("chain")
    time.tick_params(length=0)
    time.spines[:].set_visible(False)
    figure.savefig(path, format="png", dpi=110)
