"""Expressions that round badly, by others with the same value that do not."""

from __future__ import annotations

from ..graph import Variable
from ..ops.elemwise import Elemwise, Scalar
from ..ops.scalar import add, exp, log, log1p, neg, sigmoid, softplus, sub
from ..ops.shape import number
from ..ops.softmax import LogSoftmax, Softmax
from ..rewrite import Rules, rule


def _is(v: Variable, function: Scalar) -> bool:
    return isinstance(v.op, Elemwise) and v.op.scalar is function


def _one_minus(v: Variable) -> Variable | None:
    """x where v is 1 - x of x's shape."""
    if _is(v, sub) and number(v.inputs[0]) == 1:
        x = v.inputs[1]
        return x if x.type.broadcastable == v.type.broadcastable else None
    return None


def _one_plus(v: Variable) -> Variable | None:
    """x where v is 1 + x or x + 1 of x's shape."""
    if _is(v, add):
        for one, x in (v.inputs, v.inputs[::-1]):
            if number(one) == 1 and x.type.broadcastable == v.type.broadcastable:
                return x
    return None


@rule(Elemwise)
def logarithms(v: Variable) -> Variable | None:
    """log(sigmoid(x)) is -softplus(-x), log(1 - sigmoid(x)) is -softplus(x), log(1 + x) is
    log1p(x), log(softmax(x)) is log_softmax(x), log(exp(x)) is x."""
    if not _is(v, log):
        return None
    (x,) = v.inputs
    if _is(x, sigmoid):
        return neg(softplus(neg(x.inputs[0])))
    if _is(x, exp):
        return x.inputs[0]
    if isinstance(x.op, Softmax):
        return LogSoftmax(x.op.axis)(x.inputs[0])
    inner = _one_minus(x)
    if inner is not None and _is(inner, sigmoid):
        return neg(softplus(inner.inputs[0]))
    inner = _one_plus(x)
    return None if inner is None else log1p(inner)


@rule(Elemwise)
def logarithms_of_one_plus(v: Variable) -> Variable | None:
    """log1p(exp(x)) is softplus(x), log1p(-sigmoid(x)) is -softplus(x)."""
    if not _is(v, log1p):
        return None
    (x,) = v.inputs
    if _is(x, exp):
        return softplus(x.inputs[0])
    if _is(x, neg) and _is(x.inputs[0], sigmoid):
        return neg(softplus(x.inputs[0].inputs[0]))
    return None


STABILITY = Rules(logarithms, logarithms_of_one_plus)
