"""Elementwise work outside loops: chains of it, with a sum at the root or not, as loop nests.

A value is stored where something else than elementwise work of its own shape reads it; what is
not stored is computed in the nests that read it. Stored values of one shape that do not need each
other share a nest, and nests that do not need each other, of whatever shapes, a kernel.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..graph import Constant, Param, Variable, certain, clients, leaves, toposort
from ..ops import scalar
from ..ops.convert import static_int
from ..ops.create import Arange
from ..ops.elemwise import Elemwise, scalars
from ..ops.reduce import Reduce
from ..ops.shape import BroadcastTo, DimShuffle, Specify
from ..ops.softmax import LogSoftmax, Softmax
from ..record import record, replace
from ..types import FLOATS
from .frame import Frame
from .kernel import (
    Array,
    Call,
    For,
    If,
    Kernel,
    Let,
    Load,
    Local,
    Name,
    Number,
    Return,
    Store,
    Use,
    binary,
    row_major,
)
from .lower import Memory
from .nest_kernel import can_join
from .plan import NotLowered, is_maths, keeps_rows_apart, read, walk
from .program import Given, NestProgram, Piece, Result
from .render import DTYPES
from .sizes import Scope, Sizes, by_the_host, sizes_of
from .whole import is_along_rows

_VIEWS = (BroadcastTo, DimShuffle, Specify)


@record
class Nest:
    """A kernel outside of loops: what it computes, from what; and what else the values are
    computed from as they were written, such as what their sizes come from."""

    values: tuple[Variable, ...]
    operands: tuple[Variable, ...]
    sizes: tuple[Variable, ...]
    others: tuple[Variable, ...]
    program: NestProgram


PART = 512  # elements of a sum that are added up in lanes
BLOCK = 16  # rows for which a worker computes one nest after the other
MOST_NESTS = 16  # by rows in a kernel: gcc takes longer than in proportion
MOST_PARAMETERS = 400  # of a kernel: CUDA's takes 4 KiB, a pointer or an integer has 8 bytes


def lower_nests(
    outputs: Sequence[Variable], taken: Collection[Variable] = (), lanes: bool = True
) -> list[Nest]:
    """The elementwise work among the outputs' nodes as nests, but for what is `taken` by other
    kernels. What has no kernel is left out: it runs by its op's NumPy meaning. Without `lanes`,
    on a device with memory of its own, every one is worth a kernel."""
    found: list[Nest] = []
    for groups in _kernels(outputs, _groups(outputs, taken, lanes)):
        found += _lowered(groups, lanes, len(found))
    return found


def _lowered(groups: Sequence[_Group], lanes: bool, k: int) -> list[Nest]:
    """The groups as one kernel, number k; as two or more where they can't be one."""
    try:
        lowering = ValuesNest([g.nests for g in groups], groups[0].inline, lanes)
        nest = lowering.lowered(f"nest_{k}")
        program = nest.program
        parameters = len(program.pointers) + len(program.integers)
        if len(groups) == 1 or (parameters <= MOST_PARAMETERS and (lanes or can_join(program))):
            return [nest]
    except (NotLowered, RecursionError):  # a chain of thousands: deeper than Python walks
        if len(groups) == 1:
            return []
    half = len(groups) // 2
    found = _lowered(groups[:half], lanes, k)
    return found + _lowered(groups[half:], lanes, k + len(found))


def is_fusable(v: Variable) -> bool:
    """Whether v is elementwise work, or a sum or a softmax of it, of dtypes that kernels know."""
    if isinstance(v.op, Softmax | LogSoftmax):
        return _is_known(v)
    if isinstance(v.op, Reduce):
        return v.ndim < v.inputs[0].ndim and _is_known(v)
    return isinstance(v.op, Elemwise) and v.ndim > 0 and _is_known(v)


def is_view(v: Variable) -> bool:
    """Whether v has other values' elements, or their positions, which cost nothing to compute."""
    if isinstance(v.op, Arange):
        return v.dtype == "int64" and static_int(v.inputs[2]) is not None
    return isinstance(v.op, _VIEWS)


def _is_number(v: Variable) -> bool:
    """Whether v is a float that is computed from numbers, which the host could do too."""
    return isinstance(v.op, Elemwise) and v.ndim == 0 and v.type.is_float and _is_known(v)


def _on_device(order: Sequence[Variable]) -> set[Variable]:
    """What is in the memory of a device that has its own, of numbers only floats: if they go on
    from there, nobody waits for the device."""
    found: set[Variable] = set()
    for v in order:
        is_float = getattr(v.type, "is_float", True)
        if isinstance(v.op, Param):
            is_there = is_float
        elif getattr(v.type, "ndim", 1):
            is_there = bool(v.inputs)
        else:
            is_there = is_float and not found.isdisjoint(v.inputs)
        if is_there:
            found.add(v)
    return found


def _is_known(v: Variable) -> bool:
    return {v.dtype, *(x.dtype for x in v.inputs)} <= DTYPES


def _is_whole(v: Variable) -> bool:
    """Whether v needs rows of its operand as a whole."""
    return isinstance(v.op, Reduce | Softmax | LogSoftmax)


def _axes(v: Variable) -> int:
    """How many of its axes may be longer than 1."""
    return sum(s != 1 for s in v.type.shape)


def _has_rows(v: Variable) -> bool:
    """Whether rows of v along its first axis don't need each other."""
    return not isinstance(v.op, Softmax | LogSoftmax) or v.op.axis > 0


def _is_sum_of_all(v: Variable) -> bool:
    return isinstance(v.op, Reduce) and v.op.kind == "sum" and v.ndim == 0 and v.dtype in FLOATS


def _gains_by_threads(v: Variable) -> bool:
    """Whether v is a softmax, or a reduction of floats of which threads make what NumPy makes: sums
    along rows it makes more exactly."""
    if isinstance(v.op, Softmax | LogSoftmax):
        return True
    if not isinstance(v.op, Reduce) or v.ndim == 0 or v.dtype not in FLOATS:
        return False
    return v.op.kind in ("max", "min") or (v.op.kind == "sum" and is_along_rows(v))


@record
class _Group:
    """Stored values that a worker computes for its part of the rows, nest after nest. A nest is of
    a sum alone, or of all values of a shape and level. inline: what may be computed on the way."""

    nests: list[list[Variable]]
    inline: set[Variable]
    level: tuple[int, bool]  # groups need only those of lower ones
    shape: tuple[Variable, ...] | None  # of one nest that is no sum's

    @property
    def values(self) -> list[Variable]:
        return [v for nest in self.nests for v in nest]

    @property
    def operands(self) -> list[Variable]:
        return _read_from_outside(_inside(self.values, self.inline))

    @property
    def needed(self) -> list[Variable]:
        """What has to be there first: operands, and what sizes are made from."""
        inside = dict.fromkeys(_inside(self.values, self.inline))
        return list(dict.fromkeys(x for v in inside for x in v.inputs if x not in inside))


@record
class _Work:
    """All that there is to be done, and the sizes of what it reads and gives."""

    groups: list[_Group]
    sizes: Sizes

    def shape_of(self, v: Variable) -> tuple[Variable, ...]:
        """The same for values whose sizes have to agree."""
        return tuple([k.variable for axis in range(v.ndim) if (k := self.sizes.of(v, axis))])

    def keeps_apart(self, v: Variable, rows: Variable) -> bool:
        """Whether rows of v are known to need only the same rows of what it is computed from."""
        known = all(len(self.shape_of(x)) == x.ndim for x in (v, *read(v)))
        return known and keeps_rows_apart(v, rows, self.shape_of)


def _groups(outputs: Sequence[Variable], taken: Collection[Variable], lanes: bool) -> _Work:
    order = toposort(outputs)
    sure = certain(outputs)  # a branch that is not taken must not be computed
    there = set(order) if lanes else _on_device(order)
    candidates = (v for v in order if is_fusable(v) or (v in there and _is_number(v)))
    fusable = {v: None for v in candidates if v in sure and v not in taken}
    views = {v for v in order if is_view(v)}
    computed = [v for v in order if v in fusable or v in views]
    given = [x for v in computed for x in v.inputs if x not in fusable and x not in views]
    work = _Work([], sizes_of([Scope(computed, given, by_the_host)]))
    shape = {v: work.shape_of(v) for v in fusable}

    # Groups of one level do not need each other, but for sums: a level ends behind everything that
    # is no elementwise work, behind a sum, and where the shape changes.
    level: dict[Variable, int] = {}
    seen_through: dict[Variable, Variable] = {}  # a view: the value that it is a view of
    for v in order:
        deepest = 0
        for x in v.inputs:
            root = seen_through.get(x, x)
            ends = root in fusable and (
                _is_whole(root)
                or (isinstance(v.op, Elemwise) and v in fusable and shape[root] != shape[v])
            )
            deepest = max(deepest, level[x] + (1 if ends and v not in views else 0))
        level[v] = deepest if v in fusable or v in views else deepest + bool(v.inputs)
        if v in views:
            seen_through[v] = seen_through.get(v.inputs[0], v.inputs[0])

    # What only values of its own shape read waits for the first of them, to be in their nest.
    users = clients(outputs)
    for v in reversed(order):
        if v in fusable and not _is_whole(v):
            readers = [u for u in users[v] if u is not None]
            if all(u in fusable and (shape[u] == shape[v] or _is_whole(u)) for u in readers):
                level[v] = max(level[v], min((level[u] for u in readers), default=0))

    def key(v: Variable) -> Any:
        return (level[v], v if _is_whole(v) else shape[v])

    stored: set[Variable] = set()
    for v in reversed(order):
        if v not in fusable and v not in views:
            continue
        for u in users.get(v, ()):
            if u is None or (u not in fusable and u not in views):
                stored.add(v)  # something reads it as a whole
            elif u in views:
                if u in stored or v in fusable:
                    stored.add(v)  # read at other positions than its own
            elif v in fusable and key(u) != key(v):
                one_sum = _is_whole(u) and len(users[v]) == 1 and level[u] == level[v]
                if not one_sum:
                    stored.add(v)
        if v in fusable and _is_whole(v):
            stored.add(v)
    inline = {v for v in (*fusable, *views) if v not in stored or v in views}
    together: dict[Any, list[Variable]] = {}
    for v in order:
        if v in fusable and v in stored:
            together.setdefault(key(v), []).append(v)
    groups = []
    for values in together.values():
        is_sum = _is_whole(values[0])
        at = level[values[0]], is_sum
        groups.append(_Group([values], inline, at, None if is_sum else shape[values[0]]))
    if lanes:
        groups = [g for g in _by_rows(outputs, groups, work) if _worth(g)]
    work.groups.extend(groups)
    return work


def _by_rows(outputs: Sequence[Variable], groups: Sequence[_Group], work: _Work) -> list[_Group]:
    """The groups, where one that needs of others no more than the same rows follows them in one of
    all: so of a softmax that is written out. What a worker has computed is in its cache."""
    groups = sorted(groups, key=lambda g: g.level)
    bit = {v: 1 << k for k, g in enumerate(groups) for v in g.values}
    reached: dict[Variable, int] = {}  # per value all groups that it needs and its own, as bits
    for v in toposort(outputs):
        reached[v] = bit.get(v, 0)
        for x in v.inputs:
            reached[v] |= reached[x]

    made: dict[Variable, _Group] = {}  # per value
    needed: dict[int, int] = {}  # by a group's bit all that the one that it is in needs
    keeps_apart = functools.cache(work.keeps_apart)

    def bits_of(values: Sequence[Variable], bits: Mapping[Variable, int]) -> int:
        return functools.reduce(operator.or_, [bits[v] for v in values], 0)

    def all_needed(bits: int) -> int:
        """These groups, and all that they need now that some are one."""
        seen = 0
        while new := bits & ~seen:
            first = new & -new
            seen |= first
            bits |= needed[first]
        return bits

    def together(one: _Group, other: _Group) -> _Group:
        nests = sorted([*one.nests, *other.nests], key=lambda nest: bit[nest[0]])
        return _Group(nests, one.inline, max(one.level, other.level), None)

    def can_be_one(g: _Group, rows: Variable) -> bool:
        if len(g.nests) > MOST_NESTS:
            return False
        if all_needed(bits_of(g.needed, reached)) & bits_of(g.values, bit):
            return False
        return all(keeps_apart(v, rows) for v in _inside(g.values, g.inline))

    for g in groups:
        if (rows := _rows(g, work)) is not None:
            for other in {id(made[x]): made[x] for x in g.operands if x in made}.values():
                if _rows(other, work) is rows and can_be_one(both := together(other, g), rows):
                    g = both
        made |= dict.fromkeys(g.values, g)
        bits = bits_of(g.needed, reached) | bits_of(g.values, bit)
        needed |= dict.fromkeys((bit[v] for v in g.values), bits)
    needs_of = {v: g.needed for v, g in made.items()}

    def needs(v: Variable) -> Sequence[Variable]:
        return needs_of.get(v, v.inputs)

    order = {id(made[v]): made[v] for v in walk(outputs, set(), needs) if v in made}
    return [replace(g, level=(n, False)) for n, g in enumerate(order.values())]


def _rows(g: _Group, work: _Work) -> Variable | None:
    """The size of the first axis of a group's values, where workers share it and the type does not
    say it."""
    v = g.nests[0][0]
    if not v.ndim or v.type.shape[0] is not None or not _has_rows(v):
        return None
    return work.shape_of(v)[0]


def _kernels(outputs: Sequence[Variable], work: _Work) -> list[list[_Group]]:
    """The groups that share a kernel: those behind which equally many groups have to follow, one
    after the other, none of which can need another. But a group that would let large values live
    longer, as it waits for others, is alone."""
    groups = sorted(work.groups, key=lambda g: g.level)
    place = {v: k for k, g in enumerate(groups) for v in g.values}
    reached: dict[Variable, int] = {}  # per value the groups that it needs, the nearest, as bits
    needs = [0] * len(groups)
    for v in toposort(outputs):
        bits = 0
        for x in v.inputs:
            bits |= reached[x]
        k = place.get(v)
        if k is not None:
            needs[k] |= bits & ~(1 << k)
            bits = 1 << k
        reached[v] = bits
    follow = [0] * len(groups)  # how many, at least
    for k in reversed(range(len(groups))):
        for j in range(k):
            if needs[k] >> j & 1:
                follow[j] = max(follow[j], follow[k] + 1)

    kept = set(outputs)
    last: dict[Variable, int] = {}  # per operand what follows the last group that reads it
    operands = [g.operands for g in groups]
    for k, of_group in enumerate(operands):
        for x in of_group:
            last[x] = min(last.get(x, follow[k]), follow[k])

    def may_wait(k: int) -> bool:
        """Whether the operands that only this group holds are no more than its results."""
        g = groups[k]
        alone = [
            x for x in operands[k] if x.inputs and x.ndim and x not in kept and last[x] == follow[k]
        ]
        fitting = [x for x in alone if g.shape is not None and work.shape_of(x) == g.shape]
        return len(alone) == len(fitting) <= len(g.values)

    found: dict[Any, list[_Group]] = {}
    for k, g in enumerate(groups):
        found.setdefault(follow[k] if may_wait(k) else (follow[k], k), []).append(g)
    return list(found.values())


def _worth(g: _Group) -> bool:
    """Whether a kernel saves anything: more than one pass over memory, or a function that NumPy
    evaluates in many passes."""
    group = g.values
    inside = _inside(group, g.inline)
    functions = [v.op.scalar for v in inside if isinstance(v.op, Elemwise)]
    if _is_number(group[0]):
        return scalar.pow in functions or any(map(is_maths, inside))
    if len(g.nests) > 1 or _gains_by_threads(group[0]):
        return True
    least = 1 if _is_sum_of_all(group[0]) else 2  # to add up is one pass more
    return len(functions) >= least or any("gs_" in f.c for f in functions)


def _inside(group: Sequence[Variable], inline: set[Variable]) -> list[Variable]:
    """The values that a group's kernel computes, inputs first."""
    own = {*group, *inline}
    return walk(group, set(), lambda v: [x for x in read(v) if x in own])


def _read_from_outside(inside: Sequence[Variable]) -> list[Variable]:
    """The operands of a kernel that computes these, without constants."""
    computed = set(inside)
    found = dict.fromkeys(x for v in inside for x in read(v) if x not in computed)
    return [x for x in found if not isinstance(x, Constant)]


class ValuesNest(Frame):
    """A kernel for groups of values outside of loops: of nests of a sum each, or of values of one
    shape. inline: what it may compute on the way."""

    def __init__(
        self, groups: Sequence[Sequence[Sequence[Variable]]], inline: set[Variable],
        lanes: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.has_lanes = lanes
        self.groups = groups
        nests = [nest for group in groups for nest in group]
        self.values = [v for nest in nests for v in nest]
        self.packed_operands: set[Variable] = set()  # whose strides may be any
        self._rows: tuple[Any, Any] | None = None  # of a sum that workers share
        inside = _inside(self.values, inline)
        self.operands = _read_from_outside(inside)
        alike = [
            (v, (nest[0], axis), (v, axis))
            for nest in nests
            for v in nest[1:]
            for axis in range(v.ndim)
        ]
        self.learn([Scope(inside, self.operands, by_the_host, alike)])

    def lowered(self, name: str) -> Nest:
        stored = self.enter()
        start: Any = Number(0)  # positions before a piece
        pieces: list[Piece] = []
        for k, group in enumerate(self.groups):
            first, last = Name("first"), Name("last")
            if len(self.groups) > 1:
                first, last = Name(f"first{k}"), Name(f"last{k}")
            pieces.append(self._piece(group, stored, first, last))
            self._emit_piece(pieces[-1], start)
            start = binary("add", start, pieces[-1].rows)
        return self.nest_of(name, pieces)

    def _piece(
        self, group: Sequence[Sequence[Variable]], stored: dict[Variable, Memory], first: Name,
        last: Name,
    ) -> Piece:  # fmt: skip
        v = group[0][0]
        largest = max((n[0].inputs[0] if _is_whole(n[0]) else n[0] for n in group), key=_axes)
        rows = self.sizes(v)[0] if v.ndim and self._has_rows(v) else Number(1)
        begin, end = first, last
        if in_blocks := len(group) > 1:  # what one nest leaves is in the cache for the next
            begin, end = self.fresh("start", "int64"), self.fresh("end", "int64")
        self._rows = None if rows == Number(1) else (begin, end)
        with self.block() as body:
            for nest in group:
                self._nest(nest, {v: stored[v] for v in nest})
                self.memory |= {v: stored[v] for v in nest if v.ndim}
        if in_blocks:
            body = [self.in_blocks(body, BLOCK, begin, end, first, last)]
        return Piece(tuple(body), first, last, rows, (Number(len(group)), *self.sizes(largest)))

    def in_blocks(
        self, body: Sequence[Any], size: int, start: Name, end: Name, first: Name, last: Name
    ) -> For:  # fmt: skip
        """Statements for the rows from `start` to before `end`, for blocks of so many of those from
        `first` to before `last`."""
        block = self.fresh("block", "int64")
        behind = start + size
        ahead = Let(start, first + block * size), Let(end, (behind < last).choose(behind, last))
        return For(block, (last - first + (size - 1)) // size, (*ahead, *body))

    def _nest(self, nest: Sequence[Variable], stored: dict[Variable, Memory]) -> None:
        v = nest[0]
        if self.has_lanes and _is_sum_of_all(v):
            self._sum(v, stored[v])
        elif self._rows is None or _is_whole(v):
            self.step(nest, stored)
        else:
            self._nest_in_parts(stored, *self._rows)

    def _has_rows(self, v: Variable) -> bool:
        """Whether workers share rows of v, along its first axis."""
        return _has_rows(v) and (self.has_lanes or not isinstance(v.op, Reduce))

    def rows_of(self, v: Variable) -> tuple[Any, Any] | None:
        return self._rows

    def reads_on_the_way(self, v: Variable) -> bool:
        return self._rows is not None or super().reads_on_the_way(v)  # of a worker's rows alone

    def _sum(self, v: Variable, out: Memory) -> None:
        """The sum of all elements: of some hundreds in lanes, and of all of these in float64."""
        x = v.inputs[0]
        sizes = self.sizes(x)
        axis = max((i for i, s in enumerate(sizes) if s != Number(1)), default=0)
        suffix, name = ("f32" if v.dtype == "float32" else "f64"), self.fresh("s", "float64").text
        total, part = Array(name, "float64"), Array(f"{name}_part", v.dtype)

        def row(index: list[Any]) -> None:
            block, start = self.fresh("i", "int64"), self.fresh("start", "int64")
            count, left = self.fresh("count", "int64"), binary("sub", sizes[axis], start)
            with self.block() as body:
                self.emit(Let(start, block * PART))
                self.emit(Let(count, (left < PART).choose(left, Number(PART))))
                self.emit(Local(part, PART))

                def fill(place: list[Any]) -> None:
                    there = [*index[:axis], start + place[0], *index[axis + 1 :]]
                    value = self.element(x, there)
                    if x.dtype != v.dtype:
                        value = Call(scalars[f"cast_{v.dtype}"], (value,), v.dtype, x.dtype)
                    self.emit(Store(part, place[0], value))

                self.nest([count], fill, True)
                self.emit(Use(f"gs_add_up_{suffix}", (part, count, total)))
            self.emit(For(block, (sizes[axis] + (PART - 1)) // PART, tuple(body)))

        self.emit(Local(total, 1))
        self.emit(Store(total, Number(0), Number(0.0, "float64")))
        self.nest([Number(1) if i == axis else s for i, s in enumerate(sizes)], row, False)
        found: Any = Load(total, Number(0))
        if v.dtype != "float64":
            found = Call(scalars[f"cast_{v.dtype}"], (found,), v.dtype, "float64")
        self.emit(Store(out.array, Number(0), found))

    def _emit_piece(self, piece: Piece, start: Any) -> None:
        """The statements of a piece, for those of its rows that are among the positions."""
        first, last = Name("first"), Name("last")
        if piece.first == first:
            body = piece.body
        elif piece.rows == Number(1):
            here = binary("and_", binary("le", first, start), binary("lt", start, last))
            body = (If(here, piece.body),)
        else:
            low, high = binary("sub", first, start), binary("sub", last, start)
            body = (
                Let(piece.first, (low > 0).choose(low, Number(0))),
                Let(piece.last, (high < piece.rows).choose(high, piece.rows)),
                *piece.body,
            )
        for s in body:
            self.emit(s)

    def enter(self) -> dict[Variable, Memory]:
        """Operands and results as the host gives them: where the values go."""
        for k, x in enumerate(self.operands):
            packed = x in self.packed_operands
            array = self.pointer(Array(f"x{k}", x.dtype), False, Given(k, packed))
            if x.ndim == 0:
                local = self.fresh("q", x.dtype)
                self.before.append(Let(local, Load(array, Number(0))))
                self.locals[x] = local
            else:
                self.memory[x] = Memory(array, self.strides(k, x.ndim, 0, not packed))
        stored: dict[Variable, Memory] = {}
        for k, v in enumerate(self.values):
            array = self.pointer(Array(f"y{k}", v.dtype), True, Result(k))
            stored[v] = Memory(array, row_major(self.sizes(v)))
        return stored

    def nest_of(
        self, name: str, pieces: Sequence[Piece], least: int = 0, depth: Any = None
    ) -> Nest:
        """The kernel and its program, of the statements so far."""
        body = (*self.before, *self.statements(), Return(Number(0)))
        kernel = Kernel(
            name, tuple(p for p, _ in self.pointers), tuple(n for n, _ in self.integers), body
        )
        program = NestProgram(
            kernel,
            tuple(s for _, s in self.pointers),
            tuple(s for _, s in self.integers),
            tuple((v.dtype, tuple(self.sizes(v))) for v in self.values),
            tuple(self.equal),
            tuple(self.before),
            tuple(pieces),
            least,
            depth,
        )
        others = tuple(leaves(self.values, self.operands))
        operands, sizes = tuple(self.operands), tuple(self.outer_sizes)
        return Nest(tuple(self.values), operands, sizes, others, program)

    def _nest_in_parts(self, stored: dict[Variable, Memory], first: Name, last: Name) -> None:
        """One nest; its outer axis runs from `first` to `last`, so that threads can share it."""

        def body(index: list[Any]) -> None:
            for v, m in stored.items():
                self.emit(Store(m.array, m.offset(index), self.element(v, list(index))))

        self.nest(self.sizes(next(iter(stored))), body, True, (0, first, last))
