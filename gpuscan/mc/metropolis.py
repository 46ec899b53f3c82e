"""Random-walk Metropolis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..ops.convert import static_int
from ..ops.elemwise import cast
from ..ops.scalar import lt
from ..ops.shape import dims, product
from .adaptation import STEP_SIZE, StepSize, schedule
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
    position_of,
    uniforms,
)
from .kernel import Array, Kernel, State


def random_walk_metropolis(
    logp: Callable[..., Any],
    scale: Any = 1.0,
    *,
    adapt: bool = True,
    target_accept: float | None = None,
) -> Kernel:
    """Random-walk Metropolis: all variables move at once by normal steps, and the move is taken
    with the probability min(1, p(new)/p(old)) (Metropolis et al. 1953).

    logp(*position)  the log density, up to a constant, of positions whose first axis is the
                     chains, in the order of init's names: a vector of floats, one a chain
    scale            the standard deviation of a step: a positive number, an array that broadcasts
                     to one chain's values, or a dict of these by the names of the variables
    adapt            a warm-up finds, for each chain, a factor of the scale at which `target_accept`
                     of the moves are taken, by the dual averaging of Hoffman & Gelman (2014)
    target_accept    None: 0.44 for one number, else 0.234 (Roberts, Gelman & Gilks 1997;
                     Gelman, Roberts & Gilks 1996)

    Statistics: acceptance_rate (the probability), accepted, step_size (the factor of the scale),
    lp, and invalid: the log density of the move was NaN or +infinity. Such a move isn't taken, nor
    is one whose log density is -infinity.
    """
    return _Metropolis(logp, scale, adapt, target_accept)


class _Metropolis:
    name = "random_walk_metropolis"

    def __init__(self, logp: Any, scale: Any, adapt: bool, target: float | None) -> None:
        self._logp = LogDensity(logp, self.name)
        self._scale = Widths(scale, self.name, "scale")
        self._adapt = bool(adapt)
        self._target = target
        if target is not None:
            between(target, 0, 1, self.name, "target_accept")

    def start(self, position: State) -> State:
        dtype = self._dtype(position)
        self._scale.of(position)
        state = position | {LP: self._logp(position)}
        if self._adapt:
            return state | self._step_size(position).start(position, 1)
        return state | {STEP_SIZE: filled(position, 1, dtype)}

    def step(self, state: State, random: Any) -> tuple[State, State]:
        position = position_of(state)
        dtype = self._dtype(position)
        scale, z = self._scale.of(position), normals(position, random)
        move = {
            n: x + cast(across(state[STEP_SIZE], x), x.dtype) * scale[n] * z[n]
            for n, x in position.items()
        }
        lp = self._logp(move)
        rate, invalid = acceptance(lp - state[LP])
        rate = cast(rate, dtype)
        accepted = lt(uniforms(position, random, dtype), rate)
        new = choose(accepted, move | {LP: lp}, state)
        stats = {
            "acceptance_rate": rate,
            "accepted": accepted,
            "step_size": state[STEP_SIZE],
            "lp": new[LP],
            "invalid": invalid,
        }
        return state | new, stats

    def schedule(self, tune: int) -> dict[str, Array]:
        return schedule(tune, scales=False) if self._adapt else {}

    def tune(self, state: State, told: State, random: Any) -> tuple[State, State]:
        new, stats = self.step(state, random)
        if not self._adapt:
            return new, stats
        position = position_of(state)
        size = self._step_size(position)
        rate, m, last = stats["acceptance_rate"], told["step"], told["last"]
        return new | size.after(state, rate, m, last), stats

    def check(self, state: Mapping[str, Array]) -> None:
        self._logp.check(state)

    def _dtype(self, position: State) -> str:
        return float_dtype(position, self.name, "normal steps lead away from integers")

    def _step_size(self, position: State) -> StepSize:
        return StepSize(self._target_for(position), self._dtype(position))

    def _target_for(self, position: State) -> float:
        """Best where there is one number, and where there are many that are independent."""
        if self._target is not None:
            return self._target
        count = static_int(product([d for x in position.values() for d in dims(x)[1:]]))
        return 0.44 if len(position) == 1 and count == 1 else 0.234
