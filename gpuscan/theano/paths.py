"""Where Theano keeps what: the modules of its paths, made of gpuscan's names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from .. import errors, gradient, graph, printing, tensor
from ..clone import clone as graph_clone
from ..config import config
from ..function import Function, FunctionGraph, In, Out, function
from ..modes import DebugMode, Mode, MonitorMode, NanGuardMode, get_default_mode, get_mode
from ..ops.control import Assert, IfElse, ViewOp, ifelse
from ..ops.elemwise import Elemwise
from ..ops.reduce import Reduce
from ..ops.shape import DimShuffle
from ..scan import views
from ..scan.frontend import scan, until
from ..scan.op import Scan
from ..scan.updates import OrderedUpdates
from ..shared import SharedVariable, shared
from ..tensor.random import MRG_RandomStreams
from ..types import TensorType, dtype_name, promote


def asarray(a: Any, dtype: Any = None, order: Any = None) -> np.ndarray:
    """The value as an array of exactly this dtype; 'floatX' is what the settings say."""
    return np.asarray(a, dtype=None if dtype is None else dtype_name(dtype), order=order)


def upcast(*dtypes: Any) -> str:
    """The dtype that holds all of them."""
    return promote(*map(dtype_name, dtypes))


def ancestors(
    variable_list: Iterable[graph.Variable], blockers: Iterable[graph.Variable] | None = None
) -> list[graph.Variable]:
    """Every variable that those of the list need, and themselves; nothing below `blockers`."""
    return graph.toposort(variable_list, blockers or ())


def inputs(
    variable_list: Iterable[graph.Variable], blockers: Iterable[graph.Variable] | None = None
) -> list[graph.Variable]:
    """The leaves that the variables need: inputs, shared variables and constants."""
    return [v for v in ancestors(variable_list, blockers) if v.owner is None]


def clone(
    i: Sequence[graph.Variable], o: Sequence[graph.Variable], copy_inputs: bool = True
) -> tuple[list[graph.Variable], list[graph.Variable]]:
    """The graph from inputs to outputs over fresh inputs: (inputs, outputs)."""
    new = [v.clone() for v in i] if copy_inputs else list(i)
    return new, graph.substitute(o, dict(zip(i, new)))


def pfunc(params: Sequence[Any], *args: Any, **kwargs: Any) -> Function:
    """`function` under its older name."""
    return function(params, *args, **kwargs)


def param(
    variable: graph.Variable, default: Any = None, name: str | None = None, mutable: bool = False,
    strict: bool = False, allow_downcast: bool | None = None, implicit: Any = None,
    borrow: bool | None = None,
) -> In:  # fmt: skip
    """`In` under its older name, where the value is called `default`."""
    return In(variable, name, default, strict=strict, allow_downcast=allow_downcast)


class OpRemove:
    """Theano's rewrite that drops an op which passes its input on (see `register_canonicalize`)."""

    def __init__(self, op: graph.Op) -> None:
        self.op = op


def register_canonicalize(rewrite: Any, *tags: str, name: str | None = None) -> Any:
    """Takes an `OpRemove`, for which gpuscan has nothing to do: a ViewOp costs no time.

    Raises NotImplementedError for any other rewrite.
    """
    if not isinstance(rewrite, OpRemove):
        raise NotImplementedError(f"gpuscan takes no rewrites from programs: {rewrite!r}")
    return rewrite


# Names of Theano's top level that are not gpuscan's own.
ROOT: dict[str, Any] = {
    "_asarray": asarray, "change_flags": config.change_flags, "pp": printing.pprint,
    "dot": tensor.dot, "get_scalar_constant_value": tensor.get_scalar_constant_value,
    "Variable": graph.Variable, "Constant": graph.Constant, "Op": graph.Op, "Apply": graph.Apply,
    "tensor": tensor, "gradient": gradient, "printing": printing, "Param": param,
}  # fmt: skip

_VIEWS = {
    "map": views.map, "reduce": views.reduce, "foldl": views.foldl, "foldr": views.foldr,
}  # fmt: skip
_SCAN = {
    **_VIEWS, "scan": scan, "scan_checkpoints": views.scan_checkpoints, "until": until,
    "clone": graph_clone,
}  # fmt: skip
_COMPILE = {
    "function": function, "pfunc": pfunc, "In": In, "Out": Out, "Param": param,
    "Mode": Mode, "shared": shared, "SharedVariable": SharedVariable,
    "UnusedInputError": errors.UnusedInputError, "get_default_mode": get_default_mode,
    "Function": Function, "get_mode": get_mode, "FAST_RUN": Mode(), "ViewOp": ViewOp,
    "FAST_COMPILE": Mode(optimizer="FAST_COMPILE"), "DebugMode": DebugMode,
    "NanGuardMode": NanGuardMode, "MonitorMode": MonitorMode,
}  # fmt: skip
_GRAPH = {
    "Variable": graph.Variable, "Constant": graph.Constant, "Apply": graph.Apply,
    "inputs": inputs, "ancestors": ancestors, "clone": clone,
}  # fmt: skip
_GOF = {
    **_GRAPH, "Op": graph.Op, "MissingInputError": errors.MissingInputError,
    "FunctionGraph": FunctionGraph, "OpRemove": OpRemove,
}  # fmt: skip

# path: the module itself, or the names of a module that is made here
MODULES: dict[str, ModuleType | dict[str, Any]] = {
    "tensor": tensor,
    "tensor.basic": tensor,
    "tensor.nnet": tensor.nnet,
    "tensor.nnet.bn": tensor.nnet.bn,
    "tensor.nnet.nnet": tensor.nnet,
    "tensor.nnet.sigm": tensor.nnet,
    "tensor.extra_ops": tensor.extra_ops,
    "tensor.nlinalg": tensor.nlinalg,
    "tensor.slinalg": tensor.slinalg,
    "tensor.xlogx": tensor.xlogx,
    "tensor.shared_randomstreams": tensor.shared_randomstreams,
    "tensor.elemwise": {"Elemwise": Elemwise, "DimShuffle": DimShuffle, "CAReduce": Reduce},
    "tensor.sharedvar": {"TensorSharedVariable": SharedVariable},
    "tensor.subtensor": {
        "set_subtensor": tensor.set_subtensor, "inc_subtensor": tensor.inc_subtensor,
    },
    "tensor.type": {"TensorType": TensorType},
    "tensor.var": {"TensorVariable": tensor.TensorVariable, "TensorConstant": graph.Constant},
    "gradient": gradient,
    "printing": printing,
    "ifelse": {"ifelse": ifelse, "IfElse": IfElse},
    "sandbox": {},
    "sandbox.rng_mrg": {"MRG_RandomStreams": MRG_RandomStreams},
    "scan_module": _SCAN,
    "scan_module.scan": _SCAN,
    "scan_module.scan_checkpoints": _SCAN,
    "scan_module.scan_op": {"Scan": Scan},
    "scan_module.scan_utils": {"until": until, "clone": graph_clone},
    "scan_module.scan_views": _VIEWS,
    "compile": _COMPILE,
    "compile.debugmode": _COMPILE,
    "compile.function": _COMPILE,
    "compile.function_module": _COMPILE,
    "compile.io": _COMPILE,
    "compile.mode": _COMPILE,
    "compile.monitormode": _COMPILE,
    "compile.nanguardmode": _COMPILE,
    "compile.ops": _COMPILE,
    "compile.pfunc": _COMPILE,
    "compile.sharedvalue": _COMPILE,
    "gof": _GOF,
    "gof.fg": _GOF,
    "gof.graph": _GRAPH,
    "scalar": {"upcast": upcast},
    "scalar.basic": {"upcast": upcast},
    "tensor.opt": {
        "Assert": Assert, "assert_": Assert(), "register_canonicalize": register_canonicalize,
    },
    "configparser": {"config": config, "change_flags": config.change_flags},
    "configdefaults": {"config": config},
    "updates": {"OrderedUpdates": OrderedUpdates},
    "compat": {"OrderedDict": OrderedDict},
    "compat.python2x": {"OrderedDict": OrderedDict},
}  # fmt: skip


def modules() -> dict[str, ModuleType]:
    """A module for every path. It is an attribute of the module above it, except where that has
    an attribute of this name already (theano.compile.function is the function)."""
    made: dict[str, ModuleType] = {}
    for path, content in MODULES.items():
        if isinstance(content, ModuleType):
            made[path] = content
        else:
            made[path] = ModuleType(f"theano.{path}", "Names of Theano, from ")
            made[path].__dict__.update(content)
    for path, module in made.items():
        above, _, name = path.rpartition(".")
        if above and not hasattr(made[above], name):
            setattr(made[above], name, module)
    return made
