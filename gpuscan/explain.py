"""How a function's scans run on a GPU, for sizes that are known: what is chosen, what a step takes,
and how long that is predicted to be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .codegen import operands
from .codegen.cost import Prediction, StepCost, all_units, predict, work_of
from .codegen.launches import DoesNotFit, Sized
from .codegen.limits import Limits, memory_text, occupancy
from .codegen.persistent import launch_of
from .codegen.plan import NotLowered
from .codegen.program import (
    Exchanged,
    Given,
    Held,
    Launch,
    Placed,
    Scratch,
    Size,
    State,
    Stride,
    Trace,
)
from .compile import LoopPlan, name_of
from .compile_cuda import Fused, lowered, sequence_plan, sequenced
from .errors import BuildError, DeviceError
from .evaluate import Program
from .graph import Constant, Variable, toposort
from .ops.shape import Dim
from .record import record, replace
from .rules.shapes import pushed_dims
from .runtime import nvrtc
from .runtime.graphs import StepLaunches
from .scan.op import Scan

UNKNOWN = "sizes, and with them the scope, are known at the first call"


@record
class KernelPlan:
    """A loop's kernel on a GPU, for some sizes. Bytes, flops and seconds are those of a step where
    nothing else is said; what needs the compiled kernel is None where there is none.

    target     the GPU
    against    the narrower scopes, and why not those
    launches   of a call
    blocks     of a launch
    threads    of a block
    shared     bytes of shared memory a block
    registers  of a thread
    spills     bytes a thread stores and loads since it has no more registers
    stack      bytes a thread
    together   blocks that a multiprocessor can hold
    uncompiled why there is no compiled kernel
    meetings   of all blocks
    exchanged  bytes that blocks read of each other's values: each block up to so many
    read       bytes of sequences
    written    bytes of traces
    kept       bytes of device memory that are read and written for states and other values
    floor      bytes of sequences and traces, each once
    flops      two a multiply-add of a product, one any other function of a float
    least      whether there is more of them, in loops whose length is not known
    weights    packed operands of products, and where a block holds how many bytes of them
    precision  of the factors of products with those in registers
    predicted  seconds, never measured ones
    """

    target: str
    against: tuple[tuple[str, str], ...]
    launches: int
    blocks: int
    threads: int
    shared: int
    registers: int | None
    spills: int | None
    stack: int | None
    together: int | None
    uncompiled: str
    meetings: int
    exchanged: int
    read: int
    written: int
    kept: int
    floor: int
    flops: int
    least: bool
    weights: tuple[Placed, ...]
    precision: str
    predicted: Prediction

    def held(self, place: str) -> int:
        """Bytes of weights that a block has in "registers", in "shared" memory, or in "memory":
        these it reads again every step."""
        return sum(w.size for w in self.weights if w.place == place)

    def lines(self) -> list[str]:
        """The text, by lines."""
        found = [f"not {scope}: {why}" for scope, why in self.against]
        parts = [f"{_many(self.launches, 'launch', 'es')} a call", _many(self.blocks, "block")]
        parts[1] += f" of {_many(self.threads, 'thread')}"
        if self.registers is not None:
            parts.append(f"{self.registers} registers a thread")
            lost = [f"{memory_text(n)} of {what}" for n, what in
                    ((self.spills, "spills"), (self.stack, "stack")) if n]  # fmt: skip
            parts += lost or ["no spills"]
        if self.shared:
            parts.append(f"{memory_text(self.shared)} of shared memory a block")
        found.append(f"{self.target}: {', '.join(parts)}")
        if self.uncompiled:
            found.append(f"not compiled: {self.uncompiled}")
        if self.weights:
            places = (("registers", "in registers"), ("shared", "in shared memory"),
                      ("memory", "read again every step, through L2"))  # fmt: skip
            held = [f"{memory_text(n)} {text}" for p, text in places if (n := self.held(p))]
            short = self.precision != "float32" and bool(self.held("registers"))
            line = f"weights of a block: {', '.join(held)}"
            found.append(line + f"; products there of {self.precision}" * short)
        step = [f"{'at least ' * self.least}{_scaled(self.flops)}flop"]
        if self.meetings:
            step.append(_many(self.meetings, "meeting"))
            step.append(f"{memory_text(self.exchanged)} exchanged between blocks")
        moved = self.read + self.written + self.kept
        floor = f"at least {memory_text(self.floor)}" if moved > self.floor else "no less will do"
        if not self.floor:
            floor = "none of it sequences or traces"
        step.append(f"{memory_text(moved)} of device memory" + f" ({floor})" * (moved > 0))
        found.append(f"a step: {', '.join(step)}")
        p = self.predicted
        each = {"meetings": p.meetings, "exchange": p.exchange, "products": p.products,
                "arithmetic": p.rest, "device memory beside it": p.memory}  # fmt: skip
        known = [f"{what} {_time(s)}" for what, s in each.items() if s >= p.seconds / 100]
        found.append(f"predicted, not measured: {_time(p.seconds)} a step ({', '.join(known)})")
        return found


def _many(n: int, what: str, plural: str = "s") -> str:
    return f"{n} {what}{plural * (n != 1)}"


def _scaled(n: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:.0f} "


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


# ---- plans ------------------------------------------------------------------------------------


def on_gpu(
    outputs: Sequence[Variable],
    known: Mapping[Variable, Any],
    gpu: Limits,
    scope: str,
    fuse: str,
    precision: str = "float32",
) -> tuple[LoopPlan, ...]:
    """How each scan that the outputs need runs on a GPU, in a scope where it can. known: of leaves
    their values, or shapes where the values are not known, and of scans that ran on a GPU the
    sizes that `Fused` has and the operands' shapes; precision: as `launch_of` has it."""
    plans: list[LoopPlan] = []
    for v in [v for v in toposort(outputs) if isinstance(v.op, Scan)]:
        try:
            if fuse == "never":
                raise NotLowered("fuse='never'")
            fused = replace(lowered(v, "loop"), precision=precision)
            plans.append(_plan(v, fused, known, gpu, scope))
        except NotLowered as e:
            plans.append(_sequenced(v, f"{e}", known, gpu, fuse))
    return tuple(plans)


def _sequenced(
    v: Variable, reason: str, known: Mapping[Variable, Any], gpu: Limits, fuse: str
) -> LoopPlan:
    found = known.get(v)
    if isinstance(found, StepLaunches):  # of the device that runs it
        return sequence_plan(v, reason, found)
    inner = "auto" if fuse == "always" else fuse
    like: Any = _Described(gpu)
    return sequenced(v, reason, like, inner, {}).plan


class _Described:
    """As much of a device as it takes to say what a step would start there."""

    has_own_arrays = True

    def __init__(self, limits: Limits) -> None:
        self.name, self.limits = limits.name, limits


def _plan(
    v: Variable, f: Fused, known: Mapping[Variable, Any], gpu: Limits, scope: str
) -> LoopPlan:
    dims = [Dim(axis)(x) for x in v.inputs for axis in range(x.ndim)]
    if v in known:
        sizes, shapes = known[v]
    else:
        given = integers([*f.sizes, *dims], known)
        if given is None:
            return replace(f.plan, scope="", reason=f"{UNKNOWN}; {_so_far(f)}")
        found = iter(given[len(f.sizes) :])
        shapes = [tuple(next(found) for _ in range(x.ndim)) for x in v.inputs]
        sizes = given[: len(f.sizes)]
    values: dict[str, int] = {}
    strides: dict[Any, int] = {}
    for source in (*f.program.integers, *(f.chain.integers if f.chain else ())):
        if isinstance(source, Stride):
            strides[source] = math.prod(shapes[source.operand][source.axis + 1 :])
    for name, source in zip(f.program.kernel.integers, f.program.integers):
        match source:
            case Size(k):
                values[name.text] = sizes[k]
            case Stride():
                values[name.text] = strides[source]
    count = sum(isinstance(s, Size) for s in f.program.integers)
    loop, chain = f.sized(values, sizes[count:], strides)
    try:
        launch = launch_of(loop, chain, gpu, scope, f.precision)
    except (DoesNotFit, DeviceError) as e:
        return replace(f.plan, scope="", reason=f"no kernel on {gpu.name}: {e}")
    sized = chain if launch.scope == "thread" and chain is not None else loop
    kernel = _kernel(v, sized, shapes, launch, gpu, f.precision)
    return LoopPlan(name_of(v), "fused", launch.reason, launch.scope, f.plan.stages, kernel)


def _so_far(f: Fused) -> str:
    """What is known of a loop without its sizes."""
    found = ["a thread may have a row" if f.program.rows_apart is not None else "one thread may do"]
    if f.chain is None:
        found = ["not thread: rows need each other, or a step has a product with weights"]
    if f.program.rows_apart is None and f.program.units is not None:
        found.append(f"not block: {f.program.schedule.reason.partition(', so')[0]}")
    if f.program.units is not None:
        n = f.program.units.meetings
        found.append(f"blocks that share its units meet {_many(n, 'time')} a step")
    return "; ".join(found)


def _kernel(
    v: Variable, sized: Sized, shapes: Sequence[tuple[int, ...]], launch: Launch, gpu: Limits,
    precision: str,
) -> KernelPlan:  # fmt: skip
    program, scope = sized.program, launch.scope
    assert isinstance(v.op, Scan)
    n_seqs = len(v.op.step.seqs)
    held = [x for x in launch.arguments if isinstance(x, Held)]
    rows = {x.source.operand for x in held if isinstance(x.source, Given)}
    read = sum(
        math.prod(shapes[k][1:]) * _itemsize(v.inputs[k].dtype)
        for k in range(1, 1 + n_seqs)
        if k in rows
    )
    traces = [math.prod(map(sized.value, shape)) * _itemsize(d) for d, shape in program.rows]
    written = sum(traces[x.source.trace] * x.copies for x in held if isinstance(x.source, Trace))
    kept = rounded = 0
    for x in held:
        match x.source:
            case State(j) if program.carries[j].kind == "buffers":  # one is read, one written
                carry = program.carries[j]
                size = math.prod(map(sized.value, carry.shape)) * _itemsize(carry.dtype)
                kept += size * x.copies
            case Exchanged():
                rounded += x.elements // 2  # in each step one of two buffers
            case Scratch():
                kept += 2 * x.elements * _itemsize(x.dtype) * x.copies
    again = sum(w.size for w in launch.weights if w.place == "memory")
    kept -= 2 * again * launch.grid
    units = program.units
    exchanged = 0
    if scope == "grid" and units is not None:
        own_rows = {k: n for k, n in launch.most if k == sized.rows}  # of a group of blocks
        exchanged = sum(sized.value(n, own_rows) * _itemsize(d) for d, n in units.exchanged)
        exchanged -= rounded * (_itemsize("float32") - _itemsize(operands.DTYPE))
    everything = all_units(program, sized.values, sized.value)
    all_work = work_of(program, everything, gpu, launch.block)
    threads = 1 if scope == "thread" else launch.block
    own = work_of(program, {**everything, **dict(launch.most)}, gpu, threads, launch.weights)
    together = launch.block if scope == "thread" else 1
    step = StepCost(
        scope, launch.grid, launch.block, program.schedule.stages, launch.meetings, own.products,
        own.busy * together, own.longest, exchanged, kept // max(1, launch.grid), read + written,
    )  # fmt: skip
    return _compiled(launch, gpu, KernelPlan(
        gpu.name, launch.against, 1, launch.grid, launch.block, launch.shared, None, None, None,
        None, "", launch.meetings, exchanged, read, written, kept, read + sum(traces),
        all_work.flops, not all_work.whole, launch.weights, precision,
        predict(step, gpu, precision),
    ))  # fmt: skip


def _compiled(launch: Launch, gpu: Limits, plan: KernelPlan) -> KernelPlan:
    """With what the compiled kernel takes, where there is NVRTC."""
    try:
        found = nvrtc.compile(launch.source, gpu.architecture).resources[launch.name]
    except BuildError as e:
        return replace(plan, uncompiled=f"{e}".partition("\n")[0])
    shared = launch.shared + found.shared
    return replace(
        plan, shared=shared, registers=found.registers, stack=found.stack,
        spills=found.spill_stores + found.spill_loads,
        together=occupancy(gpu, launch.block, found.registers, shared),
    )  # fmt: skip


def _itemsize(dtype: str) -> int:
    return int(np.dtype(dtype).itemsize)


# ---- sizes ------------------------------------------------------------------------------------


def integers(sizes: Sequence[Variable], known: Mapping[Variable, Any]) -> list[int] | None:
    """The values of sizes, where all of them follow from what is known of leaves: an array, or a
    shape."""
    pushed = pushed_dims(sizes)
    given: dict[Variable, Any] = {}
    stack, seen = list(pushed), set(pushed)
    while stack:
        v = stack.pop()
        if isinstance(v, Constant):
            continue
        if isinstance(v.op, Dim) and not v.inputs[0].inputs:
            x = v.inputs[0]
            if isinstance(x, Constant):
                given[v] = np.int64(x.data.shape[v.op.axis])
                continue
            shape = np.shape(known[x]) if isinstance(known.get(x), np.ndarray) else known.get(x)
            if shape is None:
                return None
            given[v] = np.int64(shape[v.op.axis])
        elif isinstance(v.op, Dim | Scan):
            return None  # of what is only known when it is computed
        elif not v.inputs:
            if not isinstance(known.get(v), np.ndarray):
                return None
            given[v] = known[v]
        else:
            new = [x for x in v.inputs if x not in seen]
            seen |= set(new)
            stack += new
    return [int(x) for x in Program(list(given), pushed)(*given.values())]
