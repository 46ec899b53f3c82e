"""A whole loop as one kernel: the step's values, its carries and its traces in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ..graph import Constant, Item, Variable, clients
from ..ops.index import Lookup
from ..ops.linalg import Dot
from ..ops.shape import as_int64
from ..record import replace
from ..scan.op import Scan
from ..types import FLOATS
from .frame import Frame
from .kernel import (
    Array,
    Assign,
    Declare,
    For,
    If,
    Kernel,
    Let,
    Load,
    Local,
    Name,
    Number,
    Point,
    Return,
    Steps,
    Store,
    Use,
    binary,
    product,
    row_major,
)
from .lower import FAILED, Memory, returns
from .plan import Plan, deep, in_size, keeps_rows_apart, walk
from .program import (
    FAILED_AT,
    ROWS_AHEAD,
    Carry,
    FirstRow,
    Given,
    LoopProgram,
    Meeting,
    Scratch,
    State,
    Stride,
    Together,
    Trace,
    Unit,
    Units,
    Watch,
)
from .program import Step as Stepping
from .schedule import schedule
from .sizes import outside_of, scope_of
from .stages import LEAST_UNITS, LEAST_UNITS_OF_BLOCKS, Kept, Stages

T = Name("t")
LEFT = Number(-2)  # what a kernel returns that was interrupted
_PACE = 3  # integers, as kernels/watch.h has it

# Of a user's name, x of "x[t]". Taken are the names that kernels make, C++'s words, and macros.
_STEM = re.compile(r"[A-Za-z]\w*")
_TAKEN = re.compile(
    r"[a-egi-z]\d\w*|t|next_t|first|first_value|last|rows?|row\d+|rows_a_.*|ahead\d+|group|members?|"
    r"met|done|shared|meeting|counter|sums_.*|all_.*|gs_.*|GS_.*|restrict|"
    r".*_(place|apart|here|early|late|met|kept|held|rounded)\d*|"
    r"auto|bool|break|case|char|class|const|continue|default|delete|do|double|else|enum|export|"
    r"extern|false|float|for|friend|goto|if|inline|int|long|mutable|namespace|new|operator|private|"
    r"protected|public|register|return|short|signed|sizeof|static|struct|switch|template|this|"
    r"throw|true|try|typedef|union|unsigned|using|virtual|void|volatile|while|and|or|not|xor|asm|"
    r"threadIdx|blockIdx|blockDim|gridDim|emulated|.*__.*|"
    r"NULL|NAN|INFINITY|EOF|errno|unix|linux|M_.*|.*_(MIN|MAX)"
)


@deep()
def lower_loop(node: Variable, name: str, lanes: bool = True) -> tuple[LoopProgram, list[Variable]]:
    """The program of a Scan node, and the sizes that it needs, as variables outside the loop.
    `lanes`: a worker's inner loops run in vectors. Raises NotLowered with the reason where its
    step has no kernel."""
    loop = Loop(node, lanes=lanes)
    program = loop.program(name)
    if loop.stages is not None and loop.may_fail:
        loop = Loop(node, "a worker whose check fails would be waited for", lanes=lanes)
        program = loop.program(name)
    if loop.row_size() is None and (count := constant_rows(node)):
        other = Loop(node, rows=count, lanes=lanes)
        if (apart := other.program(name)).rows_apart is not None:
            loop, program = other, apart
    return program, loop.outer_sizes


def constant_rows(node: Variable) -> int | None:
    """How many rows the states of a loop have, where that is a constant of the graph."""
    assert isinstance(node.op, Scan)
    firsts = {p.type.shape[0] for p in node.op.step.carries if p.ndim}
    return next((s for s in firsts if s is not None and s > 1), None)


class Loop(Frame):
    """rows: a size that is how many rows the states have, although it is a constant; alone: why
    workers don't share units."""

    def __init__(
        self, node: Variable, alone: str = "", rows: int | None = None, lanes: bool = True
    ) -> None:
        assert isinstance(node.op, Scan)
        op, o = node.op, node.op.split(node.inputs)
        super().__init__()
        self.op = op
        self._alone = alone
        self._rows = rows
        self.has_lanes = lanes
        self._labels: set[str] = set()
        self._counts: list[Any] = []  # of rows of products that are computed ahead
        self._shared_sizes: list[Any] = []
        self._shared_products: list[tuple[Any, ...]] = []
        self._watch: Array | None = None
        self.may_fail = False  # in a step
        outside = outside_of(op, o)
        self.learn([scope_of(op.step, outside), *self.enter_loops(op.step, outside)])

    def label(self, v: Variable, other: str, *ends: str) -> str:
        """What a value is called in the text: as the user does, where a kernel is for people to
        read, it is a name there and not taken; else the other name. ends: the first is taken that
        makes such a name."""
        stem = _STEM.match(v.name or "")
        if self.has_lanes or stem is None:
            return other
        for end in ends:
            label = f"{stem.group()}{end}"
            if label not in self._labels and not _TAKEN.fullmatch(label):
                self._labels.add(label)
                return label
        return other

    # ---- rows whose number is a constant --------------------------------------------------------

    def _expression(self, outside: Variable) -> Any:
        if isinstance(outside, Constant) and int(outside.data) == self._rows:
            return self._outer_size(outside)
        return super()._expression(outside)

    def sizes(self, v: Variable) -> list[Any]:
        found = super().sizes(v)
        if self._rows is None:
            return found
        rows = self._outer_size(as_int64(self._rows))
        return [rows if s == Number(self._rows) else s for s in found]

    # ---- parameters of products -----------------------------------------------------------------

    def pack(self, weight: Variable, transposed: bool) -> Array:
        m = self.place_of(weight)
        panel = self.scratch_panels(weight, transposed)
        if weight in self.op.step.consts or isinstance(weight, Constant):
            packing = self.packing(weight, transposed, m, panel)
            self.before.append(If(binary("eq", Name("first"), Number(0)), (packing,)))
        else:  # changes from step to step
            self.emit_beside(weight, self.packing(weight, transposed, m, panel))
        self.packed.maps[-1 - self.depth_of(weight)][weight, transposed] = panel
        return panel

    def first_element(self, v: Variable) -> Any:
        sizes = self.sizes(v)
        if not sizes or sizes[0] != self.row_size():
            return Number(0)  # every thread draws all of it
        return binary("mul", self.integer("row0", FirstRow()), product(sizes[1:]))

    def row_size(self) -> Name | None:
        """The size that threads may share out: the first axis of the carries."""
        firsts = [self.sizes(p)[0] for p in self.op.step.carries if p.ndim]
        return next((s for s in firsts if isinstance(s, Name)), None)

    # ---- products of sequences --------------------------------------------------------------

    def whole(
        self, v: Variable, stored: dict[Variable, Memory], results: Sequence[Variable]
    ) -> None:
        step = self.op.step
        if (
            isinstance(v.op, Dot) and v.dtype in FLOATS and v.inputs[1].ndim == 2
            and v.inputs[0] in step.seqs and v.inputs[1] in step.consts and v not in stored
            and len(self._statements) == 1  # a block may not run when its turn comes
        ):  # fmt: skip
            self._dot_ahead(v)
        else:
            super().whole(v, stored, results)

    def _dot_ahead(self, v: Variable) -> None:
        """A product of a sequence's rows for some steps at once, where that makes more rows."""
        f = self.factors(v)
        first, columns = self.columns_of(v, f)
        if f.count not in self._counts:
            self._counts.append(f.count)
        steps = self.integer(f"ahead{self._counts.index(f.count)}", Together(f.count))
        seq = 1 + self.op.step.seqs.index(v.inputs[0])
        apart = self.integer(f"s{seq}_0", Stride(seq, 0))
        since = binary("mod", binary("sub", T, Name("first")), steps)
        left = Name("last") - T
        size = f.count * f.wide
        array = Array(f"w{len(self.pointers)}", v.dtype)
        room = (f.count + ROWS_AHEAD) * f.wide  # of so many steps, or of one
        self.pointer(array, True, Scratch(room, v.dtype, self.units_of(v) is not None))
        self.emit(
            If(
                binary("eq", since, Number(0)),
                (
                    Use(
                        f"gs_gemm_steps_{f.suffix}",
                        ((left < steps).choose(left, steps), apart, f.count, columns,
                         f.depth, (f.rows.array, f.rows.start), f.row, f.column,
                         (f.panel, first * f.depth), (array, first), f.wide),
                    ),
                ),
            )
        )  # fmt: skip
        start = binary("mul", since, size)
        self.memory[v] = Memory(array, row_major(self.sizes(v)), start)

    # ---- parameters -------------------------------------------------------------------------

    def _parameters(self) -> None:
        step = self.op.step
        users = clients(step.outputs)
        position = 1
        for k, p in enumerate(step.seqs):
            array = Array(self.label(p, f"x{k}", "", f"_{k}"), p.dtype)
            self.pointer(array, False, Given(position, p.ndim == 0))
            time = self.integer(f"s{position}_0", Stride(position, 0))
            if p.ndim == 0:
                name = self.fresh("r", p.dtype)
                self.emit(Let(name, Load(array, binary("mul", T, time))))
                self.locals[p] = name
            else:
                strides = self.strides(position, p.ndim + 1, 1, True)
                self.memory[p] = Memory(array, strides, binary("mul", T, time))
            position += 1
        position += len(step.carries)
        for k, p in enumerate(step.consts):
            array = Array(self.label(p, f"k{k}", "", f"_{k}"), p.dtype)
            weight = p.ndim == 2 and all(
                u is not None and _is_weight(p, u) for u in users.get(p, [None])
            )
            self.pointer(array, False, Given(position, weight))
            if p.ndim == 0:
                name = self.fresh("q", p.dtype)
                self.before.append(Let(name, Load(array, Number(0))))
                self.locals[p] = name
            else:
                strides = self.strides(position, p.ndim, 0, not weight)
                self.memory[p] = Memory(array, strides)
            position += 1

    # ---- the loop ---------------------------------------------------------------------------

    def program(self, name: str) -> LoopProgram:
        step = self.op.step
        self._parameters()
        traces: list[Array] = []
        row_sizes: list[list[Any]] = []
        for i, v in enumerate(step.traces):
            label = self.label(v, f"y{i}", "", f"_{i}")
            traces.append(self.pointer(Array(label, v.dtype), True, Trace(i)))
            row_sizes.append(self.fixed_sizes(v))
        apart = [self.integer(f"z{i}", Stepping(i)) for i in range(len(traces))]
        places = [
            Memory(a, row_major(sizes), binary("mul", T, z))
            for a, sizes, z in zip(traces, row_sizes, apart)
        ]
        carries: list[Carry] = []
        nexts: list[Memory | None] = []  # where a carry's new value goes, if it is no trace's row
        numbers: dict[int, Name] = {}
        after: list[Any] = []
        for j, p in enumerate(step.carries):
            label = self.label(p, f"a{j}", "_0")
            initial = self.pointer(Array(label, p.dtype), True, State(j, 0))
            if p.ndim == 0:
                numbers[j] = Name(self.label(p, f"c{j}", "_now"), p.dtype)
                self.before.append(Declare(numbers[j], Load(initial, Number(0))))
                after.append(Store(initial, Number(0), numbers[j]))
                self.locals[p] = numbers[j]
                carries.append(Carry("number", p.dtype, ()))
                nexts.append(None)
                continue
            carry, then = self.array_carry(j, initial, traces, apart)
            carries.append(carry)
            nexts.append(then)

        last = self.advance(step, places, nexts, numbers)
        after += self.turn()
        # last where no step was the loop's last; one more where that could be step last - 1
        whole: Any = Name("last")
        if last is not None:
            self.emit(If(last, (*after, Return(binary("add", T, Number(1))))))
            whole = binary("add", whole, Number(1))
        steps = self.statements()
        self.may_fail = returns(steps, FAILED)
        if self.has_lanes:
            steps = _failed_by(steps, (*after, Return(binary("add", T, Number(FAILED_AT)))))
        why, rows, axes = self._rows_apart()
        units = self._units()
        kernel = Kernel(
            name,
            tuple(p for p, _ in self.pointers),
            tuple(n for n, _ in self.integers),
            (*self.before, Steps(steps), *after, Return(whole)),
        )
        return LoopProgram(
            kernel,
            tuple(s for _, s in self.pointers),
            tuple(s for _, s in self.integers),
            tuple(carries),
            tuple((v.dtype, tuple(s)) for v, s in zip(step.traces, row_sizes)),
            tuple(self.equal),
            tuple(dict.fromkeys(self._looked_up())),
            rows,
            axes,
            units,
            bool(self.inner),
            schedule(why, None if units is None else units.meetings, self._alone),
        )

    def _looked_up(self) -> Iterator[tuple[int, Any]]:
        """The positions that the host has to check, by operand, and how many rows there are."""
        step = self.op.step
        for v in walk(step.outputs, set()):
            if isinstance(v.op, Lookup):
                table, positions = v.inputs
                yield 1 + step.seqs.index(positions), self.sizes(table)[0]

    def array_carry(
        self, j: int, initial: Array, traces: Sequence[Array], apart: Sequence[Name]
    ) -> tuple[Carry, Memory | None]:
        """How carry j lives, and where its new value goes if that is no trace's row."""
        step = self.op.step
        p, new = step.carries[j], step.new[j]
        shape = tuple(self.sizes(p))
        now = Array(self.label(p, f"c{j}", "_now"), p.dtype)
        self.memory[p] = Memory(now, row_major(shape))
        if new in step.traces and step.computes(new):  # the history is the trace
            i = step.traces.index(new)
            previous = binary("mul", binary("sub", T, Number(1)), apart[i])
            self.emit(Point(now, False, T, (traces[i], previous), (initial, Number(0))))
            return Carry("trace", p.dtype, shape, i), None
        other = self.pointer(Array(self.label(p, f"b{j}", "_1"), p.dtype), True, State(j, 1))
        odd = binary("mod", T, Number(2))
        self.emit(Point(now, False, odd, (other, Number(0)), (initial, Number(0))))
        then = Array(self.label(p, f"d{j}", "_next"), p.dtype)
        self.emit(Point(then, True, odd, (initial, Number(0)), (other, Number(0))))
        return Carry("buffers", p.dtype, shape), Memory(then, row_major(shape))

    def turn(self) -> list[Any]:
        """What a step ends with, and the loop with."""
        return []

    def place(self, v: Variable) -> Memory:
        if self.has_lanes or self.stages is None or not self.stages.is_own(v):
            return super().place(v)
        # a block has room for its own units, near it, and not for all
        first, end = self.unit_range(self.sizes(v)[-1])
        own = [*self.sizes(v)[:-1], end - first]
        room = [*self._room(v)[:-1], end - first]
        array = self._memory(product(room), v.dtype)
        return Memory(array, row_major(own), binary("sub", Number(0), first))

    def look(self) -> None:
        """Now and then whether the call was interrupted. A GPU's kernel runs to its end."""
        if not self.has_lanes:
            return
        if self._watch is None:
            self._watch = self.pointer(Array("watch", "int64"), True, Watch())
        left = self.fresh("left", "int64")
        pace = Array(f"{left.text}_pace", "int64")
        self.before += [Declare(left, Number(0)), Local(pace, _PACE), Use("gs_start", (pace,))]
        ended = If(binary("lt", left, Number(0)), (Return(LEFT),))
        anew = Use("gs_look", (self._watch, pace)), Assign(left, Load(pace, Number(0))), ended
        self.emit(Assign(left, left - 1))
        self.emit(If(binary("lt", left, Number(0)), anew))

    # ---- units that workers share -----------------------------------------------------------

    def stage(self, plan: Plan) -> None:
        groups, step = plan.groups, self.op.step
        if self._alone:
            return
        if plan.choices or any(isinstance(g[0].op, Scan) for g in groups):
            self._alone = "a loop or a choice in a step is one worker's"
            return
        if not all(self.is_fixed(s) for g in groups for v in g for s in self.sizes(v)):
            self._alone = "sizes are computed in the step"
            return
        fixed = {v for v in step.values if not step.computes(v)}
        taken = set(step.traces) - fixed
        copied = [v for k, v in enumerate(step.traces) if v in fixed or v in step.traces[:k]]
        numbers = [] if step.stop is None else [step.stop]
        kept = []
        for p, new in zip(step.carries, step.new):
            if p.ndim == 0:
                numbers.append(new)
                continue
            turns = new in fixed or new not in step.traces
            in_place = new not in fixed and not (turns and new in taken)
            kept.append(Kept(p, new if in_place else None, turns))
            copied += [] if in_place else [new]
            taken.add(new)
        least = LEAST_UNITS if self.has_lanes else LEAST_UNITS_OF_BLOCKS
        stages = Stages(plan, kept, step.traces, copied, numbers, self.sizes, least)
        for v in stages.shared:
            if isinstance(v, Variable) and isinstance(v.op, Dot):
                self._shared_products.append(self._extents(v))
        if not self._shared_products:
            self._alone = "no product makes meetings worth it"
        else:
            self.stages = stages
            self._meeting = self.pointer(Array("meeting", "int64"), True, Meeting())

    def _extents(self, v: Variable) -> tuple[Any, ...]:
        """Rows, columns and depth of a product."""
        x, y = map(self.sizes, v.inputs)
        return product(self.sizes(v)[:-1]), self.sizes(v)[-1], x[-1] if len(y) == 2 else y[0]

    def meet(self) -> None:
        self.emit(Use("gs_meet", (self._meeting,)))

    def unit_range(self, size: Any) -> tuple[Any, Any]:
        if size not in self._shared_sizes:
            self._shared_sizes.append(size)
        k = self._shared_sizes.index(size)
        return self.integer(f"u{k}_first", Unit(k, False)), self.integer(f"u{k}_end", Unit(k, True))

    def _units(self) -> Units | None:
        stages, step = self.stages, self.op.step
        if stages is None:
            return None

        def is_one(source: Any) -> bool:
            match source:
                case Trace(i):
                    v = step.traces[i]
                    copied = not step.computes(v) or v in step.traces[:i]
                    return stages.has_units(v) if copied else stages.shares_units(v)
                case State(j):
                    return step.carries[j] in stages.shared
                case Scratch():
                    return bool(source.shared)
            return True

        one = tuple(is_one(source) for _, source in self.pointers)
        meetings = len(stages.starts)
        exchanged = tuple((v.dtype, product(self.sizes(v))) for v in stages.exchanged)
        return Units(
            tuple(self._shared_sizes), one, meetings, tuple(self._shared_products), exchanged
        )

    # ---- rows that threads share ------------------------------------------------------------

    def _keeps_apart(self, v: Variable, rows: Any) -> bool:
        """Whether row i of v needs only rows i of what it is computed from; of a loop, whether
        that holds in its steps."""
        if isinstance(v.op, Item) and isinstance(v.inputs[0].op, Scan):
            return rows not in self.shape_of(v)[1:]
        if not isinstance(v.op, Scan):
            return keeps_rows_apart(v, rows, self.shape_of)
        step = self.inner[v].step
        inside = [*walk(step.outputs, set()), *step.params]
        return step.stop is None and all(self._keeps_apart(x, rows) for x in inside)

    def _rows_apart(self) -> tuple[str | None, int | None, tuple[int | None, ...]]:
        """Why the rows of the carries need each other, or where there is no reason: the size that
        is their first axis, and where it is in each pointer's array."""
        step = self.op.step
        rows = self.row_size()
        nowhere = (None,) * len(self.pointers)
        if rows is None:
            known = any(p.ndim for p in step.carries)
            why = "how many rows its states have is a constant" if known else "it has no rows"
            return why, None, nowhere
        if step.stop is not None:
            return "all rows stop at once", None, nowhere
        for v in [*walk(step.outputs, set()), *step.params]:
            if not self._keeps_apart(v, rows):
                return f"{v.op_name()} takes several rows", None, nowhere
        for v in (*step.params, *step.traces):
            if any(s != rows and in_size(rows, s) for s in self.shape_of(v)[:1]):
                return "it keeps several rows for each", None, nowhere

        def axis(v: Variable, lead: int) -> int | None:
            return lead if v.ndim and self.shape_of(v)[0] == rows else None

        axes: list[int | None] = []
        params = step.params
        for _, source in self.pointers:
            match source:
                case Given(k):
                    axes.append(axis(params[k - 1], 1 if k <= len(step.seqs) else 0))
                case Trace(i):
                    axes.append(axis(step.traces[i], 1))
                case State(j):
                    axes.append(axis(step.carries[j], 0))
                case _:
                    axes.append(None)
        names = [n for n, _ in self.integers]
        return None, names.index(rows), tuple(axes)


def _failed_by(body: Sequence[Any], ends: Sequence[Any]) -> tuple[Any, ...]:
    """Statements that come to these ends where a check fails."""
    found: list[Any] = []
    for s in body:
        match s:
            case Return(value) if value == FAILED:
                found += ends
            case For(body=inner):
                found.append(replace(s, body=_failed_by(inner, ends)))
            case If(condition, inner, other):
                found.append(If(condition, _failed_by(inner, ends), _failed_by(other, ends)))
            case _:
                found.append(s)
    return tuple(found)


def _is_weight(p: Variable, user: Variable) -> bool:
    """Whether a product reads p as the operand that is packed."""
    if not isinstance(user.op, Dot):
        return False
    x, y = user.inputs
    return (y is p and x is not p) or (x is p and y.ndim == 1)
