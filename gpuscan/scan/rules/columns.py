"""States that hold examples in columns: the loop works on their transposes, in which examples are
rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ...graph import Variable, depends_on, inherit, made_for, rebuild, substitute, toposort
from ...ops.elemwise import Elemwise
from ...ops.index import IncSubtensor, Subtensor
from ...ops.linalg import Dot
from ...ops.patterns import NewAxis, Pattern, Slice, extended, holes, trimmed
from ...ops.reduce import ArgReduce, Reduce
from ...ops.shape import (
    BroadcastTo,
    Dim,
    DimShuffle,
    FirstRows,
    Join,
    Specify,
    dim,
    dimshuffle,
    specify,
)
from ...ops.softmax import LogSoftmax, Softmax
from ...record import replace
from ...types import TensorType
from ..op import Step
from .build import Found, applied, placeholder, scan_op


def turn_columns(v: Variable, used: frozenset[int]) -> Found | None:
    """h = f(W @ h) is h.T = f(h.T @ W.T): the factor that does not change is the right one, which
    kernels hold, and the examples, each of which is a row, may be any number. Sequences, initial
    values and results are transposed outside, as views."""
    op = scan_op(v)
    step, o = op.step, op.split(v.inputs)
    turned = _turned(step)
    if not turned:
        return None
    carries = {c: placeholder(dimshuffle(c, 1, 0)) for c in step.carries if c in turned}
    values = _across(step, turned, carries)
    # a sequence's transposed row is a row of another sequence
    rows = {x: placeholder(x) for x in toposort(values)
            if x.inputs and x.inputs[0] in step.seqs and _is_transpose(x)}  # fmt: skip
    changed = step.mapped(substitute(values, rows))
    changed = replace(
        changed, seqs=(*step.seqs, *rows.values()),
        carries=tuple(carries.get(c, c) for c in step.carries),
    )  # fmt: skip
    with made_for(v):
        seqs = [_transposed_outside(o.seqs[step.seqs.index(x.inputs[0])]) for x in rows]
        inits = [_transposed_outside(x) if c in turned else x
                 for c, x in zip(step.carries, o.inits)]  # fmt: skip
        r = applied(v, changed, replace(o, seqs=(*o.seqs, *seqs), inits=tuple(inits)))
        finals = [dimshuffle(x, 1, 0) if c in turned else x
                  for c, x in zip(step.carries, r.finals)]  # fmt: skip
        traces = [dimshuffle(x, 0, 2, 1) if row in turned else x
                  for row, x in zip(step.traces, r.traces)]  # fmt: skip
    return [*finals, *traces, r.steps]


# ---- what is turned ---------------------------------------------------------------------------

# Of matrices computed by these, the transpose is the same of the operands' transposes.
_ALIKE = (
    BroadcastTo, Elemwise, IncSubtensor, Join, LogSoftmax, Softmax, Specify, Subtensor,
)  # fmt: skip
_KNOWN = (*_ALIKE, ArgReduce, Dim, DimShuffle, Dot, Reduce)

Ties = Mapping[Variable, list[tuple[Variable, bool]]]  # a matrix, and whether it is turned alone


def _turned(step: Step) -> set[Variable]:
    """The matrices that are to be transposed: those that change with the carries and that hang
    together with a product with a left factor that stays the same, on which the carries depend.
    None of those where that would put a transposition in the step, or a weight on the left."""
    order = toposort(step.outputs)
    changing = {x for x in depends_on(step.outputs, step.carries) if _is_matrix(x)}
    varying = depends_on(step.outputs, [*step.seqs, *step.carries])
    carried = set(toposort(step.new if step.stop is None else [*step.new, step.stop]))
    ties: Ties = {x: [] for x in changing}
    wanted: list[Variable] = []
    stay: set[Variable] = set()  # what can't be turned, or is better not

    def tie(x: Variable, y: Variable, alone: bool) -> None:
        if x in changing and y in changing:
            ties[x].append((y, alone))
            ties[y].append((x, alone))

    for c, new in zip(step.carries, step.new):
        tie(c, new, False)
    for x in order:
        if not x.inputs or changing.isdisjoint((x, *x.inputs)):
            continue
        if not _has_transpose(x):
            stay |= changing.intersection((x, *x.inputs))
        elif not isinstance(x.op, Dot):
            for a, b, alone in _ties(x):
                tie(a, b, alone)
        elif x.ndim == 2 and len(weights := [i for i in x.inputs if i not in varying]) == 1:
            left, right = x.inputs
            moving = right if left in weights else left
            tie(x, moving, False)
            if moving in changing and moving is left:
                stay.add(x)
            elif moving in changing and x in carried:
                wanted.append(x)

    found: set[Variable] = set()
    seen: set[Variable] = set()
    for x in wanted:
        if x in seen:
            continue
        group = _group(x, ties)
        seen |= set(group)
        turned = {y for y in group if group[y]}
        if turned.isdisjoint(stay) and turned.issuperset(y for y in wanted if y in group):
            found |= turned
    # with what they are computed from that does not change with the carries
    read = {new for c, new in zip(step.carries, step.new) if c in found}
    for x in reversed(order):
        if x in read and x not in changing and _is_matrix(x) and x.inputs and _has_transpose(x):
            found.add(x)
        if x in found:
            read |= set(x.inputs)
    return found


def _group(first: Variable, ties: Ties) -> dict[Variable, bool]:
    """What hangs together with the first, and whether it is turned where the first is; nothing
    where something would have to be both."""
    group = {first: True}
    stack = [first]
    while stack:
        x = stack.pop()
        for y, alone in ties[x]:
            turn = group[x] != alone
            if y not in group:
                group[y] = turn
                stack.append(y)
            elif group[y] != turn:
                return {}
    return group


def _is_matrix(x: Variable) -> bool:
    return isinstance(x.type, TensorType) and x.ndim == 2


def _is_transpose(x: Variable) -> bool:
    return isinstance(x.op, DimShuffle) and x.op.pattern == (1, 0)


def _has_transpose(v: Variable) -> bool:
    """Whether `_transposed` has a way to compute it."""
    if not isinstance(v.op, _KNOWN):
        return False
    x = v.inputs[0]
    match v.op:
        case Subtensor(pattern) | IncSubtensor(pattern):
            return x.ndim == 2 and not any(isinstance(e, NewAxis) for e in pattern)
        case Reduce():
            return x.ndim == 2
        case BroadcastTo():
            return v.ndim == 2
    return True


def _ties(v: Variable) -> Iterator[tuple[Variable, Variable, bool]]:
    """Pairs of what v is made of, and v, and whether one is turned where the other is not."""
    if isinstance(v.op, _ALIKE):
        for x in v.inputs:
            yield x, v, False
    elif _is_transpose(v):
        yield v.inputs[0], v, True


# ---- the step ---------------------------------------------------------------------------------


def _across(
    step: Step, turned: set[Variable], carries: dict[Variable, Variable]
) -> list[Variable]:  # fmt: skip
    """The step's outputs computed from transposed carries; of those that are turned, transposes."""
    plain: dict[Variable, Variable] = {}
    across: dict[Variable, Variable] = {}  # transposes of matrices

    def of(x: Variable) -> Variable:
        return across[x] if _is_matrix(x) else plain[x]

    for v in toposort(step.outputs):
        with made_for(v):
            if v in turned:
                across[v] = carries[v] if v in carries else inherit(_transposed(v, of), v)
                plain[v] = dimshuffle(across[v], 1, 0)
                continue
            if any(i in turned for i in v.inputs) and not _is_matrix(v) and _has_transpose(v):
                plain[v] = inherit(_transposed(v, of), v)
            else:
                plain[v] = rebuild(v, [plain[i] for i in v.inputs]) if v.inputs else v
            if _is_matrix(v):
                across[v] = dimshuffle(plain[v], 1, 0)
    new = [across[v] if c in turned else plain[v] for c, v in zip(step.carries, step.new)]
    traces = [across[v] if v in turned else plain[v] for v in step.traces]
    return [*new, *traces] if step.stop is None else [*new, *traces, plain[step.stop]]


def _transposed(v: Variable, of: Callable[[Variable], Variable]) -> Variable:
    """The transpose of a matrix v, or v of other dimensions, from the transposes `of` matrices."""
    op, x = v.op, v.inputs[0]
    match op:
        case Elemwise():
            return op(*map(of, v.inputs))
        case Dot():
            a, b = v.inputs
            return op(of(b), of(a))
        case Specify(shape):
            return specify(of(x), shape[::-1])
        case Join(axis):
            return Join(1 - axis)(*map(of, v.inputs))
        case Softmax(axis) | LogSoftmax(axis):
            return type(op)(1 - axis)(of(x))
        case Reduce(axes=axes):
            return replace(op, axes=tuple(sorted(1 - a for a in axes)))(of(x))
        case ArgReduce(axis=axis):
            return replace(op, axis=1 - axis)(of(x))
        case Dim(axis):
            return dim(of(x), 1 - axis)
        case BroadcastTo(static):
            row = dimshuffle(of(x), 0, "x") if x.ndim == 1 else of(x)
            return BroadcastTo(static[::-1])(row, *map(of, v.inputs[:0:-1]))
        case DimShuffle(pattern):
            if _is_matrix(x):
                pattern = tuple(p if p == "x" else 1 - int(p) for p in pattern)
            return dimshuffle(of(x), *(pattern[::-1] if v.ndim == 2 else pattern))
        case Subtensor(pattern):
            swapped, operands = _swapped(pattern, v.inputs[1:])
            return Subtensor(swapped)(of(x), *map(of, operands))
        case IncSubtensor(pattern):
            swapped, operands = _swapped(pattern, v.inputs[2:])
            return replace(op, pattern=swapped)(of(x), of(v.inputs[1]), *map(of, operands))
    return dimshuffle(Variable(op, list(map(of, v.inputs))), 1, 0)


def _swapped(
    pattern: Pattern, operands: Sequence[Variable]
) -> tuple[Pattern, list[Variable]]:  # fmt: skip
    """The index of a matrix as one of its transpose."""
    a, b = extended(pattern, 2)
    own = list(zip(holes(pattern), operands))
    return trimmed((b, a)), [x for k in (1, 0) for owner, x in own if owner == k]


# ---- outside ----------------------------------------------------------------------------------


def _transposed_outside(x: Variable) -> Variable:
    """x with its last two axes swapped: computed from what is transposed already, where that is
    as good, so that it is a view in the end."""
    made: dict[Variable, Variable] = {}
    stack = [x]
    while stack:
        v = stack[-1]
        own = _parts(v)
        waiting = [i for i in own or () if i not in made]
        if waiting:
            stack += waiting
            continue
        stack.pop()
        if own is None:
            made[v] = dimshuffle(v, *_swap(range(v.ndim)))
        elif v not in made:
            made[v] = _with_parts(v, [made[i] for i in own])
    return made[x]


def _parts(v: Variable) -> tuple[Variable, ...] | None:
    """The inputs that v with its last two axes swapped is computed from, these swapped too."""
    match v.op:
        case Elemwise():
            return v.inputs
        case Specify():
            return v.inputs[:1]
        case Join(0) if v.ndim == 3:
            return v.inputs
        case FirstRows() | Subtensor((Slice(),)) if v.ndim == 3:
            return v.inputs[:1]
        case BroadcastTo() if v.inputs[0].ndim in (0, v.ndim):
            return v.inputs[:1] if v.inputs[0].ndim else ()
    return None


def _with_parts(v: Variable, parts: Sequence[Variable]) -> Variable:
    """v with its last two axes swapped, from its `_parts`."""
    rest = v.inputs[len(parts) :]
    match v.op:
        case Specify(shape):
            return specify(parts[0], _swap(shape))
        case BroadcastTo(static):
            value, sizes = [*parts, *rest][0], rest[len(rest) - v.ndim :]
            return BroadcastTo(_swap(static))(value, *_swap(sizes))
    return v.op(*parts, *rest)


def _swap(axes: Sequence[Any]) -> tuple[Any, ...]:
    *lead, a, b = axes
    return (*lead, b, a)
