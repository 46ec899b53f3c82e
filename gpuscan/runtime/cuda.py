"""What devices that run CUDA have in common: kernels of loops and nests on arrays of the device."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from ..codegen.limits import Limits, without
from ..codegen.program import (
    Done,
    Exchanged,
    Fixed,
    Given,
    Held,
    Launch,
    LoopLength,
    LoopProgram,
    Meeting,
    NestProgram,
    Result,
    Scratch,
    Size,
    State,
    Stride,
    Trace,
)
from ..evaluate import Program
from ..graph import Op, Variable
from ..ops.linalg import Dot
from ..ops.shape import Reshape
from ..record import field, record
from ..scan.op import Scan
from ..types import TensorType, TupleType
from .calls import MEETING, check_met, dones, meetings
from .graphs import Graphs, StepLaunches
from .plans import Plans, SizedPlan, is_laid_out, read_operands
from .tape import Tape
from .tapes import by_numpy, not_taped, read_later, said, take

_NOBODY = np.zeros(MEETING, "int64")
P = TypeVar("P")


class CudaDevice(Protocol):
    """A device that runs CUDA: memory, kernels, products."""

    name: str
    has_own_arrays: bool  # else they are NumPy's
    scope: str  # in which loops run that have a kernel of it; "": each in the narrowest that it can
    tape: Tape | None  # to which it writes what it does

    @property
    def limits(self) -> Limits:
        """Of the GPU that is current."""
        ...

    @property
    def place(self) -> Any:
        """Where kernels are loaded and memory is now: what is made in one place serves there."""
        ...

    def active(self) -> AbstractContextManager[None]:
        """All work on the device is done within it. What fails there raises DeviceError."""
        ...

    def array(self, x: Any) -> Any:
        """A host's or a device's array, on the device, in row-major order unless it is NumPy's."""
        ...

    def there(self, x: Any) -> Any:
        """The same, but an array of the device is given as it is, whatever its strides."""
        ...

    def keep(self, x: np.ndarray) -> Any:
        """A host's array, on the device for later calls, on whatever stream they work."""
        ...

    def empty(self, shape: Sequence[int], dtype: str) -> Any:
        """A new array on the device, in row-major order."""
        ...

    def fill(self, x: Any, value: Any) -> None:
        """Each element of an array of the device becomes a number of the host's."""
        ...

    def host(self, x: Any) -> Any:
        """A device's array as NumPy's."""
        ...

    def address(self, x: Any) -> int:
        """Where an array's first element is."""
        ...

    def build(self, source: str, name: str) -> Any:
        """The kernel of a text. Raises BuildError with the numbered text."""
        ...

    def launch(self, kernel: Any, launch: Launch, arguments: Sequence[int]) -> None:
        """Starts a kernel. Raises DeviceError where that is refused, or fails."""
        ...

    def multiply(self, found: Any, x: Any, y: Any, precision: str) -> None:
        """found = x @ y, of matrices of floats on the device, none without elements; the factors
        may be views. precision: to what factors of float32 may be rounded, as
        config.dot_precision has it; sums are of float32."""
        ...

    def copy(self, target: Any, source: Any) -> None:
        """Copies an array of the device to another of its shape and dtype; where they are not
        NumPy's, both are in row-major order."""
        ...

    def put(self, target: Any, source: Any) -> None:
        """target[...] = source, of the device's arrays."""
        ...

    def allocate(self, size: int) -> tuple[Any, int]:
        """So many bytes of the device's memory, and where they are."""
        ...

    def view(
        self, base: Any, address: int, shape: Sequence[int], strides: Sequence[int], dtype: Any
    ) -> Any:  # fmt: skip
        """An array in the memory of another, or in what was allocated; strides: in bytes."""
        ...

    def stream(self) -> Any:
        """On what work is started: on one stream it is done in order."""
        ...

    def capture(self) -> AbstractContextManager[Any]:
        """What the thread starts within it is not run but recorded, as what it gives; arrays that
        are made within it live as long as that. It raises DeviceError at a read of a value."""
        ...

    def replay(self, graph: Any) -> None:
        """Runs what was recorded."""
        ...

    def uploads(self) -> Uploads:
        """What brings arrays from the host while the device works."""
        ...


class Uploads(Protocol):
    """Copies from the host beside other work. All but `staging` is for one thread."""

    def staging(self, size: int) -> np.ndarray:
        """So many bytes of the host's memory that can be copied while the device works."""
        ...

    def start(self, target: Any, source: np.ndarray) -> Any:
        """Starts to copy an array in such memory to an array of the device, once all work that was
        started before is done: that may have used its memory. Gives what `finish` takes."""
        ...

    def finish(self, copy: Any) -> None:
        """Waits for a copy."""
        ...


def _laid_out(device: CudaDevice, x: Any, whole: bool) -> Any:
    """The operand on the device, as a kernel reads it: a view is read where it is, so that no loop
    backwards copies its sequences."""
    x = device.there(x)
    if is_laid_out(x, whole):
        return x
    return copied(device, x) if isinstance(x, np.ndarray) else device.array(x)


def copied(device: CudaDevice, x: Any) -> Any:
    """A copy by the device, which it can record."""
    found = device.empty(x.shape, x.dtype)
    device.copy(found, x)
    return found


def product(device: CudaDevice, x: Any, y: Any, precision: str = "float32") -> Any:
    """x @ y, as the device multiplies."""
    found = device.empty((x.shape[0], y.shape[1]), x.dtype)
    if x.size and y.size:
        device.multiply(found, x, y, precision)
    elif found.size:
        device.fill(found, 0)
    return found


def dense(device: CudaDevice, x: Any) -> Any:
    """A host's or a device's array, on the device, in row-major order."""
    x = device.array(x)
    return x if not isinstance(x, np.ndarray) or x.flags.c_contiguous else copied(device, x)


class _Constants:
    """The graph's constants on a device, each put there when it is first asked for: on each GPU,
    where that may change from call to call."""

    def __init__(self, device: CudaDevice) -> None:
        self.device = device
        self.held: dict[Any, Any] = {}

    def of(self, fixed: Fixed) -> Any:
        return self._put(fixed, fixed.constant.data)

    def zeros(self) -> Any:
        """Where blocks meet, before the first does."""
        return self._put(Meeting, _NOBODY)

    def _put(self, name: Any, values: np.ndarray) -> Any:
        key = self.device.place, name
        found = self.held.get(key)
        if found is None:
            found = self.held[key] = self.device.keep(np.ascontiguousarray(values))
        return found


class _Places(Generic[P]):
    """The plans of a program, with their kernels, for the GPU that is current."""

    def __init__(self, device: CudaDevice, program: LoopProgram | NestProgram) -> None:
        self.device, self.program = device, program
        self.made: dict[Any, Plans[P]] = {}

    def find(self, given: Sequence[Any], arrays: Any, make: Callable[..., P]) -> P:
        place = self.device.place
        plans = self.made.get(place)
        if plans is None:
            plans = self.made[place] = Plans(self.program)
        return plans.find(given, arrays, make)


# ---- loops --------------------------------------------------------------------------------------


@record
class CudaLoop(Op):
    """A Scan on a device: (*the Scan's operands, *sizes, *others) -> the Scan's results.

    program   what the loop's sizes, states and traces are; its integers are by name
    n_sizes   how many inputs behind the operands are sizes
    launch_of values of all integers, by name -> the kernel for them; raises where there is none
    instead   of a kernel the loop as launches for each step, where that is quicker
    runs_through  whether it runs all its steps, whatever the values
    wanted    which of its results are; a final state that is not may be None
    """

    definition: Scan
    program: LoopProgram
    n_sizes: int
    launch_of: Callable[..., Launch] = field(compare=False)
    instead: Callable[[Launch], CudaSequence | None] = field(compare=False)
    runs_through: bool
    wanted: frozenset[int]
    device: CudaDevice
    node: Variable = field(compare=False)  # the Scan as it was written
    inputs: tuple[Variable, ...] = field(compare=False)  # what this op's inputs stand for
    told: Callable[[Any], None] = field(compare=False)  # sizes and operands' shapes of each run

    def infer(self, *types: TensorType) -> Any:
        return self.definition.infer(*types[: 1 + len(self.definition.step.params)])

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        return _LoopRunner(self)


class _LoopPlan(SizedPlan):
    """The kernel for some sizes and strides."""

    def __init__(
        self, op: CudaLoop, program: LoopProgram, given: Sequence[int], arrays: Any
    ) -> None:
        super().__init__(program, given, arrays)
        self.launch: Launch | None = None
        self.instead: CudaSequence | None = None
        self.run: Callable[..., Any] | None = None
        if not self.fits:
            return
        self.rows = [(self.shape(shape), dtype) for dtype, shape in program.rows]
        self.states = [self.shape(carry.shape) for carry in program.carries]
        values = {}
        for name, source in zip(program.kernel.integers, program.integers):
            match source:
                case Size():
                    values[name.text] = self.sizes[name.text]
                case Stride():
                    values[name.text] = self.strides[source]
        others = given[len(program_sizes(program)) :]
        self.launch = op.launch_of(values, others, self.strides)
        self.instead = op.instead(self.launch)
        self.run = None if self.instead is None else self.instead.evaluator(op.node)
        self.build = op.device.build

    @functools.cached_property
    def kernel(self) -> Any:
        assert self.launch is not None
        return self.build(self.launch.source, self.launch.name)

    def kind(self, j: int) -> str:
        """How carry j lives in the kernel."""
        assert self.launch is not None
        return "place" if self.launch.scope == "thread" else self.program.carries[j].kind


def program_sizes(program: LoopProgram | NestProgram) -> list[int]:
    return sorted({s.position for s in program.integers if isinstance(s, Size)})


class _LoopRunner:
    """Runs a loop's kernel on arrays."""

    def __init__(self, op: CudaLoop) -> None:
        self.op, self.program, self.device = op, op.program, op.device
        step = op.definition.step
        self.n_operands = 1 + len(step.params)
        self.n_inputs = self.n_operands + op.n_sizes
        self.first_init = 1 + len(step.seqs)
        self.n_seqs = len(step.seqs)
        self.read = read_operands(op.program)
        self.plans: _Places[_LoopPlan] = _Places(op.device, op.program)
        self.constants = _Constants(self.device)
        self._interpreted: Any = None

    def definition(self, *inputs: Any) -> Any:
        """The loop as NumPy runs it: what says why an operand is wrong."""
        given = dict(zip(self.op.inputs, map(self.device.host, inputs)))
        if self._interpreted is None:
            self._interpreted = Program(list(given), [self.op.node])
        return self._interpreted(*given.values())[0]

    def _plan(self, program: LoopProgram, sizes: Sequence[int], arrays: Any) -> _LoopPlan:
        return _LoopPlan(self.op, program, sizes, arrays)

    def __call__(self, *inputs: Any) -> Any:
        operands = inputs[: self.n_operands]
        steps = int(self.device.host(operands[0]))
        sizes = [int(self.device.host(s)) for s in inputs[self.n_operands : self.n_inputs]]
        arrays = {i: _laid_out(self.device, operands[i], whole) for i, whole in self.read.items()}
        self.op.told((sizes, [x.shape for x in operands]))
        plan = self.plans.find(sizes, arrays, self._plan)
        launch = plan.launch
        short = any(len(s) < steps for s in operands[1 : 1 + self.n_seqs])
        if steps < 1 or launch is None or launch.grid < 1 or short:
            return self.definition(*inputs)
        initials = operands[self.first_init : self.first_init + len(plan.states)]
        if any(x.shape != shape for x, shape in zip(initials, plan.states)):
            return self.definition(*inputs)
        if plan.run is not None:
            return plan.run(*operands)
        memory = _Memory(self, plan, steps, arrays, initials)
        arguments = [memory.argument(x) for x in launch.arguments]
        self.device.launch(plan.kernel, launch, arguments)
        if self.op.runs_through:
            if launch.cooperative:
                read_later(self.device, launch, memory.done)
            return memory.results(steps)
        runs_all = self.op.definition.step.stop is None
        done, failed = said(self.device, memory.done, expected=runs_all)
        if failed == 1:
            return self.definition(*inputs)
        check_met(launch, done, failed)
        return memory.results(min(done, steps))  # one that stops says one more where none did


class _Memory:
    """The arrays of one run of a loop."""

    def __init__(
        self, runner: _LoopRunner, plan: _LoopPlan, steps: int, arrays: Mapping[int, Any],
        initials: Sequence[Any],
    ) -> None:  # fmt: skip
        self.runner, self.plan, self.steps = runner, plan, steps
        self.device = runner.device
        self.arrays, self.initials = arrays, initials
        self.traces: dict[int, Any] = {}
        self.states: dict[tuple[int, int], Any] = {}
        self.done = take(self.device, dones)
        self.held: list[Any] = []

    def argument(self, x: Any) -> int:
        match x:
            case Held():
                found = self._array(x)
                self.held.append(found)
                return self.device.address(found)
            case Done():
                return self.device.address(self.done)
            case LoopLength():
                return self.steps
        return int(x)

    def _array(self, held: Held) -> Any:
        match held.source:
            case Given(k):
                return self.arrays[k]
            case Fixed():
                return self.runner.constants.of(held.source)
            case Trace(i):
                shape, dtype = self.plan.rows[i]
                self.traces[i] = self.device.empty((held.copies, self.steps, *shape), dtype)
                return self.traces[i]
            case State(j, parity):
                return self._state(j, parity, held.copies)
            case Meeting():
                return take(self.device, meetings, held.copies)
            case Scratch() | Exchanged():
                return self.device.empty((max(1, held.copies * held.elements),), held.dtype)
        raise TypeError(held)

    def _state(self, j: int, parity: int, copies: int) -> Any:
        shape, dtype = self.plan.states[j], self.runner.program.carries[j].dtype
        x = self.states[j, parity] = self.device.empty((copies, *shape), dtype)
        if parity == 0:
            self._begin(x, self.initials[j])
        return x

    def _begin(self, x: Any, initial: Any) -> None:
        if not isinstance(initial, np.ndarray | np.generic):
            self.device.put(x, self.device.there(initial))
        elif initial.size and not any(initial.strides):  # one number, as of T.zeros
            self.device.fill(x, initial.flat[0])
        else:
            self.device.put(x, self.device.array(np.asarray(initial, x.dtype)))

    def results(self, done: int) -> tuple[Any, ...]:
        for i in range(len(self.plan.rows)):  # one without elements no kernel asks for
            if i not in self.traces:
                self._array(Held(Trace(i)))
        for j in range(len(self.plan.states)):
            for parity in (0, 1):
                if (j, parity) not in self.states and 0 in self.plan.states[j]:
                    self._state(j, parity, 1)
        finals: list[Any] = []
        for j, carry in enumerate(self.runner.program.carries):
            kind = self.plan.kind(j)
            if j not in self.runner.op.wanted:
                finals.append(None)
            elif kind == "trace":
                finals.append(copied(self.device, self.traces[carry.trace][0, done - 1, ...]))
            else:
                finals.append(self.states[j, done % 2 if kind == "buffers" else 0][0, ...])
        traces = []
        for i in range(len(self.plan.rows)):
            x = self.traces[i]
            x = x[0] if len(x) == 1 else copied(self.device, x[0])
            traces.append(x[:done] if done < self.steps else x)
        return (*finals, *traces, np.int64(done))


@record
class CudaSequence(Op):
    """A Scan whose steps are run one after another, each by kernels of its own."""

    definition: Scan
    step: Program = field(compare=False)
    stay: tuple[bool, ...] = field(compare=False)  # per operand whether it stays on the host
    launches: StepLaunches = field(compare=False)
    device: CudaDevice
    node: Variable = field(compare=False)
    told: Callable[[StepLaunches], None] = field(compare=False)  # where there can be no graph

    def infer(self, *types: TensorType) -> Any:
        return self.definition.infer(*types)

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        definition, device = self.definition, self.device

        def step(*given: Any) -> tuple[Any, ...]:
            return tuple([dense(device, x) for x in self.step(*given)])

        counts = len(definition.step.seqs), len(definition.step.carries)
        of_consts = self.stay[sum(counts) :]
        graphs = Graphs(step, counts, of_consts, device, self.launches, self.told)

        def run(n: Any, *operands: Any) -> tuple[Any, ...]:
            if not is_taped(self):
                not_taped(device, "a loop's steps are a CUDA graph, or go by what they compute")
            n = int(device.host(n))
            if n == 0:  # the shapes are the host's work
                return definition.run(self.node, self.step, n, *map(device.host, operands))
            given = [device.host(x) if s else dense(device, x) for x, s in zip(operands, self.stay)]
            ahead = graphs.ahead(n, given)
            return definition.run(
                self.node, step, n, *given, empty=device.empty, ahead=ahead, put=device.put
            )

        return run


def is_taped(loop: CudaSequence) -> bool:
    """Whether a tape takes the steps of a loop, one after another."""
    return not loop.launches.steps and loop.definition.step.stop is None


# ---- nests and products outside of loops --------------------------------------------------------


@record
class CudaNest(Op):
    """A nest on a device: (*operands, *sizes, *others) -> its results, as NativeNest."""

    values: tuple[Variable, ...]
    given: tuple[Variable, ...]
    program: NestProgram
    launch_of: Callable[..., Launch] = field(compare=False)
    device: CudaDevice

    @property
    def operands(self) -> int:
        """How many of what is given the kernel reads."""
        return sum(isinstance(p, Given) for p in self.program.pointers)

    @property
    def others(self) -> int:
        """How many are there to say what is wrong."""
        return len(self.given) - self.operands

    def infer(self, *types: TensorType) -> TupleType:
        return TupleType(tuple(v.type for v in self.values))

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        return _NestRunner(self)


class _NestPlan(SizedPlan):
    def __init__(
        self, op: CudaNest, program: NestProgram, given: Sequence[int], arrays: Any
    ) -> None:
        super().__init__(program, given, arrays)
        if not self.fits:
            return
        self.results = [(self.shape(shape), dtype) for dtype, shape in program.shapes]
        values = {}
        for name, source in zip(program.kernel.integers, program.integers):
            values[name.text] = (
                self.sizes[name.text] if isinstance(source, Size) else self.strides[source]
            )
        self.launch = op.launch_of(values)
        self.build = op.device.build

    @functools.cached_property
    def kernel(self) -> Any:
        return self.build(self.launch.source, self.launch.name)


class _NestRunner:
    def __init__(self, op: CudaNest) -> None:
        self.op, self.device = op, op.device
        self.whole = list(read_operands(op.program).values())
        self.n_operands = len(self.whole)
        self.n_inputs = self.n_operands + len(program_sizes(op.program))
        self.plans: _Places[_NestPlan] = _Places(op.device, op.program)
        self.constants = _Constants(self.device)
        self._interpreted: Program | None = None

    def definition(self, *inputs: Any) -> Any:
        """The values as NumPy computes them: what says why an operand is wrong."""
        not_taped(self.device, "NumPy computes what has a kernel")
        if self._interpreted is None:
            self._interpreted = Program(self.op.given, self.op.values)
        values = [self.device.host(x) for x in inputs]
        return self._interpreted(*values[: self.n_operands], *values[self.n_inputs :])

    def _plan(self, program: NestProgram, sizes: Sequence[int], arrays: Any) -> _NestPlan:
        return _NestPlan(self.op, program, sizes, arrays)

    def __call__(self, *inputs: Any) -> Any:
        device = self.device
        given = zip(inputs, self.whole)
        operands = [_laid_out(device, x, whole) for x, whole in given]
        sizes = [int(device.host(s)) for s in inputs[self.n_operands : self.n_inputs]]
        plan = self.plans.find(sizes, operands, self._plan)
        if not plan.fits:
            return self.definition(*inputs)
        results = [device.empty(shape, dtype) for shape, dtype in plan.results]
        done: Any = None  # a kernel without checks has no use for it
        arguments, held = [], []
        for x in plan.launch.arguments:
            match x:
                case Held(Given(k)):
                    held.append(operands[k])
                case Held(Result(k)):
                    held.append(results[k])
                case Held(Fixed() as fixed):
                    held.append(self.constants.of(fixed))
                case Held(Scratch(), _, elements, dtype):
                    held.append(device.empty((max(1, elements),), dtype))
                case Held(Meeting()):
                    zeros = self.constants.zeros()
                    held.append(copied(device, zeros))  # anew in each run of a graph
                case Done():
                    done = take(device, dones)
                    held.append(done)
                case _:
                    arguments.append(int(x))
                    continue
            arguments.append(device.address(held[-1]))
        if any(math.prod(shape) for shape, _ in plan.results):
            device.launch(plan.kernel, plan.launch, arguments)
        if done is not None and said(device, done, expected=True)[1]:
            return self.definition(*inputs)
        return tuple(results)


@record
class CudaProduct(Op):
    """A Dot of floats, by the device's library, which has tensor cores where it may round; a vector
    is a matrix of one row or column there. A GPU that has none of the precision computes in
    float32."""

    device: CudaDevice
    precision: str

    def infer(self, x: TensorType, y: TensorType) -> TensorType:
        return Dot().infer(x, y)

    def eval(self, x: Any, y: Any) -> Any:
        device, precision = self.device, self.precision
        if x.shape[-1] != y.shape[0]:
            return Dot().eval(x, y)  # which says so
        if precision != "float32" and without(precision, device.limits):
            precision = "float32"
        rows, wide = x.ndim == 2, y.ndim == 2
        x, y = device.there(x), device.there(y)
        x, y = x if rows else x[None, ...], y if wide else y[..., None]
        found = product(device, x, y, precision)
        found = found if rows else found[0, ...]
        return found if wide else found[..., 0]


# ---- other ops -----------------------------------------------------------------------------------


@record
class OnDevice(Op):
    """An op that gives a view of its first input, on the device; the others are sizes and
    positions."""

    definition: Op
    device: CudaDevice
    node: Variable = field(compare=False)

    def infer(self, *types: TensorType) -> Any:
        return self.definition.infer(*types)

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        call, device = self.definition.evaluator(self.node), self.device
        is_reshape = isinstance(self.definition, Reshape)

        def run(x: Any, *others: Any) -> Any:
            if others:
                others = tuple([device.host(n) for n in others])
            if is_reshape and not isinstance(x, np.ndarray):
                x = device.array(x)
            found = call(x, *others)
            if device.has_own_arrays:
                return found
            # NumPy's result may be no view: what is recorded would not see later values
            if not isinstance(found, np.ndarray):
                return call(x[..., None], *others)[..., 0]
            if not np.may_share_memory(found, x) and found.size:
                return call(copied(device, x), *others)
            return found

        return run


@record
class OnHost(Op):
    """An op that has no kernel: NumPy runs it."""

    definition: Op
    device: CudaDevice
    node: Variable = field(compare=False)

    def infer(self, *types: TensorType) -> Any:
        return self.definition.infer(*types)

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        call, device = self.definition.evaluator(self.node), self.device
        return lambda *inputs: by_numpy(device, call, inputs)
