"""Loops and branches inside of a step, as statements of the same kernel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..graph import Constant, Variable, substitute, toposort
from ..ops.control import IfElse
from ..ops.shape import FirstRows, dim
from ..record import record, replace
from ..rules.shapes import pushed_dims
from ..scan.op import Operands, Scan, Step
from .kernel import (
    Array,
    Assign,
    Break,
    Declare,
    For,
    If,
    Let,
    Load,
    Name,
    Number,
    Point,
    Store,
    binary,
    row_major,
)
from .lower import Memory
from .sizes import Outside, Scope, outside_of, scope_of
from .whole import Whole


def with_own_parameters(step: Step, o: Operands) -> Step:
    """The step with parameters of its own: equal steps are one object, and may stand inside each
    other. A const is the operand itself, where they are of one type."""
    mapping: dict[Variable, Variable] = {p: p.type() for p in step.params}
    mapping |= {p: x for p, x in zip(step.consts, o.consts) if p.type == x.type}
    own = step.mapped(substitute(step.outputs, mapping))
    return replace(
        own,
        seqs=tuple(mapping[p] for p in step.seqs),
        carries=tuple(mapping[p] for p in step.carries),
        consts=tuple(mapping[p] for p in step.consts),
    )


@record
class Inner:
    """A loop inside of a step: its node's operands, and its step with parameters of its own."""

    o: Operands
    step: Step


@dataclass
class _Carry:
    """Where a carry of an inner loop lives: its initial value, and what comes after it, by turns
    or, where `rows` is given, row by row; or always the first, where a step's end copies the
    second to it."""

    first: Memory
    second: Memory
    rows: bool
    copied: bool

    def after(self, steps: Any) -> tuple[Any, tuple[Array, Any], tuple[Array, Any]]:
        """A condition and two places: where the value after some steps is."""
        start = (self.first.array, self.first.start)
        if not self.rows:
            return binary("mod", steps, Number(2)), (self.second.array, self.second.start), start
        last = _row(self.second, binary("sub", steps, Number(1)))
        return binary("gt", steps, Number(0)), (last.array, last.start), start


def _row(m: Memory, t: Any) -> Memory:
    """Row t of what lies in memory."""
    return Memory(m.array, m.strides[1:], binary("add", m.start, binary("mul", t, m.strides[0])))


class Control(Whole):
    """A lowering that knows inner loops and choices."""

    inner: dict[Variable, Inner]
    in_registers = False  # a thread's: memory whose place must not depend on what is computed

    def enter_loops(self, step: Step, outside: Outside) -> Iterator[Scope]:
        """The loops inside of a step, in `inner`, and the sizes that are asked for in each."""
        for v in toposort(step.outputs, step.params):
            if isinstance(v.op, Scan):
                o = v.op.split(v.inputs)
                own = with_own_parameters(v.op.step, o)
                self.inner[v] = Inner(o, own)
                inside = outside_of(Scan(own), o, outside)
                yield scope_of(own, inside)
                yield from self.enter_loops(own, inside)

    def history(self, trace: Variable, n: Any) -> Memory:
        """Memory for a trace of n rows."""
        raise NotImplementedError

    def look(self) -> None:
        """What a step of a loop in a step begins with: it may be the end of the kernel."""

    def whole(
        self, v: Variable, stored: dict[Variable, Memory], results: Sequence[Variable]
    ) -> None:
        match v.op:
            case Scan():
                self._loop(v, stored, set(results))
            case IfElse():
                self._choice(v, stored)
            case _:
                super().whole(v, stored, results)

    # ---- a step ---------------------------------------------------------------------------------

    def advance(
        self,
        step: Step,
        rows: Sequence[Memory | None],
        nexts: Sequence[Memory | None],
        numbers: Mapping[int, Name],
    ) -> Any:
        """A loop's step; gives whether it was the last one. Its traces go to `rows` (None: nobody
        reads it), the new carries to `nexts` (None: it is a trace's row) or, where they are
        scalars, to `numbers`."""
        stored: dict[Variable, Memory] = {}
        copies: list[tuple[Variable, Memory]] = []
        given = set(self.memory) | set(self.locals)
        for v, m in self.wanted(step, rows, nexts):
            if m is None:
                continue
            if v in given or v in stored or isinstance(v, Constant):
                copies.append((v, m))
            else:
                stored[v] = m
        read = [v for v, m in zip(step.traces, rows) if m is not None]
        stop = [] if step.stop is None else [step.stop]
        self.step([*step.new, *read, *stop], stored)
        for v, m in copies:
            self.copy(v, m, shared=True)
        # carries change all at once, and behind what is read of them
        last = None if step.stop is None else self._frozen(step.stop)
        values = {j: self._frozen(step.new[j]) for j in numbers}
        for j, value in values.items():
            if value != numbers[j]:
                self.emit(Assign(numbers[j], value))
        return last

    def wanted(
        self, step: Step, rows: Sequence[Memory | None], nexts: Sequence[Memory | None]
    ) -> list[tuple[Variable, Memory | None]]:
        """The values of a step and where they go; one that goes to two places is computed in the
        first of them, and copied."""
        return [*zip(step.traces, rows), *zip(step.new, nexts)]

    def _frozen(self, v: Variable) -> Any:
        """A scalar's value under a name that no assignment changes."""
        value = self.element(v, [])
        if isinstance(value, Number):
            return value
        name = self.fresh("v", v.dtype)
        self.emit(Let(name, value))
        return name

    # ---- loops ----------------------------------------------------------------------------------

    def _loop(self, node: Variable, stored: dict[Variable, Memory], read: set[Variable]) -> None:
        assert isinstance(node.op, Scan)
        o, step, r = self.inner[node].o, self.inner[node].step, node.op.results(node)
        n = self._steps(o)
        places = {
            item: stored.get(item) or self.history(item, n) for item in r.traces if item in read
        }  # fmt: skip
        rows = [places.get(item) for item in r.traces]
        t = self.fresh("t", "int64")
        steps: Any = n
        if step.stop is not None:
            steps = self.fresh("m", "int64")
            self.emit(Declare(steps, n))
        numbers: dict[int, Name] = {}
        carries: dict[int, _Carry] = {}
        for j, (p, new, x) in enumerate(zip(step.carries, step.new, o.inits)):
            if p.ndim == 0:
                numbers[j] = self.fresh("u", p.dtype)
                self.emit(Declare(numbers[j], self.element(x, [])))
                continue
            own = new in step.traces and step.computes(new) and not self.in_registers
            history = rows[step.traces.index(new)] if own else None
            first = self.place(p)
            self.copy(x, first)
            second = history or self.place(p)
            carries[j] = _Carry(first, second, history is not None, self.in_registers)

        with self.block() as body:
            self.look()
            self._enter(step, o, t, numbers, carries)
            nexts: list[Memory | None] = [None] * len(step.carries)
            for j, c in carries.items():
                if not c.rows:
                    nexts[j] = self._stands(step.carries[j], c, t + 1, True)
            now = [None if m is None else _row(m, t) for m in rows]
            last = self.advance(step, now, nexts, numbers)
            for j, c in carries.items():
                if c.copied:
                    self.move(c.second, c.first, self.sizes(step.carries[j]))
            if last is not None:
                self.emit(If(last, (Assign(steps, t + 1), Break())))
        self.emit(For(t, n, tuple(body)))

        for j, item in enumerate(r.finals):
            if j in numbers:
                self.finish(item, stored.get(item), numbers[j], [])
            elif item in read:
                self.memory[item] = self._stands(step.carries[j], carries[j], steps, False)
                if item in stored:
                    self.copy(item, stored[item])
        self.memory.update(places)
        self.finish(r.steps, stored.get(r.steps), steps, [])

    def _steps(self, o: Operands) -> Any:
        """The number of steps, checked against the sequences."""
        n = self.named(self.element(o.n, []))
        self.demand(n >= 0)
        wanted, *lengths = pushed_dims([o.n, *(dim(x, 0) for x in o.seqs)])
        for x, length in zip(o.seqs, lengths):
            if isinstance(x.op, FirstRows):
                rows, first = x.inputs
                self.demand(self.sizes(rows)[0] >= self.element(first, []))
            if length is not wanted:
                self.demand(self.sizes(x)[0] >= n)
        return n

    def _enter(
        self, step: Step, o: Operands, t: Name, numbers: Mapping[int, Name],
        carries: Mapping[int, _Carry],
    ) -> None:  # fmt: skip
        """What the parameters of an inner loop's step are in step t."""
        for p, x in zip(step.seqs, o.seqs):
            if p.ndim == 0:
                self.locals[p] = self.named(self.element(x, [t]))
            elif x in self.memory or isinstance(x, Constant):
                self.memory[p] = _row(self.place_of(x), t)
            else:
                self.rows[p] = x, t
        for j, p in enumerate(step.carries):
            if j in numbers:
                self.locals[p] = numbers[j]
            else:
                self.memory[p] = self._stands(p, carries[j], t, False)
        for p, x in zip(step.consts, o.consts):
            if p is x:
                continue
            if p.ndim == 0:
                self.locals[p] = self.element(x, [])
            else:
                place = self.place_of(x)
                self.memory.maps[-1 - self.depth_of(x)][p] = place

    def move(self, source: Memory, target: Memory, sizes: Sequence[Any]) -> None:
        """Copies elements from one place to another."""

        def body(index: list[Any]) -> None:
            value = Load(source.array, source.offset(index))
            self.emit(Store(target.array, target.offset(index), value))

        self.nest(sizes, body, True)

    def _stands(self, p: Variable, c: _Carry, steps: Any, written: bool) -> Memory:
        """Where a carry's value after some steps is."""
        if c.copied:
            return c.second if written else c.first
        return self._pointed(p, c.after(steps), written)

    def _pointed(self, p: Variable, places: Any, written: bool) -> Memory:
        """A carry in one of two places."""
        array = Array(self.fresh("o" if written else "g", p.dtype).text, p.dtype)
        self.emit(Point(array, written, *places))
        return Memory(array, row_major(self.sizes(p)))

    # ---- choices --------------------------------------------------------------------------------

    def _choice(self, v: Variable, stored: dict[Variable, Memory]) -> None:
        """One of two values: only the branch taken is computed."""
        condition, *branches = v.inputs
        test = self.element(condition, [])
        bodies = []
        if v.ndim == 0:
            name = self.fresh("v", v.dtype)
            self.emit(Declare(name, Number(0, v.dtype)))
            for x in branches:
                with self.block() as body:
                    self.step([x], {})
                    self.emit(Assign(name, self.element(x, [])))
                bodies.append(tuple(body))
            self.emit(If(test, *bodies))
            self.finish(v, stored.get(v), name, [])
            return
        out = stored.get(v) or self.place(v)
        for x in branches:
            with self.block() as body:
                if x in self.memory or isinstance(x, Constant):
                    self.copy(x, out)
                else:
                    self.step([x], {x: out})
            bodies.append(tuple(body))
        self.emit(If(test, *bodies))
        self.memory[v] = out
