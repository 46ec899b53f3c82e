"""A whole loop as one CUDA kernel, for sizes that are known: who computes what, and where it lies.

The worker of a loop's program is a thread, which has a row of the states in its registers; or a
block, whose threads do together what the worker does, and which has some rows, or some units of
all rows. Blocks with rows never wait for each other; blocks with units meet between the stages of
a step. Sizes that weights have are numbers in the text; the number of steps and of rows are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..errors import DeviceError
from ..record import replace
from .block_kernel import Blocks, by_units
from .chain_kernel import chain_launch
from .cost import StepCost, all_units, predict, work_of
from .launches import DoesNotFit, Sized
from .limits import Limits, memory_text, without
from .program import Launch


def launch_of(
    loop: Sized, chain: Sized | None, limits: Limits, scope: str = "", precision: str = "float32"
) -> Launch:
    """The kernel of a loop for its sizes: of this scope where it has one, else of the narrowest
    that holds states and weights. `precision`: of the factors of products with weights that are
    held on chip. Raises DoesNotFit where there is none."""
    ways: list[tuple[str, Callable[[], Launch]]] = [
        ("thread", lambda: chain_launch(loop, chain, limits)),
        ("block", lambda: _narrow_block(loop, limits, precision)),
        ("grid", lambda: by_units(loop, limits, precision)),
        ("block", lambda: Blocks(loop, limits, False, precision).launch()),
    ]
    ways = [*(x for x in reversed(ways) if x[0] == scope), *ways]
    if loop.rows is None and not scope:
        return _quickest(loop, chain, ways, limits, precision)
    reasons: dict[str, str] = {}  # against scopes
    for way, make in ways:
        try:
            return _with_reasons(_possible(make(), limits, precision), reasons)
        except DoesNotFit as e:
            reasons[way] = f"{e}"
    raise _none(reasons)


def _none(reasons: Mapping[str, str]) -> DoesNotFit:
    return DoesNotFit("; ".join(f"not {s}: {why}" for s, why in reasons.items()))


_NARROWEST_FIRST = ("thread", "block", "grid")


def _with_reasons(made: Launch, reasons: Mapping[str, str]) -> Launch:
    narrower = [(s, reasons[s]) for s in _NARROWEST_FIRST if s in reasons and s != made.scope]
    return replace(made, against=tuple(narrower))


def _quickest(
    loop: Sized, chain: Sized | None, ways: Sequence[tuple[str, Callable[[], Launch]]],
    limits: Limits, precision: str,
) -> Launch:  # fmt: skip
    """Of the kernels of a state without rows that are apart, which one worker may have or many, the
    one whose steps are predicted to be the shortest; the narrowest of those that are alike."""
    found: list[tuple[float, Launch]] = []
    reasons: dict[str, str] = {}
    for way, make in ways:
        try:
            made = make()
        except DoesNotFit as e:
            reasons.setdefault(way, f"{e}")
            continue
        sized = chain if made.scope == "thread" and chain is not None else loop
        found.append((predict(worker_cost(sized, made, limits), limits, precision).seconds, made))
    if not found:
        raise _none(reasons)
    seconds, best = min(found, key=lambda x: x[0])
    for other, made in found:
        if made.scope != best.scope and seconds:  # none has to do anything for nothing
            reasons[made.scope] = f"a step is predicted to take {other / seconds:.1f} times as long"
    alone = seconds if best.grid == 1 else 0.0
    return replace(_with_reasons(_possible(best, limits, precision), reasons), alone=alone)


def worker_cost(
    sized: Sized, launch: Launch, gpu: Limits, numbers: Mapping[str, int] | None = None
) -> StepCost:
    """What a worker does in a step, and reads of the others; numbers: that the step is given, by
    name, where they are known."""
    program, scope, units = sized.program, launch.scope, sized.program.units
    exchanged = 0
    if scope == "grid" and units is not None:
        own_rows = {k: n for k, n in launch.most if k == sized.rows}  # of a group of blocks
        exchanged = sum(sized.value(n, own_rows) * np.dtype(d).itemsize for d, n in units.exchanged)
    values = all_units(program, sized.values, sized.value) | dict(numbers or {}) | dict(launch.most)
    work = work_of(program, values, gpu, 1 if scope == "thread" else launch.block, launch.weights)
    together = launch.block if scope == "thread" else 1
    return StepCost(
        scope, launch.grid, launch.block, max(program.schedule.stages, work.stages),
        launch.meetings, work.products, work.busy * together, work.longest, exchanged,
    )  # fmt: skip


def _possible(made: Launch, limits: Limits, precision: str) -> Launch:
    """The kernel, where the GPU has what its products need. Raises DeviceError."""
    reason = without(precision, limits)
    if reason and any(w.precision == precision for w in made.weights):
        raise DeviceError(f"dot_precision {reason}: use 'fp16' or 'float32'")
    return made


def _narrow_block(loop: Sized, limits: Limits, precision: str) -> Launch:
    """A loop for blocks that never wait for each other, and hold the weights."""
    shared = loop.program.units is not None
    if shared and loop.rows is None:
        raise DoesNotFit(loop.program.schedule.reason.partition(", so")[0])
    made = Blocks(loop, limits, False, precision).launch()
    if shared and any(w.place == "memory" for w in made.weights):
        weights = memory_text(sum(w.size for w in made.weights))
        raise DoesNotFit(f"weights of {weights} do not fit its registers and shared memory")
    return made
