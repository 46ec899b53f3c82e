"""gpuscan: Theano's scan for today's GPUs.

Write one step of a recurrence with symbolic tensors; `scan` makes a loop of it that can be
differentiated, and `function` compiles and runs it.
"""

import importlib
from typing import Any

from . import gradient, printing, tensor
from .clone import clone
from .config import config
from .errors import (
    BuildError,
    DeviceError,
    DisconnectedInputError,
    GradientError,
    MissingInputError,
    NullTypeGradError,
    UnusedInputError,
)
from .function import Function, In, Out, function
from .gradient import (
    Lop,
    Rop,
    disconnected_grad,
    grad,
    grad_clip,
    grad_scale,
    hessian,
    jacobian,
    subgraph_grad,
    verify_grad,
    zero_grad,
)
from .graph import Apply, Constant, Op, Variable
from .modes import Mode
from .printing import pprint as pp
from .scan.frontend import scan, until
from .scan.updates import OrderedUpdates
from .scan.views import foldl, foldr, map, reduce, scan_checkpoints
from .shared import SharedVariable, shared
from .tensor import dot

__version__ = "0.1.0"

Variable.operations["scan"] = scan  # jacobian and hessian are loops


_LATER = ("data", "distributed", "mc", "optim", "saving")  # imported when they are named


def __getattr__(name: str) -> Any:
    """The parts that not every program needs, and the modules of Theano's top level
    (theano.scan_module, theano.sandbox, theano.gof, ...)."""
    if name in _LATER:
        return importlib.import_module("." + name, __name__)
    if not name.startswith("__"):
        theano = importlib.import_module(".theano", __name__)
        if name == "theano":
            return theano
        if name in vars(theano):
            return vars(theano)[name]
    raise AttributeError(f"module 'gpuscan' has no attribute {name!r}")


__all__ = [
    "Apply", "BuildError", "Constant", "DeviceError", "DisconnectedInputError", "Function",
    "GradientError", "In", "Lop", "MissingInputError", "Mode", "NullTypeGradError", "Op",
    "OrderedUpdates", "Out", "Rop", "SharedVariable", "UnusedInputError", "Variable", "clone",
    "config", "disconnected_grad", "dot", "foldl", "foldr", "function", "grad", "grad_clip",
    "grad_scale", "gradient", "hessian", "jacobian", "map", "pp", "printing", "reduce", "scan",
    "scan_checkpoints", "shared", "subgraph_grad", "tensor", "until", "verify_grad", "zero_grad",
]  # fmt: skip
