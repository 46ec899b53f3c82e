"""Hamiltonian Monte Carlo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..graph import Variable
from ..ops.convert import constant, static_int
from ..ops.elemwise import cast
from ..ops.scalar import lt, or_, pow, sqrt, switch
from ..ops.shape import dims, product
from ..scan.frontend import scan
from .adaptation import STEP_SIZE, StepSize, Variances, schedule
from .density import (
    LP,
    LogDensity,
    Widths,
    acceptance,
    across,
    between,
    choose,
    filled,
    float_dtype,
    normals,
    per_chain,
    position_of,
    uniforms,
)
from .kernel import OWN, Array, Kernel, State

DIVERGING = 1000  # an energy error above it: the trajectory has left the level set (Stan's limit)


def hmc(
    logp: Callable[..., Any],
    n_steps: int = 10,
    step_size: float | None = None,
    *,
    variance: Any = 1.0,
    jitter: float = 0.5,
    target_accept: float = 0.8,
    adapt_step_size: bool = True,
    adapt_mass: bool = True,
) -> Kernel:
    """Hamiltonian Monte Carlo with trajectories of a fixed number of leapfrog steps (Duane et al.
    1987; Neal 2011, "MCMC using Hamiltonian dynamics", Handbook of MCMC, chapter 5).

    logp(*position)  the log density, up to a constant, of positions whose first axis is the
                     chains, in the order of init's names: a vector of floats, one a chain.
                     gpuscan takes its gradient, once a leapfrog step.
    n_steps          leapfrog steps of a trajectory
    step_size        the first one, or without a warm-up the only one; None: d^-0.25 for chains of
                     d numbers, the order of the best one where they are independent and `variance`
                     is right (Beskos et al. 2013)
    variance         the inverse of the mass, a diagonal; best is the target's variance. A positive
                     number, an array that broadcasts to one chain's values, or a dict of these by
                     the names of the variables
    jitter           each chain's step size is drawn anew for each trajectory, from the step size
                     times 1 - jitter to 1 + jitter, lest trajectories end where they began (Neal
                     2011, section 4.2.2): on a Gaussian whose variances are known, trajectories of
                     one length can be of a period's
    target_accept    the mean acceptance rate that a warm-up adapts the step size to
    adapt_step_size  a warm-up adapts it by dual averaging (Hoffman & Gelman 2014)
    adapt_mass       a warm-up estimates `variance` in Stan's windows, and starts the adaptation of
                     the step size again after each

    Every chain adapts on its own, so a chain is the same whichever others run beside it.

    Statistics: acceptance_rate, step_size (this trajectory's), n_steps, lp, energy (minus lp, plus
    the kinetic energy), and diverging: the energy rose by more than 1000 or became NaN or
    infinite. Such a trajectory is rejected.
    """
    return _Hmc(
        logp, n_steps, step_size, variance, jitter, target_accept, adapt_step_size, adapt_mass
    )


class _Hmc:
    name = "hmc"

    def __init__(
        self, logp: Any, n_steps: Any, step_size: Any, variance: Any, jitter: Any, target: Any,
        adapt_step_size: bool, adapt_mass: bool,
    ) -> None:  # fmt: skip
        self._logp = LogDensity(logp, self.name)
        steps = static_int(n_steps)
        if steps is None or isinstance(n_steps, bool):
            raise TypeError(f"hmc: n_steps is {n_steps!r}, expected an int of at least 1")
        if steps < 1:
            raise ValueError(f"hmc: n_steps is {steps}, expected at least 1")
        self._n_steps = steps
        infinity = float("inf")
        if step_size is not None:
            step_size = between(step_size, 0, infinity, self.name, "step_size")
        self._first = step_size
        self._variance = Widths(variance, self.name, "variance")
        self._jitter = 0.0 if jitter == 0 else between(jitter, 0, 1, self.name, "jitter")
        self._target = between(target, 0, 1, self.name, "target_accept")
        self._adapt_step_size, self._adapt_mass = bool(adapt_step_size), bool(adapt_mass)
        self._variances = Variances()

    # ---- a transition ---------------------------------------------------------------------------

    def start(self, position: State) -> State:
        dtype = self._dtype(position)
        lp, gradient = self._logp.with_gradient(position)
        state = position | {LP: lp} | _named(gradient)
        variance = self._variance.of(position)
        if self._adapt_mass:
            state |= self._variances.start(position, variance)
        first = _usual_step_size(position) if self._first is None else self._first
        if self._adapt_step_size:
            return state | self._step_size(position).start(position, first)
        return state | {STEP_SIZE: filled(position, first, dtype)}

    def step(self, state: State, random: Any) -> tuple[State, State]:
        position = position_of(state)
        dtype = self._dtype(position)
        variance = self._variance.of(position)
        if self._adapt_mass:
            variance = self._variances.of(state, position)
        size = state[STEP_SIZE]
        if self._jitter:
            least, width = 1 - self._jitter, 2 * self._jitter
            u = uniforms(position, random, dtype)
            size = size * (constant(least, dtype=dtype) + constant(width, dtype=dtype) * u)
        z = normals(position, random)
        momentum = {n: z[n] / sqrt(v) for n, v in variance.items()}
        gradient = {n: state[_gradient(n)] for n in position}
        energy = kinetic(momentum, variance) - state[LP]

        end = self.trajectory(position, momentum, gradient, size, variance)
        moved, turned, lp, gradient = end
        new_energy = kinetic(turned, variance) - lp
        rate, wild = acceptance(energy - new_energy)
        limit = constant(-DIVERGING, dtype=energy.dtype)
        accepted = lt(uniforms(position, random, dtype), cast(rate, dtype))
        new = choose(accepted, moved | {LP: lp} | _named(gradient), state)
        stats = {
            "acceptance_rate": cast(rate, dtype),
            "step_size": size,
            "n_steps": filled(position, self._n_steps, "int64"),
            "lp": new[LP],
            "energy": switch(accepted, new_energy, energy),
            "diverging": or_(wild, lt(energy - new_energy, limit)),
        }
        return state | new, stats

    def trajectory(
        self, x: State, p: State, gradient: State, size: Variable, variance: State
    ) -> tuple[State, State, Variable, State]:
        """Position, momentum, log density and gradient after the leapfrog steps.

        Half steps of the momentum that follow each other are one step. The last step is outside
        of the loop: it alone needs the log density.
        """
        names, count = list(x), len(x)

        def group(values: Any) -> State:
            return dict(zip(names, values))

        def kick(p: State, gradient: State, along: State, share: float) -> State:
            return {
                n: p[n] + constant(share, dtype=p[n].dtype) * along[n] * gradient[n] for n in names
            }

        def drift(x: State, p: State, along: State, variance: State) -> State:
            return {n: x[n] + along[n] * variance[n] * p[n] for n in names}

        def leap(*values: Variable) -> list[Variable]:
            x, p, along, variance = (group(values[k * count :]) for k in range(4))
            x = drift(x, p, along, variance)
            p = kick(p, self._logp.with_gradient(x)[1], along, 1)
            return [*x.values(), *p.values()]

        along = {n: cast(across(size, x[n]), x[n].dtype) for n in names}
        p = kick(p, gradient, along, 0.5)
        if self._n_steps > 1:
            # what is drawn has to be passed: a draw that the step takes from outside is redrawn
            traces, _ = scan(
                leap, None, [*x.values(), *p.values()], [*along.values(), *variance.values()],
                n_steps=self._n_steps - 1, return_list=True, name="leapfrog",
            )  # fmt: skip
            x, p = group(t[-1] for t in traces), group(t[-1] for t in traces[count:])
        x = drift(x, p, along, variance)
        lp, gradient = self._logp.with_gradient(x)
        return x, kick(p, gradient, along, 0.5), lp, gradient

    # ---- the warm-up ----------------------------------------------------------------------------

    def schedule(self, tune: int) -> dict[str, Array]:
        return schedule(tune, self._adapt_mass)

    def tune(self, state: State, told: State, random: Any) -> tuple[State, State]:
        new, stats = self.step(state, random)
        position = position_of(new)
        if self._adapt_step_size:
            size, rate = self._step_size(position), stats["acceptance_rate"]
            adapted = size.after(state, rate, told["step"], told["last"])
            if self._adapt_mass:
                first = filled(position, _usual_step_size(position), size.dtype)
                adapted = size.again(told["closes"], adapted, first)
            new = new | adapted
        if self._adapt_mass:
            new = new | self._variances.after(state, position, told["in_window"], told["closes"])
        return new, stats

    def check(self, state: Mapping[str, Array]) -> None:
        self._logp.check(state)

    def _dtype(self, position: State) -> str:
        return float_dtype(position, self.name, "there is no gradient by integers")

    def _step_size(self, position: State) -> StepSize:
        return StepSize(self._target, self._dtype(position))


def _usual_step_size(position: State) -> Variable:
    count = product([d for x in position.values() for d in dims(x)[1:]])
    return pow(cast(count, "float64"), constant(-0.25, dtype="float64"))


def kinetic(momentum: State, variance: State) -> Variable:
    """The kinetic energy of each chain."""
    parts = [
        per_chain(p * p * variance[name]) * constant(0.5, dtype=p.dtype)
        for name, p in momentum.items()
    ]
    energy = parts[0]
    for part in parts[1:]:
        energy = energy + part
    return energy


def _gradient(name: str) -> str:
    return OWN + "gradient/" + name


def _named(gradient: State) -> State:
    return {_gradient(name): g for name, g in gradient.items()}
