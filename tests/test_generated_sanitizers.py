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
from gpuscan.errors import BuildError
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
        if "for (long long t" not in launch.source:  # no loop's
            super().launch(kernel, launch, arguments)
            return
        arrays = [
            self.arrays[given] if isinstance(what, Held | Done) else given
            for what, given in zip(launch.arguments, arguments, strict=True)
        ]
        before = [x.copy() if isinstance(x, np.ndarray) else x for x in arrays]
        super().launch(kernel, launch, arguments)
        made = [x.copy() for x in arrays if isinstance(x, np.ndarray)]
        self.runs.append(Run(launch, before, made))


def runs(name: str, hidden: int, batch: int, scope: str) -> list[Run]:
    """A model's loops in a scope, forward and backward."""
    recorder = Recorded(scope)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpuscan.runtime.emulated.Emulated", lambda: recorder)
        model = MODELS[name](hidden)
        model.function("emulated")(*model.values(batch, 3))
    assert [r.launch.scope for r in recorder.runs] == [scope] * len(recorder.runs)
    return recorder.runs


@pytest.fixture(scope="module", params=["thread", "address"])
def sanitizer(request: pytest.FixtureRequest) -> str:
    if reason := emulator.missing():
        pytest.skip(reason)
    text = '#include "emulated.h"\nextern "C" __global__ void idle(long long n) {}'
    try:
        emulator.run_sanitized(text, "idle", 1, 32, 0, [1], request.param)
    except BuildError as e:
        pytest.skip(f"{emulator.find()} has no {request.param} sanitizer: {e}".splitlines()[0])
    return request.param


# A draw; weights in a thread's registers, in a block's; reductions; meetings of the grid.
KERNELS = [
    ("metropolis", 1, 70, "thread", 1), ("elman", 2, 5, "thread", 2), ("elman", 33, 3, "block", 2),
    ("layer_norm_lstm", 5, 3, "block", 1), ("elman", 72, 3, "grid", 2), ("gibbs", 12, 3, "grid", 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "hidden", "batch", "scope", "count"), KERNELS)
def test_generated_kernels_are_silent(
    name: str, hidden: int, batch: int, scope: str, count: int, sanitizer: str
) -> None:
    found = runs(name, hidden, batch, scope)
    assert len(found) >= count
    for schedule, run in enumerate(found[:count]):
        assert run.sanitized(sanitizer, schedule) == ""


def barriers(run: Run) -> Iterator[tuple[str, int]]:
    """The lines of a loop where threads wait for each other."""
    loop = run.launch.source.partition("for (long long t")[2]
    for words in ("__syncthreads();", "if (gs_meet(meeting)) return;"):
        for number in range(len(re.findall(rf"^ +{re.escape(words)}$", loop, re.MULTILINE))):
            yield words, number


@pytest.mark.parametrize(
    ("name", "hidden", "batch", "scope", "parts"),
    [("elman", 33, 3, "block", 2), ("elman", 72, 3, "grid", 2), ("gibbs", 12, 3, "grid", 1)],
)
def test_without_any_one_of_its_barriers_a_race_is_found(
    name: str, hidden: int, batch: int, scope: str, parts: int, sanitizer: str
) -> None:
    if sanitizer != "thread":
        pytest.skip("of races")
    for run in runs(name, hidden, batch, scope)[:parts]:
        found = list(barriers(run))
        assert found
        for words, number in found:
            report = run.without(words, number).sanitized(sanitizer)
            assert "data race" in report, f"without {words} number {number}"


def test_a_pointer_that_is_too_far_is_found(sanitizer: str) -> None:
    if sanitizer != "address":
        pytest.skip("of addresses")
    (run, *_) = runs("metropolis", 1, 70, "thread")
    source, changes = re.subn(r"row >= rows", "row > rows", run.launch.source)
    assert changes == 1
    beyond = replace(run, launch=_with_source(run.launch, source))
    assert "heap-buffer-overflow" in beyond.sanitized(sanitizer)
