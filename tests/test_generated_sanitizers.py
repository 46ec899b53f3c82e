"""Generated CUDA kernels under sanitizers, on the emulated device: silent as they are, and loud
where a barrier or a meeting is taken out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from models import MODELS

from gpuscan.codegen.program import Done, Held, Launch
from gpuscan.errors import BuildError, DeviceError
from gpuscan.runtime import emulator
from gpuscan.runtime.emulated import Emulated


@dataclass
class Run:
    """A loop's kernel, what it was given, and what it made of it."""

    launch: Launch
    given: list[np.ndarray | int]
    made: list[np.ndarray]

    def sanitized(self, sanitizer: str, schedule: int = 0) -> str:
        """The sanitizer's report, where the results are those of the plain run."""
        x = self.launch
        made, report = emulator.run_sanitized(
            x.source, x.name, x.grid, x.block, x.shared, self.given, sanitizer, x.cooperative,
            schedule,
        )  # fmt: skip
        if not report:
            for a, b in zip(made, self.made, strict=True):
                np.testing.assert_array_equal(a, b)
        return report

    def without(self, words: str, number: int) -> Run:
        """The same with one line less: that of its loop with these words, the first, second, .."""
        lines = self.launch.source.splitlines(keepends=True)
        start = next(n for n, line in enumerate(lines) if "for (long long t" in line)
        found = [n for n, line in enumerate(lines) if n > start and line.strip() == words]
        del lines[found[number]]
        return replace(self, launch=_with_source(self.launch, "".join(lines)))


def _with_source(launch: Launch, source: str) -> Launch:
    from gpuscan.record import replace

    return replace(launch, source=source)


class Recorded(Emulated):
    """Remembers what the kernels of loops are given."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        self.runs: list[Run] = []
        self.arrays: dict[int, Any] = {}

    def array(self, x: Any) -> Any:
        return np.asarray(x, order="C")  # what a program of its own is given has no strides

    def address(self, x: Any) -> int:
        found = super().address(x)
        self.arrays[found] = x
        return found

    def launch(self, kernel: Any, launch: Launch, arguments: Any) -> None:
        arrays = [
            self.arrays[given] if isinstance(what, Held | Done) else given
            for what, given in zip(launch.arguments, arguments, strict=True)
        ]
        before = [x.copy() if isinstance(x, np.ndarray) else x for x in arrays]
        super().launch(kernel, launch, arguments)
        if "for (long long t" in launch.source:
            made = [x.copy() for x in arrays if isinstance(x, np.ndarray)]
            self.runs.append(Run(launch, before, made))
