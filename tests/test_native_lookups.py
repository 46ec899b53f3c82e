"""Rows of a table that a loop reads where they are: `table[code]` in a step, of codes that are a
sequence. Held to the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_native import agree, numbers
from test_native_units import by_threads, equal

from gpuscan import config, function, scan, shared, until
from gpuscan import tensor as T
from gpuscan.ops.index import AdvancedSubtensor
from gpuscan.runtime import compiler

pytestmark = pytest.mark.skipif(
    compiler.find() is None, reason="no C compiler: set CC, or install gcc or clang"
)

TABLE, H, U = T.matrix("table"), T.matrix("h"), T.matrix("U")
CODES, LETTERS = T.imatrix("codes"), T.ivector("letters")


def elman(codes: Any = CODES, table: Any = TABLE, h: Any = H) -> Any:
    def step(code: Any, h: Any, table: Any, U: Any) -> Any:
        return T.tanh(table[code] + T.dot(h, U))

    return scan(step, codes, h, [table, U])[0]


def lstm(n: int, codes: Any = CODES) -> Any:
    def step(code: Any, h: Any, c: Any, table: Any, U: Any) -> Any:
        z = table[code] + T.dot(h, U)
        i, f, o, g = (z[:, k * n : (k + 1) * n] for k in range(4))
        c = T.sigmoid(f) * c + T.sigmoid(i) * T.tanh(g)
        return T.sigmoid(o) * T.tanh(c), c

    return scan(step, codes, [H, T.zeros_like(H)], [TABLE, U])[0][0]


def codes(steps: int, batch: int, rows: int = 11, dtype: str = "int32") -> Any:
    low = 0 if dtype.startswith("u") else -rows
    return np.random.default_rng(steps).integers(low, rows, (steps, batch)).astype(dtype)


def both(inputs: Any, outputs: Any) -> tuple[Any, Any]:
    f, g = (function(inputs, outputs, device=d) for d in ("native", "reference"))
    assert {p.path for p in f.explain().scans} == {"fused"}, f.explain()
    return f, g


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The lookups that are computed outside of loops, as functions are made."""
    found: list[Any] = []
    evaluator = AdvancedSubtensor.evaluator

    def made(self: Any, node: Any) -> Any:
        found.append(node)
        return evaluator(self, node)

    monkeypatch.setattr(AdvancedSubtensor, "evaluator", made)
    return found


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8"])
@pytest.mark.parametrize("steps", [0, 1, 17])
@pytest.mark.parametrize("batch", [1, 3, 40])
def test_rows_of_all_kinds_of_positions(
    dtype: str, steps: int, batch: int, outside: list[Any]
) -> None:
    given = T.TensorType(dtype, (None, None))("codes")
    f = function([given, TABLE, H, U], elman(given), device="native")
    assert not outside
    g = function([given, TABLE, H, U], elman(given), device="reference")
    values = numbers(11, 6), numbers(batch, 6, seed=1), numbers(6, 6, seed=2)
    agree((f, g), codes(steps, batch, dtype=dtype), *values)
    assert f.explain().scans[0].path == "fused"


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_gates_are_parts_of_the_rows(batch: int, outside: list[Any]) -> None:
    values = numbers(11, 32), numbers(batch, 8, seed=1), numbers(8, 32, seed=2)
    f = function([CODES, TABLE, H, U], lstm(8), device="native")
    assert not outside
    g = function([CODES, TABLE, H, U], lstm(8), device="reference")
    agree((f, g), codes(17, batch), *values)
    agree((f, g), codes(17, batch)[::-2, ::-1], *(x[::-1, ::-1] for x in values))


def test_gradients() -> None:
    outputs = T.grad((lstm(8) ** 2).sum(), [TABLE, U, H])
    values = numbers(11, 32), numbers(5, 8, seed=1), numbers(8, 32, seed=2)
    agree(both([CODES, TABLE, H, U], outputs), codes(17, 5), *values)


def test_states_that_are_vectors_and_tables_of_matrices(outside: list[Any]) -> None:
    h, many, table = T.vector("h"), T.tensor3("many"), T.tensor3("table")
    vectors, _ = scan(lambda c, h, t: T.tanh(t[c] + h), LETTERS, h, TABLE)
    stacks, _ = scan(lambda c, h, t: T.cos(h) + t[c], CODES, many, table)
    f = function([LETTERS, TABLE, h], vectors, device="native")
    f3 = function([CODES, table, many], stacks, device="native")
    assert not outside
    g = function([LETTERS, TABLE, h], vectors, device="reference")
    g3 = function([CODES, table, many], stacks, device="reference")
    agree((f, g), codes(17, 1)[:, 0], numbers(11, 6), numbers(6))
    agree((f3, g3), codes(17, 3), numbers(11, 6, 4), numbers(3, 6, 4))


def test_workers_share_units_and_rows() -> None:
    f = function([CODES, TABLE, H, U], lstm(160), device="native")
    values = numbers(11, 640), numbers(12, 160, seed=1), numbers(160, 640, seed=2) / 8
    equal(by_threads(f, codes(30, 12), *values))


def test_a_lookup_that_others_read_too_stays_outside(outside: list[Any]) -> None:
    rows = TABLE[CODES]
    hs, _ = scan(lambda x, h, U: T.tanh(x + T.dot(h, U)), rows, H, U)
    pair = both([CODES, TABLE, H, U], [hs, rows * 2])
    assert outside
    agree(pair, codes(17, 3), numbers(11, 6), numbers(3, 6, seed=1), numbers(6, 6, seed=2))


@pytest.mark.parametrize("wrong", [11, -12, 100, -(2**31), 2**31 - 1])
@pytest.mark.parametrize("step", [0, 8, 16])
def test_a_position_that_is_not_there_raises_the_references_error(wrong: int, step: int) -> None:
    given = codes(17, 3)
    given[step, 1] = wrong
    pair = both([CODES, TABLE, H, U], elman())
    agree(pair, given, numbers(11, 6), numbers(3, 6, seed=1), numbers(6, 6, seed=2))
    with pytest.raises(IndexError):
        pair[0](given, numbers(11, 6), numbers(3, 6, seed=1), numbers(6, 6, seed=2))


def test_a_failed_call_leaves_shared_variables_as_they_were() -> None:
    state = shared(numbers(3, 6), "state")
    table, weight = shared(numbers(11, 6)), shared(numbers(6, 6))
    hs, _ = scan(lambda c, h, t, U: T.tanh(t[c] + T.dot(h, U)), CODES, state, [table, weight])
    f = function([CODES], hs[-1], updates=[(state, hs[-1])], device="native")
    f(codes(17, 3))
    before = state.get_value()
    with pytest.raises(IndexError):
        f(codes(17, 3) + 6)
    np.testing.assert_array_equal(state.get_value(), before)


def test_positions_behind_the_last_step_are_not_read() -> None:
    n = T.iscalar("n")
    hs, _ = scan(lambda c, h, t: T.tanh(t[c] + h), CODES, H, TABLE, n_steps=n)
    pair = both([CODES, TABLE, H, n], hs)
    given = codes(17, 3)
    given[9:] = 99
    agree(pair, given, numbers(11, 6), numbers(3, 6), 9)
    agree(pair, given, numbers(11, 6), numbers(3, 6), 10)


def test_a_loop_that_stops_before_a_position_that_is_not_there() -> None:
    def step(code: Any, h: Any, table: Any) -> Any:
        h = h + table[code]
        return h, until(h.sum() > 1e6)

    hs, _ = scan(step, CODES, H, TABLE)
    f, g = (function([CODES, TABLE, H], hs, device=d) for d in ("native", "reference"))
    given, table = codes(17, 3), numbers(11, 6)
    table[5] = 1e7
    given[4], given[9] = 5, 99
    agree((f, g), given, table, numbers(3, 6))


def test_a_table_without_rows() -> None:
    pair = both([CODES, TABLE, H, U], elman())
    for steps in (0, 3):
        empty = np.zeros((steps, 2), "int32")
        agree(pair, empty, np.zeros((0, 6), "float32"), numbers(2, 6), numbers(6, 6))
    nobody = np.zeros((3, 0), "int32"), np.zeros((0, 6), "float32"), np.zeros((0, 6), "float32")
    agree(pair, *nobody, numbers(6, 6))


def test_float64_and_a_product_of_what_is_looked_up() -> None:
    with config.change_flags(floatX="float64"):
        table, h, U, W = (T.matrix(x) for x in ("table", "h", "U", "W"))

        def step(code: Any, h: Any, table: Any, W: Any, U: Any) -> Any:
            return T.tanh(T.dot(table[code], W) + T.dot(h, U))

        hs, _ = scan(step, CODES, h, [table, W, U])
        pair = both([CODES, table, W, h, U], [hs, *T.grad(hs.sum(), [table, W])])
    arrays = [numbers(11, 4, dtype="float64"), numbers(4, 6, dtype="float64"),
              numbers(3, 6, dtype="float64"), numbers(6, 6, dtype="float64")]  # fmt: skip
    agree(pair, codes(17, 3), *arrays)
