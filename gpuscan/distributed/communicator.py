"""What a communicator offers, which alone in a process it does for itself; AllReduce."""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import built_at, describe
from ..graph import Constant, Op, Variable, results
from ..ops.convert import as_tensor
from ..ops.elemwise import cast
from ..ops.ordered import Ordered
from ..ops.scalar import eq, switch
from ..ops.shape import INT, dims
from ..record import record
from ..shared import SharedVariable
from ..types import TensorType, TupleType, float_dtype

_HOWS = ("mean", "sum", "max", "min")


class DistributedError(RuntimeError):
    """Processes of a job that do not do the same, or a job that can't be one."""


@record
class Call:
    """A call that all ranks make together: what it is, its arrays, and the user's line."""

    what: str
    arrays: tuple[str, ...] = ()
    line: str = ""

    def __str__(self) -> str:
        n = len(self.arrays)
        text = self.what + (f" of {n} array{'s' * (n != 1)}" if n else "")
        return f"{text} at {self.line}" if self.line else text


class Communicator:
    """The processes of a job, as one of them sees them. This one is alone.

    backend   "nccl", "mpi" or "serial"
    rank      this process's number, from 0
    size      how many processes there are
    timeout   seconds that a rank waits in a call for the others
    """

    backend = "serial"
    rank = 0
    size = 1
    timeout = 1800.0

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._turn = threading.RLock()  # of a call, with all that belongs to it

    # ---- what programs call ----------------------------------------------------------------------

    def all_reduce(
        self, x: Any, op: str = "mean", *, weight: Any = None, bucket_mb: float = 25
    ) -> Any:
        """The mean, sum, max or min over all ranks, symbolically: of a tensor, or of each of a
        list or tuple, which gives the same. All ranks get the same values.

        All ranks must reduce as many tensors, of the same dtypes and shapes. op "mean" is that of
        the ranks, each counted once: of gradients, or of a cost, it is that of the joined batch
        only where all ranks have as many rows.
        weight: with "mean" how much this rank counts, such as its number of rows: a number of at
            least 0, also symbolic. The mean is then sum(weight * x) / sum(weight) over the ranks.
            What a rank with weight 0 has is not looked at, so that it may be NaN; not all can be 0.
        bucket_mb: arrays are reduced together, in buckets of up to so many MB (10^6 bytes).

        A mean is in floats (of integers and bools floatX), a sum of bools in int64, and all else
        has x's dtype; float16 is summed in float32. NaN goes through.

        The gradient of a sum is the sum of the ranks' cotangents, so that of a mean is their mean,
        and that of a maximum or minimum goes to every tie: derivatives are those of the sum of all
        ranks' costs. No gradient flows to the weight.

        It can't stand in a scan's step (ValueError there): ranks might run it different numbers
        of times. In a branch of an ifelse it is run where the branch is, which is for all to take
        or for none.

        Raises TypeError and ValueError for other arguments. When it runs: ValueError for weights
        that are negative, not finite or all 0, DistributedError on every rank where they do not
        all make the same call, and after `timeout` seconds where one does not come.
        """
        several = isinstance(x, list | tuple)
        given = list(x) if several else [x]
        if op not in _HOWS:
            raise ValueError(f"all_reduce: op is {op!r}, not 'mean', 'sum', 'max' or 'min'")
        if not isinstance(bucket_mb, int | float) or not bucket_mb > 0:
            raise ValueError(f"all_reduce: bucket_mb is a number above 0, not {bucket_mb!r}")
        tensors = [self._operand(v, i if several else None, op) for i, v in enumerate(given)]
        counted = None if weight is None else _weight(weight, op)
        found = self._apply(op, tensors, counted, max(1, int(min(bucket_mb, 1e9) * 1e6)))
        for v, old in zip(found, tensors):
            v.name = v.name or old.name
        return type(x)(found) if several else found[0]

    def _apply(
        self, how: str, tensors: Sequence[Variable], weight: Variable | None, limit: int
    ) -> list[Variable]:
        if not tensors:
            return []
        op = AllReduce(next(self._numbers), self, how, len(tensors), weight is not None, limit)
        return results(op(*tensors, *([] if weight is None else [weight])))[: op.n]

    def _operand(self, value: Any, position: int | None, op: str) -> Variable:
        what = "x" if position is None else f"x[{position}]"
        try:
            v: Variable = as_tensor(value)
        except TypeError as e:
            raise TypeError(f"all_reduce: {what} must be a tensor: {e}") from None
        if op == "mean":
            return cast(v, float_dtype(v.dtype))
        return cast(v, "int64") if op == "sum" and v.dtype == "bool" else v

    def broadcast(self, variables: Any, root: int = 0) -> None:
        """Sets shared variables (one, or a list or tuple) on all ranks to what they are on rank
        `root`. Dtypes and shapes must be the same on all: else they stay as they were.

        Raises TypeError for what is no shared variable, ValueError for a root that is no rank,
        and DistributedError as all_reduce does.
        """
        shared = list(variables) if isinstance(variables, list | tuple) else [variables]
        for i, v in enumerate(shared):
            if not isinstance(v, SharedVariable):
                raise TypeError(f"broadcast: variables[{i}] must be a shared variable, got {v!r}")
        if not isinstance(root, int | np.integer) or not 0 <= root < self.size:
            raise ValueError(f"broadcast: root is a rank from 0 to {self.size - 1}, not {root!r}")
        held = [v.storage for v in shared]
        arrays = tuple(f"{_array(x)}{_named(v)}" for x, v in zip(held, shared))
        with self._turn:
            self._meet(call := Call(f"broadcast from rank {root}", arrays))
            for v, x in zip(shared, self._sent(call, held, int(root))):
                v.set_value(x, borrow=True)

    def barrier(self) -> None:
        """Waits until all ranks are here. Raises DistributedError as all_reduce does."""
        self._meet(Call("barrier"))

    def share(self, n: int) -> slice:
        """Which of n rows are this rank's, where they are dealt out in order: each rank has
        n // size, and the first n % size ranks one more. `x[comm.share(len(x))]`."""
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 0:
            raise ValueError(f"share: n is a number of rows, not {n!r}")
        each, more = divmod(int(n), self.size)
        start = self.rank * each + min(self.rank, more)
        return slice(start, start + each + (self.rank < more))

    def __repr__(self) -> str:
        return f"<gpuscan.distributed {self.backend}, rank {self.rank} of {self.size}>"

    def __reduce__(self) -> tuple[Any, ...]:
        from . import current

        return current, ()

    # ---- what AllReduce and other processes are served by ----------------------------------------

    def _meet(self, call: Call, weight: float = 1.0) -> float:
        """Waits for all ranks to make this call; gives the sum of their weights."""
        return total_weight([weight])

    def _reduced(
        self, call: Call, arrays: Sequence[Any], reduce: AllReduce, weight: float | None,
        total: float,
    ) -> list[Any]:  # fmt: skip
        """NumPy's arrays of all ranks, reduced, after they have met."""
        return list(arrays)

    def _sent(self, call: Call, arrays: Sequence[Any], root: int) -> Sequence[Any]:
        """The root's arrays, after the ranks have met."""
        return ()

    def _on(self, device: Any, node: Variable) -> Op | None:
        """The op that does what an AllReduce does on a device's own arrays, where there is one."""
        return None

    def library(self) -> str:
        """The name and version of the MPI library."""
        return "none"

    def processes(self) -> str:
        """The numbers that the system has given the processes, in the order of their ranks."""
        return f"process {os.getpid()}"


def _weight(weight: Any, op: str) -> Variable:
    if op != "mean":
        raise ValueError(f"all_reduce: a weight is for op 'mean', not {op!r}")
    try:
        w: Variable = as_tensor(weight)
    except TypeError as e:
        raise TypeError(f"all_reduce: weight must be a number or a scalar: {e}") from None
    if w.ndim:
        raise TypeError(f"all_reduce: weight must be a scalar, got {describe(w)}{built_at(w)}")
    if isinstance(w, Constant) and not 0 <= float(w.data) < math.inf:
        raise ValueError(f"all_reduce: weight must be a finite number of at least 0, got {w.data}")
    return cast(w, "float64")


def total_weight(weights: Sequence[float]) -> float:
    """The sum of the ranks' weights. Raises ValueError, on each rank the same."""
    for rank, w in enumerate(weights):
        if not 0 <= w < math.inf:
            raise ValueError(
                f"all_reduce: weight must be a finite number of at least 0: rank {rank} gave {w}"
            )
    total = math.fsum(weights)
    if total == 0:
        raise ValueError("all_reduce: the weights of all ranks are 0, so there is no mean")
    return total


def _array(x: Any) -> str:
    return f"{x.dtype} {tuple(x.shape)}"


def _named(v: Variable) -> str:
    return f" ({v.name})" if v.name else ""


# ---- the op --------------------------------------------------------------------------------------


@record
class AllReduce(Ordered):
    """(*arrays, the weight if there is one, *what ran before) -> the arrays, each reduced over
    all ranks, and that it has run.

    n          how many arrays
    limit      bytes of a bucket
    """

    number: int
    comm: Communicator
    how: str
    n: int
    weighted: bool
    limit: int

    def infer(self, *types: TensorType) -> TupleType:
        return TupleType((*types[: self.n], INT))

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        return self.runner(node, self.comm._reduced, np.asarray)

    def runner(
        self, node: Variable, reduced: Callable[..., list[Any]], host: Callable[[Any], Any]
    ) -> Callable[..., Any]:
        """The op on arrays that `reduced` takes; host: of a scalar of theirs NumPy's."""
        comm = self.comm
        names = [_named(x) for x in node.inputs[: self.n]]
        line = "{}:{}".format(*node.origin) if node.origin else ""
        calls: dict[Any, Call] = {}  # by the arrays' shapes and dtypes

        def run(*inputs: Any) -> tuple[Any, ...]:
            arrays = inputs[: self.n]
            key = tuple([(x.shape, x.dtype) for x in arrays])
            if key not in calls:
                calls.clear()
                told = tuple(_array(x) + name for x, name in zip(arrays, names))
                calls[key] = Call(f"all_reduce {self.how!r}", told, line)
            weight = float(host(inputs[self.n])) if self.weighted else None
            with comm._turn:
                total = comm._meet(calls[key], 1.0 if weight is None else weight)
                found = reduced(calls[key], arrays, self, weight, total)
            return (*found, np.int64(1))

        return run

    def on(self, device: Any, node: Variable) -> Op | None:
        return self.comm._on(device, node)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        xs, gs = inputs[: self.n], list(g[: self.n])
        some = [i for i, c in enumerate(gs) if isinstance(c, Variable)]
        for i, back in zip(some, self._back([gs[i] for i in some], inputs)):
            if self.how in ("max", "min"):
                back = switch(eq(xs[i], results(output)[i]), back, 0)
            gs[i] = back if xs[i].type.is_float else None
        return [*gs, *[None] * (len(inputs) - self.n)]

    def _back(self, gs: list[Variable], inputs: Sequence[Variable]) -> list[Variable]:
        """The cotangents of all ranks, reduced."""
        if not self.weighted:
            how = "mean" if self.how == "mean" else "sum"
            return self.comm._apply(how, gs, None, self.limit)
        weight = inputs[self.n]
        *gs, total = self.comm._apply("sum", [*gs, weight], None, self.limit)
        return [g * cast(weight / total, g.dtype) for g in gs]

    def connection(self, node: Variable) -> Sequence[Any]:
        return [{i} if i < self.n and x.type.is_float else set() for i, x in enumerate(node.inputs)]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Any:
        return [*(dims(x) for x in inputs[: self.n]), []]

    @property
    def label(self) -> str:
        return f"AllReduce{{{self.how}}}"
