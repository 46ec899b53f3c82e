"""The C expression of every elementwise function is its NumPy meaning, on every dtype it takes."""

from __future__ import annotations

import ctypes
import itertools
import platform
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

# IEEE leaves the sign of the zero open; NumPy's is the second one's on x86
ORDER = () if platform.machine() in ("x86_64", "AMD64") else ("maximum", "minimum", "clip")


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
    if s.nin == 1:
        rng = np.random.default_rng(4)
        if own.dtype.kind == "f" and node.dtype == of:
            word = {4: np.uint32, 8: np.uint64}[own.itemsize]
            bits = rng.integers(0, np.iinfo(word).max, 5000, word).view(own.dtype)
            own = np.concatenate([own, bits])
        elif own.dtype.kind == "f":  # from there on integers end
            ends = np.array([2.0**k for k in (7, 8, 15, 16, 31, 32, 63, 64)], own.dtype)
            ends = np.concatenate([ends, np.nextafter(ends, 0), 1.5 * ends, ends + 0.5])
            own = np.concatenate([own, ends, -ends])
        return [own]
    some = [values(x.dtype) for x in node.inputs]
    if s.nin == 3 and s.operands != "switch":
        some = [v[:: max(1, len(v) // 20)] for v in some]
    return [np.array(c, x.dtype) for c, x in zip(zip(*itertools.product(*some)), node.inputs)]


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


@pytest.mark.parametrize("of", ["float16", "float32", "float64"])
def test_a_float_that_no_integer_is_has_one_cast(of: str) -> None:
    least, low = -(2**63), np.iinfo("int32").min
    found = {
        "uint8": {-1.5: 255, 300.0: 44, np.nan: 0, -np.inf: 0},
        "int16": {-40000.0: 25536, 5e9: 0, np.inf: 0},
        "int32": {3e9: low, -3e9: low, np.nan: low, np.inf: low},
        "uint32": {-2.0: 2**32 - 2, 2.0**32 + 4096: 4096, np.nan: 0, np.inf: 0},
        "int64": {2.0**63: least, -1e30: least, np.nan: least},
        "uint64": {-2.0: 2**64 - 2, 1.5 * 2.0**63: 3 * 2**62, 1e30: 0, np.nan: 2**63},
    }
    for dtype, wanted in found.items():
        if of == "float16":
            wanted = {x: y for x, y in wanted.items() if not 65504 < abs(x) < np.inf}
        xs = np.array([*wanted], of)
        cast = scalars[f"cast_{dtype}"].numpy
        assert [int(x) for x in cast(xs)] == [*wanted.values()], dtype
        assert [int(cast(x)) for x in xs] == [*wanted.values()], dtype
        assert not len(cast(xs[:0])) and cast(xs[:0]).dtype == dtype
        if not ORDER:  # NumPy's on x86, one by one
            some = values(of) if of != "float16" else xs
            with np.errstate(invalid="ignore"):
                assert [int(x) for x in cast(some)] == [int(x.astype(dtype)) for x in some], dtype


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
