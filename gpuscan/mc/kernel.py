"""What a sampler is, and what comes out of one: the parts of `gpuscan.mc` meet in these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np

from ..graph import Variable
from ..record import record

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
State: TypeAlias = dict[str, Variable]

OWN = "own/"  # starts the names of what a kernel carries beside the position


class Kernel(Protocol):
    """One transition of all chains at once, as expressions.

    A state is a dict of variables whose first axis is the chains. It holds the position, under the
    user's names and in the user's order, and what the kernel carries itself from one transition to
    the next (a log density, its gradient, a step size, ...), under names that start with OWN.
    Statistics are a dict of vectors, one element a chain, with ArviZ's names where it has one.
    Whatever is random takes its draws from `random`, or from streams that the user closed over:
    whoever runs the kernel gives their states new keys, so that chain c of seed s draws the same
    numbers in whatever company it runs. So the first axis of a draw is the chains, or it is a
    scalar, which all chains share.
    """

    name: str  # for people: "hmc"

    def start(self, position: State) -> State:
        """The state of chains that stand at `position`, which it contains."""
        ...

    def step(self, state: State, random: Any) -> tuple[State, State]:
        """The state after one transition, and its statistics."""
        ...

    def schedule(self, tune: int) -> dict[str, Array]:
        """What each of `tune` steps of a warm-up is told: arrays whose first axis is the steps."""
        ...

    def tune(self, state: State, told: State, random: Any) -> tuple[State, State]:
        """As `step`, for a step of the warm-up, which may change how later ones go. `told` holds
        the step's rows of the schedule."""
        ...

    def check(self, state: Mapping[str, Array]) -> None:
        """Raises ValueError where the values of a starting state can't be sampled from."""
        ...


@record
class Chunk:
    """Some consecutive draws of all chains, on the host."""

    warmup: bool
    first: int  # the number of its first draw among the draws of its phase that are kept, from 0
    chains: Array  # int64: the chains' numbers
    samples: dict[str, Array]  # (chains, draws, ...)
    stats: dict[str, Array]  # (chains, draws)
