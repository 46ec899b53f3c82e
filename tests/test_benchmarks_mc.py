"""The benchmark of Monte Carlo: gpuscan's samplers draw from what they say, a peer that does not
is found, and the report is made."""

import json

import numpy as np
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import mc_cases, monte_carlo, peers
from benchmarks.mc_cases import CASES, Banana, Family, Gaussian, Ising, Logistic, estimates, joined

xarray = pytest.importorskip("xarray")
pytest.importorskip("arviz")

TINY = {
    "Logistic": dict(chains=4, draws=10),
    "Posterior": dict(chains=2, draws=10),
    "Banana": dict(chains=100, draws=20),
    "Gaussian": dict(chains=100, draws=20),
    "Ising": dict(size=8, lattices=3, draws=10),
}


def version(family: Family):
    return family.ours("reference")[0]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_every_case_goes_on_from_where_it_was(case):
    if case.family in (Logistic, mc_cases.Posterior):
        pytest.importorskip("sklearn")
    family = case.family(**TINY[case.family.__name__])
    draws = joined(version(family), 1, 2)
    for x in draws.values():
        assert x.shape[:2] == (family.chains, 2 * family.draws)
        assert np.isfinite(x).all()
        assert not (x[:, : family.draws] == x[:, family.draws :]).all()


def test_moments_are_those_of_the_densities():
    found = estimates(banana := Banana(chains=200, draws=200), joined(version(banana), 0, 1))
    want = [0, 1, 1, 1 + 2 + 1 / 4]  # of x0, x1 = x0^2 + e/2, and their squares
    assert (abs(found.means["x"] - want) < 5 * found.errors["x"]).all()
    found = estimates(gaussian := Gaussian(chains=200, draws=200), joined(version(gaussian), 0, 1))
    assert (abs(found.means["x"] - np.repeat([0, 1], 10)) < 5 * found.errors["x"]).all()


def test_the_posterior_is_near_its_normal_approximation():
    pytest.importorskip("sklearn")
    family = Logistic(chains=32, draws=20)
    found = estimates(family, joined(version(family), 1, 1)).means["b"][:31]
    apart = (found - family.start.mean(0)) / np.sqrt(family.variance)
    assert abs(apart).max() < 0.8


def test_the_energy_of_a_small_lattice():
    """2 x 2 sites, periodic, so that each pair is joined by two bonds: enumerated."""
    family = Ising(size=2, lattices=4, draws=3000)
    found = estimates(family, joined(version(family), 1, 1))
    spins = 1 - 2 * (np.arange(16)[:, None] >> np.arange(4) & 1)
    a, b, c, d = spins.T
    energy = -2.0 * (a * b + b * d + d * c + c * a)
    weights = np.exp(-energy / family.temperatures[:, None])
    want = (weights * energy).sum(1) / weights.sum(1) / 4
    assert (abs(found.means["energy"][:4] - want) < 5 * found.errors["energy"][:4]).all()


class Stranger:
    """A peer that draws as `make` does."""

    def __init__(self, make):
        self.VERSIONS = {"Banana": make}


@pytest.fixture
def strangers(monkeypatch):
    """Peers that stand in for JAX and BlackJAX; nobody has NumPyro."""
    makers = {
        "peer_mc_jax": lambda c: c.ours("reference")[0],
        "peer_blackjax": lambda c: shifted(c.ours("reference")[0]),
    }
    known = {"JAX": ("numpy", "peer_mc_jax"), "BlackJAX": ("numpy", "peer_blackjax"),
             "NumPyro": ("no_such_module", "peer_numpyro")}  # fmt: skip
    monkeypatch.setattr(monte_carlo, "PEERS", known)
    importing = peers.importlib.import_module

    def module(name, package=None):
        own = makers.get(name.lstrip("."))
        return importing(name, package) if own is None else Stranger(own)

    monkeypatch.setattr(peers.importlib, "import_module", module)


def shifted(version):
    return lambda: {n: x + np.float32(0.2) for n, x in version().items()}


def test_the_report(strangers, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmarks, "surroundings", lambda threads: 1)
    monkeypatch.setattr(monte_carlo, "surroundings", lambda threads: 1)
    options = "--case banana --quick --repeat 1 --device reference --out".split()
    assert monte_carlo.main([*options, str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "walk-banana: BlackJAX: differs from JAX: x: " in text
    assert "absent: NumPyro (no module no_such_module)" in text
    head, _, row = [line for line in text.splitlines() if line.startswith("|")]
    cells = dict(zip(*([c.strip() for c in x.split("|")] for x in (head, row))))
    assert cells["BlackJAX"] == "-"
    assert "ESS/s" in cells["gpuscan reference"]
    (case,) = json.loads((tmp_path / "monte_carlo.json").read_text())["cases"]
    theirs, other, ours = case["versions"]
    assert other["samples"] == []
    steps = 1024 * 100
    for v in (theirs, ours):
        assert v["chain-steps per second"] == pytest.approx(steps / v["median"])
        ess = v["effective samples per draw"]
        assert v["effective samples per second"] == pytest.approx(ess * steps / v["median"])
        assert 0 < ess < 1
    assert ours["ratio"] == pytest.approx(ours["median"] / theirs["median"])


def test_a_case_that_there_is_not_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr(monte_carlo, "surroundings", lambda threads: 1)
    with pytest.raises(SystemExit):
        monte_carlo.main(["--case", "nonsense"])
    assert "no case has nonsense" in capsys.readouterr().err
