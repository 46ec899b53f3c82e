"""Calls on the native device that are made again by what one of them recorded."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest

import gpuscan
from gpuscan import config, function, optim, scan, shared, until
from gpuscan import tensor as T
from gpuscan.examples import cells
from gpuscan.runtime import memory, recorder, scripts
from gpuscan.runtime.scripts import NativeProgram, Script


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return (0.5 * np.random.RandomState(seed).randn(*shape)).astype("float32")


def program_of(f: Any) -> NativeProgram:
    found: NativeProgram = f._program
    return found


def scripts_of(f: Any) -> list[Script]:
    return [s for found in program_of(f).scripts.values() for s in found or ()]


def walked(f: Any) -> Any:
    """Counts the calls of f that walk its graph."""
    program = program_of(f).program
    return mock.patch.object(program, "function", mock.Mock(wraps=program.function))


def elman(device: str = "native") -> Any:
    """x (steps, batch, units), h0 and w -> all states, the last one, and their squares' sum."""
    x, h0, w = T.tensor3(), T.matrix(), T.matrix()
    h, _ = scan(lambda x, h, w: T.tanh(x + h @ w), [x], [h0], [w])
    return function([x, h0, w], [h, h[-1], T.sqr(h).sum()], device=device)


def given(n: int = 7, batch: int = 3, units: int = 5, seed: int = 0) -> list[np.ndarray]:
    shapes = (n, batch, units), (batch, units), (units, units)
    return [numbers(*s, seed=seed + k) for k, s in enumerate(shapes)]


def same(got: Any, wanted: Any) -> None:
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def close(got: Any, wanted: Any) -> None:
    """Sums of products are in another order: a few roundings of values of about 1."""
    for a, b in zip(got, wanted, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


# ---- which calls ---------------------------------------------------------------------------------


def test_the_third_call_of_a_kind_walks_no_graph() -> None:
    f, g = elman(), elman("reference")
    with walked(f) as function_:
        for seed, count in enumerate([1, 2, 2, 2]):
            close(f(*given(seed=seed)), g(*given(seed=seed)))
            assert function_.call_count == count
        close(f(*given(9, seed=5)), g(*given(9, seed=5)))  # of another kind
        close(f(*given(seed=6)), g(*given(seed=6)))
        assert function_.call_count == 3


def training(device: str) -> tuple[Any, list[Any]]:
    """What trains an LSTM with Adam, with products and numbers that NumPy computes; and what it
    changes."""
    rng = np.random.default_rng(0)
    x, y = T.tensor3(), T.vector()
    lstm, w = cells.lstm_parameters(2, 8, rng), shared(np.zeros(8, "float32"))
    (h, _), _ = cells.run(cells.lstm(8), x, [cells.zeros(x, 8)] * 2, lstm)
    loss = T.sqr(T.dot(h[-1], w) - y).mean()
    params = [*lstm.values(), w]
    grads, _ = optim.clip_by_global_norm(T.grad(loss, params), 1.0)
    return function([x, y], loss, updates=optim.adam(grads, params, 0.02), device=device), params


def test_a_training_step() -> None:
    (f, held), (g, other) = training("native"), training("reference")
    for step in range(8):
        n = (4, 6)[step % 2]
        x, y = numbers(n, 5, 2, seed=step), numbers(5, seed=step)
        np.testing.assert_allclose(f(x, y), g(x, y), rtol=1e-4)
    assert len(scripts_of(f)) == 2
    assert all(len(s.parts) > 3 for s in scripts_of(f))  # NumPy computes between kernels
    for p, q in zip(held, other):
        np.testing.assert_allclose(p.get_value(), q.get_value(), rtol=1e-3, atol=1e-5)


def test_a_number_of_steps_makes_a_kind() -> None:
    n, x = T.lscalar(), T.vector()
    y, _ = scan(lambda y: y * 0.5 + 1, outputs_info=x, n_steps=n)
    f, g = (function([n, x], [y, y[-1]], device=d) for d in ("native", "reference"))
    for steps in (3, 5, 3, 5, 3, 5):
        same(f(steps, numbers(4, seed=steps)), g(steps, numbers(4, seed=steps)))
    assert len(scripts_of(f)) == 2


def test_a_number_that_kernels_read_makes_none() -> None:
    a, x = T.lscalar(), T.lvector()
    y, _ = scan(lambda y, a: y * a + 1, outputs_info=x, non_sequences=a, n_steps=3)
    f = function([a, x], y[-1], device="native")
    start = np.arange(4)
    for k in range(6):
        wanted = start
        for _ in range(3):
            wanted = wanted * k + 1
        np.testing.assert_array_equal(f(k, start), wanted)
    assert len(scripts_of(f)) == 1


def test_the_rows_of_a_minibatch_make_one_kind() -> None:
    data, w0 = shared(numbers(60, 4, 3)), numbers(3, 3, seed=1)
    found = []
    for device in ("native", "reference"):
        i, w = T.lscalar(), shared(w0)
        x = T.tensor3()
        h, _ = scan(lambda x, h, w: T.tanh(x + h @ w), x, T.zeros((4, 3)), w)
        loss = T.sqr(h).mean()
        f = function([i], loss, updates=[(w, w - 0.1 * T.grad(loss, w))], device=device,
                     givens=[(x, data[i * 6 : (i + 1) * 6])])  # fmt: skip
        found.append((f, w))
    (f, w), (g, v) = found
    for k in (*range(10), 4, 9):
        np.testing.assert_allclose(f(k), g(k), rtol=1e-5)
        np.testing.assert_allclose(w.get_value(), v.get_value(), rtol=1e-4)
    assert len(scripts_of(f)) == 1
    with walked(f) as function_:
        np.testing.assert_allclose(f(7), g(7), rtol=1e-5)
        assert not function_.call_count


def test_strides_and_threads_make_kinds() -> None:
    f, g = elman(), elman("reference")
    x, h0, w = given()
    for _ in range(3):
        close(f(x, h0, w), g(x, h0, w))
        close(f(x[::-1], h0, w.T), g(x[::-1], h0, w.T))
        with config.change_flags(threads=1):
            close(f(x, h0, w), g(x, h0, w))
    assert len(scripts_of(f)) == 3


def test_an_array_that_is_not_aligned() -> None:
    f, (x, h0, w) = elman(), given()
    for _ in range(3):
        wanted = f(x, h0, w)
    raw = np.frombuffer(b"." + w.tobytes(), "float32", offset=1).reshape(w.shape)
    assert not raw.flags.aligned
    with walked(f) as function_:
        same(f(x, h0, raw), wanted)
        assert function_.call_count == 1
        same(f(x, h0, w), wanted)
        assert function_.call_count == 1


def test_arrays_that_share_memory_are_told_apart() -> None:
    a, b = T.matrix(), T.matrix()
    h, _ = scan(lambda h, b: T.tanh(h) - b, outputs_info=a, non_sequences=b, n_steps=3)
    f, g = (function([a, b], h[-1], device=d) for d in ("native", "reference"))
    x, y = numbers(4, 4), numbers(4, 4, seed=1)
    for values in [(x, x), (x, x), (x, y), (y, x), (x, x)]:
        same(f(*values), g(*values))
    assert len(scripts_of(f)) == 1


def test_a_loop_that_stops_early_is_not_made_again_as_it_was() -> None:
    k, x = T.scalar(), T.vector()
    y, _ = scan(lambda y, k: (y * 2, until(y.sum() > k)), outputs_info=x, non_sequences=k,
                n_steps=50)  # fmt: skip
    f, g = (function([k, x], [y, T.exp(-y[-1])], device=d) for d in ("native", "reference"))
    for limit in (100, 100, 100, 5000, 3, 100):
        same(f(limit, np.ones(4, "float32")), g(limit, np.ones(4, "float32")))


def test_kinds_that_do_not_come_again_are_not_looked_for(monkeypatch: Any) -> None:
    monkeypatch.setattr(scripts, "_MOST_MET", 5)
    f = elman()
    for n in range(1, 7):
        f(*given(n))
    assert not program_of(f).is_repeated
    f = elman()
    for n in (1, 1, *range(2, 9)):
        f(*given(n))
    assert program_of(f).is_repeated  # as one has


def test_few_calls_are_recorded_where_few_are_made_again(monkeypatch: Any) -> None:
    monkeypatch.setattr(scripts, "_FIRST", 2)
    monkeypatch.setattr(scripts, "_CALLS", 4)
    monkeypatch.setattr(scripts, "_MOST_SCRIPTS", 5)
    f, g = elman(), elman("reference")
    for n in (*range(1, 6), *range(1, 6)):
        close(f(*given(n)), g(*given(n)))
    assert program_of(f).made == 3
    for _ in range(5):
        for n in range(1, 9):
            close(f(*given(n)), g(*given(n)))
    assert program_of(f).made > 6
    assert len(scripts_of(f)) == 5


def test_a_call_with_large_arrays_is_not_recorded(monkeypatch: Any) -> None:
    monkeypatch.setattr(recorder, "_MOST_HELD", 1000)
    f, g = elman(), elman("reference")
    for seed in range(12):
        close(f(*given(seed=seed)), g(*given(seed=seed)))
    assert not scripts_of(f)
    assert list(program_of(f).scripts.values()) == [None]


def test_what_has_an_effect_has_it_in_each_call(capsys: Any) -> None:
    x = T.vector()
    f = function([x], gpuscan.printing.Print("x")(T.exp(x) * 2 + x), device="native")
    for _ in range(4):
        f(numbers(3))
    assert capsys.readouterr().out.count("x") == 4
    y, _ = scan(lambda y: gpuscan.printing.Print("y")(y * 2), outputs_info=T.ones(()), n_steps=2)
    f = function([x], T.exp(x) * 2 + y[-1], device="native")
    for _ in range(4):
        f(numbers(3))
    assert capsys.readouterr().out.count("y") == 8


def test_only_the_branch_that_is_taken_is_computed() -> None:
    x, y = T.vector(), T.lvector()
    z = gpuscan.ifelse.ifelse(T.gt(x.sum(), 0), T.exp(x) * 2, T.exp(x[y]))
    f, g = (function([x, y], z, device=d) for d in ("native", "reference"))
    for _ in range(4):
        values = np.ones(2, "float32"), np.array([9])
        same([f(*values)], [g(*values)])
    with pytest.raises(IndexError):
        f(-values[0], values[1])


# ---- what comes of them --------------------------------------------------------------------------


def test_results_are_a_calls_own() -> None:
    x = T.vector()
    y, _ = scan(lambda y: y * 0.5, outputs_info=x, n_steps=3)
    f = function([x], [x, y, y[-1], y[-1], y[1:], T.constant(numbers(3)), x.shape[0]],
                 device="native")  # fmt: skip
    data = numbers(4)
    kept = [f(data + k) for k in range(6)]
    for k, results in enumerate(kept):
        arrays = [data, *results]
        for i, a in enumerate(arrays):
            assert a.flags.writeable
            assert not any(np.shares_memory(a, b) for b in arrays[i + 1 :])
        same(results[:4], [data + k, *f(data + k)[1:4]])
        assert results[-1] == 4
        for a in results:
            a[...] = 0
    assert f(data)[0].any()
    assert f(data)[-2].any()


def test_an_error_is_said_as_without_a_script() -> None:
    table, x, start = shared(numbers(5, 3)), shared(numbers(3)), T.lscalar()

    def step(k: Any, y: Any, t: Any) -> Any:
        return k + 1, y * 0.5 + t[k]

    (_, y), _ = scan(step, outputs_info=[start, x], non_sequences=table, n_steps=3)
    f = function([start], y, updates=[(x, y[-1])], device="native")
    for k in (0, 1, 2):
        f(k)
    before = x.get_value()
    wrong = []
    for f_ in (f, function([start], y, updates=[(x, y[-1])], device="reference")):
        with pytest.raises(IndexError) as caught:
            f_(3)
        wrong.append((str(caught.value), caught.value.__notes__))
    assert wrong[0] == wrong[1]
    np.testing.assert_array_equal(x.get_value(), before)
    f(1)
    assert not np.array_equal(x.get_value(), before)


def test_a_requirement_is_checked_in_each_call() -> None:
    x, y = T.vector(), T.vector()
    checked = T.opt.Assert("too small")(T.exp(x) * 2, T.all(y > 0))
    errors = []
    for device in ("native", "reference"):
        f = function([x, y], T.tanh(checked) + x, device=device)
        for _ in range(4):
            f(numbers(3), np.ones(3, "float32"))
        with pytest.raises(AssertionError, match="too small") as caught:
            f(numbers(3), np.zeros(3, "float32"))
        errors.append(caught.value.__notes__)
    assert errors[0] == errors[1]
    assert len(errors[0]) == 1


def test_after_many_failures_calls_are_made_without(monkeypatch: Any) -> None:
    x, k = T.vector(), T.lscalar()
    y, _ = scan(lambda y, k: y * 0.5 + y[k], outputs_info=x, non_sequences=k, n_steps=3)
    f = function([x, k], y, device="native")
    for _ in range(3):
        wanted = f(numbers(4), 1)
    for _ in range(9):
        with pytest.raises(IndexError):
            f(numbers(4), 7)
    assert not program_of(f).is_repeated
    same(f(numbers(4), 1), wanted)


def test_explain_speaks_of_the_last_call() -> None:
    x = T.matrix()
    y, _ = scan(lambda x, y: T.tanh(x + y), T.exp(x).cumsum(axis=0), x[0])
    f = function([x], y, device="native")
    a, b = [numbers(7, 3)], [numbers(9, 4)]
    for values in (a, b, a, b, a, b):
        f(*values)
    sizes = [dict(program_of(f).met)]
    for values in (a, b, b, a):
        f(*values)
        sizes.append(dict(program_of(f).met))
    assert sizes[0] == sizes[2] == sizes[3] != sizes[1] == sizes[4]
    program_of(f).is_repeated = False
    f(*b)
    assert program_of(f).met == sizes[0]


def test_copies_that_nobody_reads_are_left_out() -> None:
    x = T.matrix()
    (y, z), _ = scan(lambda y, z: (T.tanh(z), y * 0.5), outputs_info=[x, x + 1], n_steps=4)
    f = function([x], y.sum(), device="native")
    data = numbers(40, 50)
    with mock.patch.object(memory, "copied", wraps=memory.copied) as copied:
        for _ in range(2):
            f(data)
        assert copied.call_count
        before = copied.call_count
        wanted = f(data)
        assert copied.call_count == before
    same([wanted], [f(data)])


def test_arrays_that_are_not_needed_at_once_share_memory() -> None:
    x = y = T.matrix()
    for _ in range(6):
        y, _ = scan(lambda y: T.tanh(y) * 0.9, sequences=y)
        y = T.cumsum(y, axis=0)
    f, g = (function([x], y, device=d) for d in ("native", "reference"))
    data = numbers(300, 400)
    for _ in range(3):
        same([f(data)], [g(data)])
    (script,) = scripts_of(f)
    assert 0 < script.size <= 3 * data.nbytes


# ---- interrupts, threads -------------------------------------------------------------------------


def long_loop(steps: int) -> tuple[Any, np.ndarray]:
    """A function that makes its calls again, and what they are given."""
    x = T.vector()
    y, _ = scan(lambda y: T.tanh(y) + np.float32(0.5), outputs_info=x, n_steps=steps)
    f = function([x], y[-1], device="native")
    data = np.ones(3, "float32")
    f(data)
    f(data)
    assert len(scripts_of(f)) == 1
    return f, data


@contextmanager
def alarm(after: float, handler: Callable[[], Any]) -> Iterator[None]:
    if not hasattr(signal, "setitimer"):
        pytest.skip("no timer signals")
    before = signal.signal(signal.SIGALRM, lambda number, frame: handler())
    signal.setitimer(signal.ITIMER_REAL, after)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Left(Exception):
    pass


def test_a_call_that_is_made_again_can_be_left() -> None:
    f, data = long_loop(8_000_000)
    began = time.monotonic()
    wanted = f(data)
    lasted = time.monotonic() - began

    def leave() -> None:
        raise Left

    began = time.monotonic()
    with walked(f) as function_:
        with pytest.raises(Left), alarm(lasted / 10, leave):
            f(data)
        assert time.monotonic() - began < lasted / 10 + 1
        same([f(data)], [wanted])
        assert not function_.call_count


def test_functions_are_called_by_a_handler_meanwhile() -> None:
    f, data = long_loop(8_000_000)
    wanted, g, found = f(data), elman(), []
    other = [g(*given()) for _ in range(3)]
    with alarm(0.05, lambda: found.append(g(*given()))):
        same([f(data)], [wanted])
    same(found[0], other[-1])


def test_a_recorded_call_that_is_interrupted_by_another() -> None:
    f, g, found = elman(), elman(), []
    f(*given())
    wanted = f.copy()(*given())
    program = program_of(f).program
    run = program.function

    def interrupted(*values: Any) -> Any:
        results = run(*values)
        found.append(g(*given(seed=3)))
        return results

    with mock.patch.object(program, "function", interrupted):
        same(f(*given()), wanted)  # recorded
    same(f(*given()), wanted)
    close(found[0], elman("reference")(*given(seed=3)))


def test_threads_of_a_program_make_calls_again() -> None:
    with config.change_flags(threads=2):
        f = elman()
        calls = [given(40, 5, 9, seed=10 * k) for k in range(4)]
        wanted = [f(*c) for c in calls]
        f(*calls[0])
        assert len(scripts_of(f)) == 1
        with ThreadPoolExecutor(4) as pool:
            for k in pool.map(lambda k: [f(*calls[k % 4]) for _ in range(20)] and k, range(8)):
                same(f(*calls[k % 4]), wanted[k % 4])


def test_a_loop_whose_workers_meet_or_do_not() -> None:
    """It is made again in the way that the loop would choose, and tells how long it took."""
    h0, w = T.matrix(), T.matrix()
    h, _ = scan(lambda h, w: T.tanh(h @ w), outputs_info=h0, non_sequences=w, n_steps=20)
    with config.change_flags(threads=2):
        f = function([h0, w], h[-1], device="native")
        data = numbers(2, 512), numbers(512, 512) / 10
        wanted = f(*data)
        for _ in range(80):
            same([f(*data)], [wanted])
        found = scripts_of(f)
        assert len(found) == 2
        ((plan, _, _, _),) = found[0].ways
        assert plan.turns > 80
        assert {way[2].key[0] for s in found for way in s.ways} == {"rows", "units"}
