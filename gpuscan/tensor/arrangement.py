"""Lists of tensors, grids of positions, and permutations."""

from __future__ import annotations

from typing import Any

from ..graph import Variable
from ..ops.convert import as_tensor
from ..ops.create import arange
from ..ops.shape import broadcast_to, dim, dimshuffle, stack
from ..ops.sorting import argsort


def stacklists(tensor_list: Any) -> Variable:
    """Nested lists of tensors as one tensor: an axis for each level of lists."""
    if isinstance(tensor_list, list | tuple):
        return stack([stacklists(t) for t in tensor_list])
    v: Variable = as_tensor(tensor_list)
    return v


def inverse_permutation(perm: Any) -> Variable:
    """The permutation that undoes `perm`; of a matrix, one a row."""
    return argsort(perm, axis=-1)


class Grid:
    """`mgrid[a:b, c:d]` and `ogrid[a:b, c:d]`: the positions along each axis, as a list of
    tensors; sizes and steps may be symbolic. Those of ogrid broadcast to those of mgrid."""

    def __init__(self, full: bool) -> None:
        self.full = full

    def __getitem__(self, slices: Any) -> list[Variable]:
        ranges = slices if isinstance(slices, tuple) else (slices,)
        vectors = [
            arange(0 if r.start is None else r.start, r.stop, 1 if r.step is None else r.step)
            for r in ranges
        ]
        n = len(vectors)
        open_ = [dimshuffle(v, *["x"] * i, 0, *["x"] * (n - 1 - i)) for i, v in enumerate(vectors)]
        if not self.full:
            return open_
        sizes = [dim(v, 0) for v in vectors]
        return [broadcast_to(v, sizes) for v in open_]


mgrid = Grid(full=True)
ogrid = Grid(full=False)
