"""A function's graph on a device that runs CUDA: where codegen's kernels and the runtime meet."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, cast

from .codegen.chain import lower_chain
from .codegen.cost import GRAPH_KERNEL
from .codegen.launches import Sized
from .codegen.loop import lower_loop
from .codegen.lower import FAILED, returns
from .codegen.nest import Nest, lower_nests
from .codegen.nest_kernel import nest_launch
from .codegen.persistent import launch_of
from .codegen.plan import NotLowered, walk
from .codegen.program import Launch, LoopProgram, NestProgram, Size, Stride
from .compile import Compiled, LoopPlan, in_step, name_of
from .config import config
from .evaluate import Program
from .graph import Item, Variable, inherit, rebuild, results, toposort
from .ops.control import Require, has_effect
from .ops.index import AdvancedIncSubtensor, AdvancedSubtensor, IncSubtensor, Subtensor
from .ops.linalg import Dot
from .ops.ordered import Ordered
from .ops.sample import Uniform
from .ops.shape import BroadcastTo, Dim, DimShuffle, FirstRows, Join, Reshape, Specify, number
from .record import record, replace
from .runtime import graphs
from .runtime.calls import one_call
from .runtime.cuda import (
    CudaDevice,
    CudaLoop,
    CudaNest,
    CudaProduct,
    CudaSequence,
    OnDevice,
    OnHost,
    is_taped,
)
from .runtime.cuda_routines import (
    FLOATS,
    CudaGather,
    CudaJoin,
    CudaScatter,
    CudaUniform,
    CudaWrite,
)
from .runtime.scatter import is_scatter
from .runtime.tapes import Taped, Tapes, delivered
from .scan.op import Scan
from .selection import selection

_VIEWS = (BroadcastTo, DimShuffle, FirstRows, Require, Reshape, Specify, Subtensor)


@record
class Target:
    """What a graph is compiled for; precision: of the factors of float32 products; met: where each
    loop puts the sizes and shapes of its last run."""

    device: CudaDevice
    fuse: str
    precision: str
    met: dict[Variable, Any]


def compiled_cuda(
    inputs: Sequence[Variable], outputs: Sequence[Variable], device: Any, fuse: str,
    stay: Sequence[bool],
) -> Compiled:  # fmt: skip
    """A callable from the inputs' values to the outputs', and how each scan runs. stay: which
    outputs stay on the device."""
    taped = Taped(device) if device.has_own_arrays else None
    target = Target(cast(CudaDevice, taped or device), fuse, config.dot_precision, {})
    made, values, plans = _program(inputs, outputs, target)
    tapes = None
    if taped is not None and _repeats(values):
        how = selection(inputs, values, made.written)
        tapes = Tapes(how.rest if how else made, taped, stay, target.met, how)
    run = CudaProgram(made, device, tuple(stay), tapes)

    def put(x: Any) -> Any:
        with device.active():
            return device.array(x)

    return Compiled(run, device.name, plans, "", put if device.has_own_arrays else None, target.met)


def _repeats(outputs: Iterable[Variable]) -> bool:
    """Whether calls with such operands do the same, but for the numbers on the device. outputs: as
    they run on the device."""
    for v in toposort(outputs):
        if has_effect(v) or getattr(getattr(v.op, "definition", v.op), "is_lazy", False):
            return False
        if isinstance(v.op, CudaSequence):
            if not (is_taped(v.op) and _repeats(v.op.step.outputs)):
                return False
    return True


@record
class CudaProgram:
    """A program that runs on a device; stay: which of its outputs stay there; tapes: what makes
    its calls again, where that can be."""

    program: Program
    device: CudaDevice
    stay: tuple[bool, ...]
    tapes: Tapes | None

    def __call__(self, *values: Any) -> tuple[Any, ...]:
        device = self.device
        with device.active(), one_call(device):
            if self.tapes is not None:
                return self.tapes(values)
            return delivered(device, self.program(*values), self.stay)


def _program(
    inputs: Sequence[Variable], outputs: Sequence[Variable], target: Target
) -> tuple[Program, list[Variable], tuple[LoopPlan, ...]]:
    """The program, the outputs as they run on the device, and how each scan runs."""
    plans: list[LoopPlan] = []
    loops: dict[Variable, Fused | _Sequence] = {}
    for v in [v for v in toposort(outputs) if isinstance(v.op, Scan)]:
        try:
            if target.fuse == "never":
                raise NotLowered("fuse='never'")
            loops[v] = lowered(v, f"loop_{len(loops)}", target.precision)
            plans.append(loops[v].plan)
        except NotLowered as e:
            if target.fuse == "always":
                raise NotLowered(f"scan '{name_of(v)}' can't be fused: {e}") from None
            loops[v] = sequence = sequenced(v, f"{e}", target)
            target.met[v] = sequence.launches
            plans += [sequence.plan, *sequence.inner]
    new = _replaced(outputs, loops, lower_nests(outputs, lanes=False), target)
    written = {made: v for v, made in new.items()}
    made = [new[v] for v in outputs]
    return Program(inputs, made, written), made, tuple(plans)


def sequenced(v: Variable, reason: str, target: Target) -> _Sequence:
    """A scan whose steps are run one after another."""
    assert isinstance(v.op, Scan)
    step = v.op.step
    made, outputs, inner = _program(step.params, step.outputs, target)
    numbers = _numbers(step.consts, outputs)
    given = [p for p in step.params if p not in numbers]  # in a graph no step has its own
    launches = _step_launches(given, outputs, step.stop is not None)
    plan = sequence_plan(v, reason, launches)
    numbers |= _numbers(step.seqs, outputs)
    return _Sequence(made, plan, in_step(inner, v), launches, numbers)


def sequence_plan(v: Variable, reason: str, launches: graphs.StepLaunches) -> LoopPlan:
    return LoopPlan(
        name_of(v), "sequenced", reason, "launch", launches=launches.kernels,
        graph_steps=launches.steps, no_graph=launches.reason, least=launches.least,
    )  # fmt: skip


def _numbers(given: Sequence[Variable], outputs: Sequence[Variable]) -> set[Variable]:
    """The integers among what a step is given that the host has to know in it: they stay there."""
    read: set[Variable] = set()
    for v in toposort(outputs):
        match v.op:
            case CudaNest():
                read.update(_sizes(v))
            case OnDevice() | CudaUniform():
                read.update(v.inputs[1:])
            case CudaWrite():
                read.update(v.inputs[2:])
            case OnHost():
                read.update(v.inputs)
    return {x for x in given if x in read and x.type.is_integer_scalar}


def _sizes(v: Variable) -> Sequence[Variable]:
    """The inputs of a CudaNest that are sizes."""
    assert isinstance(v.op, CudaNest)
    return v.inputs[v.op.operands : len(v.inputs) - v.op.others]


def _step_launches(
    given: Sequence[Variable], outputs: Sequence[Variable], stops: bool
) -> graphs.StepLaunches:
    """What a step starts, and whether it can be recorded: nothing may be read from the device on
    the way, only shapes are known. given, outputs: as they run on the device."""
    reasons = ["it is run until a condition holds, which is read after each step"] * stops
    there = set(given)  # the values that are on the device
    kernels, least = 0, False
    for v in toposort(outputs):
        read: Sequence[Variable] = ()  # what must be known when a step is recorded
        match v.op:
            case CudaNest():
                kernels += 1
                read = _sizes(v)
                if returns(v.op.program.kernel.body, FAILED):
                    reasons.append("a kernel checks positions, and NumPy says what is wrong")
            case CudaProduct():
                kernels += 1
            case CudaJoin():
                kernels += len(v.inputs)
            case CudaUniform():
                kernels += 1
                read = v.inputs[1:]
            case CudaWrite():
                kernels += 2  # the copy is one
                read = v.inputs[2:]
            case CudaLoop(node=loop) | CudaSequence(node=loop):
                more, or_more = _started(v.op)
                kernels, least = kernels + more, least or or_more
                reasons.append(f"there is a loop in a step, '{name_of(loop)}'")
            case OnDevice():
                if v.inputs[0] not in there:
                    read = v.inputs  # NumPy's view
                    if not there.isdisjoint(read):
                        reasons.append(f"{v.op.definition.label} runs on the host")
                    continue
                read = v.inputs[1:]
            case Item():
                if v.inputs[0] in there:
                    there.add(v)
                continue
            case Dim():
                continue
            case _ if v in there or there.isdisjoint(v.inputs):
                continue  # a parameter, or known when the shapes are
            case _:
                definition = getattr(v.op, "definition", v.op)
                reasons.append(f"{definition.label} runs on the host")
                there.add(v)  # what follows is no reason of its own
                continue
        there.add(v)
        if not there.isdisjoint(read):
            reasons.append("the host reads a size or a position in each step")
    return graphs.launches(kernels, next(iter(reasons), ""), least)


def _started(loop: CudaLoop | CudaSequence) -> tuple[int, bool]:
    """How many kernels a loop starts, and whether it may be more, as its length is not known."""
    if isinstance(loop, CudaLoop):
        return 1, False
    one, n = loop.launches, number(loop.node.inputs[0])
    return one.kernels * (1 if n is None else int(n)), one.least or n is None


@record
class _Sequence:
    """A loop of which each step is launches of its own: the step's program."""

    step: Program
    plan: LoopPlan
    inner: Sequence[LoopPlan]  # of the loops in its step
    launches: graphs.StepLaunches
    numbers: Collection[Variable]  # what stays on the host of what a step is given
    sizes: tuple[Variable, ...] = ()


@record
class Fused:
    """A loop that runs as one kernel: its programs, for blocks and for a thread a row, the sizes
    that they need, and how it is described."""

    program: LoopProgram
    chain: LoopProgram | None
    sizes: tuple[Variable, ...]  # of the program, then of the chain
    plan: LoopPlan
    precision: str  # of the factors of products with weights

    def launch_of(
        self, device: CudaDevice, values: Mapping[str, int], others: Sequence[int],
        strides: Mapping[Any, int],
    ) -> Launch:  # fmt: skip
        programs = self.sized(values, others, strides)
        return launch_of(*programs, device.limits, device.scope, self.precision)

    def sized(
        self, values: Mapping[str, int], others: Sequence[int], strides: Mapping[Any, int]
    ) -> tuple[Sized, Sized | None]:
        """The programs with their integers: those of the first by name, the sizes that the second
        has by number, strides by what they are."""
        chain = None
        if self.chain is not None:
            own: dict[str, int] = {}
            for name, source in zip(self.chain.kernel.integers, self.chain.integers):
                match source:
                    case Size(k):
                        own[name.text] = others[k]
                    case Stride():
                        own[name.text] = strides[source]
            chain = Sized(self.chain, own)
        return Sized(self.program, values), chain


def lowered(v: Variable, name: str, precision: str) -> Fused:
    """A scan as one kernel, in its ways. Raises NotLowered."""
    program, sizes = lower_loop(v, name, lanes=False)
    chain: LoopProgram | None = None
    chain_sizes: list[Variable] = []
    with contextlib.suppress(NotLowered):
        chain, chain_sizes = lower_chain(v, name)
    how = program.schedule
    plan = LoopPlan(name_of(v), "fused", how.reason, how.scope, how.stages)
    return Fused(program, chain, (*sizes, *chain_sizes), plan, precision)


def _replaced(
    outputs: Sequence[Variable], loops: Mapping[Variable, Fused | _Sequence],
    nests: Sequence[Nest], target: Target,
) -> dict[Variable, Variable]:  # fmt: skip
    """Per node what stands for it where loops, nests and products are nodes that run on the
    device."""
    device = target.device
    nest_of = {v: nest for nest in nests for v in nest.values}
    wanted: dict[Variable, set[int]] = {v: set() for v in loops}
    for v in toposort(outputs):
        if isinstance(v.op, Item) and v.inputs[0] in wanted:
            wanted[v.inputs[0]].add(v.op.index)

    def needs(v: Variable) -> Sequence[Variable]:
        if v in nest_of:
            nest = nest_of[v]
            return (*nest.operands, *nest.sizes, *nest.others)
        if v in loops:
            return (*v.inputs, *loops[v].sizes)
        return v.inputs

    new: dict[Variable, Variable] = {}
    made: dict[int, Variable] = {}
    for v in walk(outputs, set(), needs):
        inputs = [new[x] for x in needs(v)]
        if v in nest_of:
            nest = nest_of[v]
            if id(nest) not in made:
                given = (*nest.operands, *nest.others)
                kernel = CudaNest(
                    nest.values, given, nest.program, _launch_of(nest, device), device
                )
                made[id(nest)] = kernel(*inputs)
            new[v] = inherit(results(made[id(nest)])[nest.values.index(v)], v)
        elif v in loops:
            new[v] = inherit(_loop(v, loops[v], wanted[v], target)(*inputs), v)
        elif not v.inputs or isinstance(v.op, Item | Dim) or getattr(v.op, "is_lazy", False):
            new[v] = rebuild(v, inputs) if v.inputs else v
        elif isinstance(v.op, Dot) and v.dtype in FLOATS:
            new[v] = inherit(CudaProduct(device, target.precision)(*inputs), v)
        elif isinstance(v.op, Uniform) and v.dtype in FLOATS:
            new[v] = inherit(CudaUniform(v.op, device)(*inputs), v)
        elif is_scatter(v):
            assert isinstance(v.op, AdvancedIncSubtensor)
            new[v] = inherit(CudaScatter(v.op, device)(*inputs), v)
        elif isinstance(v.op, IncSubtensor) and (v.op.set or v.dtype in FLOATS):
            new[v] = inherit(CudaWrite(v.op, device)(*inputs), v)
        elif isinstance(v.op, AdvancedSubtensor):
            new[v] = inherit(CudaGather(v.op, device)(*inputs), v)
        elif isinstance(v.op, Join):
            new[v] = inherit(CudaJoin(v.op, device)(*inputs), v)
        elif isinstance(v.op, _VIEWS):
            new[v] = inherit(OnDevice(v.op, device, v)(*inputs), v)
        elif isinstance(v.op, Ordered) and (there := v.op.on(device, v)) is not None:
            new[v] = inherit(there(*inputs), v)
        else:
            new[v] = inherit(OnHost(v.op, device, v)(*inputs), v)
    return new


def _launch_of(nest: Nest, device: CudaDevice) -> Callable[[Mapping[str, int]], Launch]:
    program: NestProgram = nest.program
    return lambda values: nest_launch(program, values, device.limits)


def _loop(
    v: Variable, f: Fused | _Sequence, wanted: Iterable[int], target: Target
) -> CudaLoop | CudaSequence:
    assert isinstance(v.op, Scan)
    device = target.device
    told = functools.partial(target.met.__setitem__, v)
    if isinstance(f, _Sequence):
        return _sequence(v, f, device, told)

    @functools.cache
    def sequence() -> _Sequence:
        return sequenced(v, "", replace(target, met={}))

    @functools.cache
    def op() -> CudaSequence:
        return _sequence(v, sequence(), device, lambda _: None)

    def instead(launch: Launch) -> CudaSequence | None:
        """Where one block would run all of the loop."""
        quicker = target.fuse == "auto" and in_launches(launch, sequence) is not None
        return op() if quicker else None

    runs_through = v.op.step.stop is None and not returns(f.program.kernel.body, FAILED)
    return CudaLoop(
        v.op, f.program, len(f.sizes), functools.partial(f.launch_of, device), instead,
        runs_through, frozenset(wanted), device, v, (*v.inputs, *f.sizes), told,
    )  # fmt: skip


def _sequence(
    v: Variable, f: _Sequence, device: CudaDevice, told: Callable[[Any], None]
) -> CudaSequence:
    assert isinstance(v.op, Scan)
    stay = tuple([x in f.numbers for x in v.op.step.params])
    return CudaSequence(v.op, f.step, stay, f.launches, device, v, told)


def in_launches(launch: Launch, sequence: Callable[[], _Sequence]) -> _Sequence | None:
    """A loop that one block would run as the launches of a CUDA graph, where these are quicker,
    with that as its reason; None where they may not be: less than half of the time is asked for, as
    both are predictions."""
    if launch.alone < 2 * GRAPH_KERNEL:
        return None
    found = sequence()
    seconds = found.launches.kernels * GRAPH_KERNEL
    if not found.launches.steps or 2 * seconds > launch.alone:
        return None
    reason = f"one block would need {launch.alone / seconds:.0f} times as long for a step"
    return replace(found, plan=replace(found.plan, reason=reason))
