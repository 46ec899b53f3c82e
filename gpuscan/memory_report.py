"""How much memory a call of a function takes, before it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .codegen.limits import memory_text
from .compile_cuda import CudaProgram
from .errors import describe
from .graph import Variable
from .memory_walk import MOST_VALUES, Walk
from .memory_walk_cuda import CudaWalk
from .record import record
from .runtime.scripts import NativeProgram
from .types import is_on_gpu

_LINES = 20  # of arrays in the text


@record
class Held:
    """An array that is there when the memory is at its peak. kind: "input", "shared", "output",
    "history" (rows of a loop, one a step), "state" (of a loop), "scratch" (a kernel's own),
    "value", or "kept" (for arrays to come: it holds none; the name is that of the last one)."""

    kind: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int

    def __str__(self) -> str:
        what = f"{self.dtype} {self.shape}" if self.kind not in ("scratch", "kept") else ""
        return f"{memory_text(self.bytes):>10}  {self.kind:8} {self.name} {what}".rstrip()


@record
class MemoryReport:
    """How many bytes a call takes at its peak, as data, and as a table by str().

    peak       bytes of all arrays, when there are most
    given      of these the bytes of arguments and shared variables, which are there before
    at         the node that runs then
    arrays     those of the peak, the largest first
    """

    function: str
    device: str
    peak: int
    given: int
    at: str
    arrays: tuple[Held, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.function}: device {self.device}, {memory_text(self.peak)} at the peak, "
            f"{memory_text(self.given)} of it arguments and shared variables; in {self.at}:"
        ]
        lines += [f"  {a}" for a in self.arrays[:_LINES]]
        if rest := self.arrays[_LINES:]:
            total = memory_text(sum(a.bytes for a in rest))
            lines.append(f"  {total:>10}  in {len(rest)} more arrays")
        return "\n".join(lines)


def shape_given(x: Any, v: Variable) -> tuple[int, ...] | None:
    """What was given for v as a shape; None where it is no shape, but an array. Raises TypeError
    for a shape that v can't have."""
    if not isinstance(x, tuple) or v.ndim == 0:
        return None
    if not all(isinstance(n, int | np.integer) for n in x):
        return None
    known: tuple[int | None, ...] = v.type.shape
    if len(x) != len(known) or any(k not in (None, n) for k, n in zip(known, x)):
        raise TypeError(f"memory_report: {describe(v)} can't have the shape {x}")
    return tuple(map(int, x))


def report(
    function: str, device: str, program: Any, given: Mapping[Variable, Any],
    shared: Sequence[Variable],
) -> MemoryReport:  # fmt: skip
    """What a call takes. given: per input of the program an array, or a shape as a tuple."""
    walk = Walk()
    if isinstance(program, CudaProgram):
        walk, program = CudaWalk(program.device, program.stay), program.program
    elif isinstance(program, NativeProgram):
        program = program.whole
    values: list[Any] = []
    for v in program.inputs:
        x = given[v]
        shape = x if isinstance(x, tuple) else np.shape(x)
        place = walk.given(v, shape, "shared" if v in shared else "input", is_on_gpu(x))
        # the numbers steer: sizes may follow from them
        known = isinstance(x, np.ndarray | np.generic) and (not shape or not v.type.is_float)
        values.append(np.asarray(x) if known and np.size(x) <= MOST_VALUES else place)
        values.append(place)
    held = values[1::2]
    before = walk.ledger.now
    results = walk.run(program.inputs, program.outputs, values[::2])
    walk.finish(results, held)
    found = [
        Held(label.kind, label.name, label.dtype, label.shape, size) if serves
        else Held("kept", f"since {label.name or label.kind}", "uint8", (size,), size)
        for size, serves, label in walk.ledger.most
    ]  # fmt: skip
    found.sort(key=lambda a: -a.bytes)
    return MemoryReport(
        function, device, walk.ledger.peak, before, walk.ledger.at,
        tuple(a for a in found if a.bytes),
    )  # fmt: skip
