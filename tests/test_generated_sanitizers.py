"""Generated CUDA kernels under sanitizers, on the emulated device: silent as they are, and loud
where a barrier or a meeting is taken out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from models import MODELS

import gpuscan
from gpuscan import tensor as T
from gpuscan.codegen.program import Launch
from gpuscan.errors import BuildError
from gpuscan.kernel_files import kernels_dir
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

    def with_lines(self, lines: Mapping[int, str]) -> Run:
        """The same with other words in these lines of its text."""
        found = self.launch.source.splitlines()
        for n, words in lines.items():
            found[n] = words
        return replace(self, launch=_with_source(self.launch, "\n".join(found) + "\n"))


def _with_source(launch: Launch, source: str) -> Launch:
    from gpuscan.record import replace

    return replace(launch, source=source)


class Recorded(Emulated):
    """Remembers what kernels are given: those of loops, or those that stand outside."""

    def __init__(self, scope: str, loops: bool = True) -> None:
        self.loops = loops
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
        if ("for (long long t =" in launch.source) != self.loops:
            super().launch(kernel, launch, arguments)
            return
        arrays = [self.arrays.get(given, given) for given in arguments]  # no integer is so large
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


def runs_outside(inputs: list[Any], outputs: list[Any], *values: np.ndarray) -> list[Run]:
    """The kernels of a function without loops."""
    recorder = Recorded("", loops=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpuscan.runtime.emulated.Emulated", lambda: recorder)
        gpuscan.function(inputs, outputs, device="emulated")(*values)
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
    if (name, hidden, sanitizer) == ("elman", 72, "address"):
        hidden = 24  # of 72 a compiler takes half a minute, for bounds that are found as well here
    found = runs(name, hidden, batch, scope)
    assert len(found) >= count
    for schedule, run in enumerate(found[:count]):
        assert run.sanitized(sanitizer, schedule) == ""


def barriers(run: Run) -> list[tuple[str, dict[int, str]]]:
    """Where the threads of a loop wait for each other, and the lines without it: of a meeting of
    the grid what is left is the block's own barrier."""
    found: list[tuple[str, dict[int, str]]] = []
    entered, inside = -1, False
    for n, line in enumerate(run.launch.source.splitlines()):
        inside = inside or "for (long long t =" in line
        if not inside:
            continue
        if line.strip() == "__syncthreads();":
            found.append(("barrier", {n: ""}))
        elif "gs_meet(" in line:
            found.append(("meeting", {n: "__syncthreads();"}))
        elif "gs_enter(" in line:
            entered = n
        elif "gs_leave(" in line:
            found.append(("meeting", {entered: "__syncthreads();", n: "__syncthreads();"}))
    return found


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
        found = barriers(run)
        meetings = [what for what, _ in found].count("meeting")
        assert found and meetings == run.launch.meetings and (meetings > 0) == (scope == "grid")
        for what, lines in found:
            report = run.with_lines(lines).sanitized(sanitizer)
            assert "data race" in report, f"without the {what} of lines {list(lines)}"


# ---- outside of loops ----------------------------------------------------------------------------

x, m, rows = T.fvector("x"), T.fmatrix("m"), T.lvector("rows")
_rng = np.random.default_rng(0)
LONG, TALL = (_rng.standard_normal(size).astype("float32") for size in (5000, (300, 33)))
PLACES = np.array([0, 2, 2, 8])
OUTSIDE: dict[str, tuple[list[Any], list[Any], list[np.ndarray]]] = {
    "sums over many blocks": ([x], [T.tanh(x).sum(), x.max()], [LONG]),
    "sums of columns over many blocks": ([m], [(m * m).sum(axis=0)], [TALL]),
    "sums of rows": ([m], [T.exp(m - m.max(axis=1, keepdims=True)).sum(axis=1)], [TALL[:4, :4]]),
    "a chain of rows": ([m], [T.nnet.softmax(m)], [TALL[:33, :4]]),
    "rows from and to places": ([m, rows], [T.inc_subtensor(m[rows], m[rows])], [TALL, PLACES]),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_kernels_outside_of_loops_are_silent(name: str, sanitizer: str) -> None:
    inputs, outputs, values = OUTSIDE[name]
    found = runs_outside(inputs, outputs, *values)
    assert found
    for run in found:
        assert ("gs_is_last" in run.launch.source) == ("many blocks" in name)
        assert run.launch.grid > 1 or run.launch.name == "scatter"  # a thread has its columns
        assert run.sanitized(sanitizer, schedule=1) == ""


@pytest.mark.parametrize("fence", ["before the count", "behind it"])
def test_without_a_fence_the_last_block_races(fence: str, sanitizer: str) -> None:
    if sanitizer != "thread":
        pytest.skip("of races")
    inputs, outputs, values = OUTSIDE["sums over many blocks"]
    (run,) = runs_outside(inputs, outputs, *values)
    header = (kernels_dir() / "persistent.h").read_text()
    begin = header.index("GS_FN int gs_is_last(")
    parts = header[begin : header.index("\n}\n", begin) + 3].split("__threadfence();")
    assert len(parts) == 3
    parts.insert(1 if fence == "behind it" else 2, "__threadfence();")  # the other one stays
    planted = "".join(parts).replace("gs_is_last", "planted")
    source = run.launch.source.replace("gs_is_last", "planted")
    source = source.replace('extern "C"', f'{planted}\nextern "C"', 1)
    report = replace(run, launch=_with_source(run.launch, source)).sanitized(sanitizer)
    assert "data race" in report


def test_a_pointer_that_is_too_far_is_found(sanitizer: str) -> None:
    if sanitizer != "address":
        pytest.skip("of addresses")
    (run, *_) = runs("metropolis", 1, 70, "thread")
    source, changes = re.subn(r"row >= rows", "row > rows", run.launch.source)
    assert changes == 1
    beyond = replace(run, launch=_with_source(run.launch, source))
    assert "heap-buffer-overflow" in beyond.sanitized(sanitizer)
