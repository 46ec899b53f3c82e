"""A minute's proof that a device computes what the reference does: python -m gpuscan selftest."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from . import tensor as T
from .codegen.program import Launch
from .config import DEVICES
from .function import Function, function
from .gradient import grad
from .graph import Variable
from .runtime.cuda import MEETING
from .runtime.device import missing, select
from .scan.frontend import scan
from .shared import shared
from .tensor.shared_randomstreams import RandomStreams

NO_DEVICE = 3  # the process's status
SCOPES = ("thread", "block", "grid")
_ERROR = 1e-4  # of float32, against the largest value


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
    fine = [_scope(device, scope, say) for scope in SCOPES]
    fine.append(_draws(device, say))
    seconds, blocks = meeting_seconds(device)
    say(f"  a meeting of {blocks} blocks: {1e6 * seconds:.2f} us")
    say("all is well" if all(fine) else "results differ: please report this, with what is above")
    return 0 if all(fine) else 1


# ---- loops ---------------------------------------------------------------------------------------


def _logistic() -> tuple[list[Variable], list[Variable], list[np.ndarray]]:
    """A chain of its own for each element: fits a thread."""
    rate, start = T.vector("rate"), T.vector("start")
    xs, _ = scan(lambda x, r: r * x * (1 - x), outputs_info=[start], non_sequences=[rate],
                 n_steps=20)  # fmt: skip
    random = np.random.default_rng(0)
    values = [random.uniform(2.5, 3.2, 100), random.uniform(0.1, 0.9, 100)]
    return [rate, start], [xs, *grad(T.sum(xs[-1] ** 2), [rate, start])], values


def _elman() -> tuple[list[Variable], list[Variable], list[np.ndarray]]:
    """A recurrent network: blocks have rows of the batch, or units of the state."""
    given, start, weights = T.tensor3("given"), T.matrix("start"), T.matrix("weights")
    hs, _ = scan(
        lambda x, h, w: T.tanh(x + T.dot(h, w)), sequences=[given], outputs_info=[start],
        non_sequences=[weights],
    )  # fmt: skip
    random = np.random.default_rng(1)
    values = [random.normal(0, 0.3, s) for s in ((20, 4, 33), (4, 33), (33, 33))]
    inputs = [given, start, weights]
    return inputs, [hs, *grad(T.sum(hs[-1] ** 2), inputs)], values


def _scope(device: Any, scope: str, say: Callable[[str], None]) -> bool:
    inputs, outputs, values = _logistic() if scope == "thread" else _elman()
    values = [v.astype("float32") for v in values]
    with _noting(type(device), scope) as launches:
        f = function(inputs, outputs, device=device.name)
        found = f(*values)
        ran = [how.scope for how in launches if how.name.startswith("loop")]
        seconds = _seconds(f, values)
    expected = function(inputs, outputs, device="reference")(*values)
    errors = [float(np.max(np.abs(x - y)) / np.max(np.abs(y))) for x, y in zip(found, expected)]
    fine = max(errors) < _ERROR and set(ran) == {scope}
    say(
        f"  scope {scope}: {'right' if fine else 'WRONG'}, forward {errors[0]:.0e} and backward "
        f"{max(errors[1:]):.0e} from the reference; {len(ran)} loops ran as {'/'.join(set(ran))}; "
        f"{1e3 * seconds:.2f} ms a call"
    )
    return fine


@contextlib.contextmanager
def _noting(kind: Any, scope: str) -> Iterator[list[Launch]]:
    """Loops run in this scope, and their launches are noted."""
    noted: list[Launch] = []
    launch, before = kind.launch, kind.scope

    def noting(self: Any, kernel: Any, how: Launch, arguments: Sequence[int]) -> None:
        noted.append(how)
        launch(self, kernel, how, arguments)

    kind.launch, kind.scope = noting, scope
    try:
        yield noted
    finally:
        kind.launch, kind.scope = launch, before


def _seconds(f: Function, values: Sequence[np.ndarray]) -> float:
    """Of a call whose kernels are there already."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        f(*values)
        times.append(time.perf_counter() - start)
    return min(times)


# ---- draws ---------------------------------------------------------------------------------------


def _draws(device: Any, say: Callable[[str], None]) -> bool:
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
    say(f"  draws: {'the same bits' if fine else 'WRONG, not the bits'} as the reference's")
    return fine


# ---- meetings ------------------------------------------------------------------------------------

_MEETINGS = """#include "persistent.h"

extern "C" __global__ void meetings(long long *meeting, long long count) {
    for (long long i = 0; i < count; i++)
        if (gs_meet(meeting)) return;
}
"""


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
