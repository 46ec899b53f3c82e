"""Theano's tensor namespace: every public function against NumPy or SciPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

import gpuscan
from gpuscan import tensor as T
from gpuscan.config import config
from gpuscan.evaluate import Program
from gpuscan.graph import Variable
from gpuscan.ops.elemwise import scalars
from gpuscan.tensor import elementwise, inputs
from gpuscan.types import DISCRETE, TensorType, float_dtype, promote

RNG = np.random.default_rng(11)
M = RNG.normal(size=(3, 4))  # a matrix
N = RNG.normal(size=(3, 4))
S = RNG.normal(size=(3, 3)) + 3 * np.eye(3)  # a square one
V = RNG.normal(size=4)
U = RNG.uniform(0.1, 0.9, size=(3, 4))  # between 0 and 1
I = np.array([[3, 0, 2], [1, 5, 4]])  # noqa: E741 - integers
J = np.array([[1, 2, 3], [4, 5, 7]])
B = np.array([True, False, True, False])
D = RNG.normal(size=(2, 3, 4))  # three axes


def symbolic(array: Any) -> Any:
    """An input for the array, of which nothing but dtype and ndim is known."""
    return T.tensor(array.dtype.name, shape=(None,) * array.ndim)


def applied(f: Callable[..., Any], *arrays: Any) -> Any:
    """f, which builds graph, of the arrays; a list where f returns one."""
    xs = [symbolic(a) for a in arrays]
    found = f(*xs)
    several = isinstance(found, list | tuple)
    with np.errstate(all="ignore"):  # as function() runs a program
        values = Program(xs, list(found) if several else [found])(*arrays)
    return list(values) if several else values[0]


def applied_to_constants(f: Callable[..., Any], *arguments: Any) -> Any:
    found = f(*arguments)
    several = isinstance(found, list | tuple)
    values = Program([], list(found) if several else [found])()
    return list(values) if several else values[0]


def same(got: Any, want: Any, **tolerance: Any) -> None:
    if isinstance(got, list):
        assert len(got) == len(want)
        for g, w in zip(got, want):
            same(g, w, **tolerance)
        return
    assert np.shape(got) == np.shape(want)
    np.testing.assert_allclose(got, want, **({"rtol": 1e-12, "atol": 1e-13} | tolerance))


# name: what NumPy says, and the arguments. Arrays become inputs, all else is passed as it is.
UNARY: dict[str, tuple[Callable[..., Any], Any]] = {
    "abs": (np.abs, M), "abs_": (np.abs, M), "absolute": (np.abs, M), "neg": (np.negative, M),
    "inv": (np.reciprocal, M), "sgn": (np.sign, M), "sqr": (np.square, M),
    "square": (np.square, M), "sqrt": (np.sqrt, U), "exp": (np.exp, M), "exp2": (np.exp2, M),
    "expm1": (np.expm1, M), "log": (np.log, U), "log2": (np.log2, U), "log10": (np.log10, U),
    "log1p": (np.log1p, U), "sin": (np.sin, M), "cos": (np.cos, M), "tan": (np.tan, M),
    "arcsin": (np.arcsin, U), "arccos": (np.arccos, U), "arctan": (np.arctan, M),
    "sinh": (np.sinh, M), "cosh": (np.cosh, M), "tanh": (np.tanh, M),
    "arcsinh": (np.arcsinh, M), "arccosh": (np.arccosh, U + 1), "arctanh": (np.arctanh, U),
    "deg2rad": (np.deg2rad, M), "rad2deg": (np.rad2deg, M), "floor": (np.floor, M),
    "ceil": (np.ceil, M), "trunc": (np.trunc, M), "round": (np.rint, 3 * M),
    "round_half_to_even": (np.rint, np.array([0.5, 1.5, -2.5])),
    "round_half_away_from_zero": (lambda x: np.array([1, 2, -3]), np.array([0.5, 1.5, -2.5])),
    "iround": (np.rint, 3 * M), "isnan": (np.isnan, np.array([np.nan, 1, np.inf])),
    "isinf": (np.isinf, np.array([np.nan, 1, -np.inf])),
    "isfinite": (np.isfinite, np.array([np.nan, 1, -np.inf])), "invert": (np.invert, I),
    "bitwise_not": (np.invert, B), "logical_not": (np.logical_not, I), "real": (np.real, M),
    "conj": (np.conj, M), "copy": (np.copy, M), "tensor_copy": (np.copy, M),
    "erf": (scipy.special.erf, M), "erfc": (scipy.special.erfc, M),
    "erfinv": (scipy.special.erfinv, U), "erfcinv": (scipy.special.erfcinv, U),
    "gamma": (scipy.special.gamma, U), "gammaln": (scipy.special.gammaln, U),
    "psi": (scipy.special.psi, U), "sigmoid": (scipy.special.expit, M),
    "softplus": (lambda x: np.logaddexp(x, 0), M),
}  # fmt: skip
CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    # ---- elementwise with several operands
    "add": (lambda a, b, c: a + b + c, (M, N, U)), "sub": (np.subtract, (M, N)),
    "mul": (lambda a, b, c: a * b * c, (M, N, U)), "true_div": (np.true_divide, (M, N)),
    "int_div": (np.floor_divide, (I, J)), "floor_div": (np.floor_divide, (M, N)),
    "mod": (np.mod, (M, N)), "divmod": (np.divmod, (I, J)), "pow": (np.power, (U, M)),
    "power": (np.power, (U, M)), "ceil_intdiv": (lambda a, b: -(-a // b), (I, J)),
    "maximum": (lambda a, b, c: np.maximum(np.maximum(a, b), c), (M, N, U)),
    "minimum": (lambda a, b, c: np.minimum(np.minimum(a, b), c), (M, N, U)),
    "arctan2": (np.arctan2, (M, N)), "lt": (np.less, (I, J)), "le": (np.less_equal, (I, J)),
    "gt": (np.greater, (I, J)), "ge": (np.greater_equal, (I, J)), "eq": (np.equal, (I, J)),
    "neq": (np.not_equal, (I, J)), "switch": (np.where, (B, V, -V)),
    "where": (np.where, (B, V, -V)),
    "clip": (np.clip, (M, -0.5, 0.5)), "and_": (np.bitwise_and, (I, J)),
    "or_": (np.bitwise_or, (I, J)), "xor": (np.bitwise_xor, (I, J)),
    "bitwise_and": (np.bitwise_and, (I, J)), "bitwise_or": (np.bitwise_or, (I, J)),
    "bitwise_xor": (np.bitwise_xor, (I, J)), "logical_and": (np.logical_and, (I, J)),
    "logical_or": (np.logical_or, (I, J)),
    "isclose": (np.isclose, (M, M + np.where(M > 0, 1e-9, 1e-3))),
    "allclose": (np.allclose, (M, M + 1e-9)), "fill": (np.full_like, (M, np.array(2.5))),
    "second": (np.full_like, (M, np.array(2.5))),
    "default": (lambda x, y: x, (M, N)), "largest": (np.maximum, (M, N)),
    "smallest": (np.minimum, (M, N)), "cast": (lambda x, d: x.astype(d), (3 * M, "int32")),
    # ---- reductions
    "sum": (np.sum, (D, 1)), "prod": (np.prod, (D, 1)), "mean": (np.mean, (D, 1)),
    "var": (np.var, (D, 1)), "std": (np.std, (D, 1)), "max": (np.max, (D, 1)),
    "min": (np.min, (D, 1)), "any": (np.any, (I, 0)), "all": (np.all, (I, 0)),
    "argmax": (np.argmax, (D, 1)), "argmin": (np.argmin, (D, 1)),
    "max_and_argmax": (lambda x, a: [x.max(a), x.argmax(a)], (D, 1)),
    "cumsum": (np.cumsum, (D, 1)), "cumprod": (np.cumprod, (D, 1)), "ptp": (np.ptp, (D, 1)),
    "logsumexp": (scipy.special.logsumexp, (D, 1)), "size": (np.size, (D,)),
    "norm": (lambda x, p: np.sum(np.abs(x) ** p) ** (1 / p), (M, 3)),
    # ---- products
    "dot": (np.dot, (M, M.T)), "matmul": (np.matmul, (D, M.T)), "outer": (np.outer, (V, V)),
    "tensordot": (np.tensordot, (D, M, [[1, 2], [0, 1]])),
    "batched_dot": (np.matmul, (D, D.transpose(0, 2, 1))),
    "batched_tensordot": (
        lambda x, y, _: np.stack([np.tensordot(a, b, [[1], [1]]) for a, b in zip(x, y)]),
        (D, D, [[2], [2]]),
    ),
    # ---- shapes
    "shape": (np.shape, (D,)), "reshape": (np.reshape, (D, (4, -1))),
    "flatten": (lambda x, n: x.reshape(2, -1), (D, 2)), "transpose": (np.transpose, (D, (1, 0, 2))),
    "dimshuffle": (lambda x, *p: x.T[:, None], (M, 1, "x", 0)),
    "swapaxes": (np.swapaxes, (D, 0, 2)), "moveaxis": (np.moveaxis, (D, 0, 2)),
    "rollaxis": (np.rollaxis, (D, 2)), "squeeze": (lambda x, a: x[:, 0], (M[:, None], 1)),
    "expand_dims": (np.expand_dims, (M, 1)), "atleast_1d": (np.atleast_1d, (np.array(2.0),)),
    "atleast_2d": (np.atleast_2d, (V,)), "shape_padleft": (lambda x, n: x[None, None], (M, 2)),
    "shape_padright": (lambda x, n: x[..., None, None], (M, 2)),
    "shape_padaxis": (lambda x, n: x[:, None], (M, 1)),
    "broadcast_to": (np.broadcast_to, (V, (2, 4))),
    "addbroadcast": (lambda x, a: x, (M[:1], 0)), "unbroadcast": (lambda x, a: x, (M[:1], 0)),
    "patternbroadcast": (lambda x, p: x, (M[:1], (True, False))),
    "specify_shape": (lambda x, s: x, (M, (3, 4))),
    "join": (lambda a, *x: np.concatenate(x, a), (1, M, N)),
    "concatenate": (np.concatenate, ([M, N], 1)),
    "stack": (lambda x, axis: np.stack(x, axis), ([M, N], 1)),
    "stacklists": (np.array, ([[V, V + 1], [V + 2, V + 3]],)),
    "horizontal_stack": (lambda *x: np.hstack(x), (M, N)),
    "vertical_stack": (lambda *x: np.vstack(x), (M, N)),
    "split": (lambda x, s, n, a: [x[:, :1], x[:, 1:]], (M, [1, 3], 2, 1)),
    "repeat": (np.repeat, (M, 2, 1)), "tile": (np.tile, (M, (2, 3))), "roll": (np.roll, (M, 2, 1)),
    # ---- creation
    "alloc": (lambda v, *s: np.full(s, v), (np.array(2.0), 2, 3)),
    "full": (np.full, ((2, 3), np.array(2.0))), "zeros": (np.zeros, ((2, 3),)),
    "ones": (np.ones, ((2, 3),)), "zeros_like": (np.zeros_like, (M,)),
    "ones_like": (np.ones_like, (M,)), "full_like": (np.full_like, (M, 2)),
    "eye": (np.eye, (3, 4, 1)), "identity_like": (lambda x: np.eye(*x.shape), (M,)),
    "tri": (np.tri, (3, 4, 1)), "tril": (np.tril, (M, 1)), "triu": (np.triu, (M, 1)),
    "arange": (np.arange, (2, 11, 3)), "linspace": (np.linspace, (0.0, 1.0, 5)),
    "diag": (np.diag, (V,)), "diagonal": (np.diagonal, (D, 1, 0, 2)), "trace": (np.trace, (S,)),
    "fill_diagonal": (lambda x, v: np.where(np.eye(3) > 0, v, x), (S, 7.0)),
    "fill_diagonal_offset": (lambda x, v, k: np.where(np.eye(3, k=k) > 0, v, x), (S, 7.0, 1)),
    "to_one_hot": (lambda y, n: np.eye(n)[y], (I[0], 4)),
    # ---- choice and order
    "take": (np.take, (M, np.array([2, 0]), 0)),
    "take_along_axis": (np.take_along_axis, (M, np.argsort(M, 1), 1)),
    "sort": (np.sort, (M, 0)), "argsort": (np.argsort, (M, 0)),
    "topk": (lambda x, k: np.sort(x)[::-1][:k], (V, 2)),
    "argtopk": (lambda x, k: np.argsort(x)[::-1][:k], (V, 2)),
    "topk_and_argtopk": (lambda x, k: [np.sort(x)[:-3:-1], np.argsort(x)[:-3:-1]], (V, 2)),
    "nonzero": (np.nonzero, (I,)), "nonzero_values": (lambda x: x[np.nonzero(x)], (I,)),
    "flatnonzero": (np.flatnonzero, (I,)),
    "searchsorted": (np.searchsorted, (np.array([1.0, 2.0, 3.0]), M)),
    "unique": (np.unique, (I,)), "bincount": (np.bincount, (I[0],)),
    "diff": (lambda x, n, a: np.diff(x, n, a), (D, 1, 1)),
    "choose": (np.choose, (np.array([1, 0, 1]), [I[0], I[1]])),
    "compress": (np.compress, (np.array([True, False, True]), M, 0)),
    "inverse_permutation": (np.argsort, (np.array([2, 0, 1]),)),
    "unravel_index": (np.unravel_index, (I, (3, 4))),
    "ravel_multi_index": (lambda i, s: np.ravel_multi_index(tuple(i), s), ([I, J], (6, 8))),
    "softmax_along": (scipy.special.softmax, (D, 1)),
    "log_softmax_along": (scipy.special.log_softmax, (D, 1)),
    # ---- identities that only gradients tell apart
    "disconnected_grad": (np.copy, (M,)), "zero_grad": (np.copy, (M,)),
    "consider_constant": (np.copy, (M,)), "undefined_grad": (np.copy, (M,)),
    "grad_clip": (lambda x, *_: x, (M, -1, 1)), "grad_scale": (lambda x, _: x, (M, 2)),
    # ---- values
    "constant": (np.asarray, (M,)), "as_tensor": (np.asarray, (M,)),
    "as_tensor_variable": (np.asarray, (M,)), "extract_constant": (np.asarray, (np.array(2.0),)),
    "get_scalar_constant_value": (np.asarray, (np.array(2.0),)),
    "ifelse": (lambda c, a, b: a, (np.array(True), M, N)),
}  # fmt: skip
CALLS |= {name: (f, (x,)) for name, (f, x) in UNARY.items()}

# said elsewhere: derivatives in the gradient's tests, the rest by tests of their own below
ELSEWHERE = {
    "Lop", "Rop", "grad", "hessian", "jacobian", "numeric_grad", "subgraph_grad", "verify_grad",
    "Print", "set_subtensor", "inc_subtensor", "get_vector_length", "tensor", "mgrid", "ogrid",
    "empty",
}  # fmt: skip
# their operand is a value, and a variable is refused or not looked into
OF_VALUES = {"constant", "extract_constant", "get_scalar_constant_value"}


def public_functions() -> set[str]:
    constructors = {n for n in T.__all__ if hasattr(inputs, n)}
    return {
        n for n in T.__all__
        if callable(f := getattr(T, n)) and not isinstance(f, type | ModuleType)
    } - constructors  # fmt: skip


def test_every_public_function_is_compared_with_numpy() -> None:
    assert public_functions() - CALLS.keys() - ELSEWHERE == set()


@pytest.mark.parametrize("name", CALLS)
def test_function_equals_numpys(name: str) -> None:
    reference, arguments = CALLS[name]
    f, want = getattr(T, name), reference(*arguments)
    if name in OF_VALUES:
        same(applied_to_constants(lambda a: T.as_tensor(f(a)), *arguments), want)
        return
    arrays: list[Any] = []

    def replaced(a: Any) -> Any:
        if isinstance(a, np.ndarray):
            arrays.append(a)
            return len(arrays) - 1, Ellipsis  # a place for its variable
        return [replaced(e) for e in a] if isinstance(a, list) else a

    def filled(a: Any, xs: Any) -> Any:
        if isinstance(a, tuple) and a[-1:] == (Ellipsis,):
            return xs[a[0]]
        return [filled(e, xs) for e in a] if isinstance(a, list) else a

    template = [replaced(a) for a in arguments]
    same(applied(lambda *xs: f(*[filled(a, xs) for a in template]), *arrays), want)


# ---- dtypes and broadcasting ----------------------------------------------------------------

NUMPY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "true_div": np.true_divide,
    "maximum": np.maximum, "minimum": np.minimum, "lt": np.less, "eq": np.equal,
    "arctan2": np.arctan2, "and_": np.bitwise_and, "xor": np.bitwise_xor,
}  # fmt: skip
DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "float32", "float64"]


def result_dtype(name: str, *dtypes: str) -> str:
    """Theano's rule: NumPy's promotion for arrays, floatX where a float is made of integers."""
    s = scalars[name]
    if s.result != "same":
        return s.result
    return float_dtype(*dtypes) if s.operands == "float" else promote(*dtypes)


def values(dtype: str, shape: tuple[int, ...], rng: Any) -> Any:
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype in DISCRETE:
        return rng.integers(0, 20, shape).astype(dtype)
    return rng.normal(size=shape).astype(dtype)


def within_4_ulp(got: Any, want: Any) -> None:
    if got.dtype.kind == "f":
        np.testing.assert_array_max_ulp(got, np.asarray(want, got.dtype), 4)
    else:
        np.testing.assert_array_equal(got, want)


@given(
    name=st.sampled_from(sorted(NUMPY)), a=st.sampled_from(DTYPES), b=st.sampled_from(DTYPES),
    ones=st.tuples(st.booleans(), st.booleans()), ndims=st.tuples(*[st.integers(0, 3)] * 2),
    seed=st.integers(0, 1000),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_binary_function_has_theanos_dtype_and_numpys_value(
    name: str, a: str, b: str, ones: tuple[bool, bool], ndims: tuple[int, int], seed: int
) -> None:
    if name in ("and_", "xor") and not {a, b} <= set(DISCRETE):
        with pytest.raises(TypeError, match="bools or integers"):
            getattr(T, name)(T.vector(dtype=a), T.vector(dtype=b))
        return
    rng = np.random.default_rng(seed)
    shape = (2, 3, 4)
    arrays = []
    for dtype, one, ndim in zip((a, b), ones, ndims):
        own = shape[3 - ndim :]
        if one and own:
            own = (1, *own[1:])
        arrays.append(values(dtype, own, rng))
    xs = [T.tensor(v.dtype.name, [s == 1 for s in v.shape]) for v in arrays]
    result = getattr(T, name)(*xs)
    assert result.dtype == result_dtype(name, a, b)
    if name == "sub" and promote(a, b) == "bool":
        return
    with np.errstate(all="ignore"):
        wide = [v.astype(float_dtype(a, b) if scalars[name].operands == "float" else promote(a, b))
                for v in arrays]  # fmt: skip
        want = NUMPY[name](*wide)
        got = Program(xs, [result])(*arrays)[0]
    assert np.shape(got) == np.shape(want)
    within_4_ulp(np.asarray(got), want)


FLOAT_UNARY = sorted(
    n for n, (f, _) in UNARY.items()
    if getattr(np, f.__name__, None) is f and n in scalars and scalars[n].operands == "float"
)  # fmt: skip


@given(
    name=st.sampled_from(FLOAT_UNARY), dtype=st.sampled_from(DTYPES), n=st.integers(0, 30),
    seed=st.integers(0, 1000),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_unary_function_has_a_float_dtype_and_numpys_value(
    name: str, dtype: str, n: int, seed: int
) -> None:
    x = values(dtype, (n,), np.random.default_rng(seed))
    result = getattr(T, name)(v := T.vector(dtype=dtype))
    assert result.dtype == float_dtype(dtype)
    with np.errstate(all="ignore"):
        got = Program([v], [result])(x)[0]
        # the exact value, rounded once
        exact = UNARY[name][0](x.astype(result.dtype).astype("longdouble"))
    np.testing.assert_allclose(
        got, exact.astype(result.dtype), rtol=4 * np.finfo(result.dtype).eps,
        atol=4 * float(np.finfo(result.dtype).tiny),
    )  # fmt: skip


@pytest.mark.parametrize(("a", "b", "dtype"), [
    ("int8", "float32", "float32"), ("int32", "float32", "float64"),
    ("int64", "float32", "float64"), ("float32", "float64", "float64"), ("bool", "int8", "int8"),
    ("uint8", "int8", "int16"),
])  # fmt: skip
def test_promotion(a: str, b: str, dtype: str) -> None:
    assert (T.vector(dtype=a) + T.vector(dtype=b)).dtype == dtype


def test_division_of_integers_gives_floatx() -> None:
    with config.change_flags(floatX="float64"):
        assert (T.lscalar() / T.lscalar()).dtype == "float64"
    assert (T.lscalar() / T.lscalar()).dtype == "float32"


def test_a_python_float_does_not_widen_float32() -> None:
    assert (T.fvector() * 0.1).dtype == "float32"


def test_sizes_that_are_not_known_to_be_one_do_not_broadcast() -> None:
    x, y = T.dvectors("x", "y")
    with pytest.raises(ValueError, match="Input dimension mis-match"):
        Program([x, y], [x + y])(np.ones(1), np.ones(3))


# ---- constructors ---------------------------------------------------------------------------

KINDS = {
    "scalar": (), "vector": (False,), "row": (True, False), "col": (False, True),
    "matrix": (False,) * 2, "tensor3": (False,) * 3, "tensor4": (False,) * 4,
    "tensor5": (False,) * 5,
}  # fmt: skip
PREFIXES = {
    "b": "int8", "w": "int16", "i": "int32", "l": "int64", "f": "float32", "d": "float64",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_constructor_of_floatx(kind: str) -> None:
    x = getattr(T, kind)("x")
    assert (x.name, x.dtype, x.broadcastable) == ("x", "float32", KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_constructor_with_a_dtype(kind: str) -> None:
    assert getattr(T, kind)("x", dtype="int64").dtype == "int64"


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("kind", KINDS)
def test_type_with_a_prefix(prefix: str, kind: str) -> None:
    t = getattr(T, prefix + kind)
    assert t == TensorType(PREFIXES[prefix], KINDS[kind])
    assert t("x").type == t


def test_each_call_makes_a_new_input() -> None:
    assert T.matrix("x") is not T.matrix("x")


def test_make_variable_is_the_call() -> None:
    assert T.dscalar.make_variable("x").name == "x"


@pytest.mark.parametrize("plural", [n for n in T.__all__ if n.endswith(("s", "matrices"))
                                    and hasattr(inputs, n)])  # fmt: skip
def test_plural_makes_one_input_a_name(plural: str) -> None:
    one = getattr(T, plural.replace("matrices", "matrix").removesuffix("s"))
    a, b = getattr(T, plural)("a", "b")
    assert (a.name, b.name) == ("a", "b")
    assert a.type == b.type == one().type


def test_plural_of_a_number_makes_inputs_without_names() -> None:
    assert [v.name for v in T.dmatrices(3)] == [None] * 3


def test_plural_of_letters() -> None:
    assert [v.name for v in T.vectors("xyz")] == ["x", "y", "z"]


def test_plural_of_one_name_is_one_input() -> None:
    assert isinstance(T.vectors("x"), Variable)


def test_tensor_of_a_broadcast_pattern() -> None:
    x = T.tensor("int32", (False, True), "x")
    assert (x.name, x.type) == ("x", TensorType("int32", (None, 1)))


def test_tensor_of_a_shape() -> None:
    assert T.tensor("int32", shape=(3, None)).type.shape == (3, None)


def test_tensor_without_a_number_of_axes_is_an_error() -> None:
    with pytest.raises(TypeError, match="broadcastable"):
        T.tensor("int32")


# ---- operators and methods ------------------------------------------------------------------

METHODS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    name: (f, f)
    for name, f in {
        "add": lambda x: x + 2, "radd": lambda x: 2 + x, "sub": lambda x: x - 2,
        "rsub": lambda x: 2 - x, "mul": lambda x: x * 3, "div": lambda x: x / 3,
        "rdiv": lambda x: 3 / x, "floordiv": lambda x: x // 2, "mod": lambda x: x % 2,
        "divmod": lambda x: list(divmod(x, 2)), "pow": lambda x: x**2, "rpow": lambda x: 2**x,
        "neg": lambda x: -x, "pos": lambda x: +x, "abs": lambda x: abs(x), "lt": lambda x: x < 0,
        "ge": lambda x: x >= 0, "matmul": lambda x: x @ x.T, "T": lambda x: x.T,
        "index": lambda x: x[1, ::-1], "sum": lambda x: x.sum(axis=1), "prod": lambda x: x.prod(),
        "mean": lambda x: x.mean(axis=0), "var": lambda x: x.var(ddof=1), "std": lambda x: x.std(),
        "max": lambda x: x.max(axis=1), "min": lambda x: x.min(), "argmax": lambda x: x.argmax(1),
        "argmin": lambda x: x.argmin(), "any": lambda x: (x > 1).any(axis=0),
        "all": lambda x: (x > -1).all(), "cumsum": lambda x: x.cumsum(1),
        "cumprod": lambda x: x.cumprod(1), "dot": lambda x: x.dot(x.T),
        "transpose": lambda x: x.transpose(1, 0), "swapaxes": lambda x: x.swapaxes(0, 1),
        "reshape": lambda x: x.reshape((2, 6)), "reshape sizes": lambda x: x.reshape(2, 6),
        "flatten": lambda x: x.flatten(), "ravel": lambda x: x.ravel(),
        "diagonal": lambda x: x.diagonal(1), "trace": lambda x: x.trace(),
        "repeat": lambda x: x.repeat(2, axis=0), "clip": lambda x: x.clip(-1, 1),
        "copy": lambda x: x.copy(), "take": lambda x: x.take([1, 0], axis=1),
        "argsort": lambda x: x.argsort(), "astype": lambda x: x.astype("int32"),
        "conj": lambda x: x.conj(), "real": lambda x: x.real, "size": lambda x: x.size,
        "shape": lambda x: x.shape, "round": lambda x: x.round(),
    }.items()
} | {
    "norm": (lambda x: x.norm(1), lambda x: np.abs(x).sum()),
    "norm by axis": (lambda x: x.norm(2, axis=1), lambda x: np.linalg.norm(x, axis=1)),
    "squeeze": (lambda x: x.dimshuffle("x", 0, 1).squeeze(), lambda x: x),
    "sort": (lambda x: x.sort(), np.sort), "fill": (lambda x: x.fill(2.0), lambda x: 0 * x + 2),
    "zeros_like": (lambda x: x.zeros_like(), np.zeros_like),
    "ones_like": (lambda x: x.ones_like(), np.ones_like), "ptp": (lambda x: x.ptp(), np.ptp),
    "nonzero": (lambda x: list((x > 0).nonzero()), lambda x: list(np.nonzero(x > 0))),
    "nonzero_values": (lambda x: x.nonzero_values(), np.ravel),
    "dimshuffle": (lambda x: x.dimshuffle(1, "x", 0), lambda x: x.T[:, None]),
    "searchsorted": (
        lambda x: x[0].sort().searchsorted(x), lambda x: np.searchsorted(np.sort(x[0]), x),
    ),
    "choose": (lambda x: (x > 0).astype("int64").choose([x, -x]), lambda x: np.where(x > 0, -x, x)),
    "ceil": (lambda x: math.ceil(x), np.ceil), "floor": (lambda x: math.floor(x), np.floor),
    "trunc": (lambda x: math.trunc(x), np.trunc),
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_operator_or_method(name: str) -> None:
    ours, numpys = METHODS[name]
    same(applied(ours, M), numpys(M), rtol=1e-6)


@pytest.mark.parametrize("name", ["__and__", "__or__", "__xor__"])
def test_bit_operator(name: str) -> None:
    same(applied(lambda x, y: getattr(x, name)(y), I, J), getattr(I, name)(J))
    same(applied(lambda x: getattr(x, name.replace("__", "__r", 1))(5), I), getattr(I, name)(5))


def test_invert_operator() -> None:
    same(applied(lambda x: ~x, I), ~I)


@pytest.mark.parametrize("ufunc", [
    np.exp, np.sqrt, np.sign, np.square, np.reciprocal, np.rint, np.absolute, np.negative,
    np.deg2rad, np.degrees, np.radians, np.isfinite, np.logical_not, np.fabs, np.positive,
    np.conjugate, np.tanh,
])  # fmt: skip
def test_numpys_function_of_a_variable(ufunc: Any) -> None:
    same(applied(lambda x: ufunc(x), U), ufunc(U))


@pytest.mark.parametrize("ufunc", [
    np.add, np.subtract, np.multiply, np.true_divide, np.power, np.arctan2, np.less, np.equal,
    np.maximum, np.matmul, np.remainder, np.logical_and, np.logical_or,
])  # fmt: skip
def test_numpys_function_of_an_array_and_a_variable(ufunc: Any) -> None:
    a = S**2
    same(applied(lambda x: ufunc(a, x), S.T**2), ufunc(a, S.T**2))


# ---- the rest of the namespace ----------------------------------------------------------------


def test_round_away_from_zero() -> None:
    x = np.array([0.5, -0.5, 1.5, 2.5])
    got = applied(lambda v: T.round(v, "half_away_from_zero"), x)
    np.testing.assert_array_equal(got, [1, -1, 2, 3])


def test_round_refuses_other_modes() -> None:
    with pytest.raises(ValueError, match="half_to_even"):
        T.round(T.vector(), "up")


def test_iround_is_int64() -> None:
    assert T.iround(T.fvector()).dtype == "int64"


@pytest.mark.parametrize("equal_nan", [True, False])
def test_isclose_at_infinities_and_nan(equal_nan: bool) -> None:
    a = np.array([np.inf, -np.inf, np.inf, np.nan, 1.0, np.nan])
    b = np.array([np.inf, np.inf, 1.0, np.nan, np.inf, 1.0])
    got = applied(lambda x, y: T.isclose(x, y, equal_nan=equal_nan), a, b)
    np.testing.assert_array_equal(got, np.isclose(a, b, equal_nan=equal_nan))


@pytest.mark.parametrize("order", [0, 1, 2, 3, np.inf, -np.inf])
def test_norm_along_an_axis(order: float) -> None:
    same(applied(lambda x: T.norm(x, order, axis=1), M), np.linalg.norm(M, order, axis=1))


@pytest.mark.parametrize("x", [
    np.array([1e3, 1e3]), np.array([-1e3, -1e3]), np.array([-np.inf, -np.inf]),
    np.array([np.inf, 0.0]),
])  # fmt: skip
def test_logsumexp_far_out(x: Any) -> None:
    with np.errstate(all="ignore"):
        same(applied(T.logsumexp, x), scipy.special.logsumexp(x))


def test_gradient_of_logsumexp() -> None:
    T.verify_grad(lambda x: T.logsumexp(x, axis=1), [M], rng=np.random.default_rng(0))


def test_stack_of_variables_by_as_tensor() -> None:
    same(applied(lambda x, y: T.as_tensor_variable([x, y]), V, V), np.stack([V, V]))


def test_empty_has_the_shape() -> None:
    assert applied_to_constants(T.empty, (2, 3)).shape == (2, 3)


def test_mgrid_and_ogrid() -> None:
    same(applied_to_constants(lambda: T.mgrid[0:3, 1:9:2]), list(np.mgrid[0:3, 1:9:2]))
    same(applied_to_constants(lambda: T.ogrid[0:3, 1:9:2]), np.ogrid[0:3, 1:9:2])


def test_set_and_inc_subtensor() -> None:
    want = M.copy()
    want[0] = 1
    same(applied(lambda x: T.set_subtensor(x[0], 1.0), M), want)
    same(applied(lambda x: T.inc_subtensor(x[0], 1 - x[0]), M), want)


def test_scalar_constant_value_of_an_expression() -> None:
    assert T.get_scalar_constant_value(T.constant(2.0) * 3 + T.zeros((2, 2))) == 6


def test_scalar_constant_value_of_an_input_is_an_error() -> None:
    x = T.scalar("x")
    with pytest.raises(T.NotScalarConstantError, match="x"):
        T.get_scalar_constant_value(x + 1)
    assert T.extract_constant(x) is x


def test_scalar_constant_value_of_different_values_is_an_error() -> None:
    with pytest.raises(T.NotScalarConstantError):
        T.get_scalar_constant_value(T.constant(M))


def test_scalar_constant_value_of_no_values_is_an_error() -> None:
    with pytest.raises(T.EmptyConstantError):
        T.get_scalar_constant_value(T.constant(np.zeros(0)))


def test_vector_length() -> None:
    assert T.get_vector_length(T.matrix().shape) == 2
    with pytest.raises(ValueError, match="length not known"):
        T.get_vector_length(T.vector())


@pytest.mark.parametrize("order", ["C", "F"])
def test_ravel_undoes_unravel(order: str) -> None:
    flat = np.arange(24)
    got = applied(lambda i: T.unravel_index(i, (2, 3, 4), order), flat)
    same(got, np.unravel_index(flat, (2, 3, 4), order))
    back = applied(lambda *i: T.ravel_multi_index(i, (2, 3, 4), order=order), *got)
    np.testing.assert_array_equal(back, flat)


@pytest.mark.parametrize("mode", ["wrap", "clip"])
def test_ravel_of_coordinates_out_of_range(mode: Any) -> None:
    i, j = np.array([-1, 5]), np.array([7, -3])
    got = applied(lambda *c: T.ravel_multi_index(c, (3, 4), mode), i, j)
    np.testing.assert_array_equal(got, np.ravel_multi_index((i, j), (3, 4), mode))


def test_positions_out_of_range_are_errors() -> None:
    with pytest.raises(Exception, match="out of range"):
        applied(lambda i: T.unravel_index(i, (2, 2)), np.array([4]))
    with pytest.raises(Exception, match="out of range"):
        applied(lambda i: T.ravel_multi_index([i, i], (2, 2)), np.array([2]))


def test_xlogx_at_zero() -> None:
    x = np.array([0.0, 1.0, 2.0])
    same(applied(T.xlogx.xlogx, x), scipy.special.xlogy(x, x))


def test_xlogy0_is_zero_where_x_is() -> None:
    x, y = np.array([0.0, 0.0, 2.0]), np.array([0.0, np.nan, 3.0])
    same(applied(T.xlogx.xlogy0, x, y), [0, 0, 2 * np.log(3)])


def test_gradient_of_xlogy0_is_finite_at_zero() -> None:
    x, y = T.dvectors("x", "y")
    g = T.grad(T.xlogx.xlogy0(x, y).sum(), [x, y])
    for v in Program([x, y], g)(np.zeros(2), np.zeros(2)):
        assert np.isfinite(v).all()


def test_list_of_public_names_is_right() -> None:
    assert [n for n in T.__all__ if not hasattr(T, n)] == []
    assert len(set(T.__all__)) == len(T.__all__)


@pytest.mark.parametrize("module", ["nnet", "nlinalg", "slinalg", "extra_ops"])
def test_lists_of_the_parts_are_right(module: str) -> None:
    part = getattr(T, module)
    assert [n for n in part.__all__ if not hasattr(part, n)] == []


def test_every_operator_of_a_variable_has_a_meaning() -> None:
    import inspect
    import re

    from gpuscan import operators

    used = set(re.findall(r'_apply\(\s*"(\w+)"', inspect.getsource(operators)))
    assert used - Variable.operations.keys() == set()


def test_shared_randomstreams_is_the_place_of_random_streams() -> None:
    assert T.shared_randomstreams.RandomStreams is gpuscan.tensor.random.RandomStreams


def test_variadic_functions_take_one_argument() -> None:
    x = T.vector()
    for f in (elementwise.add, elementwise.mul, elementwise.maximum, elementwise.minimum):
        assert f(x) is x
