"""The emulated CUDA device: the texts of the kernels that a GPU runs, run by the host, for proof
where there is no GPU. Its arrays are NumPy's."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from ..codegen.limits import Limits, of
from ..codegen.program import Launch
from . import emulator

_SCHEDULE = os.environ.get("GPUSCAN_EMULATED_SCHEDULE", "0")
_schedules = itertools.count(-1)


class Emulated:
    """limits: of the GPU that it stands for; scope: in which loops run that have a kernel of it;
    schedule: whose turn it is, as `emulator.launch` says, None: another one in each launch."""

    name = "emulated"
    has_own_arrays = False
    has_views = True
    limits: Limits = of("emulated")
    scope = os.environ.get("GPUSCAN_EMULATED_SCOPE", "")
    schedule: int | None = None if _SCHEDULE == "vary" else int(_SCHEDULE)

    def active(self) -> AbstractContextManager[None]:
        return nullcontext()

    def array(self, x: Any) -> Any:
        return np.asarray(x)

    def empty(self, shape: Sequence[int], dtype: str) -> Any:
        found = np.empty(shape, dtype)
        found.reshape(-1).view("uint8").fill(0xFF)  # what is not written shows
        return found

    def host(self, x: Any) -> Any:
        return x

    def address(self, x: Any) -> int:
        return int(x.ctypes.data)

    def build(self, source: str, name: str) -> Any:
        return _built(source, name)

    def launch(self, kernel: Any, launch: Launch, arguments: Sequence[int]) -> None:
        emulator.launch(
            kernel, launch.grid, launch.block, launch.shared, arguments, launch.cooperative,
            next(_schedules) if self.schedule is None else self.schedule,
        )  # fmt: skip

    def product(self, x: Any, y: Any) -> Any:
        return x @ y


@functools.lru_cache(maxsize=4096)
def _built(source: str, name: str) -> Any:
    return emulator.build(source, [name])[name]
