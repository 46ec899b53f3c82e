"""A minute's proof that a device computes what the reference does: python -m gpuscan selftest."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from . import tensor as T
from .codegen.cost import TENSOR
from .codegen.limits import without
from .codegen.program import Launch
from .config import DEVICES, config
from .function import Function, function
from .gradient import grad
from .graph import Variable
from .record import record
from .runtime.calls import MEETING
from .runtime.device import missing, select
from .scan.frontend import scan
from .shared import shared
from .tensor.shared_randomstreams import RandomStreams

NO_DEVICE = 3  # the process's status
# What an error may be at most, against the largest value: of sums in another order; with factors
# that are rounded, 30 of their roundings.
_MOST = {"float32": 1e-4, "float64": 1e-12, "tf32": 30 / 2**11, "bf16": 30 / 2**8,
         "fp16": 30 / 2**11}  # fmt: skip


@record
class Case:
    """A loop and its gradient, in a scope; "launch": steps as CUDA graphs. precision: of values, or
    only of products' factors."""

    scope: str
    precision: str = "float32"

    @property
    def dtype(self) -> str:
        return "float64" if self.precision == "float64" else "float32"

    def __str__(self) -> str:
        return f"scope {self.scope}" + f", {self.precision}" * (self.precision != "float32")


CASES = (
    *(Case(scope) for scope in ("thread", "block", "grid", "launch")),
    *(Case(scope, "float64") for scope in ("thread", "block", "grid", "launch")),
    *(Case(scope, p) for p in ("tf32", "bf16", "fp16") for scope in ("block", "grid")),
)


def devices() -> Iterator[str]:
    """A line for each device: that it is here, or why it is not."""
    for name in DEVICES:
        if name not in ("auto", "cuda"):
            yield f"  {name}: {missing(name) or 'here'}"


def selftest(name: str, say: Callable[[str], None] = print) -> int:
    """Runs the tests on a device and says what they find; the status for the process: 0, 1 where
    something differs, 3 where the device is not here."""
    if reason := missing(name):
        say(f"no selftest: device {name!r} is not here: {reason}")
        return NO_DEVICE
    device = select(name)
    if not hasattr(device, "launch"):
        say(f"no selftest: device {name!r} runs no CUDA; there are cupy, pycuda and emulated")
        return NO_DEVICE
    say("devices:")
    for line in devices():
        say(line)
    gpu = device.limits
    say(f"{device.name} on {gpu.name} ({gpu.architecture}, {gpu.multiprocessors} multiprocessors):")
    tests: dict[str, Callable[[Any], str]] = {
        **{str(case): functools.partial(_case, case=case) for case in CASES},
        "draws": _draws,
        "a meeting": _meeting,
    }
    fine = [_passes(what, test, device, say) for what, test in tests.items()]
    say("all is well" if all(fine) else "not all is well: please report this, with what is above")
    return 0 if all(fine) else 1


def _passes(what: str, test: Callable[[Any], str], device: Any, say: Callable[[str], None]) -> bool:
    """Runs a test and says what it found, or in a line why it could not."""
    try:
        found = test(device)
    except Exception as e:  # a kernel that does not build, say: the others are tried
        first = str(e).partition("\n")[0]
        found = f"FAILED, {type(e).__name__}: {first}"
    say(f"  {what}: {found}")
    return not found.startswith(("WRONG", "FAILED"))


# ---- loops ---------------------------------------------------------------------------------------


def _logistic(dtype: str) -> tuple[list[Variable], list[Variable], list[np.ndarray]]:
    """A chain of its own for each element: fits a thread."""
    rate, start = T.vector("rate", dtype), T.vector("start", dtype)
    xs, _ = scan(lambda x, r: r * x * (1 - x), outputs_info=[start], non_sequences=[rate],
                 n_steps=20)  # fmt: skip
    random = np.random.default_rng(0)
    values = [random.uniform(2.5, 3.2, 100), random.uniform(0.1, 0.9, 100)]
    return [rate, start], [xs, *grad(T.sum(xs[-1] ** 2), [rate, start])], values


def _elman(dtype: str) -> tuple[list[Variable], list[Variable], list[np.ndarray]]:
    """A recurrent network: blocks have rows of the batch, or units of the state."""
    given, start = T.tensor3("given", dtype), T.matrix("start", dtype)
    weights = T.matrix("weights", dtype)
    hs, _ = scan(
        lambda x, h, w: T.tanh(x + T.dot(h, w)), sequences=[given], outputs_info=[start],
        non_sequences=[weights],
    )  # fmt: skip
    random = np.random.default_rng(1)
    # weights that forget: errors of one step are not larger in the next
    values = [random.normal(0, d, s) for d, s in
              ((0.3, (20, 4, 33)), (0.3, (4, 33)), (0.1, (33, 33)))]  # fmt: skip
    inputs = [given, start, weights]
    return inputs, [hs, *grad(T.sum(hs[-1] ** 2), inputs)], values


def _case(device: Any, case: Case) -> str:
    if reason := without(case.precision, device.limits):
        return f"skipped, {reason}"
    make = _logistic if case.scope == "thread" else _elman
    inputs, outputs, values = make(case.dtype)
    values = [v.astype(case.dtype) for v in values]
    products = case.precision if case.dtype == "float32" else "float32"
    fuse = "never" if case.scope == "launch" else "auto"
    with _noting(type(device), case) as ran, config.change_flags(dot_precision=products):
        f = function(inputs, outputs, device=device.name, fuse=fuse)
        f(*values)
        ran.clear()
        found = f(*values)  # as CUDA graphs, which are made for what comes again
        loops, how = len(ran), dict.fromkeys(ran)
        seconds = _seconds(f, values)
    expected = function(inputs, outputs, device="reference")(*values)
    errors = [float(np.max(np.abs(x - y)) / np.max(np.abs(y))) for x, y in zip(found, expected)]
    most = _MOST[case.precision]
    fine = max(errors) < most and list(how) == [str(case)]
    ways = " and ".join(x.removeprefix("scope ") for x in how)
    return (
        f"{'right' if fine else 'WRONG'}, forward {errors[0]:.0e} and backward "
        f"{max(errors[1:]):.0e} from the reference (at most {most:.0e}); "
        f"{loops} loops ran as {ways or 'nothing'}; {1e3 * seconds:.2f} ms a call"
    )


@contextlib.contextmanager
def _noting(kind: Any, case: Case) -> Iterator[list[str]]:
    """Loops run in this scope, and it is noted as what case each ran."""
    noted: list[str] = []
    launch, replay, before = kind.launch, kind.replay, kind.scope

    def launching(self: Any, kernel: Any, how: Launch, arguments: Sequence[int]) -> None:
        if how.name.startswith("loop"):
            rounds = case.precision in TENSOR and "wmma" not in how.source
            noted.append(str(Case(how.scope, "float32" if rounds else case.precision)))
        launch(self, kernel, how, arguments)

    def replaying(self: Any, graph: Any) -> None:
        noted.append(str(Case("launch", case.precision)))
        replay(self, graph)

    kind.launch, kind.replay = launching, replaying
    kind.scope = "" if case.scope == "launch" else case.scope
    try:
        yield noted
    finally:
        kind.launch, kind.replay, kind.scope = launch, replay, before


def _seconds(f: Function, values: Sequence[np.ndarray]) -> float:
    """Of a call whose kernels are there already."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        f(*values)
        times.append(time.perf_counter() - start)
    return min(times)


# ---- draws ---------------------------------------------------------------------------------------


def _draws(device: Any) -> str:
    """Draws inside of a loop, and what the next call draws."""
    found = []
    for name in (device.name, "reference"):
        stream, total = RandomStreams(2024), shared(np.zeros(10, "float32"))
        ys, updates = scan(
            lambda y, stream=stream: y + stream.uniform((10,)), outputs_info=[total], n_steps=7
        )
        f = function([], ys, updates=updates, device=name)
        found.append(np.stack([f(), f()]))
    fine = bool(np.array_equal(found[0].view("uint32"), found[1].view("uint32")))
    return f"{'the same bits' if fine else 'WRONG, not the bits'} as the reference's"


# ---- meetings ------------------------------------------------------------------------------------

_MEETINGS = """#include "persistent.h"

extern "C" __global__ void meetings(long long *meeting, long long count) {
    for (long long i = 0; i < count; i++)
        if (gs_meet(meeting)) return;
}
"""


def _meeting(device: Any) -> str:
    seconds, blocks = meeting_seconds(device)
    return f"{1e6 * seconds:.2f} us, of {blocks} blocks"


def meeting_seconds(device: Any, count: int = 1000) -> tuple[float, int]:
    """How long all blocks of a grid, one on each multiprocessor, take to wait for each other; and
    how many they are."""
    gpu = device.limits
    blocks, threads = gpu.multiprocessors, min(256, gpu.threads_block)
    how = Launch(
        "meetings", _MEETINGS, (), blocks, threads, 0, True, "grid", "to time a meeting", count
    )

    def seconds(n: int) -> float:
        meeting = device.array(np.zeros(MEETING, "int64"))
        start = time.perf_counter()
        device.launch(kernel, how, [device.address(meeting), n])
        device.host(meeting)  # waits
        return time.perf_counter() - start

    with device.active():
        kernel = device.build(how.source, how.name)
        none, all_of_them = (min(seconds(n) for _ in range(3)) for n in (0, count))
    return max(0.0, all_of_them - none) / count, blocks
