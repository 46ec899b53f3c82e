"""A long run by NumPy of the logistic regression of gpuscan.examples.logistic, which prints how far
its own posterior means are from it.

python -m benchmarks.figures.logistic      some minutes; writes logistic_reference.json beside it

Nothing of it is gpuscan's but the data: it is Hamiltonian Monte Carlo in float64, with the gradient
written by hand, and with the Hessian at the posterior's mode as its mass, so that all directions
are about equally wide. Trajectories have a random step size. Every chain starts far out.
"""

from __future__ import annotations

import datetime
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).parents[2] / "gpuscan" / "examples" / "logistic_reference.json"
CHAINS, DRAWS, WARM_UP = 16, 25_000, 500
LEAPFROGS, STEP_SIZE = 5, 0.4
SEED = 2024


class Posterior:
    """Of theta = (intercept, weights): standard normal, times the likelihood of labels 0 and 1."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x = np.column_stack([np.ones(len(x)), x]).astype("float64")
        self.y = y.astype("float64")

    def logp(self, theta: np.ndarray) -> np.ndarray:
        """theta: (chains, parameters)."""
        eta = theta @ self.x.T
        likelihood = eta @ self.y - np.logaddexp(0, eta).sum(1)
        return likelihood - (theta**2).sum(1) / 2

    def gradient(self, theta: np.ndarray) -> np.ndarray:
        eta = theta @ self.x.T
        return (self.y - 1 / (1 + np.exp(-eta))) @ self.x - theta

    def mode(self) -> tuple[np.ndarray, np.ndarray]:
        """The mode by Newton's method, and minus the Hessian there."""
        theta = np.zeros((1, self.x.shape[1]))
        for _ in range(50):
            p = 1 / (1 + np.exp(-(theta @ self.x.T)[0]))
            hessian = (self.x.T * (p * (1 - p))) @ self.x + np.eye(len(theta[0]))
            theta = theta + np.linalg.solve(hessian, self.gradient(theta)[0])
        assert np.abs(self.gradient(theta)).max() < 1e-8
        return theta[0], hessian


def sample(posterior: Posterior) -> tuple[np.ndarray, float]:
    """Draws (chains, draws, parameters), and the mean acceptance rate."""
    random = np.random.default_rng(SEED)
    mode, hessian = posterior.mode()
    scale = np.linalg.inv(np.linalg.cholesky(hessian)).T  # theta = mode + scale z, z about normal
    z = 3 * random.normal(size=(CHAINS, len(mode)))

    def at(z: np.ndarray) -> np.ndarray:
        return posterior.logp(mode + z @ scale.T)

    def slope(z: np.ndarray) -> np.ndarray:
        return posterior.gradient(mode + z @ scale.T) @ scale

    draws = np.empty((CHAINS, DRAWS, len(mode)))
    lp, rates = at(z), np.zeros(DRAWS)
    for n in range(-WARM_UP, DRAWS):
        size = STEP_SIZE * random.uniform(0.6, 1.4, (CHAINS, 1))
        start = random.normal(size=z.shape)
        x, p = z, start + size / 2 * slope(z)
        for step in range(LEAPFROGS):
            x = x + size * p
            p = p + (size if step < LEAPFROGS - 1 else size / 2) * slope(x)
        new = at(x)
        rate = np.exp(np.minimum(0, new - lp + ((start**2).sum(1) - (p**2).sum(1)) / 2))
        taken = random.uniform(size=CHAINS) < rate
        z, lp = np.where(taken[:, None], x, z), np.where(taken, new, lp)
        if n >= 0:
            draws[:, n], rates[n] = mode + z @ scale.T, rate.mean()
    return draws, float(rates.mean())


def main() -> None:
    import arviz
    import sklearn

    from gpuscan.examples.logistic import read_data

    data = read_data()
    draws, rate = sample(Posterior(data.x, data.y))
    dataset = arviz.convert_to_dataset({"theta": draws})
    found = {
        "mean": draws.mean((0, 1)),
        "sd": draws.std((0, 1), ddof=1),
        "mcse_mean": arviz.mcse(dataset, method="mean").theta.values,
        "ess": arviz.ess(dataset, method="mean").theta.values,
        "r_hat": arviz.rhat(dataset).theta.values,
    }
    assert found["r_hat"].max() < 1.001 and found["ess"].min() > 100_000
    figures: dict[str, Any] = {
        "origin": {
            "command": "python -m benchmarks.figures.logistic",
            "what": f"{CHAINS} chains of {DRAWS} draws by Hamiltonian Monte Carlo in NumPy, "
                    "float64",
            "seed": SEED,
            "acceptance_rate": round(rate, 4),
            "date": datetime.date.today().isoformat(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
            "arviz": arviz.__version__,
        },
        "parameters": ["intercept", *data.names],
        **{name: [float(f"{v:.8g}") for v in values] for name, values in found.items()},
    }  # fmt: skip
    FILE.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"acceptance {rate:.3f}, ESS from {found['ess'].min():.0f}, R-hat up to "
          f"{found['r_hat'].max():.5f}")  # fmt: skip


if __name__ == "__main__":
    main()
