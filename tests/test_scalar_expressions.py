"""The C expression of every elementwise function is its NumPy meaning, on every dtype it takes."""

from __future__ import annotations

import ctypes
import itertools
import warnings
from typing import Any

import numpy as np
import pytest

from gpuscan.codegen.kernel import Array, Call, For, Kernel, Load, Name, Pointer, Return, Store
from gpuscan.codegen.render import DTYPES, C, Renderer
from gpuscan.function import function
from gpuscan.graph import Variable
from gpuscan.ops.elemwise import Elemwise, Scalar, scalars
from gpuscan.runtime import compiler
from gpuscan.types import TensorType

pytestmark = pytest.mark.skipif(
    compiler.find() is None, reason="no C compiler: set CC, or install gcc or clang"
)

ORDER = ("maximum", "minimum", "clip")  # IEEE leaves the sign of the zero open; NumPy's own varies


def node_of(s: Scalar, dtype: str) -> Variable | None:
    """The function of vectors of this dtype; None where it does not take them."""
    kinds = ["bool", dtype, dtype] if s.operands == "switch" else [dtype] * s.nin
    try:
        node = s(*[TensorType(d, (None,))() for d in kinds])
    except (TypeError, NotImplementedError):
        return None
    if not isinstance(node.op, Elemwise) or node.inputs[-1].dtype != dtype:
        return None  # computed in another dtype
    try:
        node.op.eval(*[np.ones(2, d) for d in kinds])
    except TypeError:
        return None
    return node


NODES = {
    (name, dtype): node
    for name, s in scalars.items()
    for dtype in sorted(DTYPES)
    if (node := node_of(s, dtype)) is not None and node.dtype in DTYPES
}


def kernel(name: str, node: Variable) -> Kernel:
    """y[i] = f(a[i], b[i], ...), side by side as in a loop nest."""
    i, n = Name("i"), Name("n")
    arrays = [Array(f"x{k}", x.dtype) for k, x in enumerate(node.inputs)]
    out = Array("y", node.dtype)
    value = Call(
        node.op.scalar, tuple(Load(a, i) for a in arrays), node.dtype, node.inputs[-1].dtype
    )
    pointers = (*(Pointer(a, False) for a in arrays), Pointer(out, True))
    body = (For(i, n, (Store(out, i, value),), True), Return(n))
    return Kernel(name, pointers, (n,), body)


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    kernels = [kernel(f"{name}_{dtype}", node) for (name, dtype), node in NODES.items()]
    return compiler.library(Renderer(C).source(kernels))


def values(dtype: str) -> Any:
    """The ends, zeros, infinities and NaN of a dtype, and some of all its bits."""
    kind = np.dtype(dtype)
    rng = np.random.default_rng(3)
    if dtype == "bool":
        return np.array([False, True])
    if kind.kind in "iu":
        info = np.iinfo(kind)
        near = [v for v in (-9, -3, -2, -1, 0, 1, 2, 3, 7, 31, 64, 100) if v >= info.min]
        ends = [info.min, info.min + 1, info.max - 1, info.max]
        return np.concatenate(
            [np.array([*near, *ends], kind), rng.integers(info.min, info.max, 30, kind)]
        )
    info = np.finfo(kind)
    some = [0, 0.1, 0.5, 1, 1.5, 2, 2.5, 3, 7, 10, 88.8, 710, 2**23 + 1, 1e10, 1e30]
    some += [info.smallest_subnormal, info.tiny, info.eps, info.max, np.inf, np.nan]
    plus = np.array(some, kind)
    word = {4: np.uint32, 8: np.uint64}[kind.itemsize]
    bits = rng.integers(0, np.iinfo(word).max, 20, word).view(kind)
    return np.concatenate([plus, -plus, bits, rng.normal(0, 5, 20).astype(kind)])


def operands(s: Scalar, node: Variable) -> list[Any]:
    """All combinations of the dtypes' values, in two dimensions at most 10,000 of them."""
    of = node.inputs[-1].dtype
    own = values(of)
    if node.dtype != of and s.name.startswith("cast_") and own.dtype.kind == "f":
        own = own[fits(own, node.dtype)]
    if s.nin == 1:
        rng = np.random.default_rng(4)
        if own.dtype.kind == "f" and node.dtype == of:
            word = {4: np.uint32, 8: np.uint64}[own.itemsize]
            bits = rng.integers(0, np.iinfo(word).max, 5000, word).view(own.dtype)
            own = np.concatenate([own, bits])
        return [own]
    some = [values(x.dtype) for x in node.inputs]
    if s.nin == 3 and s.operands != "switch":
        some = [v[:: max(1, len(v) // 20)] for v in some]
    return [np.array(c, x.dtype) for c, x in zip(zip(*itertools.product(*some)), node.inputs)]


def fits(x: Any, dtype: str) -> Any:
    """Where a cast is defined: C and NumPy leave a float out of an integer's range open."""
    kind = np.dtype(dtype)
    if kind.kind not in "iu":
        return np.ones(x.shape, bool)
    info = np.iinfo(kind)
    with np.errstate(invalid="ignore"):
        return (np.trunc(x) >= float(info.min)) & (np.trunc(x) < float(info.max))


def test_every_function_is_tested_on_some_dtype() -> None:
    left_out = set(scalars) - {name for name, _ in NODES}
    assert left_out == {"cast_float16"}  # no C type on CPUs: float16 runs by NumPy


@pytest.mark.parametrize("name", sorted({name for name, _ in NODES}))
def test_c_expression_is_the_numpy_meaning(library: ctypes.CDLL, name: str) -> None:
    for dtype in sorted(DTYPES):
        if (node := NODES.get((name, dtype))) is None:
            continue
        xs = operands(scalars[name], node)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            wanted = np.asarray(node.op.eval(*xs))
        assert wanted.dtype == node.dtype, f"{name} of {dtype}: NumPy gives {wanted.dtype}"
        got = np.empty(wanted.shape, node.dtype)
        memory = (ctypes.c_void_p * 4)(*[x.ctypes.data for x in (*xs, got)])
        n = ctypes.c_longlong(len(got))
        getattr(library, f"{name}_{dtype}")(
            ctypes.c_longlong(0), ctypes.c_longlong(0), memory, ctypes.byref(n)
        )
        same = bits(got) == bits(wanted)
        if got.dtype.kind == "f":
            same |= np.isnan(got) & np.isnan(wanted)
        if name in ORDER:
            same |= got == wanted
        i = int(same.argmin())
        assert same.all(), (
            f"{name} of {dtype}: {(~same).sum()} of {same.size} differ, first at "
            f"{[x[i] for x in xs]}: C {got[i]!r}, NumPy {wanted[i]!r}"
        )


def bits(x: Any) -> Any:
    return np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}")


@pytest.mark.parametrize("name", ["int_div", "mod", "pow"])
def test_quotients_and_powers_of_bools_are_int8_as_numpy_has_them(name: str) -> None:
    x, y = (TensorType("bool", (None,))() for _ in range(2))
    f = function([x, y], scalars[name](x, y), device="native")
    got = f([True, False], [True, True])
    wanted = {"int_div": np.floor_divide, "mod": np.mod, "pow": np.power}[name](
        [True, False], [True, True]
    )
    assert (got.dtype, got.tolist()) == (wanted.dtype, wanted.tolist())
