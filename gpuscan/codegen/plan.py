"""Which values of a step are stored, and the groups in which they are computed.

A value that is read through memory (an operand of a product, a value of another loop nest) is
*stored*; any other is computed where it is read. Stored values of one shape and level are one
group: they share a loop nest. A new level starts behind every op that needs whole operands, each
of which is a group of its own. So is a choice whose branches are worth leaving out: what only a
branch reads is no part of the plan, but of the branch's own. A long chain of functions is cut.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .. import maths
from ..evaluate import branch_blocks
from ..graph import Constant, Item, Variable, toposort
from ..ops.control import Identity, IfElse, Require
from ..ops.create import Arange
from ..ops.elemwise import Elemwise
from ..ops.index import (
    AdvancedIncSubtensor,
    AdvancedSubtensor,
    IncSubtensor,
    Lookup,
    Subtensor,
)
from ..ops.linalg import BatchedDot, Dot
from ..ops.patterns import FULL, HOLE, At
from ..ops.reduce import ArgReduce, Cumulative, Reduce
from ..ops.sample import Uniform
from ..ops.shape import BroadcastTo, Dim, DimShuffle, Join, Reshape, Specify
from ..ops.softmax import LogSoftmax, Softmax
from ..scan.op import Scan
from ..types import FLOATS, TensorType
from .kernel import Binary

# Ops that need whole operands, and those of them that read each element once.
WHOLE = (
    Dot, BatchedDot, Reduce, ArgReduce, Cumulative, Softmax, LogSoftmax, AdvancedIncSubtensor,
    Uniform, Scan, Require,
)  # fmt: skip
_READ_ONCE = (Reduce, ArgReduce, Cumulative, Softmax, LogSoftmax)
_MOST_FUNCTIONS = 64  # one after the other in a nest
_VIEWS = (BroadcastTo, Dim, DimShuffle, Reshape, Specify)


class NotLowered(Exception):
    """A step, or an op, that has no kernel, and why."""


_FRAMES = 50_000  # of Python, which take none of the C stack: an op of a chain takes three
_lock = threading.Lock()
_deep: list[int] = []  # per lowering in progress the limit before it


@contextlib.contextmanager
def deep() -> Iterator[None]:
    """Elements are lowered by recursion: within this the depth of a step that has a kernel does not
    depend on the caller's. Raises NotLowered for a step that is deeper still."""
    with _lock:  # the limit is that of all threads
        _deep.append(_deep[0] if _deep else sys.getrecursionlimit())
        sys.setrecursionlimit(max(_deep[0], _FRAMES))
    try:
        yield
    except RecursionError:
        raise NotLowered("the step is too deep: a chain of too many ops") from None
    finally:
        with _lock:
            before = _deep.pop()
            if not _deep:
                sys.setrecursionlimit(before)


def read(v: Variable) -> Sequence[Variable]:
    """The inputs whose elements v's elements are made from; sizes are known without them."""
    if isinstance(v.op, Dim):
        return ()
    if isinstance(v.op, Arange):
        return v.inputs[::2]  # all but where it ends
    return v.inputs[:1] if isinstance(v.op, BroadcastTo | Reshape | Uniform) else v.inputs


def walk(
    outputs: Sequence[Variable],
    given: set[Variable],
    reads: Callable[[Variable], Sequence[Variable]] = read,
) -> list[Variable]:
    """The values that have to be computed, inputs first."""
    order: list[Variable] = []
    seen = set(given)
    stack = [(v, False) for v in reversed(outputs)]
    while stack:
        v, ready = stack.pop()
        if ready:
            order.append(v)
        elif v not in seen:
            seen.add(v)
            stack.append((v, True))
            stack += [(x, False) for x in reversed(reads(v))]
    return order


_MATHS = frozenset(f for f in vars(maths).values() if callable(f))


def is_maths(v: Variable) -> bool:
    """Whether an element is a function that `maths` computes, in tens of instructions."""
    return isinstance(v.op, Elemwise) and v.op.scalar.numpy in _MATHS


def is_cheap(v: Variable) -> bool:
    """Whether computing an element again costs about as much as reading it."""
    return all(isinstance(x, Constant) or not x.inputs for x in v.inputs) and _is_arithmetic(v)


def _is_arithmetic(v: Variable) -> bool:
    return v.op.label in ("add", "sub", "mul", "neg") or v.op.label.startswith("cast_")


class Plan:
    """The groups of a step's values, in order.

    outputs   what is computed
    wanted    those of the outputs that are put where they are told
    given     what has its place already
    reads_on_the_way  whether a value that is alone to read another computes it where it reads it
    """

    def __init__(
        self, outputs: Sequence[Variable], wanted: set[Variable], given: set[Variable],
        shape_of: Callable[[Variable], tuple[Any, ...]],
        reads_on_the_way: Callable[[Variable], bool],
    ) -> None:  # fmt: skip
        everything = toposort(outputs, given)
        self.choices = _choices(outputs, everything)
        self.results: dict[Variable, list[Variable]] = {}  # of a loop: those that are read
        for v in everything:
            if isinstance(v.op, Item) and v not in given:
                self.results.setdefault(v.inputs[0], []).append(v)
        self._shape_of = shape_of
        order = [v for v in walk(outputs, given, self._reads) if not isinstance(v, Constant)]
        self.order = order
        for v in order:
            if not isinstance(v.type, TensorType) and not isinstance(v.op, Scan):
                raise NotLowered(f"{v.op.label} inside the step")
        users: dict[Variable, list[Variable | None]] = {v: [None] for v in outputs}
        for v in order:
            for x in self._reads(v):
                users.setdefault(x, []).append(v)

        def shape(v: Variable) -> Any:
            return None if isinstance(v.op, Scan) else shape_of(v)

        level: dict[Variable, tuple[int, int]] = {}
        cut = self._cuts()
        stored: set[Variable] = set(wanted) | cut
        for v in order:
            stored |= self._stored_for(v, given)
            if self._is_computed(v):
                for u in users.get(v, ()):
                    if u is None or not self._is_pointwise(u) or shape(u) != shape(v):
                        read_once = u is not None and isinstance(u.op, _READ_ONCE)
                        if not (read_once and len(users[v]) == 1):
                            stored.add(v)
        for v in order:
            deepest = (0, 0)
            for x in self._reads(v):
                if x in level:
                    a, b = level[x]
                    if self.is_whole(x):
                        here = (a, 0)
                    elif x in cut or (x in stored and shape(x) != shape(v)):
                        here = (a, b + 1)
                    else:
                        here = (a, b)
                    deepest = max(deepest, here)
            level[v] = (deepest[0] + 1, 0) if self.is_whole(v) else deepest
        # a computed value that another level reads has to be stored
        for v in order:
            if self._is_computed(v):
                for u in users.get(v, ()):
                    if u is None or u not in level or level[u] == level[v]:
                        continue
                    read_once = isinstance(u.op, _READ_ONCE) and len(users[v]) == 1
                    if not (read_once and reads_on_the_way(u)):
                        stored.add(v)
        groups: dict[Any, list[Variable]] = {}
        for v in order:
            if v in stored and not isinstance(v.op, Item):
                whole = self.is_whole(v)
                key = (*level[v], not whole, v if whole else shape(v))
                groups.setdefault(key, []).append(v)
        ordered = [groups[k] for k in sorted(groups, key=lambda k: k[:3])]
        self._there = stored | given
        self.joined = self._joined(ordered, wanted)
        # what stands beside such a join reads it when all of it is there
        self.groups = []
        for group in ordered:
            self.groups += [[v] for v in group if v in self.joined]
            self.groups += [rest] if (rest := [v for v in group if v not in self.joined]) else []

    def in_turn(self, group: Sequence[Variable]) -> list[list[Variable]]:
        """The values of a group nest by nest, where not all share one: a value whose functions
        wait for another one's gets a nest behind it, in which a processor, that sees some hundred
        instructions ahead, has more elements under way. Not where both compute the same."""
        if len(group) < 2:
            return [list(group)]
        turns: dict[Variable, int] = {}
        waits: dict[Variable, bool] = {}  # whether there are functions in its turn that it needs
        computed: dict[Variable, int] = {}
        for v in group:
            own = [x for x in walk([v], self._there - {v}, self._reads) if self._is_computed(x)]
            first = {x for w in own for x in self._reads(w) if x in turns}
            long = any(map(is_maths, own))
            turns[v] = max((turns[x] + (long and waits[x]) for x in first), default=0)
            waits[v] = long or any(waits[x] for x in first if turns[x] == turns[v])
            if any(computed.setdefault(x, turns[v]) != turns[v] for x in own):
                return [list(group)]
        return [[v for v in group if turns[v] == t] for t in sorted(set(turns.values()))]

    def _joined(
        self, groups: Sequence[Sequence[Variable]], wanted: set[Variable]
    ) -> dict[Variable, dict[int, Variable]]:
        """The joins whose parts are computed where they stand in the whole, before it: per
        position of an input the value that it is."""
        place = {v: k for k, group in enumerate(groups) for v in group}
        taken = set(wanted)
        found: dict[Variable, dict[int, Variable]] = {}
        for v in (v for group in groups for v in group if isinstance(v.op, Join)):
            for k, x in enumerate(v.inputs):
                while isinstance(x.op, Specify):
                    x = x.inputs[0]
                alone = isinstance(x.op, Elemwise) or (isinstance(x.op, Dot) and x.dtype in FLOATS)
                if alone and place.get(x, place[v]) < place[v] and x not in taken:
                    found.setdefault(v, {})[k] = x
                    taken.add(x)
        return found

    def _cuts(self) -> set[Variable]:
        """Values of long chains that are stored on the way: what a C compiler takes for a nest
        grows faster than the functions in it."""
        depth: dict[Variable, int] = {}
        found: set[Variable] = set()
        for v in self.order:
            depth[v] = max((depth.get(x, 0) for x in v.inputs if not self.is_whole(x)), default=0)
            if self._is_computed(v) and v.ndim > 0 and not _is_arithmetic(v):
                depth[v] += 1
                if depth[v] == _MOST_FUNCTIONS:
                    found.add(v)
                    depth[v] = 0
        return found

    def _reads(self, v: Variable) -> Sequence[Variable]:
        if v in self.choices:
            return self.choices[v]
        if isinstance(v.op, Dim):
            size = self._shape_of(v.inputs[0])[v.op.axis]
            return [size] if isinstance(size, Variable) and size is not v else ()
        found = read(v)
        if len(found) < len(v.inputs) and any(isinstance(s, Variable) for s in self._shape_of(v)):
            return v.inputs  # sizes that the step computes
        return found

    def is_whole(self, v: Variable) -> bool:
        """Whether a value has a group of its own."""
        return isinstance(v.op, WHOLE) or v in self.choices

    def _is_pointwise(self, v: Variable) -> bool:
        return isinstance(v.op, Elemwise | IfElse) and v not in self.choices

    def _is_computed(self, v: Variable) -> bool:
        """Whether an element costs more than a read."""
        return self._is_pointwise(v) and not is_cheap(v)

    def _stored_for(self, v: Variable, given: set[Variable]) -> set[Variable]:
        """What has to be stored because v is computed: itself, or what it reads."""
        found: set[Variable] = set()
        match v.op:
            case Dot() | BatchedDot():
                found = set(v.inputs)
            case Uniform():
                found = {v.inputs[0]}
            case Scan():
                o = v.op.split(v.inputs)
                found = {x for x in v.inputs if x.ndim == 0 or may_fail(x)} | set(o.consts)
            case IfElse() if v in self.choices:
                found = {v.inputs[0]}
            case AdvancedSubtensor():  # all positions are checked, whatever is read of it
                return {v}
        if self.is_whole(v):
            found = {v} | (found - given)
        return {x for x in found if not isinstance(x, Constant)}


def may_fail(x: Variable) -> bool:
    """Whether a position is checked when the value is read."""
    return isinstance(x.op, Subtensor) and At(HOLE) in x.op.pattern


def _choices(
    outputs: Sequence[Variable], order: Sequence[Variable]
) -> dict[Variable, list[Variable]]:
    """The choices whose branches are worth leaving out, and what each reads: the condition, and
    what its branches read that is computed anyway."""
    if not any(isinstance(v.op, IfElse) for v in order):
        return {}
    inside: dict[Variable, list[Variable]] = {}
    for v, block in branch_blocks(order, outputs).items():
        for choice, _ in block:
            inside.setdefault(choice, []).append(v)
    found = {}
    for v in order:
        own = set(inside.get(v, ()))
        if not isinstance(v.op, IfElse) or all(map(_is_free, own)):
            continue
        outside = [x for w in own for x in read(w)] + list(v.inputs)
        found[v] = list(dict.fromkeys(x for x in outside if x not in own))
    return found


def _is_free(v: Variable) -> bool:
    """Whether a value of a branch costs next to nothing and can't fail."""
    if isinstance(v.op, Elemwise):
        return _is_arithmetic(v)
    return not v.inputs or isinstance(v.op, _VIEWS)


# ---- rows -----------------------------------------------------------------------------------


def in_size(rows: Any, size: Any) -> int:
    """How often rows is a factor of a size."""
    if isinstance(size, Binary) and size.op == "mul":
        return in_size(rows, size.a) + in_size(rows, size.b)
    return int(size == rows)


def keeps_rows_apart(v: Variable, rows: Any, sizes_of: Callable[[Variable], Sequence[Any]]) -> bool:
    """Whether row i of v, along a first axis of the size `rows`, needs only rows i of what it
    is computed from; and nothing else is of that size. Rows of such a first axis times another
    size are rows, so many together."""
    if isinstance(v.op, Scan | Item):
        return False
    sizes = sizes_of(v)
    if any(in_size(rows, s) for s in sizes[1:]):
        return False
    if isinstance(v, Constant) or not v.inputs:
        return not isinstance(v, Constant) or rows not in sizes
    has_rows = [in_size(rows, s[0]) if s else 0 for s in (sizes, *map(sizes_of, read(v)))]
    if max(has_rows) > 1:
        return False
    if not any(has_rows):
        return True
    own, *given = map(bool, has_rows)
    match v.op:
        case Elemwise() | IfElse() | BroadcastTo() | DimShuffle() | Specify():
            return True
        case Uniform():
            return rows in sizes or not own
        case Dot():
            return given == [True, False] and v.inputs[0].ndim == 2
        case BatchedDot():
            return all(given)
        case Reduce(axes=axes):
            return 0 not in axes
        case Softmax(axis) | LogSoftmax(axis) | ArgReduce(axis=axis) | Cumulative(axis=axis):
            return axis != 0
        case Join(axis=axis):
            return axis != 0
        case Reshape():
            return own and given == [True]
        case Lookup():
            return given == [False, True]
        case Subtensor(pattern) | IncSubtensor(pattern):
            return bool(pattern) and pattern[0] == FULL and given[0]
        case AdvancedSubtensor(pattern):
            x, *arrays = given
            if x:
                return own and pattern[0] == FULL and not any(arrays)
            most = max(i.ndim for i in v.inputs[1:])  # of a table, what each row asks for
            return own and all(i.ndim == most for i, a in zip(v.inputs[1:], arrays) if a)
        case AdvancedIncSubtensor(pattern):
            x, _, *arrays = given
            return x and pattern[0] == FULL and not any(arrays)
    return isinstance(v.op, Identity) and not getattr(v.op, "has_effect", False)
