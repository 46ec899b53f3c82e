"""A whole loop as one CUDA kernel, for sizes that are known: who computes what, and where it lies.

The worker of a loop's program is a thread, which has a row of the states in its registers; or a
block, whose threads do together what the worker does, and which has some rows, or some units of
all rows. Blocks with rows never wait for each other; blocks with units meet between the stages of
a step. Sizes that weights have are numbers in the text; the number of steps and of rows are not.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import DeviceError
from ..record import replace
from .block_kernel import Blocks, by_units
from .chain_kernel import chain_launch
from .launches import DoesNotFit, Sized
from .limits import Limits, memory_text
from .program import Launch


def launch_of(
    loop: Sized, chain: Sized | None, limits: Limits, scope: str = "", precision: str = "float32"
) -> Launch:
    """The kernel of a loop for its sizes: of this scope where it has one, else of the narrowest
    that holds states and weights. `precision`: of the factors of products with weights that are
    held on chip. Raises DoesNotFit where there is none."""
    reasons: dict[str, str] = {}  # against scopes
    ways: list[tuple[str, Callable[[], Launch]]] = [
        ("thread", lambda: chain_launch(loop, chain, limits)),
        ("block", lambda: _narrow_block(loop, limits, precision)),
        ("grid", lambda: by_units(loop, limits, precision)),
        ("block", lambda: Blocks(loop, limits, False, precision).launch()),
    ]
    for way, make in [*(x for x in reversed(ways) if x[0] == scope), *ways]:
        try:
            made = make()
            if limits.architecture == "sm_75" and precision in ("bf16", "tf32"):
                _refuse_rounded(made, limits, precision)
            narrower = [(s, reasons[s]) for s in _NARROWEST_FIRST if s in reasons and s != way]
            return replace(made, against=tuple(narrower))
        except DoesNotFit as e:
            reasons[way] = f"{e}"
    raise DoesNotFit("; ".join(f"not {s}: {why}" for s, why in reasons.items()))


_NARROWEST_FIRST = ("thread", "block", "grid")


def _refuse_rounded(made: Launch, limits: Limits, precision: str) -> None:
    if any(w.precision == precision for w in made.weights):
        raise DeviceError(
            f"dot_precision {precision!r} needs sm_80, and {limits.name} is an sm_75: "
            "use 'fp16' or 'float32'"
        )


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
