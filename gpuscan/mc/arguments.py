"""The arguments of a run: what is given, checked and in one form."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..config import config
from ..errors import listed
from ..graph import Variable
from ..record import record
from ..types import dtype_name
from .kernel import OWN, Array
from .output import Coords, Dims
from .program import Arrays

METRICS = ("mean", "variance", "r_hat")


@record
class Options:
    """The arguments of a run, as `sample` describes them."""

    draws: int | None
    tune: int
    chains: int | None
    thin: int
    seed: Any
    keep: Any
    reduce: Any
    discard_tuned_samples: bool
    dims: Dims | None
    coords: Coords | None
    executor: Any
    chains_per_task: int | None
    checkpoint: Any
    every: int | None
    chunk: int | None
    chunk_bytes: int | None
    device: str | None
    kind: str

    def __post_init__(self) -> None:
        """Raises TypeError and ValueError for what can't be right whatever the kernel is."""
        least = {"draws": 0, "tune": 0, "thin": 1, "chains": 1, "chains_per_task": 1, "every": 1,
                 "chunk": 1, "chunk_bytes": 1}  # fmt: skip
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None or name in ("tune", "thin"):
                object.__setattr__(self, name, whole(name, value, low))
        if self.executor is not None and not callable(getattr(self.executor, "submit", None)):
            raise TypeError(
                f"executor is {self.executor!r}, expected one with a method submit(), such as "
                "concurrent.futures has them"
            )
        if self.every is not None and self.checkpoint is None:
            raise ValueError(f"every is {self.every}, but checkpoint names no file")


def whole(name: str, value: Any, least: int) -> int:
    """An int that is at least so much. Raises TypeError and ValueError."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, expected an int of at least {least}") from None
    if number < least:
        raise ValueError(f"{name} is {number}, expected at least {least}")
    return number


def position_of(init: Any) -> Arrays:
    """Copies of the arrays of `init`, by name. Raises TypeError and ValueError."""
    named = init if isinstance(init, Mapping) else {"x": init}
    if not named:
        raise ValueError("init has no variables")
    found = {name: _variable(name, value) for name, value in named.items()}
    counts = {name: len(x) for name, x in found.items()}
    if len(set(counts.values())) > 1:
        text = listed(f"{n} of {name!r}" for name, n in counts.items())
        raise ValueError(f"init: the first axis is the chains, and there are {text}")
    if not next(iter(counts.values())):
        raise ValueError("init has no chains: the first axis is the chains, and it is empty")
    return found


def _variable(name: Any, value: Any) -> Array:
    if not isinstance(name, str) or not name or "/" in name or name.startswith(OWN):
        raise ValueError(f"init: {name!r} can't be a variable's name, expected text without '/'")
    if name in ("chain", "draw"):
        raise ValueError(f"init: no variable can be called {name!r}, which is an axis of the draws")
    if isinstance(value, Variable):
        raise TypeError(f"init: {name!r} is the symbolic {value}, expected an array")
    try:
        x = np.array(value)
    except (TypeError, ValueError) as e:
        raise TypeError(f"init: {name!r} can't be an array: {e}") from None
    try:
        dtype_name(x.dtype)
    except TypeError as e:
        raise TypeError(f"init: {name!r}: {e}") from None
    if not x.ndim:
        raise ValueError(
            f"init: {name!r} is a number, expected an array whose first axis is the chains"
        )
    if x.dtype == np.float64 and not hasattr(value, "dtype"):
        return x.astype(config.floatX)
    return np.ascontiguousarray(x, x.dtype.newbyteorder("="))


def users(state: Mapping[str, Array]) -> Arrays:
    """The part of a state that is the user's."""
    return {n: x for n, x in state.items() if not n.startswith(OWN)}


def names(keep: Any, position: Arrays) -> list[str]:
    """The variables to keep, in the order of the position."""
    if keep is None:
        return list(position)
    wanted = [keep] if isinstance(keep, str) else list(keep)
    for name in wanted:
        if name not in position:
            raise ValueError(f"keep names {name!r}; the variables are {listed(position)}")
    return [name for name in position if name in wanted]


def metrics(reduce: Any) -> list[str]:
    """The reductions, in the order of METRICS."""
    wanted = [] if reduce is None else [reduce] if isinstance(reduce, str) else list(reduce)
    for metric in wanted:
        if metric not in METRICS:
            raise ValueError(f"reduce names {metric!r}, expected some of {listed(METRICS)}")
    return [metric for metric in METRICS if metric in wanted]


def check_kernel(kernel: Any, tune: int) -> dict[str, Array]:
    """The schedule of the kernel's warm-up. Raises TypeError for what is no kernel."""
    for method in ("start", "step", "schedule", "tune", "check"):
        if not callable(getattr(kernel, method, None)):
            raise TypeError(
                f"kernel is {kernel!r}, expected what mc.gibbs(step), mc.hmc(logp), ... give, or "
                f"an object with the methods of mc.kernel.Kernel: it has no {method}()"
            )
    if not tune:
        return {}
    found = {name: np.asarray(rows) for name, rows in kernel.schedule(tune).items()}
    for name, rows in found.items():
        if rows.shape[:1] != (tune,):
            raise ValueError(
                f"{kernel.name}: the schedule's {name!r} has the shape {rows.shape}, expected "
                f"{tune} rows"
            )
    return found
