"""gpuscan: Theano's scan for today's GPUs.

Write one step of a recurrence with symbolic tensors; `scan` makes a loop of it that can be
differentiated, and `function` compiles and runs it.
"""

from . import gradient, tensor
from .clone import clone
from .config import config
from .errors import MissingInputError, UnusedInputError
from .function import Function, In, Mode, Out, function
from .gradient import Lop, Rop, grad, subgraph_grad
from .graph import Constant, Op, Variable
from .ops.control import ifelse
from .ops.convert import as_tensor as as_symbolic
from .ops.linalg import dot
from .scan.frontend import scan, until
from .scan.updates import OrderedUpdates
from .scan.views import foldl, foldr, map, reduce, scan_checkpoints
from .shared import SharedVariable, shared

Variable.operations["scan"] = scan

__version__ = "0.1.0"
