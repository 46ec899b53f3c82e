"""A restricted Boltzmann machine learns to draw digits: python -m gpuscan.examples.rbm_digits

It is trained on scikit-learn's 1797 handwritten digits by persistent contrastive divergence:
between two updates of the parameters a scan moves the model's own chains a few Gibbs steps on.
Then one more scan runs chains from noise, and a picture shows them turn into digits.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import gpuscan
from gpuscan import tensor as T
from gpuscan.config import DEVICES

from .arguments import Bad, Parser, above_0, natural, positive

GIBBS_STEPS = 5  # between two updates of the parameters
SHOWN = 12  # columns of the picture
DECAY = 1e-4  # of the weights
REPORTS = 25  # times that the pseudo-likelihood is taken


# ---- the model -----------------------------------------------------------------------------------


class RBM:
    """Visible and hidden units that are 0 or 1, joined by weights W (visible, hidden)."""

    def __init__(self, images: np.ndarray, hidden: int, seed: int) -> None:
        draws = np.random.default_rng(seed)
        visible = images.shape[1]
        mean = (images.sum(0) + 1) / (len(images) + 2)
        weights = draws.normal(0, 0.05, (visible, hidden))
        self.W = gpuscan.shared(weights.astype("float32"), "W")
        self.visible_bias = gpuscan.shared(np.log(mean / (1 - mean)).astype("float32"), "bvis")
        self.hidden_bias = gpuscan.shared(np.zeros(hidden, "float32"), "bhid")
        self.parameters = [self.W, self.visible_bias, self.hidden_bias]
        self.random = T.shared_randomstreams.RandomStreams(seed)

    def hidden_input(self, v: Any) -> Any:
        return T.dot(v, self.W) + self.hidden_bias

    def bernoulli(self, p: Any) -> Any:
        return self.random.binomial(size=p.shape, p=p, dtype="float32")

    def gibbs_step(self, v: Any) -> list[Any]:
        """The probabilities of the visible units after one Gibbs step, and a draw of them."""
        h = self.bernoulli(T.nnet.sigmoid(self.hidden_input(v)))
        p = T.nnet.sigmoid(T.dot(h, self.W.T) + self.visible_bias)
        return [p, self.bernoulli(p)]

    def gibbs(self, v: Any, n_steps: int) -> tuple[Any, Any, Any]:
        """gibbs_step's two results at each of n_steps steps from v on, and the scan's updates."""
        (p, samples), updates = gpuscan.scan(
            self.gibbs_step, outputs_info=[None, v], n_steps=n_steps, name="gibbs"
        )
        return p, samples, updates

    def free_energy(self, v: Any) -> Any:
        softplus = T.nnet.softplus(self.hidden_input(v))
        return -T.dot(v, self.visible_bias) - softplus.sum(axis=1)

    def pseudo_likelihood(self, v: Any) -> Any:
        """The mean over images of the sum over pixels of log p(pixel | all other pixels)."""
        x = self.hidden_input(v)
        softplus = T.nnet.softplus(x).sum(axis=1)

        def log_probability(pixel: Any, weights: Any, bias: Any, x: Any, softplus: Any) -> Any:
            change = 1 - 2 * pixel  # what flipping the pixel adds to it
            flipped = T.nnet.softplus(x + change[:, None] * weights).sum(axis=1)
            return -T.nnet.softplus(change * bias + flipped - softplus).mean()

        each, _ = gpuscan.scan(
            log_probability,
            sequences=[v.T, self.W, self.visible_bias],
            non_sequences=[x, softplus],
            name="pixels",
        )
        return each.sum()


def training_step(rbm: RBM, chains: Any, device: str | None = None) -> Any:
    """A function of (images, learning rate): moves the persistent chains, then the parameters."""
    images, rate = T.fmatrix("images"), T.fscalar("rate")
    _, samples, updates = rbm.gibbs(chains, GIBBS_STEPS)
    end = samples[-1]
    cost = rbm.free_energy(images).mean() - rbm.free_energy(end).mean()
    cost += DECAY / 2 * (rbm.W**2).sum()
    gradients = T.grad(cost, rbm.parameters, consider_constant=[end])
    updates[chains] = end
    for parameter, g in zip(rbm.parameters, gradients):
        updates[parameter] = parameter - rate * g
    return gpuscan.function([images, rate], updates=updates, name="training step", device=device)


def shown_steps(steps: int) -> list[int]:
    """Up to SHOWN step numbers, from the first to the last, ever further apart."""
    return sorted({round(s) for s in np.geomspace(1, steps, SHOWN)})


# ---- the job -------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> None:
    try:
        from threadpoolctl import threadpool_limits
        from tqdm import tqdm

        from . import rbm_picture
    except ImportError as e:
        raise Bad(f"the module {e.name} is missing: pip install 'gpuscan[demo]'") from None
    images = read_images(options.data)
    if options.batch > len(images):
        raise Bad(f"--batch {options.batch} is more than the {len(images)} images")
    out = Path(options.out)
    if out.is_dir() or not out.parent.is_dir():
        raise Bad(f"cannot write {out}: {'it is' if out.is_dir() else 'there is no such'} folder")

    rbm = RBM(images, options.hidden, options.seed)
    draws = np.random.default_rng(options.seed + 1)
    noise = draws.integers(0, 2, (options.batch, images.shape[1])).astype("float32")
    train = training_step(rbm, gpuscan.shared(noise, "chains"), options.device)
    v, device = T.fmatrix("v"), options.device
    pseudo_likelihood = gpuscan.function([v], rbm.pseudo_likelihood(v), device=device)
    steps = shown_steps(options.steps)
    p, _, updates = rbm.gibbs(v, options.steps)
    sample = gpuscan.function([v], p[np.array(steps) - 1], updates=updates, device=device)

    side = math.isqrt(images.shape[1])
    # The products are small: threads that wait for each other cost more than they bring.
    threadpool_limits(1, "blas")
    print(
        f"{len(images)} images of {side} x {side} pixels, {options.hidden} hidden units, "
        f"device {train.device}"
    )
    start = time.perf_counter()
    first = last = float(pseudo_likelihood(images))
    rates = np.linspace(options.learning_rate, 0, options.epochs, endpoint=False)
    every = max(1, options.epochs // REPORTS)
    with tqdm(rates.astype("float32"), "training", unit="epoch") as bar:
        bar.set_postfix_str(f"pseudo-likelihood {first:.2f}")
        for epoch, rate in enumerate(bar, 1):
            order = draws.permutation(len(images))
            for i in range(0, len(images) - options.batch + 1, options.batch):
                train(images[order[i : i + options.batch]], rate)
            if epoch % every == 0 or epoch == options.epochs:
                last = float(pseudo_likelihood(images))
                if not math.isfinite(last):
                    raise Bad("the weights grew without bound: lower --learning-rate")
                bar.set_postfix_str(f"pseudo-likelihood {last:.2f}")
    print(
        f"{options.epochs} epochs in {time.perf_counter() - start:.1f} s: "
        f"pseudo-likelihood from {first:.2f} to {last:.2f}"
    )

    start = time.perf_counter()
    noise = draws.integers(0, 2, (options.chains, images.shape[1])).astype("float32")
    frames = np.concatenate([noise[None], sample(noise)])
    seconds = time.perf_counter() - start
    print(f"{options.steps} Gibbs steps of {options.chains} chains in {seconds:.1f} s")
    try:
        rbm_picture.write(out, rbm.W.get_value(), frames, [0, *steps])
    except OSError as e:
        raise Bad(f"cannot write {out}: {e.strerror or e}") from None
    print(f"wrote {out}")


def read_images(file: str | None) -> np.ndarray:
    """Square images as rows of 0 and 1, float32: scikit-learn's digits, or those of a file."""
    if file is None:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise Bad("the module sklearn is missing: pip install 'gpuscan[demo]'") from None
        found = load_digits().data
    else:
        found = read_file(Path(file))
    if found.ndim == 3:
        found = found.reshape(len(found), -1)
    shape = " x ".join(map(str, found.shape))
    if found.ndim != 2 or not found.size or math.isqrt(found.shape[1]) ** 2 != found.shape[1]:
        raise Bad(f"{file} holds an array of {shape}, not square images as rows")
    if not (found.min() >= 0 and found.max() <= 16):
        raise Bad(f"{file} holds values outside 0 to 16")
    half = 8 if found.max() > 1 else 0.5
    return np.asarray(found >= half, "float32")


def read_file(path: Path) -> np.ndarray:
    try:
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                return np.asarray(next(iter(arrays.values())), float)
        return np.loadtxt(path, delimiter=",", ndmin=2)
    except FileNotFoundError:
        raise Bad(f"there is no file {path}") from None
    except OSError as e:
        raise Bad(f"cannot read {path}: {e.strerror or e}") from None
    except Exception as e:
        raise Bad(f"{path} is not a table of numbers (.csv) or an .npz of images: {e}") from None


# ---- the command line ----------------------------------------------------------------------------


def parser() -> Parser:
    p = Parser(
        "rbm_digits", "Train a restricted Boltzmann machine on digits and watch it draw some."
    )
    p.add_argument("--hidden", type=positive, default=128, help="hidden units")
    p.add_argument("--epochs", type=positive, default=400, help="passes over the images")
    p.add_argument(
        "--batch", type=positive, default=100, help="images a step, and persistent chains"
    )
    p.add_argument("--learning-rate", type=above_0, default=0.2, help="falls to 0 over the epochs")
    p.add_argument("--chains", type=positive, default=12, help="chains in the picture")
    p.add_argument("--steps", type=positive, default=1000, help="Gibbs steps of these chains")
    p.add_argument("--seed", type=natural, default=0, help="of all random numbers")
    p.add_argument("--device", choices=DEVICES, help="where to run, as in GPUSCAN_FLAGS=device=...")
    p.add_argument("--out", default="rbm_digits.png", help="the picture")
    p.add_argument("--data", help="images of 0..16 or 0..1 as rows (.csv, .npz) instead of digits")
    return p


def main(arguments: list[str] | None = None) -> int:
    return parser().main(run, arguments)


if __name__ == "__main__":
    sys.exit(main())
