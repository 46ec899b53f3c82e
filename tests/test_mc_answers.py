"""Samplers give the right answers: estimates of what is known exactly, within their own errors.

An estimate passes if it is less than 4 of its Monte Carlo standard errors (ArviZ) away from the
exact value, which a right one misses with a probability of 6.3e-5, and if its rank-normalised
R-hat is below 1.01 and its effective sample size at least 400 (Vehtari et al. 2021). About 450 are
checked: for a new seed, a false alarm would come with a probability of about 3 %. Seeds are fixed.
What is wrong on purpose fails the same checks.
"""

from __future__ import annotations

import importlib
import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest
from test_mc_kernels import Chains, spread

from gpuscan import mc
from gpuscan import tensor as T
from gpuscan.tensor.random import RandomStreams

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # ArviZ speaks of its next version
    az = pytest.importorskip("arviz", reason="errors, R-hat and sample sizes are ArviZ's")

# the modules; mc.hmc is the function
density, hmc, metropolis = (
    importlib.import_module(f"gpuscan.mc.{name}") for name in ("density", "hmc", "metropolis")
)
ERRORS, R_HAT, ESS = 4, 1.01, 400


def check(estimated: Any, exact: Any) -> None:
    """That the means of quantities, (draws, chains, quantities), are the exact ones."""
    found = az.convert_to_dataset({"x": np.moveaxis(np.asarray(estimated, "float64"), 0, 1)})
    exact = np.asarray(exact)
    assert found["x"].shape[2:] == exact.shape
    r_hat, ess, error = (f(found)["x"].values for f in (az.rhat, az.ess, az.mcse))
    away = np.abs(found["x"].mean(("chain", "draw")).values - exact) / error
    assert away.max() < ERRORS, f"quantity {away.argmax()} is {away.max()} standard errors away"
    assert r_hat.max() < R_HAT, f"R-hat {r_hat.max()}"
    assert ess.min() >= ESS, f"an effective sample size of {ess.min()}"


def moments(x: Any, centre: Any) -> Any:
    """x, and the products of what is around the centre, of each number with itself and the next."""
    around = x - centre
    return np.concatenate([x, around**2, around[..., 1:] * around[..., :-1]], axis=-1)


# ---- Gaussians -----------------------------------------------------------------------------------


class Gaussian:
    """Of d dimensions: a mean, and a covariance that is not a diagonal."""

    def __init__(self, mean: Any, covariance: Any) -> None:
        self.mean, self.covariance = mean, covariance
        self.d = len(mean)
        self.precision = np.linalg.inv(covariance)

    def logp(self, x: Any) -> Any:
        around = x - T.constant(self.mean, dtype=x.dtype)
        turned = T.dot(around, T.constant(self.precision, dtype=x.dtype))
        return -(around * turned).sum(axis=1) * T.constant(0.5, dtype=x.dtype)

    def exact(self) -> Any:
        c = self.covariance
        return np.concatenate([self.mean, np.diag(c), np.diag(c, 1)])

    def check(self, x: Any) -> None:
        check(moments(x, self.mean), self.exact())


def rotated() -> Gaussian:
    """10 dimensions, with variances of 0.3 to 3 along axes that were drawn."""
    rng = np.random.default_rng(3)
    axes, _ = np.linalg.qr(rng.normal(size=(10, 10)))
    return Gaussian(np.arange(10) / 5 - 1, axes * np.geomspace(0.3, 3, 10) @ axes.T)


def autoregressive() -> Gaussian:
    """100 dimensions, each correlated with its neighbours by 0.7, of widths of 0.1 to 10."""
    widths = np.geomspace(0.1, 10, 100)
    apart = np.abs(np.subtract.outer(np.arange(100), np.arange(100)))
    return Gaussian(np.zeros(100), np.outer(widths, widths) * 0.7**apart)


TEN, HUNDRED = rotated(), autoregressive()


def test_hmc_in_10_dimensions():
    chains = Chains(mc.hmc(TEN.logp), {"x": (10,)}).start(x=spread(64, 10, width=3))
    found = chains.warm(400).draw(400)
    TEN.check(found["x"])
    assert not found["diverging"].any()
    assert 0.7 < found["acceptance_rate"].mean() < 0.97
    # the energy is minus the log density, which has 10/2 on average, plus as much of the momentum
    check((found["energy"] + found["lp"])[..., None], [5])
    bfmi = np.mean(np.diff(found["energy"], axis=0) ** 2) / found["energy"].var()
    assert bfmi > 0.3  # below it, momenta explore energies too slowly (Betancourt 2016)


@pytest.mark.own_device  # its many steps are slow on the reference
def test_hmc_in_100_dimensions():
    kernel = mc.hmc(HUNDRED.logp, n_steps=15)
    chains = Chains(kernel, {"x": (100,)}).start(x=spread(32, 100, width=5))
    found = chains.warm(500).draw(400)
    HUNDRED.check(found["x"])
    assert not found["diverging"].any()


@pytest.mark.own_device  # its many steps are slow on the reference
def test_metropolis_in_10_dimensions():
    kernel = mc.random_walk_metropolis(TEN.logp)
    chains = Chains(kernel, {"x": (10,)}).start(x=spread(60, 10, width=3))
    found = chains.warm(1000).draw(16000)
    TEN.check(found["x"][::32])
    assert 0.15 < found["acceptance_rate"].mean() < 0.32


# ---- a banana, a funnel --------------------------------------------------------------------------

BEND, WIDE = 0.3, 4.0  # of the banana (Haario et al. 1999): its curvature, the variance along it


def banana(x: Any) -> Any:
    bent = x[:, 1] - BEND * (T.sqr(x[:, 0]) - WIDE)
    return -T.sqr(x[:, 0]) / (2 * WIDE) - T.sqr(bent) / 2


@pytest.mark.parametrize("kernel", [mc.hmc(banana), mc.random_walk_metropolis(banana)])
def test_a_banana(kernel):
    chains = Chains(kernel, {"x": (2,)}).start(x=spread(200, 2))
    x = chains.warm(500).draw(3000)["x"][::10].astype("float64")
    first, second = x[..., 0], x[..., 1]
    # with x0 normal of variance w, x1 = z + b (x0^2 - w): var x1 = 1 + 2 b^2 w^2, and
    # E[x1 x0^2] = b E[(x0^2 - w) x0^2] = 2 b w^2
    found = np.stack([first, second, first**2, second**2, second * first**2], axis=-1)
    check(found, [0, 0, WIDE, 1 + 2 * BEND**2 * WIDE**2, 2 * BEND * WIDE**2])


def funnel(v: Any, x: Any) -> Any:
    """Neal (2003): v has the standard deviation 3, and 9 numbers that of exp(v/2)."""
    return -T.sqr(v) / 18 - (T.sqr(x).sum(axis=1) * T.exp(-v) + 9 * v) / 2


def test_hmc_says_that_it_cannot_sample_neals_funnel():
    """No step size fits its neck and its mouth: a chain's diverges in the one, where it doesn't
    get far down, and is small for the other. The log density has no bounded curvature."""
    chains = Chains(mc.hmc(funnel), {"v": (), "x": (9,)}).start(v=spread(64), x=spread(64, 9))
    found = chains.warm(500).draw(1000)
    assert found["diverging"].sum() > 10
    with pytest.raises(AssertionError):
        check(found["v"][..., None], [0])
    # The mass below -2 standard deviations. Sums of other orders, on other devices, give other
    # chains: they find 0.1 to 0.6 of it.
    assert np.mean(found["v"] < -6) < 0.8 * 0.0228


def test_the_funnel_in_other_coordinates():
    """Not centred: x = exp(v/2) z, where all numbers are independent (Papaspiliopoulos et al.
    2007)."""

    def logp(v: Any, z: Any) -> Any:
        return -T.sqr(v) / 18 - T.sqr(z).sum(axis=1) / 2

    chains = Chains(mc.hmc(logp, n_steps=8), {"v": (), "z": (9,)})
    found = chains.start(v=spread(64), z=spread(64, 9)).warm(400).draw(1000)
    assert not found["diverging"].any()
    v, z = found["v"][..., None].astype("float64"), found["z"]
    size = np.log(np.abs(np.exp(v / 2) * z[..., :1]))
    # log |z| has the mean -(gamma + log 2)/2
    quantities = np.concatenate([v, v**2, v < -6, z[..., :2], size], axis=-1)
    tail = math.erfc(2 / math.sqrt(2)) / 2
    check(quantities, [0, 9, tail, 0, 0, -(np.euler_gamma + math.log(2)) / 2])


# ---- the Ising model -----------------------------------------------------------------------------


def log_partition(beta: float, m: int, n: int) -> float:
    """Of the Ising model on an m by n torus with couplings 1 (Kaufman 1949, Phys. Rev. 76)."""
    k = beta
    angles = np.pi * np.arange(2 * n) / n
    cosh = np.cosh(2 * k) ** 2 / np.sinh(2 * k) - np.cos(angles)
    gamma = np.arccosh(np.maximum(cosh, 1))
    gamma[0] = 2 * k + np.log(np.tanh(k))  # the one whose sign matters
    half = m * gamma / 2

    def log_cosh2(x: Any) -> Any:
        return np.logaddexp(x, -x)

    def log_sinh2(x: Any) -> Any:  # of |x|, with the sign kept apart
        return np.abs(x) + np.log1p(-np.exp(-2 * np.abs(x)))

    odd, even = half[1::2], half[::2]
    terms = [log_cosh2(odd).sum(), log_sinh2(odd).sum(), log_cosh2(even).sum(),
             log_sinh2(even).sum()]  # fmt: skip
    signs = [1, np.sign(odd).prod(), 1, np.sign(even).prod()]
    top = max(terms)
    total = sum(s * np.exp(t - top) for s, t in zip(signs, terms))
    return float(np.log(total / 2) + top + m * n / 2 * np.log(2 * np.sinh(2 * k)))


def energy_per_site(beta: float, m: int, n: int) -> float:
    d = 1e-4
    up, down = log_partition(beta + d, m, n), log_partition(beta - d, m, n)
    return -(up - down) / (2 * d) / (m * n)


@pytest.mark.own_device
@pytest.mark.parametrize("beta", [0.3, 0.5])
def test_the_exact_energy_is_that_of_all_states(beta):
    """Of a 4 by 4 lattice, which has 65536."""
    spins = 2.0 * (np.arange(2**16)[:, None] >> np.arange(16) & 1).reshape(-1, 4, 4) - 1
    e = -(spins * (np.roll(spins, 1, 1) + np.roll(spins, 1, 2))).sum(axis=(1, 2))
    weights = np.exp(-beta * (e - e.min()))
    assert log_partition(beta, 4, 4) == pytest.approx(np.log(weights.sum()) - beta * e.min())
    exact = (weights * e).sum() / weights.sum() / 16
    assert energy_per_site(beta, 4, 4) == pytest.approx(exact, abs=1e-7)


SIDE = 32
BLACK = np.indices((SIDE, SIDE)).sum(0) % 2 == 0


def neighbours(s: Any) -> Any:
    return sum(T.roll(s, k, axis) for k in (1, -1) for axis in (1, 2))


def ising(beta: float, colours: Any = (BLACK, ~BLACK), factor: float = 2.0) -> Any:
    """Gibbs sampling of the sites of a colour given the others, which are all their neighbours.
    A site is 1 with the probability sigmoid(2 beta (sum of its neighbours))."""
    random = RandomStreams(21)

    def step(s: Any) -> Any:
        for colour in colours:
            p = T.nnet.sigmoid(neighbours(s) * np.float32(factor * beta))
            up = T.switch(random.uniform(s.shape) < p, np.float32(1), np.float32(-1))
            s = T.switch(T.as_tensor(colour), up, s)
        return [s], {"energy": -(s * neighbours(s)).sum(axis=(1, 2)) / np.float32(2 * SIDE**2)}

    return mc.gibbs(step)


def check_ising(beta: float, kernel: Any) -> None:
    chains = Chains(kernel, {"s": (SIDE, SIDE)}, keep=["energy"])
    start = np.ones((24, SIDE, SIDE))  # at low temperatures, below the critical one, half of them
    found = chains.start(s=start).warm(100).draw(400)["energy"]
    check(found[..., None], [energy_per_site(beta, SIDE, SIDE)])


@pytest.mark.parametrize("temperature", [2.0, 3.0])
def test_the_energy_of_an_ising_lattice(temperature):
    """Below and above the critical temperature of 2.269."""
    check_ising(1 / temperature, ising(1 / temperature))


# ---- a restricted Boltzmann machine --------------------------------------------------------------


class Boltzmann:
    """6 visible and 4 hidden units, which have 1024 states together."""

    def __init__(self) -> None:
        rng = np.random.default_rng(8)
        self.W = rng.normal(0, 1, (6, 4)).astype("float32")
        self.a, self.b = (rng.normal(0, 0.5, n).astype("float32") for n in (6, 4))

    def logp(self, v: Any, h: Any) -> Any:
        return T.dot(v, self.a) + T.dot(h, self.b) + (T.dot(v, self.W) * h).sum(axis=1)

    def gibbs(self, at_once: bool = False) -> Any:
        random = RandomStreams(4)

        def draw(x: Any) -> Any:
            return random.binomial(x.shape, 1, T.nnet.sigmoid(x), dtype="float32")

        def step(v: Any, h: Any) -> Any:
            new = draw(T.dot(v, self.W) + self.b)
            return draw(T.dot(h if at_once else new, self.W.T) + self.a), new

        return mc.gibbs(step, logp=self.logp)

    def exact(self) -> Any:
        states = np.array(list(itertools.product([0, 1], repeat=10)), "float64")
        v, h = states[:, :6], states[:, 6:]
        energy = v @ self.a + h @ self.b + ((v @ self.W) * h).sum(axis=1)
        p = np.exp(energy) / np.exp(energy).sum()
        products = (v[:, :, None] * h[:, None, :]).reshape(len(p), -1)
        return p @ np.concatenate([v, h, products, energy[:, None]], axis=1)

    def check(self, kernel: Any) -> None:
        chains = Chains(kernel, {"v": (6,), "h": (4,)})
        found = chains.start(v=np.zeros((100, 6)), h=np.zeros((100, 4))).warm(50).draw(400)
        v, h = found["v"], found["h"]
        products = (v[..., :, None] * h[..., None, :]).reshape(*v.shape[:2], -1)
        check(np.concatenate([v, h, products, found["lp"][..., None]], axis=-1), self.exact())


def test_a_boltzmann_machine():
    rbm = Boltzmann()
    rbm.check(rbm.gibbs())


# ---- wrong on purpose ----------------------------------------------------------------------------


THREE = Gaussian(TEN.mean[:3], TEN.covariance[:3, :3])


def run(kernel: Any) -> None:
    """From draws of the target, from which a right sampler has nowhere to go."""
    start = np.random.default_rng(11).multivariate_normal(THREE.mean, THREE.covariance, size=100)
    chains = Chains(kernel, {"x": (3,)}).start(x=start)
    with np.errstate(all="ignore"):
        THREE.check(chains.draw(2400)["x"][::2])


def random_walk() -> Any:
    return mc.random_walk_metropolis(THREE.logp, 1.2, adapt=False)


def hamiltonian() -> Any:
    return mc.hmc(THREE.logp, 3, 0.9, jitter=0.1, adapt_step_size=False, adapt_mass=False)


@pytest.mark.parametrize("kernel", [random_walk, hamiltonian])
def test_a_right_sampler_passes(kernel):
    run(kernel())


def always(change: Any) -> Any:
    rate, none = density.acceptance(change)
    return T.ones_like(rate), none


def backwards(change: Any) -> Any:
    return density.acceptance(-change)


def one_sided(position: Any, random: Any) -> Any:
    return {n: abs(z) for n, z in density.normals(position, random).items()}


def too_wide(position: Any, random: Any) -> Any:
    return {n: z * np.float32(1.2) for n, z in density.normals(position, random).items()}


def forgetful(accepted: Any, new: Any, old: Any) -> Any:
    """Takes the log density of a move that isn't taken for that of the chain."""
    return density.choose(accepted, new, old) | {density.LP: new[density.LP]}


def massless(momentum: Any, variance: Any) -> Any:
    return KINETIC(momentum, variance) * 0


def unfinished(self: Any, x: Any, p: Any, gradient: Any, size: Any, variance: Any) -> Any:
    """Without the last half step of the momentum: not reversible."""
    x, p, lp, after = TRAJECTORY(self, x, p, gradient, size, variance)
    return x, {"x": p["x"] - size[:, None] * after["x"] * np.float32(0.5)}, lp, after


TRAJECTORY = hmc._Hmc.trajectory
KINETIC = hmc.kinetic


@pytest.mark.parametrize(
    ("kernel", "place", "name", "wrong"),
    [
        (random_walk, metropolis, "acceptance", always),
        (random_walk, metropolis, "acceptance", backwards),
        (random_walk, metropolis, "normals", one_sided),
        (random_walk, metropolis, "choose", forgetful),
        (hamiltonian, hmc, "acceptance", always),
        (hamiltonian, hmc, "normals", too_wide),
        (hamiltonian, hmc, "kinetic", massless),
        (hamiltonian, hmc, "choose", forgetful),
        (hamiltonian, hmc._Hmc, "trajectory", unfinished),
    ],
    ids=lambda x: getattr(x, "__name__", x).rpartition(".")[2],
)
def test_a_wrong_sampler_is_caught(kernel, place, name, wrong, monkeypatch):
    monkeypatch.setattr(place, name, wrong)
    with pytest.raises(AssertionError, match="standard errors"):
        run(kernel())


@pytest.mark.parametrize(
    "wrong", [{"factor": 1.9}, {"colours": (np.ones_like(BLACK),)}], ids=["beta", "all at once"]
)
def test_a_wrong_ising_model_is_caught(wrong):
    with pytest.raises(AssertionError, match="standard errors"):
        check_ising(1 / 3.0, ising(1 / 3.0, **wrong))


def test_a_wrong_boltzmann_machine_is_caught():
    """Each layer is right given the other's last state; the two together are not."""
    rbm = Boltzmann()
    with pytest.raises(AssertionError, match="standard errors"):
        rbm.check(rbm.gibbs(at_once=True))
