"""What a call of a function has of its loops on a device that runs CUDA: where they say how many
steps they ran and whether their blocks met, and when that is read."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..codegen.program import Launch
from ..errors import DeviceError

MEETING = 48  # integers, as kernels/grid.h has it
_NOT_MET = (
    "kernel {!r}: some of its {} blocks waited in vain for the others, so it gave up. The GPU may "
    "be shared with other programs, or slow for a debugger; if not, please report it. "
    "fuse='never' runs the loop without waiting"
)


class Pages(threading.local):
    """Small arrays of the device with given numbers in them, each for one launch. They are parts of
    one that is copied there at once: a copy from the host takes longer than a launch."""

    def __init__(self, numbers: Sequence[int], count: int) -> None:
        self.numbers, self.count = np.tile(np.asarray(numbers, "int64"), count), count
        self.each = len(numbers)
        self.left: dict[Any, tuple[Any, int]] = {}  # by GPU and stream

    def take(self, device: Any, count: int = 1) -> Any:
        """So many of them, one behind the other."""
        if count > self.count:
            return device.array(np.resize(self.numbers, count * self.each))
        key = device.name, device.place, device.stream()
        page, start = self.left.get(key, (None, self.count))
        if start + count > self.count:
            page, start = device.array(self.numbers.copy()), 0
        self.left[key] = page, start + count
        return page[start * self.each : (start + count) * self.each]


dones = Pages((-1, 0), 128)  # a kernel that ends says its steps
meetings = Pages((0,) * MEETING, 64)  # where nobody has met: a loop counts from 0


class Unread(threading.local):
    """Loops whose blocks meet, and what each will have said of that when it is at its end."""

    loops: list[tuple[Launch, Any]] | None = None


_unread = Unread()
_MOST_UNREAD = 64


@contextlib.contextmanager
def one_call(device: Any) -> Iterator[None]:
    """Within it the host waits for no loop that runs all its steps: at the end of the call, and so
    before a shared variable is updated, it reads whether blocks waited in vain. Raises DeviceError
    where they did."""
    if _unread.loops is not None:
        yield
        return
    _unread.loops = []
    try:
        yield
        _read_all(device)
    except DeviceError:
        raise
    except Exception:  # it may be of values that are worth nothing
        _read_all(device)
        raise
    finally:
        _unread.loops = None


def _read_all(device: Any) -> None:
    assert _unread.loops is not None
    for launch, done in _unread.loops:
        check_met(launch, *device.host(done))
    _unread.loops.clear()


def check_met(launch: Launch, done: int, failed: int) -> None:
    if failed or done < 0:
        raise DeviceError(_NOT_MET.format(launch.name, launch.grid))


def read_later(device: Any, launch: Launch, done: Any) -> None:
    """Reads at the end of the call whether the blocks of a loop met."""
    with one_call(device):
        assert _unread.loops is not None
        _unread.loops.append((launch, done))
        if len(_unread.loops) == _MOST_UNREAD:
            _read_all(device)
