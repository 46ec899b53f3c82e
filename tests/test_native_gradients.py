"""What the gradient of a loop reads of it, and adds up over its steps: histories where they lie,
and products that share an operand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from test_native import agree, numbers

from gpuscan import config, function, scan, until
from gpuscan import tensor as T
from gpuscan.runtime import compiler, contraction, native, products

pytestmark = pytest.mark.skipif(
    compiler.find() is None, reason="no C compiler: set CC, or install gcc or clang"
)

X, H, U, G = T.tensor3("x"), T.matrix("h"), T.matrix("U"), T.tensor3("g")


def elman(h: Any = H, **arguments: Any) -> Any:
    return scan(lambda x, h, U: T.tanh(x + T.dot(h, U)), X, h, U, **arguments)[0]


def given(steps: int, batch: int, units: int = 5, dtype: str = "float32") -> list[Any]:
    """x, h, U and g."""
    return [
        numbers(steps, batch, units, dtype=dtype), numbers(batch, units, dtype=dtype, seed=1),
        numbers(units, units, dtype=dtype, seed=2), numbers(steps, batch, units, dtype=dtype),
    ]  # fmt: skip


def compare(inputs: Any, outputs: Any, *values: Any) -> None:
    """A call on the native device gives what the reference gives."""
    f, g = (function(inputs, outputs, device=d, on_unused_input="ignore")
            for d in ("native", "reference"))  # fmt: skip
    agree((f, g), *values)


@contextmanager
def watched() -> Iterator[tuple[list[bool], list[int]]]:
    """Per join of a history whether it is there, and per product of several how many those are."""
    there: list[bool] = []
    counts: list[int] = []
    part, several = native.part_of_history, products.products

    def found(history: Any, arrays: Any) -> Any:
        rows = part(history, arrays)
        there.append(rows is not None)
        assert rows is None or np.array_equal(rows, np.concatenate(arrays), equal_nan=True)
        return rows

    def multiplied(kernel: Any, elements: int, lefts: Any, *rest: Any) -> Any:
        counts.append(len(lefts))
        return several(kernel, elements, lefts, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "part_of_history", found)
        patch.setattr(products, "products", multiplied)
        patch.setattr(contraction, "products", multiplied)
        yield there, counts


# ---- histories -----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("steps", [1, 2, 17, 400])
def test_a_gradient_reads_the_history_where_it_lies(steps: int, batch: int) -> None:
    gradients = T.grad((G * elman()).sum(), [X, H, U])
    with watched() as (there, _):
        compare([X, H, U, G], gradients, *given(steps, batch))
    assert there and all(there)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_join_that_a_user_writes(backwards: bool) -> None:
    hs = elman()
    whole = T.concatenate([H[None], hs[:-1]])
    whole = whole[::-1] if backwards else whole
    with watched() as (there, _):
        compare([X, H, U], [whole * 2, hs], *given(40, 3)[:3])
    assert there == [True]


@pytest.mark.parametrize("initial", [np.nan, -0.0])
def test_initial_values_are_compared_bit_by_bit(initial: float) -> None:
    """Joined with another value than the loop's own, which is equal to it or not."""
    other = T.matrix("other")
    f = function([X, H, U, other], T.concatenate([other[None], elman()]), device="native")
    x, h, u, _ = given(4, 3)
    h[1] = initial
    with watched() as (there, _):
        for value in (h, h + 1, np.where(h == 0, 0, h)):
            found = f(x, h, u, value)
            np.testing.assert_array_equal(found[0], value)
            np.testing.assert_array_equal(np.signbit(found[0]), np.signbit(value))
    assert there == [True, False, bool(np.isnan(initial))]


def test_other_rows_than_those_of_the_history_are_joined() -> None:
    hs = elman()
    joined = [
        T.concatenate([H[None], hs[1:]]), T.concatenate([H[None], hs[::-1]]),
        T.concatenate([hs, H[None]]), T.concatenate([hs[:3], hs[3:]]),
        T.concatenate([T.stack([H, H]), hs]), T.concatenate([H[None], hs[::2]]),
    ]  # fmt: skip
    with watched() as (there, _):
        for whole in joined:
            compare([X, H, U], [whole + 1], *given(8, 3)[:3])
    assert there and not any(there)


def test_a_history_of_fewer_steps_than_were_asked_for() -> None:
    def step(x: Any, h: Any, U: Any) -> Any:
        h = T.tanh(x + T.dot(h, U))
        return h, until(x.sum() > 1e9)

    hs, _ = scan(step, X, H, U)
    gradients = T.grad(hs.sum(), [X, H, U])
    x, h, u, _ = given(30, 3)
    for stop in (0, 11, 29):
        x = x.copy()
        x[stop, 0, 0] = 1e10
        compare([X, H, U], [hs, T.concatenate([H[None], hs[:-1]]), *gradients], x, h, u)
        x[stop, 0, 0] = 0


def test_two_states_with_one_trace_begin_each_with_its_own_value() -> None:
    """The step computes both from the first, so they are one trace."""
    k = T.matrix("k")

    def step(x: Any, h: Any, k: Any, U: Any) -> Any:
        new = T.tanh(x + T.dot(h, U) + k)
        return new, new

    (hs, ks), _ = scan(step, X, [H, k], U)
    joins = [T.concatenate([y[None], ys[:-1]]) + 0 for y, ys in ((H, hs), (k, ks))]
    x, h, u, _ = given(9, 3)
    for outputs in (joins, joins[::-1], [hs, *T.grad((hs * ks).sum(), [X, H, U])]):
        compare([X, H, k, U], outputs, x, h, h + 1, u)


def test_no_steps_have_a_history_too() -> None:
    gradients = T.grad((G * elman()).sum(), [X, H, U])
    compare([X, H, U, G], gradients, *given(0, 3))


def test_results_are_nobody_elses() -> None:
    hs = elman()
    f = function([X, H, U], [hs, T.concatenate([H[None], hs])], device="native")
    values = given(400, 64)[:3]
    trace, history = f(*values)
    kept = history.copy()
    trace[...] = 0
    np.testing.assert_array_equal(history, kept)
    np.testing.assert_array_equal(f(*values)[1], kept)


# ---- products over all steps ---------------------------------------------------------------------


def shaped(x: Any, columns: int = -1) -> Any:
    return x.reshape((x.shape[0] * x.shape[1], columns if columns > 0 else x.shape[2]))


A, B, C = T.tensor3("a"), T.tensor3("b"), T.tensor3("c")


def stacks(steps: int, span: int, *columns: int, dtype: str = "float32") -> list[Any]:
    return [numbers(steps, span, n, dtype=dtype, seed=n) for n in columns]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("steps", "span"), [(0, 4), (1, 1), (7, 1), (1, 90), (37, 7), (9, 32), (3, 100), (100, 3)]
)
def test_products_that_share_an_operand(steps: int, span: int, dtype: str) -> None:
    with config.change_flags(floatX=dtype):
        a, b, c = (T.tensor3(name) for name in "abc")
        outputs = [
            T.dot(shaped(a[::-1]).T, shaped(c[::-1])), T.dot(shaped(b).T, shaped(c[::-1])),
            T.dot(shaped(b[:, ::-1]).T, shaped(c[::-1])), T.dot(shaped(c).T, shaped(b[:, :, ::2])),
        ]  # fmt: skip
    with watched() as (_, counts):
        compare([a, b, c], outputs, *stacks(steps, span, 5, 101, 70, dtype=dtype))
    assert sorted(counts) == [1, 3]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_threads_share_them_by_columns_and_by_rows(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "_WORTH_SHARING", 0)
    values = stacks(40, 6, 33, 20, 90)
    wide = [T.dot(shaped(x).T, shaped(C)) for x in (A[::-1], B)]
    high = [T.dot(shaped(x).T, shaped(A)) for x in (C[::-1], B)]
    f = function([A, B, C], [*wide, *high], device="native")
    with config.change_flags(threads=1):
        alone = f(*values)
    with config.change_flags(threads=count):
        for found, wanted in zip(f(*values), alone, strict=True):
            np.testing.assert_array_equal(found, wanted)
    agree((f, function([A, B, C], [*wide, *high], device="reference")), *values)


def test_a_product_that_needs_another_is_not_with_it() -> None:
    right = shaped(C)
    first = T.dot(shaped(A).T, right)
    second = T.dot((T.tanh(first).sum() + shaped(B)).T, right)
    with watched() as (_, counts):
        compare([A, B, C], [first, second, T.dot(T.exp(first).T, first)], *stacks(5, 3, 8, 9, 10))
    assert counts == [1, 1, 1]


def test_rows_and_columns_that_are_vectors() -> None:
    v, w = T.vector("v"), T.vector("w")
    outputs = [T.dot(v[None, :], shaped(C)), T.dot(w[:, None], v[None, :]), T.dot(v, shaped(C))]
    a, c = stacks(5, 3, 8, 10)
    with watched() as (_, counts):
        compare([v, w, C], outputs, a[:, :, 0].reshape(-1), c[0, 0], c)
    assert 3 not in counts


def test_more_products_than_one_kernel_takes() -> None:
    lefts = [shaped(A) * k for k in range(2 * products.MOST_LEFTS + 1)]
    outputs = [T.dot(x.T, shaped(C)) for x in lefts]
    with watched() as (_, counts):
        compare([A, C], outputs, *stacks(5, 3, 8, 10))
    assert sorted(counts) == [1, products.MOST_LEFTS, products.MOST_LEFTS]


def test_what_does_not_fit_raises_the_references_error() -> None:
    n = T.iscalar("n")
    cases = [
        (T.dot(shaped(A).T, shaped(C)), stacks(5, 3, 8) + stacks(5, 4, 10)),
        (T.dot(A.reshape((n, 8)).T, shaped(C)), stacks(5, 3, 8, 10)),
        (T.dot(A.reshape((n, n)).T, shaped(C)), stacks(5, 3, 8, 10)),
    ]
    for output, values in cases:
        texts = []
        for device in ("native", "reference"):
            f = function([A, C, n], output, device=device, on_unused_input="ignore")
            with pytest.raises(ValueError) as e:
                f(*values, 7)
            texts.append(f"{e.value}")
        assert texts[0] == texts[1]


def test_rows_that_are_joined_otherwise_than_the_stack_has_them() -> None:
    """As many in all, but not the stack's."""
    n = T.iscalar("n")
    f, g = (
        function([A, C, n], T.dot(A.reshape((n, 10)).T, C.reshape((-1, 6))), device=d)
        for d in ("native", "reference")
    )
    for a, c in (((6, 4, 5), (2, 3, 12)), ((3, 4, 10), (3, 4, 6)), ((12, 1, 10), (3, 4, 6))):
        agree((f, g), numbers(*a), numbers(*c), 12)


def test_a_gradients_products_are_one_kernels() -> None:
    W = T.matrix("W")
    hs, _ = scan(lambda x, h, W, U: T.tanh(T.dot(x, W) + T.dot(h, U)), X, H, [W, U])
    x, h, u, g = given(40, 6, 16)
    with watched() as (there, counts):
        compare([X, H, W, U, G], T.grad((G * hs).sum(), [W, U]), x, h, u.copy(), u, g)
    assert there == [True]
    assert counts == [2]


# ---- what is added to rows of a table besides ----------------------------------------------------

CODES, TABLE = T.imatrix("codes"), T.matrix("table")


def added(x: Any = C, codes: Any = CODES, table: Any = TABLE) -> Any:
    return T.inc_subtensor(table[codes], x)


@contextmanager
def additions() -> Iterator[list[bool]]:
    """Per product with an addition whether they are one kernel."""
    found: list[bool] = []
    several = contraction.products

    def multiplied(*arguments: Any) -> Any:
        found.append(arguments[-1] is not None)
        return several(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contraction, "products", multiplied)
        yield found


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("steps", "span"), [(1, 1), (7, 1), (1, 90), (37, 7), (3, 300)])
@pytest.mark.parametrize("backwards", [False, True])
def test_an_addition_of_rows_is_exactly_the_references(
    steps: int, span: int, dtype: str, threads: int, backwards: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Whether threads share the product by columns, where it has them all, or by rows."""
    monkeypatch.setattr(products, "_WORTH_SHARING", 0)
    a, b, c, table = (T.TensorType(dtype, (None,) * n)() for n in (3, 3, 3, 2))
    x = c[::-1] if backwards else c
    outputs = [T.dot(shaped(left).T, shaped(x)) for left in (a, b)] + [added(x, table=table)]
    f, g = (function([a, b, c, CODES, table], outputs, device=d) for d in ("native", "reference"))
    codes = np.random.default_rng(1).integers(-9, 9, (steps, span)).astype("int32")
    with config.change_flags(threads=threads):
        for wide in (600, 70, 20):
            values = stacks(steps, span, 5, 33, wide, dtype=dtype)
            rows = numbers(9, wide, dtype=dtype)
            with additions() as together:
                found = f(*values, codes, rows)
            assert together == [wide > 38]
            wanted = g(*values, codes, rows)
            np.testing.assert_array_equal(found[2], wanted[2])
            np.testing.assert_allclose(found[0], wanted[0], rtol=1e-4, atol=1e-4)
            np.testing.assert_array_equal(rows, numbers(9, wide, dtype=dtype))


def test_an_addition_that_fails_or_does_not_fit() -> None:
    outputs = [T.dot(shaped(A).T, shaped(C)), added()]
    f, g = (function([A, C, CODES, TABLE], outputs, device=d) for d in ("native", "reference"))
    a, c = stacks(5, 3, 8, 40)
    codes = np.zeros((5, 3), "int32")
    for wrong in (9, -10):
        agree((f, g), a, c, codes + wrong, numbers(9, 40))
    for shape in ((4, 3), (5, 2), (3, 5)):
        agree((f, g), a, c, np.zeros(shape, "int32"), numbers(9, 40))
    agree((f, g), a, c, codes, numbers(9, 39))
    agree((f, g), a, c, codes, numbers(9, 40))


def test_additions_that_stand_alone() -> None:
    """Of other rows than a product reads, of what needs the product, and a second one."""
    product = T.dot(shaped(A).T, shaped(C))
    cases = [
        [product, added(C * 2)],
        [product, added(table=TABLE + product.sum())],
        [product, added(), added(codes=CODES + 1)],
        [T.dot(shaped(added(A, table=TABLE)[CODES]).T, shaped(A)), product],
        [product, T.inc_subtensor(T.zeros((9, 5, 40))[CODES[0], CODES[1]], C[0])],
    ]
    a, c = stacks(5, 5, 40, 40)
    codes = np.random.default_rng(2).integers(0, 8, (5, 5)).astype("int32")
    for outputs in cases:
        compare([A, C, CODES, TABLE], outputs, a, c, codes, numbers(9, 40))


def test_a_tables_gradient_is_added_up_by_the_products_of_the_weights() -> None:
    def step(code: Any, h: Any, table: Any, U: Any) -> Any:
        return T.tanh(table[code] + T.dot(h, U))

    hs, _ = scan(step, CODES, H, [TABLE, U])
    codes = np.random.default_rng(3).integers(0, 9, (40, 6)).astype("int32")
    _, h, u, g = given(40, 6, 16)
    gradients = T.grad((G * hs).sum(), [TABLE, U])
    with watched() as (_, counts):
        compare([CODES, H, TABLE, U, G], gradients, codes, h, numbers(9, 16), u, g)
    assert counts == [1]
