"""Identities that change the gradient, that print or that check, and the choice of a branch."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from .. import errors
from ..graph import Constant, Op, Undefined, Variable
from ..record import record
from ..types import TensorType, promote
from .convert import as_tensor, constant
from .elemwise import cast, zeros_like
from .scalar import clip
from .shape import broadcast_to, dim, dims, specify


class Identity(Op):
    """An op whose first input is its result; the other inputs, if any, are checks."""

    # whether it must run wherever it stands: never folded, hoisted out of a loop or merged away
    has_effect: ClassVar[bool] = False

    def __call__(self, *inputs: Any) -> Variable:
        return Variable(self, [as_tensor(x) for x in inputs])

    def infer(self, x: Any, *checks: Any) -> Any:
        return x

    def eval(self, x: Any, *checks: Any) -> Any:
        return x

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [g, *[None] * (len(inputs) - 1)]

    def connection(self, node: Variable) -> Sequence[bool]:
        return [True, *[False] * (len(node.inputs) - 1)]

    def element(self, node: Variable, index: Any, operands: Any) -> Any:
        return operands[0].at(index)

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return dims(inputs[0])

    def batch(
        self, inputs: Sequence[Variable], batched: Sequence[bool], n: Variable
    ) -> Variable | None:
        x, *checks = inputs
        return self(x if batched[0] else broadcast_to(x, [n, *dims(x)]), *checks)


# ---- the gradient ---------------------------------------------------------------------------


@record
class UndefinedGrad(Identity):
    """x, *others -> x, whose cotangent does not exist, nor that of the others: what x was made
    from by a way that gradients don't see."""

    reason: str

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [Undefined(self.reason)] * len(inputs)

    def connection(self, node: Variable) -> Sequence[bool]:
        return [True] * len(node.inputs)


@record
class Derived(Identity):
    """x, as the derivative of these variables: a variable of its own where x is a constant, or
    has a meaning already."""

    of: tuple[Variable, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return Derived, ((),)  # a note for compiling only


def derived_from(of: Sequence[Variable], x: Variable, new: bool = False) -> Variable:
    """x, with a note (Tag.derived) that it comes from these variables, which it may not need; a
    variable of its own where x is a constant or has another note, and where `new` asks for it."""
    sources = tuple(of)
    if new or isinstance(x, Constant) or getattr(x._tag, "derived", sources) != sources:
        x = Derived(sources)(x)
    x.tag.derived = sources
    return x


@record
class ZeroGrad(Identity):
    """x, whose cotangent is zero."""

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [None]


@record
class DisconnectedGrad(Identity):
    """x, of which no gradient knows."""

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [None]

    def connection(self, node: Variable) -> Sequence[bool]:
        return [False]


@record
class GradClip(Identity):
    """x, whose cotangent is clipped to [low, high]."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"grad_clip: the bounds {self.low} and {self.high} are out of order")

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        low, high = (constant(b, dtype=g.dtype) for b in (self.low, self.high))
        return [clip(g, low, high)]


@record
class GradScale(Identity):
    """x, whose cotangent is multiplied."""

    factor: float

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [g * constant(self.factor, dtype=g.dtype)]


class ViewOp(Identity):
    """x. A program that wants its own gradient there derives a class with a method
    grad(inputs, output_gradients) that returns one gradient; its instances are ops."""

    def grad(self, inputs: Sequence[Variable], g_outputs: Sequence[Variable]) -> Sequence[Any]:
        return g_outputs

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return self.grad(inputs, [g])


# ---- printing -------------------------------------------------------------------------------


def print_attributes(op: Print, x: Any) -> None:
    """The op's message with each attribute of the value, on standard output."""
    for name in op.attrs:
        value = getattr(x, name)
        print(op.message, name, "=", value() if callable(value) else value)


@record
class Print(Identity):
    """x itself; every evaluation prints "message attribute = value", in a scan every step.

    attrs      attributes of the NumPy value; a method is called
    global_fn  what prints: global_fn(op, value)
    """

    message: str = ""
    attrs: tuple[str, ...] = ("__str__",)
    global_fn: Callable[[Print, Any], None] = print_attributes
    has_effect: ClassVar[bool] = True

    def __post_init__(self) -> None:
        attrs = (self.attrs,) if isinstance(self.attrs, str) else tuple(self.attrs)
        object.__setattr__(self, "attrs", attrs)

    def eval(self, x: Any, *checks: Any) -> Any:
        self.global_fn(self, np.asarray(x))
        return x

    def batch(self, inputs: Any, batched: Any, n: Variable) -> None:
        return None  # a print a row, not one of all rows


# ---- checks ---------------------------------------------------------------------------------


@record
class Require(Identity):
    """value, *conditions -> value; raises where an element of a condition is false.

    error  the class: a built-in one or one of gpuscan.errors, by name
    """

    message: str
    error: str = "AssertionError"
    has_effect: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._error()

    def _error(self) -> type[Exception]:
        found = getattr(errors, self.error, None) or getattr(builtins, self.error, None)
        if not (isinstance(found, type) and issubclass(found, Exception)):
            raise TypeError(f"{self.error} is not the name of an error class")
        return found

    def eval(self, x: Any, *checks: Any) -> Any:
        if not all(np.asarray(c).all() for c in checks):
            raise self._error()(self.message)
        return x


def has_effect(v: Variable) -> bool:
    """Whether a node does more than compute and check. A device's own is what it stands for."""
    op = getattr(v.op, "definition", v.op)
    return getattr(op, "has_effect", False) and not isinstance(op, Require)


def Assert(msg: str = "Theano Assert failed!") -> Require:
    """`Assert(msg)(x, *conditions)`: x, after a check that every condition is true everywhere;
    an AssertionError with the message otherwise."""
    return Require(msg)


assert_op = Assert()


# ---- branches -------------------------------------------------------------------------------


@record
class IfElse(Op):
    """(condition, then, else): one of two values. Only the branch taken is computed."""

    is_lazy: ClassVar[bool] = True  # evaluate.py prints an `if`

    def infer(self, condition: TensorType, then: TensorType, other: TensorType) -> TensorType:
        if condition.ndim:
            raise TypeError(f"ifelse: the condition must be a scalar, it is {condition}")
        if then.dtype != other.dtype or then.ndim != other.ndim:
            raise TypeError(
                f"ifelse: the two branches should have identical types, but they are {then} "
                f"and {other}. Cast one of them, or give it the other's dimensions."
            )
        known = [a if a == b else None for a, b in zip(then.shape, other.shape)]
        return TensorType(then.dtype, tuple(known))

    def eval(self, condition: Any, then: Any, other: Any) -> Any:
        return then if condition else other

    def element(self, node: Variable, index: Any, operands: Any) -> Any:
        condition, then, other = operands
        return condition.at([]).choose(then.at(index), other.at(index))

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        condition, then, other = inputs
        zero = [specify(zeros_like(x, g.dtype), x.type.shape) for x in (then, other)]
        back = [specify(g, x.type.shape) for x in (then, other)]
        to_then, to_other = (
            self(condition, back[0], zero[0]),
            self(condition, zero[1], back[1]),
        )
        return [None, to_then, to_other]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        condition, then, other = inputs
        return [
            dim(output, i) if s is not None else self(condition, dim(then, i), dim(other, i))
            for i, s in enumerate(output.type.shape)
        ]

    def batch(
        self, inputs: Sequence[Variable], batched: Sequence[bool], n: Variable
    ) -> Variable | None:
        if batched[0]:
            return None  # a choice in each row: the branch that is not taken need not be defined
        rows = [x if b else broadcast_to(x, [n, *dims(x)]) for x, b in zip(inputs, batched)]
        return self(inputs[0], *rows[1:])


def ifelse(condition: Any, then_branch: Any, else_branch: Any, name: str | None = None) -> Any:
    """The then-branch where the scalar condition is not zero, otherwise the else-branch; the
    other is not computed. Branches are variables, or lists of as many, which gives a list.

    Raises TypeError where the types of a pair differ (a constant takes the other's dtype if
    that holds it), ValueError where the lists differ in length.
    """
    several = [isinstance(b, list | tuple) for b in (then_branch, else_branch)]
    branches = [list(b) if s else [b] for b, s in zip((then_branch, else_branch), several)]
    if len(branches[0]) != len(branches[1]):
        raise ValueError(
            "The number of values on the `then` branch should have the same number of variables "
            f"as the `else` branch: {len(branches[0])} on `then`, {len(branches[1])} on `else`."
        )
    condition = as_tensor(condition)
    chosen = []
    for pair in zip(*branches):
        then, other = _one_dtype(*[as_tensor(x) for x in pair])
        result = IfElse()(condition, then, other)
        if name is not None and result.name is None:
            result.name = name
        chosen.append(result)
    if not several[0]:
        return chosen[0]
    return type(then_branch)(chosen)


def _one_dtype(a: Variable, b: Variable) -> tuple[Variable, Variable]:
    """The pair, with a constant cast to the other's dtype where that holds it."""
    common = promote(a.dtype, b.dtype)
    if isinstance(b, Constant) and common == a.dtype:
        return a, cast(b, common)
    if isinstance(a, Constant) and common == b.dtype:
        return cast(a, common), b
    return a, b
