"""Kernels of gpuscan.mc: what they carry and tell, how a warm-up adapts, what is refused; and that
a transition is one loop on every device."""

from __future__ import annotations

import itertools
import math
from functools import cached_property
from typing import Any

import numpy as np
import pytest

import gpuscan
from gpuscan import mc
from gpuscan import tensor as T
from gpuscan.config import config
from gpuscan.errors import DisconnectedInputError
from gpuscan.mc import adaptation
from gpuscan.runtime.device import missing
from gpuscan.tensor.random import RandomStreams
from gpuscan.types import TensorType

# ---- the chains of a kernel ----------------------------------------------------------------------


class Chains:
    """A kernel as functions, each built when it is first needed: its start, a loop that is its
    warm-up, and one that draws. keep: the names of what is kept of draws, None: all."""

    def __init__(
        self, kernel: Any, shapes: dict[str, tuple[int, ...]], dtype: str = "float32",
        seed: int = 1, keep: list[str] | None = None, **options: Any,
    ) -> None:  # fmt: skip
        self.kernel, self.dtype, self.options, self.keep = kernel, dtype, options, keep
        self.random = RandomStreams(seed)
        position = {n: TensorType(dtype, (None, *s))(n) for n, s in shapes.items()}
        self.names, state = list(position), kernel.start(position)
        self.keys = list(state)
        self.inputs = {
            n: TensorType(v.dtype, (None, *v.type.shape[1:]))(n) for n, v in state.items()
        }
        self._start = self._function(list(position.values()), list(state.values()))
        self.state: dict[str, Any] = {}
        self.warmup: dict[str, Any] = {}

    def _function(self, inputs: Any, outputs: Any, updates: Any = None) -> Any:
        return gpuscan.function(
            inputs, outputs, updates=updates, on_unused_input="ignore", **self.options
        )

    def _loop(self, transition: Any, told: dict[str, Any]) -> tuple[Any, list[str]]:
        """A function of (steps, *told, *state) -> (*state, *kept), and the names of these."""
        rows = {n: v[0] for n, v in told.items()}
        stats = list(transition(self.inputs, rows, RandomStreams(0))[1])
        n = T.lscalar("n")

        def step(*values: Any) -> Any:
            rows, state = dict(zip(told, values)), dict(zip(self.keys, values[len(told) :]))
            new, found = transition(state, rows, self.random)
            assert list(new) == self.keys and list(found) == stats
            return [*new.values(), *found.values()]

        traces, updates = gpuscan.scan(
            step, list(told.values()), [*self.inputs.values(), *[None] * len(stats)], n_steps=n,
            return_list=True, name=self.kernel.name,
        )  # fmt: skip
        of = dict(zip([*self.keys, *[f"stat {s}" for s in stats]], traces))
        kept = {n: of[n] for n in self.names} | {s: of[f"stat {s}"] for s in stats}
        kept = {n: t for n, t in kept.items() if self.keep is None or n in self.keep}
        outputs = [*[t[-1] for t in traces[: len(self.keys)]], *kept.values()]
        inputs = [n, *told.values(), *self.inputs.values()]
        return self._function(inputs, outputs, updates), list(kept)

    @cached_property
    def tune(self) -> Any:
        schedule = self.kernel.schedule(1)
        told = {n: TensorType(str(a.dtype), (None,))(n) for n, a in schedule.items()}
        return self._loop(self.kernel.tune, told)

    @cached_property
    def step(self) -> Any:
        return self._loop(lambda state, told, random: self.kernel.step(state, random), {})

    def start(self, **values: Any) -> Chains:
        given = [np.asarray(values[n], self.dtype) for n in self.names]
        self.state = dict(zip(self.keys, self._start(*given)))
        self.kernel.check(self.state)
        return self

    def _run(self, loop: Any, n: int, *told: Any) -> dict[str, Any]:
        f, names = loop
        found = f(n, *told, *self.state.values())
        self.state = dict(zip(self.keys, found))
        return dict(zip(names, found[len(self.keys) :]))

    def warm(self, tune: int) -> Chains:
        """`warmup` is what was kept of it."""
        self.warmup = self._run(self.tune, tune, *self.kernel.schedule(tune).values())
        return self

    def draw(self, n: int) -> dict[str, Any]:
        """Positions and statistics, with the draws as the first axis."""
        return self._run(self.step, n)


def spread(chains: int, *shape: int, width: float = 1.0, seed: int = 0) -> Any:
    return width * np.random.default_rng(seed).normal(size=(chains, *shape))


def gaussian(x: Any) -> Any:
    return -T.sqr(x).sum(axis=1) / 2


def two(a: Any, b: Any) -> Any:
    """Of a number and a matrix."""
    return -T.sqr(a) / 8 - T.sqr(b - a[:, None, None]).sum(axis=(1, 2)) / 2


TWO = {"a": (), "b": (2, 3)}
BOTH = {"random_walk_metropolis": mc.random_walk_metropolis, "hmc": mc.hmc}


# ---- what a state holds --------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(("dtype", "floatX"), [("float32", "float64"), ("float64", "float32")])
def test_everything_has_the_positions_dtype(name, dtype, floatX):
    with config.change_flags(floatX=floatX):
        chains = Chains(BOTH[name](lambda *x: T.cast(two(*x), dtype)), TWO, dtype)
        found = chains.start(a=spread(4), b=spread(4, 2, 3)).warm(25).warmup
    assert {str(v.dtype) for v in chains.state.values()} == {dtype}
    assert {str(v.dtype) for v in found.values()} <= {dtype, "bool", "int64"}
    assert all(np.isfinite(v).all() for v in found.values())


@pytest.mark.parametrize("name", BOTH)
def test_what_is_carried_belongs_to_the_position(name):
    """Log density and gradient of a state are those at its position, also after rejections."""
    chains = Chains(BOTH[name](two), TWO, "float64")
    found = chains.start(a=spread(40), b=spread(40, 2, 3)).draw(20)
    kept = chains.state
    position = {n: kept[n] for n in TWO}
    after = chains.start(**position).state
    assert 0 < found["acceptance_rate"].mean() < 1
    for key in kept:
        if key == "own/lp" or key.startswith("own/gradient"):
            np.testing.assert_allclose(kept[key], after[key], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(found["lp"][-1], kept["own/lp"])


def test_the_statistics_have_arviz_names():
    run = Chains(mc.hmc(gaussian, n_steps=3), {"x": (2,)}).start(x=spread(5, 2))
    found = run.draw(4)
    assert set(found) == {
        "x", "acceptance_rate", "step_size", "n_steps", "lp", "energy", "diverging"
    }  # fmt: skip
    assert (found["n_steps"] == 3).all()
    assert {v.shape for n, v in found.items() if n != "x"} == {(4, 5)}
    np.testing.assert_allclose(found["lp"], -(found["x"] ** 2).sum(2) / 2, rtol=1e-6)
    assert (found["energy"] >= -found["lp"]).all()


@pytest.mark.parametrize("name", BOTH)
def test_a_chain_is_the_same_in_any_company(name):
    """Also in that of one whose log density is NaN all around it, which stays where it is."""

    def logp(x: Any) -> Any:
        return gaussian(x) + T.log(10 - T.sqr(x).sum(axis=1)) * 0

    chains = Chains(BOTH[name](logp), {"x": (2,)}, "float64")
    x = spread(5, 2, width=0.5)
    good = chains.start(x=x).warm(40).state
    again = Chains(BOTH[name](logp), {"x": (2,)}, "float64")
    x[3] = 0, math.sqrt(10) - 1e-12
    again.start(x=x)
    bad = again.warm(40).state
    others = [0, 1, 2, 4]
    for key in good:
        np.testing.assert_array_equal(good[key][others], bad[key][others])
    assert all(np.isfinite(v).all() for v in bad.values())
    assert again.warmup["diverging" if name == "hmc" else "invalid"][:, 3].any()


# ---- one loop ------------------------------------------------------------------------------------

X = np.random.default_rng(5).normal(size=(40, 3)).astype("float32")
Y = (np.random.default_rng(6).random(40) < 0.5).astype("float32")


def logistic(theta: Any) -> Any:
    z = T.dot(theta, X.T)
    return (Y * z - T.nnet.softplus(z)).sum(axis=1) - T.sqr(theta).sum(axis=1) / 2


def recurrent(x: Any) -> Any:
    """A loop in the log density: an autoregression's errors."""
    errors, _ = gpuscan.scan(
        lambda y, total, x: total + T.sqr(y - x[:, 0] * T.tanh(x[:, 1] + y)),
        sequences=[T.as_tensor(Y[:6])], outputs_info=[T.zeros_like(x[:, 0])], non_sequences=[x],
    )  # fmt: skip
    return -errors[-1] - T.sqr(x).sum(axis=1) / 2


LOOPS = {
    "random_walk_metropolis": (mc.random_walk_metropolis(two), TWO),
    "hmc": (mc.hmc(two, n_steps=3), TWO),
    "logistic": (mc.hmc(logistic, n_steps=3), {"x": (3,)}),
    "recurrent": (mc.hmc(recurrent, n_steps=3), {"x": (2,)}),
}


@pytest.mark.own_device
@pytest.mark.parametrize("on", ["native", "emulated"])
@pytest.mark.parametrize("case", LOOPS)
def test_a_transition_is_one_fused_loop_and_equals_the_reference(case, on):
    if reason := missing(on):
        pytest.skip(reason)
    kernel, shapes = LOOPS[case]
    found = []
    for options in ({"device": "reference"}, {"device": on, "fuse": "always"}):
        chains = Chains(kernel, shapes, "float64", **options)
        chains.start(**{n: spread(3, *s, width=0.3) for n, s in shapes.items()})
        ways = [chains.step]
        if case == kernel.name:
            ways.append(chains.tune)
            found.append(chains.warm(21).warmup)
        found.append(chains.draw(3))
    for f, _ in ways:
        text = str(f.explain())
        assert f"scan '{kernel.name}': fused" in text and text.count("scan '") == 1, text
    half = len(found) // 2
    for a, b in zip(found[:half], found[half:]):
        for key in a:  # a rounding grows, from step to step
            np.testing.assert_allclose(b[key], a[key], rtol=1e-6, atol=1e-6, err_msg=key)


# ---- the mechanics -------------------------------------------------------------------------------


def quartic(x: Any) -> Any:
    return -T.sqr(T.sqr(x)).sum(axis=1) / 4 - T.sqr(x[:, 0] - 2 * x[:, 1]) / 2


def trajectories(n_steps: int, logp: Any = quartic) -> Any:
    """A function of (x, p, step sizes, variances) that gives x, p and the energies before and
    after."""
    kernel: Any = mc.hmc(logp, n_steps)
    x, p, variance = T.dmatrices("x", "p", "variance")
    size = T.dvector("size")
    lp, gradient = kernel._logp.with_gradient({"x": x})
    end, turned, new_lp, _ = kernel.trajectory({"x": x}, {"x": p}, gradient, size, {"x": variance})
    before, after = (
        (T.sqr(m) * variance).sum(axis=1) / 2 - f for m, f in ((p, lp), (turned["x"], new_lp))
    )
    return gpuscan.function([x, p, size, variance], [end["x"], turned["x"], before, after])


@pytest.mark.parametrize("n_steps", [1, 2, 7])
def test_a_trajectory_is_the_leapfrog(n_steps):
    f = trajectories(n_steps)
    x, p, variance = (spread(4, 2, seed=k) for k in range(3))
    variance, size = np.exp(variance), np.full(4, 0.11)

    def gradient(x: Any) -> Any:
        along = (x[:, 0] - 2 * x[:, 1])[:, None] * np.array([1, -2])
        return -(x**3) - along

    end, turned = x.copy(), p.copy()
    for _ in range(n_steps):
        turned = turned + size[:, None] / 2 * gradient(end)
        end = end + size[:, None] * variance * turned
        turned = turned + size[:, None] / 2 * gradient(end)
    found = f(x, p, size, variance)
    np.testing.assert_allclose(found[0], end, rtol=1e-11)
    np.testing.assert_allclose(found[1], turned, rtol=1e-11)


def test_a_trajectory_is_reversible():
    f = trajectories(20)
    x, p, ones = spread(30, 2), spread(30, 2, seed=1), np.ones((30, 2))
    sizes = np.linspace(0.01, 0.2, 30)
    end, turned, before, after = f(x, p, sizes, ones)
    back, again, *_ = f(end, -turned, sizes, ones)
    assert np.abs(end - x).max() > 0.5
    np.testing.assert_allclose(back, x, atol=1e-9)
    np.testing.assert_allclose(again, -p, atol=1e-9)
    assert np.abs(after - before).max() < 1


def test_a_trajectory_keeps_volume():
    """The determinant of its Jacobian, by central differences."""
    f, d = trajectories(9), 1e-5
    start = np.array([0.3, -0.7, 0.9, 0.4])
    moved = start + d * np.concatenate([np.eye(4), -np.eye(4)])
    found = np.hstack(f(moved[:, :2], moved[:, 2:], np.full(8, 0.15), np.ones((8, 2)))[:2])
    jacobian = (found[:4] - found[4:]) / (2 * d)
    assert abs(jacobian - np.eye(4)).max() > 0.5
    assert abs(np.linalg.det(jacobian) - 1) < 1e-7


def test_the_energy_error_is_of_second_order():
    """Over the same time, of the step size."""
    x, p, ones = spread(200, 2), spread(200, 2, seed=1), np.ones((200, 2))
    errors = []
    for n in (10, 20, 40):
        *_, before, after = trajectories(n)(x, p, np.full(200, 1 / n), ones)
        errors.append(np.sqrt(np.mean((after - before) ** 2)))
    for coarse, fine in itertools.pairwise(errors):
        assert 3.6 < coarse / fine < 4.4


def test_a_wild_trajectory_is_rejected_and_counted():
    def cliff(x: Any) -> Any:
        return gaussian(x) + T.log(T.sqr(x[:, 0] - 3) - 1) * 0  # NaN between 2 and 4

    chains = Chains(mc.hmc(cliff, n_steps=2, step_size=0.9, jitter=0), {"x": (2,)}, "float64")
    found = chains.start(x=np.zeros((50, 2))).draw(200)
    wild = found["diverging"]
    assert 0 < wild.mean() < 0.5
    assert (found["acceptance_rate"][wild] == 0).all()
    moved = np.diff(found["x"], axis=0).any(axis=2)
    assert moved[~wild[1:]].mean() > 0.5 and not moved[wild[1:]].any()
    assert all(np.isfinite(v).all() for v in found.values())
    huge = Chains(mc.hmc(gaussian, step_size=1e30, adapt_step_size=False), {"x": (2,)})
    found = huge.start(x=np.ones((3, 2))).draw(5)
    assert found["diverging"].all() and (found["x"] == 1).all()
    assert np.isfinite(found["energy"]).all()


def test_a_move_to_infinite_density_is_not_taken():
    def spike(x: Any) -> Any:
        return T.switch(x[:, 0] > 0.5, np.inf, gaussian(x))

    for name, kernel in BOTH.items():
        found = Chains(kernel(spike), {"x": (1,)}, "float64").start(x=-np.ones((9, 1))).draw(50)
        assert (found["x"] <= 0.5).all()
        assert found["diverging" if name == "hmc" else "invalid"].any()


# ---- the warm-up ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tune", "expected"),
    [
        (0, []),
        (19, []),
        (20, [(3, 18)]),
        (100, [(15, 90)]),
        (150, [(75, 100)]),
        (180, [(75, 130)]),
        (200, [(75, 100), (100, 150)]),
        (500, [(75, 100), (100, 150), (150, 250), (250, 450)]),
        (1000, [(75, 100), (100, 150), (150, 250), (250, 450), (450, 950)]),  # Stan's default
        (1300, [(75, 100), (100, 150), (150, 250), (250, 450), (450, 1250)]),
    ],
)
def test_the_windows_are_stans(tune, expected):
    assert adaptation.windows(tune) == expected
    told = adaptation.schedule(tune)
    assert {len(v) for v in told.values()} == {tune}
    assert np.flatnonzero(told["closes"]).tolist() == [stop - 1 for _, stop in expected]
    for start, stop in expected:
        assert told["in_window"][start:stop].tolist() == list(range(1, stop - start + 1))
        if stop < tune:
            assert told["step"][stop] == 1
    assert (told["in_window"] > 0).sum() == sum(stop - start for start, stop in expected)
    assert np.flatnonzero(told["last"]).tolist() == ([tune - 1] if tune else [])


def stan_windows(tune: int, first: int = 75, base: int = 25, last: int = 50) -> list[int]:
    """The last steps of the windows, as Stan's windowed_adaptation.hpp counts to them."""
    if first + base + last > tune:
        first, last = int(0.15 * tune), int(0.1 * tune)
        base = tune - first - last
    size, close, found = base, first + base - 1, []
    for counter in range(tune):
        if counter == close:
            found.append(close)
            if close != tune - last - 1:
                size *= 2
                close = counter + size
                if close != tune - last - 1 and close + 2 * size >= tune - last:
                    close = tune - last - 1
    return found


def test_the_windows_are_stans_for_every_length():
    """But for 151 to 199 steps, where Stan's second window has 1 to 49."""
    for tune in range(20, 1600):
        found = [stop - 1 for _, stop in adaptation.windows(tune)]
        assert found == stan_windows(tune)[150 < tune < 200 :], tune


def test_the_step_size_follows_dual_averaging():
    """As Hoffman & Gelman write it: algorithm 5, lines of the adaptation."""
    chains = Chains(
        mc.hmc(gaussian, step_size=0.3, jitter=0, adapt_mass=False, target_accept=0.7),
        {"x": (2,)}, "float64",
    )  # fmt: skip
    warmup = chains.start(x=spread(6, 2)).warm(60).warmup
    size = np.full(6, 0.3)
    mu, h, mean = np.log(10 * size), np.zeros(6), np.zeros(6)
    for m, (used, rate) in enumerate(zip(warmup["step_size"], warmup["acceptance_rate"]), 1):
        np.testing.assert_allclose(used, size, rtol=1e-9)
        h = (1 - 1 / (m + 10)) * h + (0.7 - rate) / (m + 10)
        log_size = mu - math.sqrt(m) / 0.05 * h
        mean = m**-0.75 * log_size + (1 - m**-0.75) * mean
        size = np.exp(log_size)
    np.testing.assert_allclose(chains.draw(2)["step_size"], np.exp([mean, mean]), rtol=1e-9)


def test_the_variances_are_those_of_the_last_window():
    chains = Chains(mc.hmc(two), TWO, "float64").start(a=spread(5), b=spread(5, 2, 3)).warm(160)
    ((start, stop),) = adaptation.windows(160)
    n = stop - start
    for name in TWO:
        exact = chains.warmup[name][start:stop].var(axis=0, ddof=1)
        np.testing.assert_allclose(
            chains.state[f"own/variance/{name}"], (n * exact + 5e-3) / (n + 5), rtol=1e-9
        )


@pytest.mark.parametrize(
    ("kernel", "target"),
    [
        (mc.hmc(gaussian, target_accept=0.6), 0.6),
        (mc.hmc(gaussian), 0.8),
        (mc.random_walk_metropolis(gaussian), 0.234),
        (mc.random_walk_metropolis(gaussian, 30.0, target_accept=0.4), 0.4),
        (mc.random_walk_metropolis(lambda x: -T.sqr(x) / 2, {"x": 0.01}), 0.44),
    ],
)
def test_acceptance_comes_near_the_target(kernel, target):
    """The mean over chains: in the warm-up, and with the step sizes that it leaves. Those of HMC
    accept more than their target, in Stan too: the rate falls steeply above it, so the mean of the
    logs of step sizes that swing around lies below."""
    shape = () if target == 0.44 else (10,)
    chains = Chains(kernel, {"x": shape}).start(x=spread(100, *shape)).warm(600)
    assert abs(chains.warmup["acceptance_rate"][300:].mean() - target) < 0.05
    slack = 0.17 if kernel.name == "hmc" else 0.04
    assert -0.04 < chains.draw(200)["acceptance_rate"].mean() - target < slack


@pytest.mark.parametrize("scale", [0.1, 1e5])
def test_a_warm_up_finds_any_scale(scale):
    """Of the target, from a step size and masses that are wrong by powers of ten."""
    widths = scale * np.array([1, 10, 0.1])

    def logp(x: Any) -> Any:
        return -T.sqr(x / T.as_tensor(widths)).sum(axis=1) / 2

    chains = Chains(mc.hmc(logp), {"x": (3,)}, "float64")
    chains.start(x=spread(20, 3) * widths).warm(400)
    found = chains.draw(400)
    assert not found["diverging"].any()
    np.testing.assert_allclose(found["x"].std(axis=(0, 1)), widths, rtol=0.05)


def test_without_adaptation_nothing_changes():
    kernel = mc.hmc(gaussian, step_size=0.2, jitter=0, adapt_step_size=False, adapt_mass=False)
    found = Chains(kernel, {"x": (2,)}).start(x=spread(3, 2)).warm(50).warmup
    assert (found["step_size"] == np.float32(0.2)).all()
    kernel = mc.random_walk_metropolis(gaussian, [0.1, 3.0], adapt=False)
    found = Chains(kernel, {"x": (2,)}).start(x=spread(300, 2)).warm(50).warmup
    steps = np.diff(found["x"], axis=0)[found["accepted"][1:]]
    assert (found["step_size"] == 1).all()
    assert abs(steps[:, 0].std() / 0.1 - 1) < 0.1 and steps[:, 1].std() > 0.5


def test_jitter_is_drawn_for_each_chain_and_transition():
    kernel = mc.hmc(gaussian, step_size=0.2, jitter=0.25)
    sizes = Chains(kernel, {"x": (2,)}).start(x=spread(100, 2)).draw(20)["step_size"]
    assert len(np.unique(sizes)) > 1900
    assert 0.15 <= sizes.min() < 0.152 and 0.248 < sizes.max() <= 0.25


# ---- transitions of one's own --------------------------------------------------------------------


def own(made: Any, **options: Any) -> Any:
    return mc.gibbs(lambda a, b: made(a, b), **options)


@pytest.mark.parametrize(
    "made",
    [lambda a, b: (a + 1, b), lambda a, b: [a + 1, b], lambda a, b: {"a": a + 1},
     lambda a, b: {"b": b, "a": a + 1}, lambda a, b: ((a + 1, b), {"twice": 2 * a})],
    ids=["tuple", "list", "one of a dict", "dict", "statistics"],
)  # fmt: skip
def test_a_step_returns_positions_in_several_ways(made):
    chains = Chains(own(made, logp=two, name="mine"), TWO).start(
        a=np.zeros(2), b=np.ones((2, 2, 3))
    )
    found = chains.warm(2).draw(3)
    np.testing.assert_array_equal(found["a"], np.array([[3, 3], [4, 4], [5, 5]], "float32"))
    assert (found["b"] == 1).all()
    np.testing.assert_allclose(found["lp"][0], -9 / 8 - 6 * 4 / 2)
    if "twice" in found:
        np.testing.assert_array_equal(found["twice"], 2 * found["a"] - 2)


def test_one_variable_may_be_returned_as_it_is():
    random = RandomStreams(3)
    kernel = mc.gibbs(lambda x: 0.5 * x + random.normal(x.shape))
    found = Chains(kernel, {"x": ()}).start(x=np.zeros(4000)).draw(30)
    assert abs(found["x"][-1].var() - 4 / 3) < 0.1
    assert kernel.schedule(3) == {}


# ---- what is refused -----------------------------------------------------------------------------

F = {"x": TensorType("float32", (None, 3))("x")}


@pytest.mark.parametrize("kernel", BOTH.values(), ids=BOTH)
@pytest.mark.parametrize(
    ("logp", "error", "words"),
    [
        (lambda x: -T.sqr(x), ValueError, "2 dimensions, expected one number per chain.*sum over"),
        (lambda x: -T.sqr(x).sum(), ValueError, "one number for all chains.*sum over its other"),
        (lambda x: T.cast(x.sum(axis=1), "int32"), TypeError, "logp is int32, expected floats"),
        (3, TypeError, "logp is 3, expected a function"),
    ],
)  # fmt: skip
def test_a_log_density_is_one_number_per_chain(kernel, logp, error, words):
    with pytest.raises(error, match=words) as raised:
        kernel(logp).start(F)
    assert "\n" not in str(raised.value)


def test_a_log_density_of_other_chains_is_refused():
    fixed = {"x": TensorType("float32", (4, 3))("x")}
    for kernel in BOTH.values():
        with pytest.raises(ValueError, match="logp has 3 elements for 4 chains"):
            kernel(lambda x: -T.sqr(x).sum(axis=0)).start(fixed)
    chains = Chains(mc.random_walk_metropolis(gaussian), {"x": (3,)})
    with pytest.raises(ValueError, match="logp has 3 elements for 4 chains"):
        chains.kernel.check(chains.start(x=np.ones((4, 3))).state | {"own/lp": np.zeros(3)})


def test_hmc_needs_the_gradient():
    with pytest.raises(DisconnectedInputError):
        mc.hmc(lambda x: T.zeros((2,)), n_steps=1).start(F)


@pytest.mark.parametrize("name", BOTH)
def test_integers_are_refused(name):
    position = {"x": T.lmatrix("x")}
    with pytest.raises(TypeError, match=f"{name}: 'x' is int64, expected floats"):
        BOTH[name](lambda x: -T.sqr(x).sum(axis=1) / 2.0).start(position)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"step_size": 0}, ValueError, "step_size is 0, expected a number above 0"),
        ({"step_size": -1.0}, ValueError, "step_size is -1.0"),
        ({"step_size": math.nan}, ValueError, "step_size is nan"),
        ({"step_size": math.inf}, ValueError, "step_size is inf"),
        ({"step_size": "big"}, TypeError, "step_size is 'big'"),
        ({"n_steps": 0}, ValueError, "n_steps is 0, expected at least 1"),
        ({"n_steps": 2.5}, TypeError, "n_steps is 2.5, expected an int"),
        ({"target_accept": 1}, ValueError, "target_accept is 1, expected a number between 0 and 1"),
        ({"target_accept": 0.0}, ValueError, "target_accept is 0.0"),
        ({"jitter": 1.0}, ValueError, "jitter is 1.0, expected"),
        ({"jitter": -0.1}, ValueError, "jitter is -0.1, expected"),
        ({"variance": 0}, ValueError, "variance is 0.0, expected finite numbers above 0"),
        ({"variance": [1, math.nan, 1]}, ValueError, "variance is nan"),
        ({"variance": {"y": 1}}, ValueError, r"variance is for \['y'\], expected the variables"),
        ({"variance": np.ones(2)}, ValueError, r"variance has the shape \(2,\).*'x'.*\(3,\)"),
        ({"variance": "a"}, TypeError, "variance is 'a', expected"),
    ],
)
def test_bad_arguments_of_hmc(arguments, error, words):
    with pytest.raises(error, match=f"^hmc: {words}"):
        mc.hmc(gaussian, **arguments).start(F)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"scale": 0}, "scale is 0.0, expected finite numbers above 0"),
        ({"scale": {"x": [1, -2, 1]}}, "scale of 'x' is -2.0"),
        ({"scale": np.ones((2, 3))}, r"scale has the shape \(2, 3\)"),
        ({"target_accept": 2}, "target_accept is 2, expected"),
    ],
)
def test_bad_arguments_of_metropolis(arguments, words):
    with pytest.raises(ValueError, match=f"^random_walk_metropolis: {words}"):
        mc.random_walk_metropolis(gaussian, **arguments).start(F)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ((math.nan, 0.0), r"'x' is nan at the start of chain 2 \(and of 1 more\), expected finite"),
        ((math.inf, 0.0), "'x' is inf at the start of chain 2"),
        ((-1.0, 0.0), r"logp is nan at the start of chain 2 \(and of 1 more\): a chain has to"),
        ((0.0, 0.0), "logp is -inf at the start of chain 2"),
    ],
)
def test_chains_that_cannot_start(name, value, words):
    chains = Chains(BOTH[name](lambda x: T.log(x[:, 0]) + gaussian(x)), {"x": (2,)})
    x = np.ones((6, 2))
    x[2] = x[4] = value
    with pytest.raises(ValueError, match=f"^{name}: {words}"):
        chains.start(x=x)


@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        (lambda a, b: a, ValueError, "the step returns 1 values, expected one for each"),
        (lambda a, b: {"c": a}, ValueError, "the step returns 'c', expected some of the variables"),
        (lambda a, b: (a, T.cast(b, "float64")), TypeError,
         "makes 'b' float64 with 3 dimensions, expected float32 with 3"),
        (lambda a, b: (b, b), TypeError, "makes 'a' float32 with 3 dimensions, expected"),
        (lambda a, b: ([a, b], {"s": b}), ValueError, "the statistic 's' has 3 dimensions"),
        (lambda a, b: ([a, b], {a: b}), TypeError, "expected the names of statistics"),
    ],
)  # fmt: skip
def test_bad_steps(made, error, words):
    position = {n: TensorType("float32", (None, *s))(n) for n, s in TWO.items()}
    with pytest.raises(error, match=f"^mine: .*{words}"):
        own(made, name="mine").step(position, RandomStreams(1))
    with pytest.raises(TypeError, match="step is 3, expected a function"):
        mc.gibbs(3)  # type: ignore[arg-type]


def test_a_chain_of_ones_own_starts_at_finite_numbers():
    chains = Chains(own(lambda a, b: (a, b)), TWO)
    with pytest.raises(ValueError, match="gibbs: 'b' is nan at the start of chain 1"):
        chains.start(a=np.zeros(2), b=np.stack([np.zeros((2, 3)), np.full((2, 3), np.nan)]))
