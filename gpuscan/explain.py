"""How a function's scans run on a GPU, for sizes that are known: what is chosen, what a step takes,
and how long that is predicted to be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .codegen import operands
from .codegen.cost import Prediction, all_units, predict, work_of
from .codegen.launches import DoesNotFit, Sized
from .codegen.limits import Limits, memory_text, occupancy
from .codegen.persistent import launch_of, worker_cost
from .codegen.plan import NotLowered
from .codegen.program import (
    Exchanged,
    Given,
    Held,
    Launch,
    LoopProgram,
    Placed,
    Scratch,
    Size,
    State,
    Stride,
    Trace,
)
from .compile import LoopPlan, in_step, name_of
from .compile_cuda import Fused, Target, in_launches, lowered, sequence_plan, sequenced
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
    against    other scopes, and why not those
    launches   of a call, or of a step of the loop that it is in
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
    precision  to which factors of float32 are rounded, of products with those in registers
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

    def lines(self, run: str = "a call") -> list[str]:
        """The text, by lines; run: what there are so many launches of."""
        found = [f"not {scope}: {why}" for scope, why in self.against]
        parts = [f"{_many(self.launches, 'launch', 'es')} {run}", _many(self.blocks, "block")]
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
            there = [w.precision for w in self.weights if w.place == "registers"]
            line = f"weights of a block: {', '.join(held)}"
            if self.precision in there and self.precision != "float32":
                line += f"; products there of {self.precision}"
                line += ", where they are of float32" * (len(set(there)) > 1)
            found.append(line)
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
        at_least = "at least " * self.least
        found.append(
            f"predicted, not measured: {at_least}{_time(p.seconds)} a step ({', '.join(known)})"
        )
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
            plans.append(_plan(v, lowered(v, "loop", precision), known, gpu, scope, fuse))
        except NotLowered as e:
            inner = "auto" if fuse == "always" else fuse
            plans.append(_sequenced(v, f"{e}", known, gpu, inner, precision))
            assert isinstance(v.op, Scan)
            given = _known_in_step(v, known)
            plans += in_step(on_gpu(v.op.step.outputs, given, gpu, scope, inner, precision), v)
    return tuple(plans)


def _sequenced(
    v: Variable, reason: str, known: Mapping[Variable, Any], gpu: Limits, fuse: str, precision: str
) -> LoopPlan:
    found = known.get(v)
    if isinstance(found, StepLaunches):  # of the device that runs it
        return sequence_plan(v, reason, found)
    return sequenced(v, reason, _like(gpu, fuse, precision)).plan


def _known_in_step(v: Variable, known: Mapping[Variable, Any]) -> dict[Variable, Any]:
    """What is known of a step's parameters where `known` is known outside of the loop."""
    assert isinstance(v.op, Scan)
    step, o = v.op.step, v.op.split(v.inputs)
    found = {x: value for x, value in known.items() if x not in step.params}
    found |= {p: known[x] for p, x in zip(step.consts, o.consts) if x in known}
    for p, x in zip(step.params, v.inputs[1:]):
        sizes = [Dim(axis)(x) for axis in range(x.ndim - p.ndim, x.ndim)]
        if p not in found and p.ndim and (shape := integers(sizes, known)) is not None:
            found[p] = tuple(shape)
    return found


class _Described:
    """As much of a device as it takes to say what a step would start there."""

    has_own_arrays = True

    def __init__(self, limits: Limits) -> None:
        self.name, self.limits = limits.name, limits


def _like(gpu: Limits, fuse: str, precision: str) -> Target:
    described: Any = _Described(gpu)
    return Target(described, fuse, precision, {})


def _plan(
    v: Variable, f: Fused, known: Mapping[Variable, Any], gpu: Limits, scope: str, fuse: str
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
    if fuse == "auto":
        like = _like(gpu, fuse, f.precision)
        sequence = in_launches(launch, lambda: sequenced(v, "", like))
        if sequence is not None:
            return sequence.plan
    sized = chain if launch.scope == "thread" and chain is not None else loop
    numbers = _numbers(v, sized.program, known)
    kernel = _kernel(v, sized, shapes, numbers, launch, gpu, f.precision)
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
    v: Variable, sized: Sized, shapes: Sequence[tuple[int, ...]], numbers: Mapping[str, int],
    launch: Launch, gpu: Limits, precision: str,
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
    cost = worker_cost(sized, launch, gpu, numbers)
    exchanged = cost.exchanged
    if scope == "grid":
        exchanged -= rounded * (_itemsize("float32") - _itemsize(operands.DTYPE))
    everything = {**all_units(program, sized.values, sized.value), **numbers}
    all_work = work_of(program, everything, gpu, launch.block)
    step = replace(
        cost, exchanged=exchanged, own=kept // max(1, launch.grid), memory=read + written
    )
    return _compiled(launch, gpu, KernelPlan(
        gpu.name, launch.against, 1, launch.grid, launch.block, launch.shared, None, None, None,
        None, "", launch.meetings, exchanged, read, written, kept, read + sum(traces),
        all_work.flops, not all_work.whole, launch.weights, precision,
        predict(step, gpu, precision),
    ))  # fmt: skip


def _numbers(v: Variable, program: LoopProgram, known: Mapping[Variable, Any]) -> dict[str, int]:
    """The integers that a loop is given in memory, such as the lengths of loops in its step, by
    their arrays, as far as they follow from what is known."""
    found: dict[str, int] = {}
    for pointer, source in zip(program.kernel.pointers, program.pointers):
        if isinstance(source, Given) and pointer.array.dtype == "int64":
            x = v.inputs[source.operand]
            if x.ndim == 0 and (value := integers([x], known)) is not None:
                found[pointer.array.name] = value[0]
    return found


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
    """The values of sizes, where all of them follow from what is known: of leaves an array or a
    shape, of other values a shape, of sizes what they are."""
    pushed = pushed_dims(sizes)
    found = _values(pushed, known)
    if found is None:  # not from the leaves
        as_met = [s if _met(s, known) is not None else p for s, p in zip(sizes, pushed)]
        found = _values(as_met, known)
    return found


def _met(size: Variable, known: Mapping[Variable, Any]) -> np.int64 | None:
    """A size that is known as it stands."""
    if isinstance(size.op, Dim):
        x = known.get(size.inputs[0])
        shape = np.shape(x) if isinstance(x, np.ndarray) else x
        return None if shape is None else np.int64(shape[size.op.axis])
    found = known.get(size) if size.inputs else None
    return np.int64(found) if isinstance(found, int) else None


def _values(pushed: Sequence[Variable], known: Mapping[Variable, Any]) -> list[int] | None:
    given: dict[Variable, Any] = {}
    stack, seen = list(pushed), set(pushed)
    while stack:
        v = stack.pop()
        if isinstance(v, Constant):
            continue
        if (size := _met(v, known)) is not None:
            given[v] = size
        elif isinstance(v.op, Dim) and isinstance(x := v.inputs[0], Constant):
            given[v] = np.int64(x.data.shape[v.op.axis])
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
