"""A program walked with arrays that have shapes, strides and a place in memory, but no values.

What kernels need is asked of the plans that run them, and what memory serves again of the pool's
own rules. An array without values keeps its memory as long as the program keeps the array.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from .errors import describe
from .evaluate import branch_blocks, last_uses, running_order
from .explain import integers
from .graph import Constant, Item, Variable, constant_leaf
from .ops.control import Identity
from .ops.index import VIEWS
from .ops.shape import Dim, Reshape
from .runtime import memory
from .runtime.contraction import NativeContraction, operands
from .runtime.native import NativeHistory, NativeJoin, NativeLoop, NativeNest, NativeSequence
from .runtime.plans import Bytes, Copy, LoopPlan, NestPlan, is_laid_out
from .runtime.products import (
    LEAST,
    NativeProduct,
    product_kernel,
    with_native_products,
    workers,
)
from .scan.op import Scan
from .types import TensorType

MOST_VALUES = 1 << 16  # of integers that are computed, since sizes may follow from them
_STEPS = 3  # of a loop whose steps are walked: those behind them are like them, but for the last


# ---- memory that holds nothing ------------------------------------------------------------------


class Label:
    """What a piece of memory serves."""

    def __init__(self, kind: str, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        self.kind, self.name, self.dtype, self.shape = kind, name, dtype, shape


class Ledger:
    """What is there, and what was there when it was most."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        # not the blocks themselves: one that something refers to is not free
        self.there: dict[int, weakref.ref[Block]] = {}
        self.most: list[tuple[int, bool, Label]] = []  # bytes, whether it serves now, what
        self.node = self.at = "no node"

    def enter(self, block: Block) -> None:
        self.there[id(block)] = weakref.ref(block)
        self.now += block.nbytes

    def leave(self, block: Block) -> None:
        if self.there.pop(id(block), None) is not None:
            self.now -= block.nbytes

    def look(self) -> None:
        """Takes down what is there, where that is the most so far."""
        if self.now > self.peak:
            self.peak, self.at = self.now, self.node
            blocks = [block for there in self.there.values() if (block := there()) is not None]
            self.most = [(b.nbytes, b.serves, b.label) for b in blocks if b.label is not None]


class Block:
    """Memory of so many bytes. As with the pool's own, one to which nothing refers is free."""

    used = 0

    def __init__(self, nbytes: int, ledger: Ledger) -> None:
        self.nbytes, self.ledger = nbytes, ledger
        self.label: Label | None = None  # what it serves, or did last
        self.serves = False
        ledger.enter(self)

    def __del__(self) -> None:
        self.ledger.leave(self)


class Place:
    """An array's hold on its memory."""

    def __init__(self, block: Block, label: Label) -> None:
        self.block, self.label = block, label
        block.label, block.serves = label, True

    def __del__(self) -> None:
        if self.block.label is self.label:
            self.block.serves = False


class _Pool(memory._Pool):
    """The pool's rules over blocks that hold nothing."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def _new(self, size: int) -> Block:
        return Block(size + memory.LINE, self.ledger)


class Shape:
    """An array without values. view: NumPy's, of its shape and strides over no memory: it may be
    indexed and turned, never read; is_whole: whether it is no view of another one."""

    def __init__(self, view: np.ndarray, place: Place | None, is_whole: bool = False) -> None:
        self.view, self.place, self.is_whole = view, place, is_whole

    @property
    def row(self) -> Shape:
        """One of its rows."""
        view = self.view
        return Shape(empty_view(view.shape[1:], view.dtype, view.strides[1:]), self.place)

    @property
    def nbytes(self) -> int:
        return self.view.nbytes


def empty_view(
    shape: Sequence[int], dtype: Any, strides: Sequence[int] | None = None
) -> np.ndarray:
    dtype = np.dtype(dtype)
    if strides is None:
        steps = [dtype.itemsize]
        for size in reversed(shape[1:]):
            steps.append(steps[-1] * max(1, size))
        strides = steps[::-1][len(steps) - len(shape) :]
    base = np.zeros(1, dtype)
    return np.lib.stride_tricks.as_strided(base, tuple(shape), tuple(strides), writeable=False)


# ---- the walk ------------------------------------------------------------------------------------


class Walk:
    """Walks programs as they run on the host."""

    walks: ClassVar[dict[Any, Callable[..., Any]]]  # per op what takes (walk, node, op, inputs)

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.pool = _Pool(self.ledger)

    # ---- memory ----

    def numpy(self, shape: Sequence[int], dtype: Any, kind: str, name: str) -> Shape:
        """An array as NumPy makes it."""
        shape = tuple(map(int, shape))
        dtype = np.dtype(dtype)
        block = Block(math.prod(shape) * dtype.itemsize, self.ledger)
        return self._placed(block, shape, dtype, kind, name)

    def empty(self, shape: Sequence[int], dtype: Any, kind: str, name: str) -> Shape:
        """An array as `memory.empty` makes it."""
        shape = tuple(map(int, shape))
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if size < memory.LEAST:
            return self.numpy(shape, dtype, kind, name)
        return self._placed(self.pool._block(size), shape, dtype, kind, name)

    def scratch(self, size: int, name: str) -> list[Shape]:
        """Memory as `memory.scratch` makes it; none where there is nothing to hold."""
        if size < memory.LEAST:
            return [self.numpy((size + memory.LINE,), "uint8", "scratch", name)] if size else []
        return [self.empty((size,), "uint8", "scratch", name)]

    def _placed(
        self, block: Block, shape: tuple[int, ...], dtype: Any, kind: str, name: str
    ) -> Shape:
        place = Place(block, Label(kind, name, str(dtype), shape))
        self.ledger.look()
        return Shape(empty_view(shape, dtype), place, True)

    def given(self, v: Variable, shape: Sequence[int], kind: str, is_on_gpu: bool) -> Shape:
        """An argument or a shared variable."""
        return self.numpy(shape, v.dtype, kind, v.name or str(v))

    # ---- programs ----

    def run(self, inputs: Sequence[Variable], outputs: Sequence[Variable], given: Any) -> list[Any]:
        """The outputs of a program. given: per input an array, or a `Shape`."""
        order = running_order(inputs, outputs)
        last, blocks = last_uses(order, outputs), branch_blocks(order, outputs)
        values: dict[Variable, Any] = dict(zip(inputs, given))
        given = None
        for v in order:
            if v in values:
                continue
            if isinstance(v, Constant):
                values[v] = v.data
            elif self._is_skipped(blocks[v], values):
                values[v] = None
            else:
                values[v] = self.one(v, [values[x] for x in v.inputs])
            if not blocks[v]:
                for dead in last.get(v, ()):
                    values.pop(dead, None)
        return [values[v] for v in outputs]

    def _is_skipped(self, block: Iterable[tuple[Variable, int]], values: Any) -> bool:
        """Whether a branch is known not to be taken. Of two that may be, both are walked."""
        for choice, branch in block:
            condition = values.get(choice.inputs[0])
            if is_known(condition) and bool(condition) != (branch == 1):
                return True
        return False

    def one(self, v: Variable, inputs: list[Any]) -> Any:
        """A node's value."""
        op = v.op
        if isinstance(op, Item):
            return inputs[0][op.index]
        if isinstance(op, Dim):
            return np.asarray(view_of(inputs[0]).shape[op.axis], "int64")
        if getattr(op, "is_lazy", False):
            condition, then, other = inputs
            if is_known(condition):
                return then if condition else other
            return max((x for x in (then, other) if x is not None), key=_bytes)
        self.ledger.node = name_of(v)
        if isinstance(op, Identity):
            return inputs[0]
        if self._is_computed(v, inputs):
            return op.evaluator(v)(*inputs)
        if isinstance(op, VIEWS) and v.ndim:
            x, *rest = inputs
            found = op.evaluator(v)(view_of(x), *map(number_of, rest))
            return Shape(found, x.place if isinstance(x, Shape) else None)
        if isinstance(op, Reshape):
            shape = self._shapes(v, inputs)
            x = view_of(inputs[0])
            if x.flags.c_contiguous:
                place = inputs[0].place if isinstance(inputs[0], Shape) else None
                return Shape(empty_view(shape, x.dtype), place)
        for kind, walk in self.walks.items():
            if isinstance(op, kind):
                return walk(self, v, op, inputs)
        return self._numpys(v, inputs)

    def _is_computed(self, v: Variable, inputs: Sequence[Any]) -> bool:
        """Whether the values are: those of small arrays of integers, from which sizes follow."""
        types = v.type.items if hasattr(v.type, "items") else [v.type]
        return (
            all(map(is_known, inputs))
            and sum(x.size for x in inputs) <= MOST_VALUES
            and not any(t.is_float for t in types)
            and not getattr(v.op, "has_effect", False)
            and not isinstance(v.op, Scan | NativeLoop | NativeSequence)
        )

    def _numpys(self, v: Variable, inputs: Sequence[Any]) -> Any:
        """What NumPy computes: arrays of their own."""
        if isinstance(v.type, TensorType):
            return self.numpy(self._shapes(v, inputs), v.dtype, "value", name_of(v))
        return tuple(
            self.numpy(shape, t.dtype, "value", name_of(v))
            for shape, t in zip(self._shapes(v, inputs), v.type.items)
        )

    def _shapes(self, v: Variable, inputs: Sequence[Any]) -> Any:
        """The shape of the result, or of each of them."""
        op = getattr(v.op, "definition", v.op)
        leaves = [
            constant_leaf(np.asarray(x)) if is_known(x) and p.ndim == 0 else p.type()
            for p, x in zip(v.inputs, inputs)
        ]
        node = Variable(op, leaves)
        wanted: Any = op.sizes(leaves, node)
        if wanted is None:
            raise NotImplementedError(
                f"memory_report: the size of {describe(v)} is known only when it is computed"
            )
        one = isinstance(v.type, TensorType)
        flat = list(wanted) if one else [d for sizes in wanted for d in sizes]
        known = {p: x if is_known(x) else view_of(x).shape for p, x in zip(leaves, inputs)}
        found = integers(flat, known)
        if found is None:
            raise NotImplementedError(
                f"memory_report: the size of {describe(v)} is known only when it is computed"
            )
        if one:
            return tuple(found)
        sizes = iter(found)
        return [tuple(next(sizes) for _ in row) for row in wanted]

    def finish(self, results: Iterable[Any], held: Iterable[Shape]) -> None:
        """Makes of the results what `memory.owned` makes of them; `held`: what was given."""
        self.ledger.node = "the results"
        taken = {id(x.place.block) for x in held if x.place is not None}
        found = []
        for x in results:
            if not isinstance(x, Shape):
                continue
            block = x.place.block if x.place is not None else None
            if block is None or id(block) in taken or not self._is_its_own(x, block):
                x = self.result(x.view.shape, x.view.dtype)
            else:
                taken.add(id(block))
            assert x.place is not None
            x.place.label.kind = "output"
            found.append(x)

    def result(self, shape: Sequence[int], dtype: Any) -> Shape:
        """A copy for the caller."""
        return self.numpy(shape, dtype, "output", "")

    def _is_its_own(self, x: Shape, block: Block) -> bool:
        return 2 * x.nbytes >= block.nbytes

    # ---- kernels ----

    def _as_read(self, x: Any, whole: bool, name: str) -> Any:
        """An operand as a kernel reads it."""
        return x if is_laid_out(view_of(x), whole) else self._copy(x, name)

    def _copy(self, x: Any, name: str) -> Shape:
        return self.numpy(view_of(x).shape, view_of(x).dtype, "value", f"a copy for {name}")

    def loop(self, v: Variable, op: NativeLoop, inputs: list[Any]) -> tuple[Any, ...]:
        runner: Any = op.evaluator(v)
        name = name_of(v)
        steps = int(number_of(inputs[0]))
        operands = inputs[: runner.n_operands]
        read = {i: self._as_read(operands[i], w, name) for i, w in runner.read.items()}
        sizes = _sizes(op, inputs)
        plan = runner.plans.find(sizes, {i: view_of(x) for i, x in read.items()}, LoopPlan)
        if not plan.fits:
            raise ValueError(f"memory_report: the sizes do not fit together in {describe(v)}")
        states = [
            [self.empty(shape, carry.dtype, "state", name)
             for _ in range(2 if carry.kind == "buffers" else 1)]
            for carry, shape in zip(op.program.carries, plan.states)
        ]  # fmt: skip
        labels = op.definition.results(op.node).traces
        longer = op.longer_traces
        traces = [
            self.empty((steps + (i in longer), *shape), dtype, "history", trace_name(x, op))
            for i, (x, (shape, dtype)) in enumerate(zip(labels, plan.rows))
        ]
        histories = [traces[i] for i in longer]
        for i in longer:
            traces[i] = Shape(traces[i].view[1:], traces[i].place)
        if steps > 0:
            split = plan.split(steps)
            held = [*read.values(), *traces, *[x for pair in states for x in (*pair, None)[:2]]]
            keep = []
            for what in split.made:
                match what:
                    case Bytes(size):
                        keep += self.scratch(size, name)
                    case Copy(k):
                        view = view_of(held[k])
                        keep.append(self.numpy(view.shape, view.dtype, "scratch", name))
        finals = [
            self.numpy(shape, carry.dtype, "value", name) if carry.kind == "trace" else pair[-1]
            for carry, shape, pair in zip(op.program.carries, plan.states, states)
        ]
        return (*finals, *traces, np.asarray(steps, "int64"), *histories)

    def nest(self, v: Variable, op: NativeNest, inputs: list[Any]) -> tuple[Any, ...]:
        runner: Any = op.evaluator(v)
        name = name_of(op.values[0])
        operands = [self._as_read(x, w, name) for x, w in zip(inputs, runner.whole)]
        sizes = _sizes(op, inputs)
        plan = runner.plans.find(sizes, [view_of(x) for x in operands], NestPlan)
        if not plan.fits:
            raise ValueError(f"memory_report: the sizes do not fit together in {describe(v)}")
        if plan.row_count < op.program.least:
            given = [*inputs[: runner.n_operands], *inputs[runner.first_other :]]
            return tuple(self.run(op.given, with_native_products(op.values, op.given), given))
        results = [
            self.empty(shape, dtype, "value", name_of(x))
            for x, (shape, dtype) in zip(op.values, plan.results)
        ]
        shares, _ = plan.shares()
        keep = self.scratch(plan.scratch * shares.count, name)
        del keep
        return tuple(results)

    def product(self, v: Variable, op: NativeProduct, inputs: list[Any]) -> Any:
        (rows, depth), (_, wide) = (view_of(x).shape for x in inputs)
        if min(rows, wide) < LEAST:
            return self.numpy((rows, wide), v.dtype, "value", name_of(v))
        read = [self._as_read(x, True, name_of(v)) for x in inputs]
        found = self.empty((rows, wide), v.dtype, "value", name_of(v))
        keep = self._of_products(rows, wide, depth, v)
        del read, keep
        return found

    def contraction(self, v: Variable, op: NativeContraction, inputs: list[Any]) -> Any:
        stacks = operands(op, [view_of(x) for x in inputs])
        if stacks is None:
            return tuple(self.run(op.given, op.values, inputs))
        name, dtype = name_of(op.values[0]), op.values[0].dtype
        read = [
            self.numpy(x.shape, dtype, "value", f"a copy for {name}")
            for x in stacks
            if not is_laid_out(x, True)
        ]
        *wide, columns = (x.shape[2] for x in stacks)
        added = []
        if (addition := op.addition) is not None:
            x, *_ = op.of_addition(inputs)
            added = [self.empty(view_of(x).shape, dtype, "value", name_of(addition))]
        found = [
            self.empty((n, columns), dtype, "value", name_of(x)) for n, x in zip(wide, op.products)
        ]
        depth = math.prod(stacks[0].shape[:2])
        keep = self._of_products(sum(wide), columns, depth, op.values[0])
        del read, keep
        return (*found, *added)

    def _of_products(self, rows: int, wide: int, depth: int, v: Variable) -> list[Shape]:
        """The scratch memory of the threads that share products."""
        _, elements = product_kernel(v.dtype)
        size = elements * np.dtype(v.dtype).itemsize
        return self.scratch(size * workers(rows, wide, depth)[0], name_of(v))

    def history(self, v: Variable, op: NativeHistory, inputs: list[Any]) -> Any:
        history, *arrays = inputs
        if history is not None and 1 in map(len, map(view_of, arrays)):
            n = sum(map(len, map(view_of, arrays)))
            return Shape(view_of(history)[:n], history.place)
        return self.join(v, op, arrays)

    def join(self, v: Variable, op: Any, inputs: list[Any]) -> Any:
        return self.empty(self._shapes(v, inputs), v.dtype, "value", name_of(v))

    def sequence(self, v: Variable, op: NativeSequence, inputs: list[Any]) -> Any:
        program: Any = op.step
        return self._steps(v, op.definition, program.inputs, program.outputs, inputs, self.empty)

    def scan(self, v: Variable, op: Scan, inputs: list[Any]) -> Any:
        return self._steps(v, op, op.step.params, op.step.outputs, inputs, self.numpy)

    def _steps(
        self, v: Variable, op: Scan, params: Sequence[Variable], outputs: Sequence[Variable],
        inputs: list[Any], empty: Callable[..., Shape], ready: Callable[[Any], Any] = lambda x: x,
    ) -> tuple[Any, ...]:  # fmt: skip
        """A loop that runs step by step: the first steps, whose memory serves again, and the last,
        which may be of another size. ready: what is done to a step's results."""
        n, a, k = int(number_of(inputs[0])), len(op.step.seqs), len(op.step.carries)
        seqs, carries, consts = inputs[1 : 1 + a], inputs[1 + a : 1 + a + k], inputs[1 + a + k :]
        traces: list[Shape] = []
        walked = [*range(min(n, _STEPS)), *([n - 1] if n > _STEPS else [])]
        out: list[Any] = []
        for t in walked or [0]:
            rows = [_row(s, t) for s in seqs]
            new = [*map(ready, self.run(params, outputs, [*rows, *carries, *consts]))]
            out = new  # until here the results of the step before are there
            if not traces:
                traces = [
                    empty((n, *x.shape), x.dtype, "history", trace_name(label, op))
                    for x, label in zip(map(view_of, out[k:]), op.results(v).traces)
                ]
            carries = out[:k] if walked else carries
        return (*carries, *traces, np.asarray(n, "int64"))


Walk.walks = {
    NativeLoop: Walk.loop,
    NativeNest: Walk.nest,
    NativeProduct: Walk.product,
    NativeContraction: Walk.contraction,
    NativeJoin: Walk.join,
    NativeHistory: Walk.history,
    NativeSequence: Walk.sequence,
    Scan: Walk.scan,
}


def _row(x: Any, t: int) -> Any:
    if is_known(x):
        return x[t] if len(x) else np.zeros(x.shape[1:], x.dtype)
    return x.row


def is_known(x: Any) -> bool:
    return isinstance(x, np.ndarray | np.generic)


def view_of(x: Any) -> np.ndarray:
    return x.view if isinstance(x, Shape) else np.asarray(x)


def _bytes(x: Any) -> int:
    return view_of(x).nbytes


def _sizes(op: NativeLoop | NativeNest, inputs: Sequence[Any]) -> list[Any]:
    """The sizes that a kernel needs."""
    return [
        number_of(inputs[i]) if axis is None else view_of(inputs[i]).shape[axis]
        for i, axis in op.sizes_at
    ]


def number_of(x: Any) -> Any:
    if not is_known(x):
        raise NotImplementedError("memory_report: a size is known only when it is computed")
    return x


def name_of(v: Variable) -> str:
    """A node by its name, or by the loop that it is a result of."""
    if v.name:
        return v.name
    node = getattr(v.op, "node", v)
    definition = getattr(v.op, "definition", v.op)
    if isinstance(definition, Scan):
        return f"scan '{definition.name or 'scan_fn'}'"
    if values := getattr(v.op, "values", ()):
        return name_of(values[0])
    return f"{node.op_name()}"


def trace_name(trace: Variable, op: Any) -> str:
    definition = getattr(op, "definition", op)
    i = trace.op.index - len(definition.step.carries)  # type: ignore[attr-defined]
    row = definition.step.traces[i]
    return f"{trace.name or row.name or row.op_name()} of scan '{definition.name or 'scan_fn'}'"
