"""Rows that are added to rows of a matrix, outside of loops: what a lookup's gradient is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..graph import Op, Variable
from ..kernel_files import source_of
from ..ops.index import AdvancedIncSubtensor
from ..record import record
from ..types import TensorType
from . import compiler, threads
from .products import DTYPES, TYPES

_WORTH_SHARING = 1 << 18  # additions
_GRAIN = 16  # columns


def is_scatter(v: Variable) -> bool:
    """Whether v adds floats to a tensor at positions of integer arrays."""
    return isinstance(v.op, AdvancedIncSubtensor) and not v.op.set and v.dtype in DTYPES


@functools.cache
def scatter_kernel(dtype: str) -> Any:
    library = compiler.library(source_of("scatter.c", TYPE=TYPES[DTYPES[dtype]]))
    return compiler.kernel(library, "gs_scatter_kernel")


@record
class NativeScatter(Op):
    """Such an addition; threads share its columns, so each sum has the definition's order."""

    definition: AdvancedIncSubtensor

    def infer(self, *types: TensorType) -> TensorType:
        return self.definition.infer(*types)

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        return self.definition.adder(node, functools.partial(add_rows, scatter_kernel(node.dtype)))


def add_rows(kernel: Any, out: np.ndarray, rows: np.ndarray, y: np.ndarray) -> None:
    """Adds the rows of y, one after another, to those rows of out."""
    rows, y = np.ascontiguousarray(rows), np.ascontiguousarray(y)
    wide = out.shape[1]
    most = -(-wide // _GRAIN) if y.size >= _WORTH_SHARING else 1
    n = threads.size(most)
    shares = threads.shares([[len(rows), wide]] * n, [[(0, 0), (1, 0), (2, 0)]] * n)
    ends = [min(wide, most * k // n * _GRAIN) for k in range(n)] + [wide]
    threads.run(kernel, shares, threads.in_order(ends), [out, y, rows])
