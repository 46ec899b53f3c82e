"""What a step of a loop costs on a GPU: counted in the loop's program, and predicted from that.

    step = meetings + exchange + products + the rest, and device memory where that takes longer

The model is that of shared/GPU.md, section 2.7. [H200] was measured on one by gpuscan, and is taken
for all GPUs; [M] was counted in what NVRTC makes, [D] is derived from figures of others, [K] is
what is generally known. On an H200 recurrent networks and Gibbs sampling of float32 took 1.0 to 1.4
times what is predicted, products of 16 bits up to 1.9 times; where weights are read anew in each
step it is far more (benchmarks/README.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..record import field, record
from ..types import FLOATS
from .kernel import (
    Array,
    Assign,
    Binary,
    Call,
    Choose,
    Declare,
    For,
    If,
    Let,
    Load,
    Name,
    Number,
    Return,
    Steps,
    Store,
    Use,
)
from .limits import Limits
from .program import LoopProgram, Placed, Scratch, Unit
from .threads import is_of_a_warp, routine

# ---- constants --------------------------------------------------------------------------------

L2_CLOCK = 64  # bytes a clock that a multiprocessor reads through L2 [K]
EXCHANGE_CLOCK = 12  # the same where all multiprocessors read the same bytes [H200]
SHARED_CLOCK = 128  # bytes a clock of a multiprocessor's shared memory: 32 banks of 4
REACHED = 0.6  # of the peak rate, by products of few rows [D]
ROWS_A_PASS = 8  # of a product, for which a thread reads a column once: gs_gemm in block_products.h
EPILOGUE = 1000  # clocks of a stage beside all that: first loads, sums, latencies [H200]
LATENCY = 2  # clocks of an instruction of one warp: 4 where it needs the one before, as half do [K]
BLOCK_MEETING = 60  # clocks of __syncthreads [K]
BARRIERS = 2  # of a stage in a block: in front of its products, and behind them
# seconds until all blocks go on: all add to one counter and poll it, as kernels/grid.h [H200]
GRID_MEETING = 1.1e-6
# seconds from a kernel's start to the next one's, in a CUDA graph: shared/GPU.md, section 2.7 [K]
GRAPH_KERNEL = 2.5e-6
TENSOR = ("tf32", "bf16", "fp16")  # precisions whose products are the tensor units'
FRAGMENT_ROWS = 16  # of the other factor, that they multiply with at once
# float64 multiply-adds of a float32 one: arithmetic throughput in the CUDA programming guide
DOUBLE = {"sm_75": 1 / 32, "sm_80": 1 / 2, "sm_90": 1 / 2, "sm_100": 1 / 2}
DOUBLE_ELSE = 1 / 64
# Instructions of a float32 function in sm_90's code, without the ways that are taken for subnormal
# numbers and for large angles [M: NVRTC 13.5, nvdisasm]; every other function counts as one.
INSTRUCTIONS = {
    "true_div": 13, "inv": 13, "sqrt": 13, "pow": 217, "mod": 82, "int_div": 133,
    "maximum": 3, "minimum": 3, "clip": 6, "sgn": 6,
    "exp": 31, "exp2": 28, "expm1": 31, "log": 49, "log2": 58, "log10": 61, "log1p": 72,
    "sigmoid": 49, "softplus": 94, "tanh": 46, "sinh": 105, "cosh": 89,
    "sin": 52, "cos": 52, "tan": 64, "arcsin": 41, "arccos": 44, "arctan": 63,
    "arctan2": 71, "arcsinh": 157, "arccosh": 148, "arctanh": 91, "erf": 123, "erfc": 123,
    "erfinv": 127, "erfcinv": 133, "normal_icdf": 123, "gammaln": 271, "gamma": 385, "psi": 224,
}  # fmt: skip
PHILOX, DRAWN = 50, 4  # of a block of words [M], and how many those are
DRAW = 4  # what makes a float of a word, and stores it
ACCESS = 4  # of a load or a store: the address, and itself


# ---- counted ----------------------------------------------------------------------------------


@record
class Product:
    """A product of a step: of (rows, depth) and (depth, columns). place: of the second factor, as
    `Placed` has it."""

    rows: int
    columns: int
    depth: int
    dtype: str
    place: str

    @property
    def multiply_adds(self) -> int:
        return self.rows * self.columns * self.depth


@record
class Work:
    """What is done in a step. flops: two a multiply-add of a product, one any other function of
    floats. busy: clocks of a multiprocessor that issues the instructions beside products;
    longest: clocks that they take at least, for each needs the one before. stages: of the loops
    in a step, products of the same rows being one. whole: whether all sizes are known; else the
    rest is counted once."""

    products: tuple[Product, ...]
    flops: int
    busy: float
    longest: float
    stages: int
    whole: bool


def work_of(
    program: LoopProgram, values: Mapping[str, int], gpu: Limits, threads: int,
    weights: Iterable[Placed] = (),
) -> Work:  # fmt: skip
    """What a worker of so many threads does in a step, for the values of the integers that it
    has, and of numbers in memory by their array. One thread has its states and values in
    registers."""
    places = {w.name: w.place for w in weights}
    if threads == 1:
        pointers = zip(program.kernel.pointers, program.pointers)
        places |= {p.array.name: "registers" for p, s in pointers if isinstance(s, Scratch)}
    count = _Count(values, gpu, threads, places)
    for s in program.kernel.body:
        if isinstance(s, Steps):
            count.block(s.body, 1)
        elif isinstance(s, Let):
            count.learn(s)
    flops = 2 * sum(p.multiply_adds for p in count.products) + count.flops
    return Work(
        tuple(count.products), int(flops), count.busy, count.longest, count.stages, count.whole
    )


def all_units(program: LoopProgram, values: Mapping[str, int], sizes: Any) -> dict[str, int]:
    """The values of a worker that has all units of all rows; `sizes`: of a size expression its
    value."""
    found = dict(values)
    for name, source in zip(program.kernel.integers, program.integers):
        if isinstance(source, Unit) and program.units is not None:
            found[name.text] = sizes(program.units.sizes[source.size]) if source.end else 0
    return found


class _Count:
    def __init__(
        self, values: Mapping[str, int], gpu: Limits, threads: int, places: Mapping[str, str]
    ) -> None:
        self.values, self.threads, self.places = dict(values), threads, places
        self.warp = gpu.warp
        self.issue = gpu.partitions * gpu.warp  # instructions of a thread, a clock
        self.slower = 1 / double_rate(gpu)
        self.products: list[Product] = []
        self.flops = 0.0
        self.busy = self.longest = 0.0
        self.stages = 0
        self.whole = True

    def learn(self, s: Let) -> None:
        """The value of a name, where it is an integer that is known."""
        if s.name.dtype == "int64" and (found := self.value(s.value)) is not None:
            self.values[s.name.text] = found

    def value(self, e: Any) -> int | None:
        """The value of a position or a size, where it is known."""
        match e:
            case Number(value):
                return int(value)
            case Name(text):
                return self.values.get(text)
            case Load(array, Number(0)):
                return self.values.get(array.name)
            case Choose(condition, a, b):
                taken = self.value(condition)
                return None if taken is None else self.value(a if taken else b)
            case Binary(op, a, b):
                x, y = self.value(a), self.value(b)
                if x is None or y is None:
                    return None
                return _computed(op, x, y)
        return None

    def size(self, e: Any) -> int:
        found = self.value(e)
        self.whole &= found is not None
        return 1 if found is None else max(0, found)

    def steps(self, s: For) -> int:
        end, start = self.value(s.extent), self.value(s.start)
        self.whole &= end is not None and start is not None
        return 1 if end is None or start is None else max(0, end - start)

    # ---- what the threads of a worker do together -----------------------------------------------

    def block(self, body: Iterable[Any], times: int, in_loop: bool = False) -> None:
        rows: Any = None  # that were multiplied last
        for s in body:
            if isinstance(s, Let):
                self.learn(s)
            elif in_loop and isinstance(s, Use) and routine(s.routine) == "gs_gemm":
                self.stages += times * (s.arguments[3:6] != rows)
                rows = s.arguments[3:6]
            match s:
                case For():
                    chain = [*_chain(s)]
                    apart = math.prod(self.steps(x) for x in chain if x.apart or x.fold)
                    if is_of_a_warp(chain[-1].body):
                        apart *= self.warp
                    if apart == 1 and not s.apart and s.fold is None:
                        self.block(s.body, times * self.steps(s), True)
                        continue
                    self._shared(self.instructions(s, times), apart)
                case If(_, inner, other):
                    if not _ends(inner):
                        self.block(inner, times, in_loop)
                    self.block(other, times, in_loop)
                case Use(name, arguments) if self._together(routine(name), name, arguments, times):
                    pass
                case _:
                    self._shared(self.instructions(s, times), 1)

    def _shared(self, instructions: float, apart: int) -> None:
        """Instructions that so many threads can share."""
        self.busy += instructions / self.issue
        self.longest += instructions / max(1, min(apart, self.threads)) * LATENCY

    def _together(self, stem: str, name: str, arguments: Sequence[Any], times: int) -> bool:
        dtype = "float64" if name.endswith("f64") else "float32"
        match stem, arguments:
            case "gs_gemm", (rows, columns, depth, _, _, _, panel, *_):
                pass
            case "gs_gemm_steps", (_, _, rows, columns, depth, _, _, _, panel, *_):
                pass  # for some steps at once: a step's part
            case "gs_uniforms", (_, _, _, count, _):
                n = self.size(count)
                self._shared(times * self._draws(n, dtype), -(-n // DRAWN))
                return True
            case "gs_pack", (depth, columns, *_):
                n = self.size(depth) * self.size(columns)
                self._shared(times * n * 2 * ACCESS, n)
                return True
            case "gs_meet", _:
                return True
            case _:
                return False
        array = panel[0] if isinstance(panel, tuple) else panel
        place = self.places.get(array.name, "memory")
        sizes = self.size(rows), self.size(columns), self.size(depth)
        self.products += [Product(*sizes, dtype, place)] * times
        return True

    # ---- what one thread does -------------------------------------------------------------------

    def instructions(self, s: Any, times: float) -> float:
        """Of a statement that is run so many times."""
        match s:
            case Let(_, value) | Declare(_, value) | Assign(_, value):
                return self.expression(value, times)
            case Store(_, _, value):
                return self._access(s.array, times) + self.expression(value, times)
            case For(body=body) | Steps(body):
                n = times * (self.steps(s) if isinstance(s, For) else 1)
                return sum(self.instructions(x, n) for x in body)
            case If(condition, body, other):
                if _ends(body):
                    body = ()
                found = self.expression(condition, times) + times
                return found + sum(self.instructions(x, times) for x in (*body, *other))
            case Use(name, arguments) if "softmax" in name:
                n = times * self.size(arguments[0])
                self.flops += 5 * n
                return n * (INSTRUCTIONS["exp"] + INSTRUCTIONS["true_div"] + 4 * ACCESS)
            case Use(name, arguments) if routine(name) == "gs_uniforms":
                dtype = "float64" if name.endswith("f64") else "float32"
                return times * self._draws(self.size(arguments[3]), dtype)
        return 0.0

    def _draws(self, n: int, dtype: str) -> float:
        """Instructions of so many draws: words are made so many at a time, used or not."""
        words = n * (2 if dtype == "float64" else 1)
        return -(-words // DRAWN) * PHILOX + n * DRAW

    def _access(self, array: Array, times: float) -> float:
        return 0.0 if self.places.get(array.name) == "registers" else times * ACCESS

    def expression(self, e: Any, times: float) -> float:
        match e:
            case Load(array, _):
                return self._access(array, times)
            case Call(scalar, operands, dtype, of):
                found = sum(self.expression(x, times) for x in operands)
                n = times * INSTRUCTIONS.get(scalar.name, 1)
                if of in FLOATS or dtype in FLOATS:
                    self.flops += times
                return found + n * (self.slower if "float64" in (of, dtype) else 1)
            case Choose(condition, a, b):
                return times + sum(self.expression(x, times) for x in (condition, a, b))
        return 0.0


def _chain(s: For) -> Iterator[For]:
    """Loops of which each is all there is in the one around it."""
    yield s
    while len(s.body) == 1 and isinstance(s.body[0], For):
        s = s.body[0]
        yield s


def _ends(body: Sequence[Any]) -> bool:
    """Whether the kernel ends in these statements: that is no part of a step."""
    return any(isinstance(s, Return) for s in body)


def _computed(op: str, x: int, y: int) -> int | None:
    match op:
        case "add":
            return x + y
        case "sub":
            return x - y
        case "mul":
            return x * y
        case "int_div":
            return x // y if y else None
        case "mod":
            return x % y if y else None
        case "lt":
            return int(x < y)
        case "le":
            return int(x <= y)
        case "gt":
            return int(x > y)
        case "ge":
            return int(x >= y)
        case "eq":
            return int(x == y)
        case "and_":
            return int(bool(x and y))
        case "or_":
            return int(bool(x or y))
    return None


# ---- predicted --------------------------------------------------------------------------------


@record
class StepCost:
    """What a prediction is made from. Of a block: products, busy, longest, and the bytes that it
    reads of other blocks' values and of memory that is its own but not on chip. Of all blocks:
    the bytes of sequences and traces."""

    scope: str
    blocks: int
    threads: int
    stages: int = 1
    meetings: int = 0
    products: tuple[Product, ...] = ()
    busy: float = 0.0
    longest: float = 0.0
    exchanged: int = 0
    own: int = 0
    memory: int = 0


@record
class Prediction:
    """Seconds of a step, all of them, and what they are for. `memory` is the time that its bytes
    need, most or all of it beside the rest."""

    seconds: float
    meetings: float
    exchange: float
    products: float
    rest: float
    memory: float = field(default=0.0)


def predict(step: StepCost, gpu: Limits, precision: str = "float32") -> Prediction:
    """How long a step takes. precision: of products of float32, those of `TENSOR` by the tensor
    units."""
    blocks_each = -(-step.blocks // gpu.multiprocessors)  # that a multiprocessor has to run
    together = max(1, gpu.threads_multiprocessor // max(1, step.threads))
    meetings = step.meetings * GRID_MEETING if step.scope == "grid" else 0.0
    if step.scope == "block":
        meetings = step.stages * BARRIERS * BLOCK_MEETING / gpu.clock
    exchange = blocks_each * (step.exchanged / EXCHANGE_CLOCK + step.own / L2_CLOCK)
    products = blocks_each * sum(_clocks(p, gpu, precision) for p in step.products)
    latency = step.longest + (step.stages * EPILOGUE if step.products else 0)
    rest = max(blocks_each * step.busy, -(-blocks_each // together) * latency)
    exchange, products, rest = (c / gpu.clock for c in (exchange, products, rest))
    memory = step.memory / gpu.memory_rate
    seconds = max(meetings + exchange + products + rest, memory)
    return Prediction(seconds, meetings, exchange, products, rest, memory)


def _clocks(p: Product, gpu: Limits, precision: str) -> float:
    """Clocks of a product in a block: of its multiply-adds, or of reading its second factor."""
    rate: float = gpu.fma_clock
    rows = p.rows
    if p.dtype == "float64":
        rate *= double_rate(gpu)
    elif precision in TENSOR and p.place == "registers":  # only what is there is in fragments
        rate = gpu.tensor_clock / (4 if precision == "tf32" else 2)
        rows = -(-rows // FRAGMENT_ROWS) * FRAGMENT_ROWS
    arithmetic = rows * p.columns * p.depth / (rate * REACHED)
    size = p.columns * p.depth * np.dtype(p.dtype).itemsize
    read = {"registers": math.inf, "shared": SHARED_CLOCK, "memory": L2_CLOCK}[p.place]
    return max(arithmetic, -(-p.rows // ROWS_A_PASS) * size / read)


def double_rate(gpu: Limits) -> float:
    """float64 instructions of a float32 one."""
    return DOUBLE.get(gpu.architecture, DOUBLE_ELSE)
