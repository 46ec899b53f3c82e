"""Theano's name for a variable that is computed or an input, for isinstance."""

from __future__ import annotations

from typing import Any

from ..graph import Constant, Variable
from ..shared import SharedVariable


class _Plain(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return cls.__subclasscheck__(type(value))

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, Variable) and not issubclass(kind, Constant | SharedVariable)


class TensorVariable(metaclass=_Plain):
    """For isinstance: every Variable but shared variables and constants, which in Theano have
    classes of their own. Programs ask so whether they were given an expression or a parameter."""
