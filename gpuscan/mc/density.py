"""Log densities of chains, and what kernels do with the position that they are of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..gradient import grad
from ..graph import Variable
from ..ops.convert import as_tensor, constant
from ..ops.elemwise import cast
from ..ops.reduce import sum as total
from ..ops.scalar import eq, exp, isnan, minimum, or_, switch
from ..ops.shape import broadcast_to, dim, dims, dimshuffle
from ..types import FLOATS, promote
from .kernel import OWN, Array, State

LP = OWN + "lp"  # the log density at the position


# ---- variables whose first axis is the chains ---------------------------------------------------


def position_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """What of a state is the user's."""
    return {name: value for name, value in state.items() if not name.startswith(OWN)}


def chains_of(position: State) -> Variable:
    """How many they are."""
    return dim(next(iter(position.values())), 0)


def per_chain(x: Variable) -> Variable:
    """The sum of each chain's elements."""
    return total(x, axis=tuple(range(1, x.ndim))) if x.ndim > 1 else x


def across(v: Variable, x: Variable) -> Variable:
    """A vector, one element a chain, that broadcasts over x's other axes."""
    return dimshuffle(v, 0, *["x"] * (x.ndim - 1)) if x.ndim > 1 else v


def choose(accepted: Variable, new: State, old: State) -> State:
    """The new values of the chains that accepted them, and the old ones of the others."""
    return {name: switch(across(accepted, new[name]), new[name], old[name]) for name in new}


def filled(position: State, value: Any, dtype: str) -> Variable:
    """A vector, one element a chain, of one value."""
    one = cast(value, dtype) if isinstance(value, Variable) else constant(value, dtype=dtype)
    return broadcast_to(one, [chains_of(position)])


def normals(position: State, random: Any) -> State:
    """Standard normal draws, one for each number of the position, with its dtype."""
    return {name: random.normal(tuple(dims(x)), dtype=x.dtype) for name, x in position.items()}


def uniforms(position: State, random: Any, dtype: str) -> Variable:
    """A draw between 0 and 1 for each chain."""
    drawn: Variable = random.uniform((chains_of(position),), dtype=dtype)
    return drawn


def float_dtype(position: State, kernel: str, why: str) -> str:
    """The dtype of what a kernel computes itself: the widest of the position's, so that nothing
    depends on floatX.

    Raises TypeError where a variable is not of floats.
    """
    for name, x in position.items():
        if x.dtype not in FLOATS:
            raise TypeError(f"{kernel}: {name!r} is {x.dtype}, expected floats: {why}")
    return promote(*(x.dtype for x in position.values()))


# ---- the log density ----------------------------------------------------------------------------


class LogDensity:
    """A user's `logp`: logp(*position), in the position's order, is the log density of each chain,
    up to a constant, as a vector of floats."""

    def __init__(self, logp: Callable[..., Any], kernel: str) -> None:
        if not callable(logp):
            raise TypeError(
                f"{kernel}: logp is {logp!r}, expected a function of the position that returns "
                "the log density of each chain"
            )
        self.logp, self.kernel = logp, kernel

    def __call__(self, position: State) -> Variable:
        """Raises ValueError where it isn't one number per chain, TypeError where not of floats."""
        lp = as_tensor(self.logp(*position.values()))
        if lp.ndim != 1:
            what = (
                "one number for all chains"
                if lp.ndim == 0
                else f"{lp.ndim} dimensions, expected one number per chain"
            )
            raise ValueError(
                f"{self.kernel}: logp has {what}: the first axis of the position is the chains, so "
                "sum over its other axes only, as in `x.sum(axis=1)`"
            )
        if lp.dtype not in FLOATS:
            raise TypeError(f"{self.kernel}: logp is {lp.dtype}, expected floats")
        for x in position.values():
            got, chains = lp.type.shape[0], x.type.shape[0]
            if None not in (got, chains) and got != chains:
                raise ValueError(self._not_chains(got, chains))
        return lp

    def with_gradient(self, position: State) -> tuple[Variable, State]:
        """The log density, and its gradient by each variable."""
        lp = self(position)
        found = grad(total(lp), list(position.values()))
        return lp, {n: cast(g, x.dtype) for (n, x), g in zip(position.items(), found)}

    def check(self, state: Mapping[str, Array]) -> None:
        """Raises ValueError where chains can't start."""
        check_position(state, self.kernel)
        lp = state[LP]
        chains = len(next(iter(position_of(state).values())))
        if lp.shape != (chains,):
            raise ValueError(self._not_chains(len(lp), chains))
        wrong = np.flatnonzero(~np.isfinite(lp))
        if wrong.size:
            raise ValueError(
                f"{self.kernel}: logp is {lp[wrong[0]]} at the start of chain {wrong[0]}"
                f"{_and_more(wrong)}: a chain has to start where it is finite"
            )

    def _not_chains(self, got: Any, chains: Any) -> str:
        return (
            f"{self.kernel}: logp has {got} elements for {chains} chains: the first axis of the "
            "position is the chains, so sum over its other axes only, as in `x.sum(axis=1)`"
        )


def check_position(state: Mapping[str, Array], kernel: str) -> None:
    """Raises ValueError where a chain starts at NaN or infinity."""
    for name, x in position_of(state).items():
        if x.dtype.kind != "f":
            continue
        wrong = np.argwhere(~np.isfinite(x))
        if wrong.size:
            raise ValueError(
                f"{kernel}: {name!r} is {x[tuple(wrong[0])]} at the start of chain {wrong[0][0]}"
                f"{_and_more(np.unique(wrong[:, 0]))}, expected finite numbers"
            )


def _and_more(chains: Array) -> str:
    return f" (and of {len(chains) - 1} more)" if len(chains) > 1 else ""


def acceptance(change: Variable) -> tuple[Variable, Variable]:
    """The probability min(1, exp(change)) of taking a move that changes the log density so, and
    where there is none: a change that is NaN or +infinity has the probability 0."""
    none = or_(isnan(change), eq(change, constant(np.inf, dtype=change.dtype)))
    zero = constant(0, dtype=change.dtype)
    return switch(none, zero, exp(minimum(change, zero))), none


# ---- arguments ----------------------------------------------------------------------------------


class Widths:
    """An argument that is a positive number, an array that broadcasts to one chain's values of
    every variable, or a dict of these by the variables' names."""

    def __init__(self, value: Any, kernel: str, what: str) -> None:
        self.kernel, self.what = kernel, what
        named = value if isinstance(value, Mapping) else {"": value}
        self.values = {name: self._array(v, name) for name, v in named.items()}

    def _array(self, value: Any, name: str) -> Array:
        where = f"{self.what} of {name!r}" if name else self.what
        try:
            array = np.asarray(value, "float64")
        except (TypeError, ValueError):
            raise TypeError(
                f"{self.kernel}: {where} is {value!r}, expected a positive number, an array of "
                "these, or a dict of them by the names of the variables"
            ) from None
        wrong = array[~((array > 0) & np.isfinite(array))]
        if wrong.size:
            raise ValueError(
                f"{self.kernel}: {where} is {wrong.flat[0]}, expected finite numbers above 0"
            )
        return array

    def of(self, position: State) -> State:
        """For each variable a constant that broadcasts to it, with its dtype.

        Raises ValueError for names and shapes that are not the position's.
        """
        if "" not in self.values and set(self.values) != set(position):
            raise ValueError(
                f"{self.kernel}: {self.what} is for {sorted(self.values)}, expected the variables "
                f"{sorted(position)}"
            )
        return {name: self._fitting(name, x) for name, x in position.items()}

    def _fitting(self, name: str, x: Variable) -> Variable:
        array = self.values.get(name, self.values.get(""))
        assert array is not None
        one = x.type.shape[1:]
        fits = array.ndim <= len(one) and all(
            n in (1, m) or m is None for n, m in zip(array.shape[::-1], one[::-1])
        )
        if not fits:
            raise ValueError(
                f"{self.kernel}: {self.what} has the shape {array.shape}, which does not broadcast "
                f"to {name!r}'s shape without the chains, {one}"
            )
        return constant(array, dtype=x.dtype)


def between(value: Any, low: float, high: float, kernel: str, what: str) -> float:
    """A number strictly between low and high."""
    number = isinstance(value, int | float | np.integer | np.floating)
    if not number or not low < value < high:
        wanted = f"between {low:g} and {high:g}" if np.isfinite(high) else f"above {low:g}"
        error = ValueError if number else TypeError
        raise error(f"{kernel}: {what} is {value!r}, expected a number {wanted}")
    return float(value)
