"""ArviZ 0.23's table of known draws, for tests/figures/summary.json, which 1.x has to meet too.

python -m benchmarks.figures.summary      on Python 3.11, where pip installs ArviZ 0.23
"""

from __future__ import annotations

import datetime
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).parents[2] / "tests" / "figures" / "summary.json"


def draws() -> dict[str, np.ndarray]:
    """Autoregressive chains, heavy-tailed draws and counts: (chains, draws, ...)."""
    random = np.random.default_rng(20)
    noise = random.normal(size=(4, 300, 2))
    for t in range(1, 300):
        noise[:, t] += 0.6 * noise[:, t - 1]
    return {
        "slow": noise,
        "heavy": random.standard_t(2, (4, 300)),
        "count": random.poisson(3, (4, 300)),
    }


def main() -> None:
    import arviz
    import xarray

    dims = {"slow": ("chain", "draw", "side")}
    data = {k: (dims.get(k, ("chain", "draw")), v) for k, v in draws().items()}
    labels = {"chain": range(4), "draw": range(300), "side": ["a", "b"]}
    dataset = xarray.Dataset(data, {k: list(v) for k, v in labels.items()})
    table = arviz.summary(dataset, round_to="none", stat_focus="mean")
    kept = ["mean", "sd", "mcse_mean", "mcse_sd", "ess_bulk", "ess_tail", "r_hat"]
    found: dict[str, Any] = {
        "origin": {
            "command": "python -m benchmarks.figures.summary",
            "date": datetime.date.today().isoformat(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "arviz": arviz.__version__,
        },
        "table": {str(row): {c: float(table.loc[row, c]) for c in kept} for row in table.index},
    }
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
