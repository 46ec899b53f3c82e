"""Kernels whose whole transition the user writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..graph import Variable
from ..ops.convert import as_tensor
from .density import LP, LogDensity, check_position, position_of
from .kernel import Array, Kernel, State


def gibbs(
    step: Callable[..., Any], logp: Callable[..., Any] | None = None, name: str = "gibbs"
) -> Kernel:
    """A Gibbs sampler, or any transition of one's own.

    step(*position) returns the position after one transition of all chains. It gets the variables
    in the order of init's names, each with the chains as its first axis, and returns them as one
    variable, as a list or tuple in the same order, or as a dict by name; a variable that the dict
    lacks stays as it is. Each keeps its dtype and dimensions. Random numbers come from a
    RandomStreams that the step uses from outside: their first axis has to be the chains. A tuple
    (position, statistics) records statistics too: a dict of vectors, one element a chain.

    logp(*position), a vector with one element a chain, is recorded as the statistic "lp".

    Drawing each variable from its distribution given all others (Geman & Geman 1984) leaves the
    joint distribution as it is. Whether a transition of your own does is up to you.
    """
    return _Own(step, logp, name)


class _Own:
    def __init__(self, step: Any, logp: Any, name: str) -> None:
        if not callable(step):
            raise TypeError(
                f"{name}: step is {step!r}, expected a function of the position that returns the "
                "next one"
            )
        self.name, self._step = name, step
        self._logp = None if logp is None else LogDensity(logp, name)

    def start(self, position: State) -> State:
        return position | ({} if self._logp is None else {LP: self._logp(position)})

    def step(self, state: State, random: Any) -> tuple[State, State]:
        position = position_of(state)
        made, stats = self._step(*position.values()), {}
        if isinstance(made, list | tuple) and len(made) == 2 and isinstance(made[1], Mapping):
            made, stats = made
        new = self._named(made, position)
        found = {n: self._statistic(n, s) for n, s in stats.items()}
        if self._logp is None:
            return new, found
        lp = self._logp(new)
        return new | {LP: lp}, found | {"lp": lp}

    def schedule(self, tune: int) -> dict[str, Array]:
        return {}

    def tune(self, state: State, told: State, random: Any) -> tuple[State, State]:
        return self.step(state, random)

    def check(self, state: Mapping[str, Array]) -> None:
        if self._logp is None:
            check_position(state, self.name)
        else:
            self._logp.check(state)

    def _named(self, made: Any, position: State) -> State:
        """The new position, in the order of the old one."""
        if isinstance(made, Mapping):
            if unknown := [n for n in made if n not in position]:
                raise ValueError(
                    f"{self.name}: the step returns {unknown[0]!r}, expected some of the variables "
                    f"{list(position)}"
                )
            values = [made.get(n, x) for n, x in position.items()]
        else:
            values = list(made) if isinstance(made, list | tuple) else [made]
        if len(values) != len(position):
            raise ValueError(
                f"{self.name}: the step returns {len(values)} values, expected one for each of the "
                f"variables {list(position)}"
            )
        return {n: self._fitting(n, v, position[n]) for n, v in zip(position, values)}

    def _fitting(self, name: str, value: Any, old: Variable) -> Variable:
        new: Variable = as_tensor(value)
        if (new.dtype, new.ndim) != (old.dtype, old.ndim):
            raise TypeError(
                f"{self.name}: the step makes {name!r} {new.dtype} with {new.ndim} dimensions, "
                f"expected {old.dtype} with {old.ndim}, as in init"
            )
        return new

    def _statistic(self, name: Any, value: Any) -> Variable:
        if not isinstance(name, str):
            raise TypeError(
                f"{self.name}: the step returns a dict with the key {name}, expected the names of "
                "statistics; the states of random streams need no updates here"
            )
        found: Variable = as_tensor(value)
        if found.ndim != 1:
            raise ValueError(
                f"{self.name}: the statistic {name!r} has {found.ndim} dimensions, expected a "
                "vector with one element a chain"
            )
        return found
