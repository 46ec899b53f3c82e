"""Products outside of loops, with the elementwise work around them in one kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_native import numbers

from gpuscan import config, function
from gpuscan import tensor as T
from gpuscan.codegen.nest import lower_nests
from gpuscan.codegen.rows import LEAST_ROWS, lower_products
from gpuscan.graph import clients
from gpuscan.ops.control import ifelse
from gpuscan.runtime import compiler, threads

pytestmark = pytest.mark.skipif(
    compiler.find() is None, reason="no C compiler: set CC, or install gcc or clang"
)

X, W, V, B = T.matrix("x"), T.matrix("W"), T.matrix("V"), T.vector("b")
WRITTEN = {
    "before": lambda: [T.dot(T.tanh(X) * 2, W)],
    "behind": lambda: [T.nnet.sigmoid(T.dot(X, W) + B) * 3],
    "both": lambda: [T.exp(-T.dot(X - 1, W))],
    "layers": lambda: [T.tanh(T.dot(T.tanh(T.dot(X, W) + B), V))],
    "beside": lambda: [T.tanh(T.dot(X, W) + T.dot(X, W.T * 0 + 1).sum(axis=1, keepdims=True))],
    "transposed": lambda: [T.dot(T.tanh(X), V.T) + 1],
    "of another dtype": lambda: [T.cast(100 * T.tanh(T.dot(X, W)) // 40, "int32")],
}
INPUTS = [X, W, B, V]


def kernels(outputs: list[Any]) -> list[Any]:
    f = function(INPUTS, outputs, device="native", on_unused_input="ignore")
    graph = f.maker.fgraph.outputs
    return lower_products(graph, clients(graph))[0]


def test_a_product_and_the_work_around_it_are_one_kernel() -> None:
    for name, count in [("before", 1), ("behind", 1), ("both", 1), ("layers", 2)]:
        found = kernels(WRITTEN[name]())
        assert len(found) == count
        assert all(len(nest.values) == 1 for nest in found)
        assert not any(v in n.operands for n in found[:1] for v in found[0].values)


def test_what_others_read_is_not_taken() -> None:
    product = T.dot(X, W)
    assert not kernels([product, T.tanh(product)])
    h = T.tanh(X)
    assert not kernels([T.dot(h, W), h])
    assert not kernels([T.dot(X, W)])
    assert len(kernels([T.dot(h, W) + 1, h])) == 1  # what is behind it is its own


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("rows", [0, 1, LEAST_ROWS - 1, LEAST_ROWS, 100, 1003])
def test_equal_to_the_reference(rows: int, name: str, dtype: str) -> None:
    with config.change_flags(floatX=dtype):
        f, g = (
            function(INPUTS, WRITTEN[name](), device=d, on_unused_input="ignore",
                     allow_input_downcast=True)
            for d in ("native", "reference")
        )  # fmt: skip
    n = 12
    values = numbers(rows, n), numbers(n, n), numbers(n), numbers(n, n)
    for got, wanted in zip(f(*values), g(*values), strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_rows_are_shared_by_threads_and_stay_the_same(monkeypatch: Any) -> None:
    monkeypatch.setattr(threads, "WORTH_SHARING", 1)
    f = function([X, W, B], WRITTEN["behind"](), device="native")
    values = numbers(500, 70), numbers(70, 90), numbers(90)
    found = []
    for count in (1, 2, 3):
        with config.change_flags(threads=count):
            found.append(f(*values)[0])
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


def test_strides_of_all_kinds() -> None:
    f, g = (function([X, W, B], WRITTEN["both"]() + WRITTEN["behind"](), device=d,
                     on_unused_input="ignore") for d in ("native", "reference"))  # fmt: skip
    x, w, b = numbers(80, 60), numbers(90, 60), numbers(90)
    for values in [
        (x[::-2, ::-1], w[:17].T, b[:17]),
        (x.T[:, ::2], w.T[::-1][:40, ::-1], b[::-1]),
        (np.asfortranarray(x), np.asfortranarray(w.T), b),
        (np.broadcast_to(x[:1], x.shape), w.T, np.broadcast_to(b[:1], b.shape)),
    ]:
        for got, wanted in zip(f(*values), g(*values), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_few_rows_of_what_is_computed_by_other_products() -> None:
    h = T.dot(X, W)
    f, g = (function([X, W, B], [T.tanh(T.dot(h, W) + h * B), h], device=d)
            for d in ("native", "reference"))  # fmt: skip
    for rows in (0, 3, 5, 70):
        values = numbers(rows, 9), numbers(9, 9), numbers(9)
        for got, wanted in zip(f(*values), g(*values), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_sizes_of_something_else() -> None:
    """A value made to the size of what the kernel does not read."""
    other = T.vector("other")
    wide = T.zeros_like(other)[None, :] + T.alloc(np.float32(0.5), other.shape[0])
    outputs = [T.tanh(T.dot(X, W) + wide), T.exp(B + T.alloc(np.float32(0.5), other.shape[0]))]
    f, g = (function([X, W, B, other], outputs, device=d) for d in ("native", "reference"))
    for rows in (3, 70):
        values = numbers(rows, 9), numbers(9, 8), numbers(8), numbers(8)
        for got, wanted in zip(f(*values), g(*values), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
        texts = []
        for h in (f, g):
            with pytest.raises(ValueError) as e:
                h(*values[:3], numbers(5))
            texts.append(str(e.value))
        assert texts[0] == texts[1]


def test_errors_are_the_references() -> None:
    for values in [(40, 3, 4, 5, 5), (40, 3, 3, 5, 6)]:
        m, k, height, n, o = values
        texts = []
        for device in ("native", "reference"):
            f = function([X, W, B], WRITTEN["behind"](), device=device)
            with pytest.raises(ValueError) as e:
                f(numbers(m, k), numbers(height, n), numbers(o))
            texts.append((str(e.value), e.value.__notes__))
        assert texts[0] == texts[1]


def test_only_what_is_computed_in_any_case_is_in_kernels() -> None:
    y = T.exp(X) * 2 + 1
    taken = T.log(T.tanh(X) + 3)
    f = function([X], [y, ifelse(T.gt(X.shape[0], 2), taken.sum(), y[0, 0])], device="native")
    nests = lower_nests(f.maker.fgraph.outputs)
    assert [v.op.label for nest in nests for v in nest.values] == ["add"]
    outputs = [ifelse(T.gt(B[0], 0), T.tanh(T.dot(X, W)), X)]
    assert not lower_products(outputs, clients(outputs))[0]
