"""Elementwise work outside loops: chains of it, with a sum at the root or not, as one loop nest.

A value is stored where something else than elementwise work of its own shape reads it; what is
not stored is computed in the nests that read it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ..graph import Constant, Variable, certain, clients, leaves, toposort
from ..ops.elemwise import Elemwise
from ..ops.reduce import Reduce
from ..ops.shape import BroadcastTo, DimShuffle, Specify, dims
from ..record import record
from ..rules.shapes import pushed_dims
from .frame import Frame
from .kernel import Array, Kernel, Let, Load, Name, Number, Return, Store, row_major
from .lower import Memory
from .plan import NotLowered, read, walk
from .program import Given, NestProgram, Result
from .render import DTYPES
from .sizes import Scope, by_the_host

VIEWS = (BroadcastTo, DimShuffle, Specify)


@record
class Nest:
    """A kernel outside of loops: what it computes, from what; and what else the values are
    computed from as they were written, such as what their sizes come from."""

    values: tuple[Variable, ...]
    operands: tuple[Variable, ...]
    sizes: tuple[Variable, ...]
    others: tuple[Variable, ...]
    program: NestProgram


def lower_nests(
    outputs: Sequence[Variable], taken: Collection[Variable] = (), lanes: bool = True
) -> list[Nest]:
    """The elementwise work among the outputs' nodes as nests, but for what is `taken` by other
    kernels. What has no kernel is left out: it runs by its op's NumPy meaning. Without `lanes`,
    on a device with memory of its own, every one is worth a kernel."""
    found: list[Nest] = []
    for k, group in enumerate(_groups(outputs, taken, lanes)):
        try:
            found.append(ValuesNest(group.values, group.inline, lanes).lowered(f"nest_{k}"))
        except (NotLowered, RecursionError):  # a chain of thousands: deeper than Python walks
            continue
    return found


def is_fusable(v: Variable) -> bool:
    """Whether v is elementwise work or a sum of it, of dtypes that kernels know."""
    if not isinstance(v.op, Elemwise | Reduce):
        return False
    dtypes = {v.dtype, *(x.dtype for x in v.inputs)}
    if not dtypes <= DTYPES:
        return False
    if isinstance(v.op, Reduce):
        return v.ndim < v.inputs[0].ndim
    return isinstance(v.op, Elemwise) and v.ndim > 0


@record
class _Group:
    values: list[Variable]
    inline: set[Variable]


def _groups(outputs: Sequence[Variable], taken: Collection[Variable], lanes: bool) -> list[_Group]:
    order = toposort(outputs)
    sure = certain(outputs)  # a branch that is not taken must not be computed
    fusable = {v for v in order if is_fusable(v) and v in sure and v not in taken}
    views = {v for v in order if isinstance(v.op, VIEWS)}
    shaped = [v for v in order if v in fusable]
    flat = iter(pushed_dims([d for v in shaped for d in dims(v)]))
    shape = {v: tuple(next(flat) for _ in range(v.ndim)) for v in shaped}

    # Groups of one level do not need each other: a level ends behind everything that is no
    # elementwise work, behind a sum, and where the shape changes.
    level: dict[Variable, int] = {}
    seen_through: dict[Variable, Variable] = {}  # a view: the value that it is a view of
    for v in order:
        deepest = 0
        for x in v.inputs:
            root = seen_through.get(x, x)
            ends = root in fusable and (
                isinstance(root.op, Reduce)
                or (isinstance(v.op, Elemwise) and v in fusable and shape[root] != shape[v])
            )
            deepest = max(deepest, level[x] + (1 if ends and v not in views else 0))
        level[v] = deepest if v in fusable or v in views else deepest + bool(v.inputs)
        if v in views:
            seen_through[v] = seen_through.get(v.inputs[0], v.inputs[0])

    def key(v: Variable) -> Any:
        return (level[v], v if isinstance(v.op, Reduce) else shape[v])

    users = clients(outputs)
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
                one_sum = isinstance(u.op, Reduce) and len(users[v]) == 1 and level[u] == level[v]
                if not one_sum:
                    stored.add(v)
        if v in fusable and isinstance(v.op, Reduce):
            stored.add(v)
    inline = {v for v in (*fusable, *views) if v not in stored or v in views}
    groups: dict[Any, list[Variable]] = {}
    for v in order:
        if v in fusable and v in stored:
            groups.setdefault(key(v), []).append(v)
    return [_Group(g, inline) for g in groups.values() if not lanes or _worth(g, inline)]


def _worth(group: list[Variable], inline: set[Variable]) -> bool:
    """Whether a kernel saves anything: more than one pass over memory, or a function that NumPy
    evaluates in many passes."""
    ops = [v for v in _inside(group, inline) if isinstance(v.op, Elemwise)]
    return len(ops) > 1 or any("gs_" in v.op.scalar.c for v in ops)  # type: ignore[attr-defined]


def _inside(group: Sequence[Variable], inline: set[Variable]) -> list[Variable]:
    """The values that a group's kernel computes, inputs first."""
    own = {*group, *inline}
    return walk(group, set(), lambda v: [x for x in read(v) if x in own])


class ValuesNest(Frame):
    """A kernel for values outside of loops; `inline`: what it may compute on the way."""

    def __init__(
        self, values: Sequence[Variable], inline: set[Variable], lanes: bool = True
    ) -> None:
        super().__init__()
        self.has_lanes = lanes
        self.values = list(values)
        self.packed_operands: set[Variable] = set()  # whose strides may be any
        inside = _inside(values, inline)
        computed = set(inside)
        operands: dict[Variable, None] = {}
        for v in inside:
            for x in read(v):
                if x not in computed and not isinstance(x, Constant):
                    operands[x] = None
        self.operands = list(operands)
        self.learn([Scope(inside, self.operands, by_the_host)])

    def lowered(self, name: str) -> Nest:
        stored = self.enter()
        outer = self.sizes(self.values[0])
        parts = not isinstance(self.values[0].op, Reduce) and outer[0] != Number(1)
        if parts:
            self._nest_in_parts(stored)
        else:
            self.step(self.values, stored)
        return self.nest_of(name, parts)

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

    def nest_of(self, name: str, parts: bool, least: int = 0, depth: Any = None) -> Nest:
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
            parts,
            least,
            depth,
        )
        others = tuple(leaves(self.values, self.operands))
        operands, sizes = tuple(self.operands), tuple(self.outer_sizes)
        return Nest(tuple(self.values), operands, sizes, others, program)

    def _nest_in_parts(self, stored: dict[Variable, Memory]) -> None:
        """One nest; its outer axis runs from `first` to `last`, so that threads can share it."""

        def body(index: list[Any]) -> None:
            for v, m in stored.items():
                self.emit(Store(m.array, m.offset(index), self.element(v, list(index))))

        self.nest(self.sizes(self.values[0]), body, True, (Name("first"), Name("last")))
