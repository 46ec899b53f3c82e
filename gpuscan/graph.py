"""The graph: one node class, interned and immutable, and the walks over it.

A `Variable` is an op applied to variables; two that are built alike are the same object, so
equality is identity. Names, tags and the user's line are notes on a node, not part of it.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self
from weakref import WeakValueDictionary

import numpy as np

from .operators import TensorMethods
from .record import field, record
from .types import TensorType, TupleType, Type

Origin = tuple[str, int]

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_EXAMPLES = os.path.join(_PACKAGE, "examples") + os.sep


class Op:
    """What a node does. A subclass is a record; its fields are the op's parameters.

    infer      the result's type from the inputs' types
    eval       the meaning, by NumPy
    pullback   per input, the cotangent: a Variable, None for "no gradient flows", or Undefined
    sizes      the result's shape as int64 scalars, where that needs no run of the op
    batch      the op over a new leading axis of some inputs (`batched`), or None
    evaluator  `eval` made ready for one node, where the node's types steer it
    """

    __slots__ = ()

    # inputs that only steer the result (indices, sizes): no gradient can be asked through them
    steering: ClassVar[tuple[int, ...]] = ()

    def __call__(self, *inputs: Any) -> Variable:
        return Variable(self, inputs)

    def infer(self, *types: Any) -> Type:
        raise NotImplementedError(type(self).__name__)

    def eval(self, *arrays: Any) -> Any:
        raise NotImplementedError(type(self).__name__)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        raise NotImplementedError(f"{type(self).__name__} has no gradient")

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable] | None:
        return None

    def batch(
        self, inputs: Sequence[Variable], batched: Sequence[bool], n: Variable
    ) -> Variable | None:
        return None

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        return self.eval

    def connection(self, node: Variable) -> Sequence[Any]:
        """Per input, whether the result depends on it in a way that has a gradient. For a node
        with several results: per input, the set of results that do."""
        return [i not in self.steering for i in range(len(node.inputs))]

    @property
    def label(self) -> str:
        """The op as debugprint names it."""
        return type(self).__name__


@record
class Undefined:
    """A cotangent that does not exist, and why."""

    reason: str


class Tag:
    """Notes that programs leave on a variable (Theano's scratchpad)."""

    updates: Mapping[Variable, Variable]  # on a Scan: the shared variables that it advances
    derived: tuple[Variable, ...]  # on a derivative: what it is a derivative of

    def __getstate__(self) -> dict[str, Any]:
        # notes for compiling only; updates are variables that are built on the node itself
        return {k: v for k, v in self.__dict__.items() if k not in ("updates", "derived")}

    def __repr__(self) -> str:
        return f"Tag({self.__dict__})"


_interned: WeakValueDictionary[tuple[Any, ...], Variable] = WeakValueDictionary()
_lock = threading.RLock()
_kept: list[list[Variable]] = []  # in a block of nodes_kept, those that it has made
_origin: list[Origin | None] = []  # a pass that rewrites says whose line its nodes stand for


class Variable(TensorMethods):
    """An op applied to inputs: `Variable(op, inputs)`. Its `type` follows."""

    __slots__ = (
        "op", "inputs", "type", "name", "origin", "settled", "_tag", "__weakref__", "__dict__",
    )  # fmt: skip

    op: Op
    inputs: tuple[Variable, ...]
    type: Any
    name: str | None
    origin: Origin | None
    settled: dict[Any, Variable | None]  # per set of rules what it becomes; None is itself
    _tag: Tag | None

    operations: ClassVar[dict[str, Callable[..., Any]]] = {}  # filled by gpuscan.tensor

    def __new__(cls, op: Op, inputs: Sequence[Variable] = ()) -> Self:
        key = (op, *inputs)
        found = _interned.get(key)
        if found is not None:
            return found  # type: ignore[return-value]
        type_ = op.infer(*[i.type for i in inputs])
        with _lock:
            found = _interned.get(key)
            if found is not None:
                return found  # type: ignore[return-value]
            self = object.__new__(cls)
            self.op = op
            self.inputs = tuple(inputs)
            self.type = type_
            self.name = None
            self.origin = _origin[-1] if _origin else users_line()
            self.settled = {}
            self._tag = None
            _interned[key] = self
            if _kept:
                _kept[-1].append(self)
        return self

    def _apply(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        return Variable.operations[name](*args, **kwargs)

    # ---- what user code reads -----------------------------------------------------------------

    @property
    def dtype(self) -> str:
        return self.type.dtype

    @property
    def ndim(self) -> int:
        return self.type.ndim

    @property
    def broadcastable(self) -> tuple[bool, ...]:
        return self.type.broadcastable

    @property
    def tag(self) -> Tag:
        if self._tag is None:
            self._tag = Tag()
        return self._tag

    @property
    def owner(self) -> Apply | None:
        """Theano's view of the node that makes this variable; None for a leaf."""
        if isinstance(self.op, Item):
            return Apply(self.inputs[0])
        return Apply(self) if self.inputs else None

    @property
    def index(self) -> int | None:
        """Which of its node's results this is; None for a leaf."""
        return self.op.index if isinstance(self.op, Item) else 0 if self.inputs else None

    def eval(self, inputs_to_values: Mapping[Variable, Any] | None = None) -> Any:
        """The value, computed now: `(x + 1).eval({x: 2})`."""
        return Variable.operations["eval"](self, inputs_to_values)

    def clone(self) -> Variable:
        """A new input of the same type and name."""
        return self.type(self.name)

    # ---- Python's protocols -------------------------------------------------------------------

    def __bool__(self) -> bool:
        if getattr(self.op, "is_comparison", False):
            raise TypeError(
                "Variables do not support boolean operations. A comparison is symbolic, so "
                "Python's `if`, `and` and `a < b < c` can't use it: write T.switch, ifelse or "
                "T.and_."
            )
        return True

    def __iter__(self) -> Iterator[Variable]:
        length = self.type.shape[0] if isinstance(self.type, TensorType) and self.ndim else None
        if length is None:
            raise TypeError(
                "TensorType does not support iteration. Maybe you are using builtin.sum instead "
                "of theano.tensor.sum? (Maybe .max?) A length that is not known yet can't be "
                "unpacked either: use scan, or index the rows."
            )
        return iter([self[i] for i in range(length)])

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        name = {
            "absolute": "abs_", "negative": "neg", "subtract": "sub", "multiply": "mul",
            "divide": "true_div", "true_divide": "true_div", "power": "pow", "remainder": "mod",
            "floor_divide": "int_div", "less": "lt", "less_equal": "le", "greater": "gt",
            "greater_equal": "ge", "equal": "eq", "not_equal": "neq", "matmul": "matmul",
            "bitwise_and": "and_", "bitwise_or": "or_", "bitwise_xor": "xor",
        }.get(ufunc.__name__, ufunc.__name__)  # fmt: skip
        if method != "__call__" or kwargs or name not in Variable.operations:
            return NotImplemented
        return Variable.operations[name](*args)

    def __str__(self) -> str:
        return self.name or self.op_name()

    def __repr__(self) -> str:
        return str(self)

    def op_name(self) -> str:
        """The expression in one word, for a variable without a name."""
        if not self.inputs:
            return f"<{self.type}>"
        if isinstance(self.op, Item):
            return f"{self.inputs[0].op_name()}.{self.op.index}"
        return self.op.label

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (*pack([self]), 0)

    def __copy__(self) -> Variable:
        return self

    if TYPE_CHECKING:  # programs leave attributes of their own

        def __setattr__(self, name: str, value: Any) -> None: ...


@record
class Apply:
    """Theano's node: an op with its inputs and all its results."""

    node: Variable

    @property
    def op(self) -> Op:
        return self.node.op

    @property
    def inputs(self) -> list[Variable]:
        return list(self.node.inputs)

    @property
    def outputs(self) -> list[Variable]:
        return results(self.node)

    @property
    def nin(self) -> int:
        return len(self.node.inputs)

    @property
    def nout(self) -> int:
        return len(self.outputs)


def users_line() -> Origin | None:
    """The innermost line of the call stack that is not gpuscan's own."""
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_PACKAGE) or file.startswith(_EXAMPLES):
            return file, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    return None


class made_for:
    """In this block new nodes carry the user's line of `variable`, which they stand for."""

    __slots__ = ("origin",)

    def __init__(self, variable: Variable) -> None:
        self.origin = variable.origin

    def __enter__(self) -> None:
        _origin.append(self.origin)

    def __exit__(self, *_: Any) -> None:
        _origin.pop()


class nodes_kept:
    """In this block no new node goes away, so that nothing is built and rewritten again."""

    __slots__ = ()

    def __enter__(self) -> None:
        with _lock:
            _kept.append([])

    def __exit__(self, *_: Any) -> None:
        with _lock:
            _kept.pop()


# ---- leaves ---------------------------------------------------------------------------------


@record
class Leaf(Op):
    """The ops without inputs."""

    of: Any

    def infer(self) -> Type:
        return self.of


_uids = itertools.count()


@record
class Input(Leaf):
    """A value that the caller of a function gives."""

    uid: int = field(default_factory=lambda: next(_uids))

    def __reduce__(self) -> tuple[Any, ...]:
        return Input, (self.of,)


@record
class Param(Leaf):
    """A parameter of a closed body. Its position says which; its name is part of it so that the
    errors of a body show the names and lines of this body, not of an equal one elsewhere."""

    position: int = 0
    name: str | None = None


@record
class Literal(Leaf):
    """A constant. Small values are told apart by content, large ones by where they live."""

    data: np.ndarray = field(compare=False)
    key: Any = None

    def eval(self) -> np.ndarray:
        return self.data

    def __reduce__(self) -> tuple[Any, ...]:
        return literal, (self.data,)


class Constant(Variable):
    """A leaf with a value that does not change."""

    __slots__ = ()

    @property
    def data(self) -> np.ndarray:
        """The value; not to be written."""
        return self.op.data  # type: ignore[attr-defined]

    value = data

    def op_name(self) -> str:
        d = self.data
        return f"{d}" if d.size <= 4 else f"<constant {self.type}>"


_SMALL = 4096  # bytes; a constant up to this size is interned by its content


def literal(array: np.ndarray) -> Literal:
    """The leaf op of a constant; the array must not change from now on."""
    array = array if array.flags.c_contiguous else np.ascontiguousarray(array).reshape(array.shape)
    key: Any = array.tobytes() if array.nbytes <= _SMALL else next(_uids)
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return Literal(TensorType(array.dtype.name, array.shape), array, key)


def constant_leaf(array: np.ndarray, name: str | None = None) -> Constant:
    """A constant of the array, which must not change from now on."""
    node = Constant(literal(array))
    if name is not None:
        node.name = name
    return node


def input_leaf(type_: Any, name: str | None = None) -> Variable:
    """A new input of this type."""
    node = Variable(Input(type_))
    node.name = name
    return node


TensorType.make_input = input_leaf


# ---- several results ------------------------------------------------------------------------


@record
class Item(Op):
    """One result of a node that has several."""

    index: int

    def infer(self, pair: TupleType) -> Type:
        return pair.items[self.index]

    def eval(self, values: Sequence[Any]) -> Any:
        return values[self.index]

    def connection(self, node: Variable) -> Sequence[bool]:
        raise NotImplementedError("the gradient asks the node itself")


def results(node: Variable) -> list[Variable]:
    """All results of a node."""
    if isinstance(node.type, TupleType):
        return [Item(i)(node) for i in range(len(node.type.items))]
    return [node]


# ---- walks ----------------------------------------------------------------------------------


def toposort(outputs: Iterable[Variable], stop: Iterable[Variable] = ()) -> list[Variable]:
    """Every node that the outputs need, inputs first. Nodes in `stop` are leaves of the walk."""
    seen: set[Variable] = set()
    leaves = set(stop)
    order: list[Variable] = []
    waiting: list[Variable] = []  # for their inputs; None on the stack says that one has them
    stack: list[Variable | None] = list(outputs)
    stack.reverse()
    while stack:
        node = stack.pop()
        if node is None:
            order.append(waiting.pop())
        elif node not in seen:
            seen.add(node)
            if node.inputs and node not in leaves:
                waiting.append(node)
                stack.append(None)
                stack += node.inputs[::-1]
            else:
                order.append(node)
    return order


def derived(outputs: Iterable[Variable]) -> list[Variable]:
    """What the nodes of the outputs are derivatives of, if any are."""
    tags = [v._tag for v in toposort(outputs) if v._tag is not None]
    return list(dict.fromkeys(d for t in tags for d in getattr(t, "derived", ())))


def leaves(outputs: Iterable[Variable], stop: Iterable[Variable] = ()) -> list[Variable]:
    """The inputs and shared variables that the outputs need, in the order of the walk."""
    cut = set(stop)
    return [
        v
        for v in toposort(outputs, cut)
        if not v.inputs and v not in cut and not isinstance(v, Constant)
    ]


def certain(outputs: Iterable[Variable]) -> set[Variable]:
    """The nodes that are computed in any case, and not only in a branch of a choice."""
    found: set[Variable] = set()
    stack = list(outputs)
    while stack:
        v = stack.pop()
        if v not in found:
            found.add(v)
            stack += v.inputs[:1] if getattr(v.op, "is_lazy", False) else v.inputs
    return found


def clients(
    outputs: Sequence[Variable], stop: Iterable[Variable] = ()
) -> dict[Variable, list[Variable | None]]:
    """Per node what reads it: nodes, and None for each time it is an output. Nodes in `stop` are
    leaves of the walk."""
    leaves = set(stop)
    found: dict[Variable, list[Variable | None]] = {}
    for v in toposort(outputs, leaves):
        for i in dict.fromkeys(v.inputs if v not in leaves else ()):
            found.setdefault(i, []).append(v)
    for v in outputs:
        found.setdefault(v, []).append(None)
    return found


def rebuild(node: Variable, inputs: Sequence[Variable]) -> Variable:
    """The same op on other inputs, with the node's name and line."""
    inputs = tuple(inputs)
    if inputs == node.inputs:
        return node
    with made_for(node):
        new = Variable(node.op, inputs)
    return inherit(new, node)


def inherit(new: Variable, old: Variable) -> Variable:
    """`new` stands for `old`: it takes over the notes that it does not have itself."""
    if new is not old and new.inputs:
        if new.name is None:
            new.name = old.name
        if new._tag is None and old._tag is not None:
            new._tag = old._tag
    return new


def substitute(outputs: Sequence[Variable], mapping: Mapping[Variable, Variable]) -> list[Variable]:
    """The outputs with each key of the mapping replaced by its value, all at once: the values
    are not looked into. Raises TypeError where a replaced node no longer fits its neighbours."""
    if not mapping:
        return list(outputs)
    new: dict[Variable, Variable] = dict(mapping)
    for v in toposort(outputs, mapping):
        if v not in new:
            new[v] = rebuild(v, [new[i] for i in v.inputs]) if v.inputs else v
    return [new[v] for v in outputs]


def depends_on(outputs: Iterable[Variable], on: Iterable[Variable]) -> set[Variable]:
    """The nodes among those the outputs need that depend on one of `on` (those included)."""
    found = set(on)
    for v in toposort(outputs):
        if v not in found and any(i in found for i in v.inputs):
            found.add(v)
    return found


# ---- storage --------------------------------------------------------------------------------
# A graph is stored as a list, inputs first: depth costs no recursion.


def pack(outputs: Sequence[Variable]) -> tuple[list[Any], list[int]]:
    """The graph as plain data, and the positions of the outputs in it."""
    order = toposort(outputs)
    position = {v: i for i, v in enumerate(order)}
    rows = [
        (v if isinstance(v, SharedBase) else v.op, [position[i] for i in v.inputs], v.name, v._tag)
        for v in order
    ]
    return rows, [position[v] for v in outputs]


def unpack(rows: Sequence[Any], positions: Sequence[int]) -> list[Variable]:
    """The outputs of a packed graph."""
    nodes: list[Variable] = []
    for op, inputs, name, tag in rows:
        if isinstance(op, Variable):
            node = op
        else:
            kind = Constant if isinstance(op, Literal) else Variable
            node = kind(op, [nodes[i] for i in inputs])
            if node.name is None:
                node.name = name
            if node._tag is None:
                node._tag = tag
        nodes.append(node)
    return [nodes[i] for i in positions]


def _unpacked(rows: Sequence[Any], positions: Sequence[int], which: int) -> Variable:
    return unpack(rows, positions)[which]


class SharedBase(Variable):
    """The part of a shared variable that the graph knows: a leaf that stores itself."""

    __slots__ = ()
