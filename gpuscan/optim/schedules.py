"""Learning rates that change: functions from the number of updates made so far to a rate.

A schedule is called once, with an int64 scalar that is 0 for the first update, and returns the
expression of the rate, a scalar; any function that does is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

from ..errors import listed
from ..graph import Variable
from ..ops.elemwise import cast
from ..ops.scalar import cos, lt, maximum, minimum, pow, switch, true_div
from .arguments import count, number

Schedule: TypeAlias = Callable[[Variable], Any]


def constant_schedule(rate: Any) -> Schedule:
    """The same rate always."""
    value = number(rate, "constant_schedule: rate")
    return lambda step: value


def exponential_decay(rate: Any, decay: Any, steps: int = 1) -> Schedule:
    """rate * decay ** (step / steps): it falls by the factor `decay` in so many steps. With steps=1
    PyTorch's ExponentialLR, otherwise Optax's exponential_decay."""
    first = number(rate, "exponential_decay: rate")
    factor = number(decay, "exponential_decay: decay", ends="()")
    over = _float(count(steps, "exponential_decay: steps"))
    return lambda step: first * pow(factor, true_div(cast(step, "float64"), over))


def step_decay(rate: Any, decay: Any, steps: int) -> Schedule:
    """rate * decay ** (step // steps): it is multiplied by `decay` every so many steps. PyTorch's
    StepLR."""
    first = number(rate, "step_decay: rate")
    factor = number(decay, "step_decay: decay", ends="()")
    every = count(steps, "step_decay: steps")
    return lambda step: first * pow(factor, cast(step // every, "float64"))


def linear_warmup(rate: Any, steps: int, start: Any = 0.0) -> Schedule:
    """From `start` in a straight line to `rate`, where it is after so many steps, and stays.
    Optax's linear_schedule."""
    first, last = number(start, "linear_warmup: start"), number(rate, "linear_warmup: rate")
    part = _part(count(steps, "linear_warmup: steps"))
    return lambda step: first + (last - first) * part(step)


def cosine_decay(rate: Any, steps: int, end: Any = 0.0) -> Schedule:
    """From `rate` down half a cosine to `end`, where it is after so many steps, and stays:
    end + (rate - end) * (1 + cos(pi * step / steps)) / 2 (Loshchilov and Hutter, 2017). PyTorch's
    CosineAnnealingLR up to its T_max."""
    first, last = number(rate, "cosine_decay: rate"), number(end, "cosine_decay: end")
    part, half = _part(count(steps, "cosine_decay: steps")), _float(0.5)

    def schedule(step: Variable) -> Variable:
        wave = cos(part(step) * _float(math.pi))
        return last + (first - last) * (half * (wave + _float(1)))

    return schedule


def join_schedules(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """One schedule after the other. The first of `boundaries` is the step at which the second
    begins, and so on, so there is one less; each counts from its own begin. Optax's function of
    this name, PyTorch's SequentialLR."""
    parts, ends = list(schedules), list(boundaries)
    for i, s in enumerate(parts):
        if not callable(s):
            raise TypeError(f"join_schedules: schedules[{i}] is no schedule, got {s!r}")
    if not parts or len(ends) != len(parts) - 1:
        raise ValueError(
            f"join_schedules: {len(parts)} schedules have {max(0, len(parts) - 1)} boundaries "
            f"between them, got {len(ends)}"
        )
    begins = [0, *[count(b, f"join_schedules: boundaries[{i}]") for i, b in enumerate(ends)]]
    if any(b <= a for a, b in pairwise(begins)):
        raise ValueError(f"join_schedules: boundaries have to rise, got {listed(ends)}")

    def schedule(step: Variable) -> Variable:
        found = rate_of(parts[0], step)
        for begin, part in zip(begins[1:], parts[1:]):
            later = rate_of(part, maximum(step - begin, 0))
            found = switch(lt(step, begin), found, later)
        return found

    return schedule


def rate_of(schedule: Schedule, step: Variable) -> Variable:
    """The rate, a float64 scalar. Raises TypeError where the schedule gives anything else."""
    return number(schedule(step), "the learning rate of a schedule")


def _part(steps: int) -> Callable[[Variable], Variable]:
    """How much of so many steps has been made, from 0 to 1."""
    return lambda step: true_div(cast(minimum(step, steps), "float64"), _float(steps))


def _float(x: float) -> Variable:
    return number(x, "a constant")
