"""The benchmark of a training step of the character model: what differs is found, what is absent
is named, and what it calls a step trains."""

import sys

import numpy as np
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import char_rnn
from benchmarks.char_step import PEERS, GPUScan, Problem
from benchmarks.timing import Timing

TINY = dict(hidden=6, embedding=4, batch=3, steps=5)


@pytest.fixture(scope="module")
def problem():
    return Problem(**TINY)


def test_flops_are_those_of_the_products(problem):
    n = problem.characters
    assert problem.flops == 6 * 3 * 5 * (4 * 6 * (6 + 4) + 6 * n)
    assert problem.codes.shape == (6, 3)


def test_a_step_trains(problem):
    version = GPUScan(problem, "reference")
    first = version.gradients()
    losses = [version.step() for _ in range(30)]
    assert losses[0] == pytest.approx(float(first["loss"]), rel=1e-6)
    assert losses[-1] < losses[0] - 0.01


class Version:
    """What computes the same as ours, up to a factor of one gradient or of the losses."""

    def __init__(self, problem, gradient=1.0, loss=1.0):
        self.ours, self.gradient, self.loss = GPUScan(problem, "reference"), gradient, loss

    def gradients(self):
        found = self.ours.gradients()
        return {**found, "U": found["U"] * np.float32(self.gradient)}

    def step(self):
        return self.ours.step() * self.loss


def test_what_differs_is_not_timed(problem):
    def absent():
        import no_such_module  # noqa: F401

    makers = {
        "ours": lambda: Version(problem), "same": lambda: Version(problem, 1.0001),
        "gradient": lambda: Version(problem, 1.01), "loss": lambda: Version(problem, 1, 1.01),
        "absent": absent, "broken": lambda: 1 / 0,
    }  # fmt: skip
    timings = {name: Timing(name) for name in makers}
    assert list(char_rnn.checked(problem, makers, timings)) == ["ours", "same"]
    assert "differs from ours: U: " in timings["gradient"].problem
    assert "differs from ours: losses: " in timings["loss"].problem
    assert timings["absent"].problem == "absent (no module no_such_module)"
    assert timings["broken"].problem == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("name", PEERS)
def test_peers_compute_the_same(problem, name):
    pytest.importorskip({"PyTorch": "torch", "JAX": "optax"}[name])
    makers = {"ours": lambda: GPUScan(problem, "reference"), name: lambda: PEERS[name](problem)}
    timings = {n: Timing(n) for n in makers}
    assert list(char_rnn.checked(problem, makers, timings)) == ["ours", name], timings[name].problem


def test_the_command_says_what_was_timed(monkeypatch, capsys):
    monkeypatch.setattr(char_rnn, "surroundings", lambda *given: 1)
    for module in ("torch", "jax"):
        monkeypatch.setitem(sys.modules, module, None)
    options = "--hidden 6 --embedding 4 --batch 3 --steps 5 --repeat 1 --device reference"
    assert char_rnn.main(options.split()) == 0
    found = capsys.readouterr().out
    assert "gpuscan reference " in found and "PyTorch          absent (no module torch)" in found
    assert "JAX              absent (no module jax)" in found


def test_options_are_checked(capsys):
    assert char_rnn.positive is benchmarks.positive
    with pytest.raises(SystemExit):
        char_rnn.main(["--hidden", "0"])
    assert "'0' is not a whole number above 0" in capsys.readouterr().err
