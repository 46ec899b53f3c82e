"""How a warm-up finds the step size and the scales of a target, for each chain on its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph import Variable
from ..ops.convert import constant
from ..ops.elemwise import cast, full_like
from ..ops.scalar import eq, exp, gt, log, pow, sqrt, switch
from ..record import record
from .density import filled
from .kernel import OWN, Array, State

STEP_SIZE = OWN + "step_size"  # of the next transition


# ---- the step size ------------------------------------------------------------------------------

# The values of Hoffman & Gelman, which Stan has too.
GAMMA, T0, KAPPA = 0.05, 10, 0.75

_ERROR, _CENTRE, _MEAN = OWN + "error", OWN + "log_step_centre", OWN + "log_step_mean"


@record
class StepSize:
    """Dual averaging of the log of a step size, until the mean acceptance rate is `target`.

    From the step size e on, after the m-th transition, whose acceptance rate was a (Hoffman &
    Gelman 2014, "The No-U-Turn Sampler", JMLR 15, section 3.2):

        error     H <- (1 - 1/(m + t0)) H + (target - a)/(m + t0)
        next      log e_m = log(10 e) - sqrt(m)/gamma H
        mean      log E <- m^-kappa log e_m + (1 - m^-kappa) log E

    Early errors move it by factors, so it needs no search for a first step size. The mean E is the
    step size after the warm-up.
    """

    target: float
    dtype: str

    def start(self, position: State, first: Any) -> State:
        return self._again(filled(position, first, self.dtype))

    def _again(self, first: Variable) -> State:
        """The state of an adaptation that starts with these step sizes."""
        zero = full_like(first, 0)
        centre = log(first * constant(10, dtype=self.dtype))
        return {STEP_SIZE: first, _ERROR: zero, _CENTRE: centre, _MEAN: zero}

    def after(self, state: State, rate: Variable, m: Variable, last: Variable) -> State:
        """The state after a transition with these acceptance rates, the m-th since the start;
        `last`: of the warm-up."""

        def number(x: float) -> Variable:
            return constant(x, dtype=self.dtype)

        m = cast(m, self.dtype)
        weight = number(1) / (m + number(T0))
        error = state[_ERROR] + weight * (number(self.target) - rate - state[_ERROR])
        new = state[_CENTRE] - sqrt(m) / number(GAMMA) * error
        mean = state[_MEAN] + pow(m, number(-KAPPA)) * (new - state[_MEAN])
        return {
            STEP_SIZE: exp(switch(last, mean, new)),
            _ERROR: error,
            _CENTRE: state[_CENTRE],
            _MEAN: mean,
        }

    def again(self, closes: Variable, state: State, first: Variable) -> State:
        """Where `closes`, the state of an adaptation that starts again with these step sizes."""
        return {name: switch(closes, new, state[name]) for name, new in self._again(first).items()}


# ---- the scales ---------------------------------------------------------------------------------

# Stan's: transitions before the first window, in it, and after the last one.
FIRST, WINDOW, LAST = 75, 25, 50


def windows(tune: int) -> list[tuple[int, int]]:
    """The steps of a warm-up that the scales are estimated from, as ranges [start, stop).

    They are Stan's (Reference Manual, "HMC algorithm parameters", automatic parameter tuning;
    windowed_adaptation.hpp): each is twice as long as the one before, and one that leaves no room
    for the next is stretched to the final interval. A warm-up below 150 steps has one window, of
    three quarters of it; one below 20 none.
    """
    if tune < 20:
        return []
    first, window, last = FIRST, WINDOW, LAST
    if first + window + last > tune:
        first, last = int(0.15 * tune), int(0.1 * tune)
        window = tune - first - last
    start, end, found = first, tune - last, []
    while start < end:
        stop = start + window
        if stop + 2 * window > end:  # no room for one twice as long
            stop = end
        found.append((start, stop))
        start, window = stop, 2 * window
    return found


def schedule(tune: int, scales: bool = True) -> dict[str, Array]:
    """What each step of a warm-up is told.

    step        its number since the step size's adaptation last started, from 1
    in_window   its number within a window, from 1; 0 outside of windows
    closes      is it the last step of a window?
    last        is it the last step of the warm-up?
    """
    number, in_window = np.arange(1, tune + 1), np.zeros(tune, "int64")
    closes = np.zeros(tune, bool)
    for start, stop in windows(tune) if scales else []:
        in_window[start:stop] = np.arange(1, stop - start + 1)
        closes[stop - 1] = True
        number[stop:] = np.arange(1, tune - stop + 1)
    last = np.arange(1, tune + 1) == tune
    return {"step": number, "in_window": in_window, "closes": closes, "last": last}


@record
class Variances:
    """Estimates of the variance of each number of the position, by Welford's algorithm over the
    steps of a window (Welford 1962), and regularised towards 0.001 as Stan does: n draws of
    variance v give (n v + 5 * 0.001)/(n + 5). The state holds the estimate of the last window that
    is complete under `variance/NAME`."""

    @staticmethod
    def names(x: str) -> tuple[str, str, str]:
        """Of the mean and the sum of squares of a window, and of the variance."""
        return OWN + "mean/" + x, OWN + "squares/" + x, OWN + "variance/" + x

    def start(self, position: State, variances: State) -> State:
        state: State = {}
        for name, x in position.items():
            mean, squares, variance = self.names(name)
            zero = full_like(x, 0)
            state |= {mean: zero, squares: zero, variance: zero + variances[name]}
        return state

    def of(self, state: State, position: State) -> State:
        return {name: state[self.names(name)[2]] for name in position}

    def after(self, state: State, position: State, n: Variable, closes: Variable) -> State:
        """The state after the n-th step of a window, which led to `position`; n = 0 outside of
        windows. `closes`: it is the last one."""
        new: State = {}
        for name, x in position.items():
            mean, squares, variance = self.names(name)

            def number(c: float, dtype: str = x.dtype) -> Variable:
                return constant(c, dtype=dtype)

            count, first, inside = cast(n, x.dtype), eq(n, 1), gt(n, 0)
            old = switch(first, x, state[mean])
            away = x - old
            middle = old + away / switch(inside, count, number(1))
            sum_ = switch(first, number(0), state[squares]) + away * (x - middle)
            estimate = sum_ / switch(closes, count - number(1), number(1))
            shrunk = (count * estimate + number(5e-3)) / (count + number(5))
            new |= {
                mean: switch(inside, middle, state[mean]),
                squares: switch(inside, sum_, state[squares]),
                variance: switch(closes, shrunk, state[variance]),
            }
        return new
