"""Input variables by dtype and number of axes: matrix('x'), fvector('v'), dmatrices('a', 'b').

A prefix names the dtype (b int8, w int16, i int32, l int64, f float32, d float64); without one it
is the argument `dtype`, or floatX. A row's first axis and a column's second have size 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..config import config
from ..graph import Variable
from ..types import TensorType


def _constructor(kind: str, pattern: tuple[bool, ...]) -> Callable[..., Variable]:
    def make(name: str | None = None, dtype: Any = None) -> Variable:
        return TensorType(dtype or config.floatX, pattern)(name)

    make.__name__ = make.__qualname__ = kind
    make.__doc__ = f"A new {kind} input; its dtype is floatX unless another is given."
    return make


scalar = _constructor("scalar", ())
vector = _constructor("vector", (False,))
row = _constructor("row", (True, False))
col = _constructor("col", (False, True))
matrix = _constructor("matrix", (False, False))
tensor3 = _constructor("tensor3", (False,) * 3)
tensor4 = _constructor("tensor4", (False,) * 4)
tensor5 = _constructor("tensor5", (False,) * 5)


def tensor(
    dtype: Any = None, broadcastable: Sequence[Any] | None = None, name: str | None = None,
    *, shape: Sequence[int | None] | None = None,
) -> Variable:  # fmt: skip
    """A new input of any number of axes: `broadcastable` says per axis whether its size is 1,
    `shape` gives the sizes themselves (None where unknown). One of the two is needed."""
    sizes = broadcastable if shape is None else shape
    if sizes is None:
        raise TypeError("tensor: give broadcastable=, a bool an axis, or shape=")
    return TensorType(dtype or config.floatX, tuple(sizes))(name)


def _several(make: Callable[..., Variable], kind: str) -> Callable[..., Any]:
    def several(*names: Any) -> Any:
        wanted = names[0] if len(names) == 1 else names
        if isinstance(wanted, int):
            made = [make() for _ in range(wanted)]
        else:
            made = [make(name) for name in wanted]
        return made[0] if len(made) == 1 else made

    several.__name__ = several.__qualname__ = kind
    several.__doc__ = (
        f"New inputs: {kind}('a', 'b') by their names, {kind}('ab') by letters, {kind}(2) "
        "without names. One alone comes without a list."
    )
    return several


scalars = _several(scalar, "scalars")
vectors = _several(vector, "vectors")
rows = _several(row, "rows")
cols = _several(col, "cols")
matrices = _several(matrix, "matrices")
tensor3s = _several(tensor3, "tensor3s")
tensor4s = _several(tensor4, "tensor4s")
tensor5s = _several(tensor5, "tensor5s")

# The types themselves: calling one makes an input.
# fmt: off
bscalar, wscalar, iscalar, lscalar, fscalar, dscalar = (
    TensorType(d, ()) for d in ("int8", "int16", "int32", "int64", "float32", "float64"))
_PLAIN = (bscalar, wscalar, iscalar, lscalar, fscalar, dscalar)
bvector, wvector, ivector, lvector, fvector, dvector = (
    TensorType(t.dtype, (None,)) for t in _PLAIN)
brow, wrow, irow, lrow, frow, drow = (
    TensorType(t.dtype, (1, None)) for t in _PLAIN)
bcol, wcol, icol, lcol, fcol, dcol = (
    TensorType(t.dtype, (None, 1)) for t in _PLAIN)
bmatrix, wmatrix, imatrix, lmatrix, fmatrix, dmatrix = (
    TensorType(t.dtype, (None,) * 2) for t in _PLAIN)
btensor3, wtensor3, itensor3, ltensor3, ftensor3, dtensor3 = (
    TensorType(t.dtype, (None,) * 3) for t in _PLAIN)
btensor4, wtensor4, itensor4, ltensor4, ftensor4, dtensor4 = (
    TensorType(t.dtype, (None,) * 4) for t in _PLAIN)
btensor5, wtensor5, itensor5, ltensor5, ftensor5, dtensor5 = (
    TensorType(t.dtype, (None,) * 5) for t in _PLAIN)

iscalars, lscalars, fscalars, dscalars = (
    _several(t, k) for t, k in ((iscalar, "iscalars"), (lscalar, "lscalars"),
                                (fscalar, "fscalars"), (dscalar, "dscalars")))
ivectors, lvectors, fvectors, dvectors = (
    _several(t, k) for t, k in ((ivector, "ivectors"), (lvector, "lvectors"),
                                (fvector, "fvectors"), (dvector, "dvectors")))
irows, lrows, frows, drows = (
    _several(t, k) for t, k in ((irow, "irows"), (lrow, "lrows"), (frow, "frows"), (drow, "drows")))
icols, lcols, fcols, dcols = (
    _several(t, k) for t, k in ((icol, "icols"), (lcol, "lcols"), (fcol, "fcols"), (dcol, "dcols")))
imatrices, lmatrices, fmatrices, dmatrices = (
    _several(t, k) for t, k in ((imatrix, "imatrices"), (lmatrix, "lmatrices"),
                                (fmatrix, "fmatrices"), (dmatrix, "dmatrices")))
itensor3s, ltensor3s, ftensor3s, dtensor3s = (
    _several(t, k) for t, k in ((itensor3, "itensor3s"), (ltensor3, "ltensor3s"),
                                (ftensor3, "ftensor3s"), (dtensor3, "dtensor3s")))
itensor4s, ltensor4s, ftensor4s, dtensor4s = (
    _several(t, k) for t, k in ((itensor4, "itensor4s"), (ltensor4, "ltensor4s"),
                                (ftensor4, "ftensor4s"), (dtensor4, "dtensor4s")))
# fmt: on
