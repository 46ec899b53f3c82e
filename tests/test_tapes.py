"""Calls on a GPU that are made again from a tape: by CuPy's double, which says what they do."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest
from cupy_double import CuPy, cupy_double  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st

import gpuscan
from gpuscan import function, scan, shared
from gpuscan import tensor as T
from gpuscan.runtime import replay, tapes
from gpuscan.runtime.packing import packed
from gpuscan.runtime.replay import Replay
from gpuscan.runtime.tape import Tape

r = np.random.RandomState(5)


def numbers(*shape: int) -> np.ndarray:
    return (0.3 * r.randn(*shape)).astype("float32")


def training(device: str) -> Any:
    """A recurrent network over words, which learns: the function, and what it changes."""
    state = np.random.RandomState(1)
    first = [(8, 6), (6, 6), (6,), (6, 8)]
    E, W, b, V = (shared((0.4 * state.randn(*s)).astype("float32")) for s in first)
    rate, count = shared(np.float32(0.1)), shared(np.float64(0))
    words, targets, h0 = T.imatrix("words"), T.imatrix("targets"), T.fmatrix("h0")
    hs, _ = scan(lambda x, h: T.tanh(x + T.dot(h, W) + b), sequences=E[words], outputs_info=h0)
    p = T.nnet.softmax(T.dot(hs.reshape((-1, 6)), V))
    loss = T.nnet.categorical_crossentropy(p, targets.flatten()).mean()
    parameters = [E, W, b, V]
    steps = {
        x: T.cast(x - rate / (1 + count) * g, "float32")
        for x, g in zip(parameters, T.grad(loss, parameters))
    }
    f = function([words, targets, h0], [loss, hs], updates={**steps, count: count + 1},
                 device=device)  # fmt: skip
    return f, [*parameters, count], rate


def sentence(n: int, batch: int = 3) -> list[np.ndarray]:
    words, targets = (r.randint(0, 8, (n, batch)).astype("int32") for _ in range(2))
    return [words, targets, numbers(batch, 6)]


def tapes_of(f: Any) -> tapes.Tapes:
    found: tapes.Tapes = f._program.tapes
    return found


def written(f: Any) -> list[Tape]:
    return [found[0].tape for found in tapes_of(f).made.values() if found]


def without_graph(f: Any) -> None:
    """From now on what is on no tape is an error."""

    def run(*values: Any) -> Any:
        raise AssertionError("the graph was walked")

    tapes_of(f).run = run


def test_the_third_call_of_a_kind_is_from_the_tape_and_equals_the_reference(cupy: CuPy) -> None:
    f, held, rate = training("cupy")
    g, other, rate2 = training("reference")
    for i, n in enumerate([4, 4, 5, 4, 5, 4, 5, 5, 4]):
        if i == 5:
            without_graph(f)
        for x in (rate, rate2):
            x.set_value(np.float32(0.1 + 0.02 * i))
        values = sentence(n)
        for x, y in zip(f(*values), g(*values)):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
        for x, y in zip(held, other):
            np.testing.assert_allclose(x.get_value(), y.get_value(), rtol=1e-5, atol=1e-6)
    assert len(written(f)) == 2 and tapes_of(f).failed == 0
    assert other[-1].get_value() == held[-1].get_value() == 9


def launches(cupy: CuPy, call: Any) -> Counter[str]:
    cupy.calls.clear()
    call()
    return Counter(c[0] for c in cupy.calls if c[0] != "allocate")


def test_a_call_from_the_tape_does_what_the_others_do_and_takes_no_more_memory(
    cupy: CuPy, monkeypatch: pytest.MonkeyPatch
) -> None:
    f, *_ = training("cupy")
    values = sentence(4)
    found, allocator = [], cupy.allocator
    for _ in range(4):
        held: list[int] = [0, 0]  # now, and at most

        class Counted:
            """Memory of the allocator, counted while it is held, in units of CuPy's pool."""

            def __init__(self, size: int, of: Any = held) -> None:
                self.held, self.of = allocator(size), of
                self.size = size = -(-size // 512) * 512
                self.ptr, self.mem = self.held.ptr, self.held.mem
                of[0] += size
                of[1] = max(of)

            def __del__(self) -> None:
                self.of[0] -= self.size

        with monkeypatch.context() as m:
            m.setattr(cupy, "allocator", Counted)
            calls = launches(cupy, lambda: f(*values))
        found.append((calls, held[1]))
    first, _, third, fourth = found
    assert third[0] == fourth[0]
    kernels = "cuLaunchKernel", "cuLaunchCooperativeKernel", "gemmEx", "cuMemcpyDtoDAsync_v2"
    assert [third[0][k] for k in kernels] == [first[0][k] for k in kernels]
    # what small things the kernels are given, and what the host is told of them
    assert third[0]["cuMemcpyHtoDAsync_v2"] == 1 and third[0]["to the GPU"] == 0
    assert third[0]["to the host"] == 1 < first[0]["to the host"]
    assert third[1] <= first[1] + 1024  # those things, which else are parts of pages that stay


def replay_of(f: Any) -> Replay:
    (found,) = [found[0] for found in tapes_of(f).made.values() if found]
    return found


def test_calls_that_follow_each_other_start_one_graph(cupy: CuPy) -> None:
    """Its memory is the pool's between them. Changed parameters are in other places than they were,
    and after two calls in the same ones."""
    f, held, rate = training("cupy")
    g, other, rate2 = training("reference")
    for i in range(24):
        for x in (rate, rate2):
            x.set_value(np.float32(0.1 + 0.02 * i))
        values = sentence(4)
        results: Any = []
        calls = launches(cupy, lambda: results.append(f(*values)))  # noqa: B023
        for x, y in zip(results.pop(), g(*values)):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
        if i >= 16:
            assert calls["cuGraphLaunch"] == calls["cuMemcpyHtoDAsync_v2"] == 1
            assert calls["to the host"] == 1 and "cuLaunchKernel" not in calls
    for x, y in zip(held, other):
        np.testing.assert_allclose(x.get_value(), y.get_value(), rtol=1e-4, atol=1e-5)
    assert 1 <= len(replay_of(f).graphs) <= 4


@pytest.mark.parametrize("rows", [3, 60])
def test_what_is_elsewhere_each_time_is_copied_or_there_is_no_graph(
    cupy: CuPy, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """Inputs and results that a user keeps; large ones are not copied."""
    monkeypatch.setattr(replay, "_MOST_MOVED", 1000)
    x, a = T.fmatrix("x"), shared(np.float32(3))
    made = [T.tanh(a * x), x.T + 1, (x * x).sum()]
    f = function([x], [gpuscan.Out(v, borrow=True) for v in made], device="cupy")
    kept, places = [], set()
    for i in range(14):
        given = numbers(rows, 5)
        there = cupy.asarray(given)[:, ::-1]
        found = f(there)
        calls = launches(cupy, lambda: kept.append((given, there, *f(there))))  # noqa: B023
        kept.append((given, there, *found))
        places |= {y.data.ptr for y in (*found[:2], *kept[-2][2:4])}
        assert len(places) == 4 * (i + 1)
    assert ("cuGraphLaunch" in calls) == replay_of(f).has_graphs == (rows == 3)
    for given, _, *found in kept:
        given = given[:, ::-1]
        expected = np.tanh(np.float32(3) * given), given.T + 1, (given * given).sum()
        for y, z in zip(found, expected):
            np.testing.assert_allclose(getattr(y, "memory", y), z, rtol=1e-4)


def test_between_calls_a_graph_has_no_memory(cupy: CuPy) -> None:
    x = T.fmatrix("x")
    hs, _ = scan(lambda x, h: T.tanh(x + T.dot(h, np.eye(4, dtype="f"))), x, T.zeros((2, 4), "f"))
    f = function([x], (hs**2).sum(), device="cupy")
    given = numbers(9, 4)
    held, allocator = [0], cupy.allocator
    for _ in range(3):
        expected = f(given)

    class Counted:
        def __init__(self, size: int) -> None:
            self.held, self.size = allocator(size), size
            self.ptr, self.mem = self.held.ptr, self.held.mem
            held[0] += size

        def __del__(self) -> None:
            held[0] -= self.size

    cupy.allocator = Counted
    for _ in range(9):
        assert f(given) == expected and held == [0]
    cupy.allocator = None
    assert replay_of(f).graphs


@pytest.mark.parametrize("value", [0, -0.0, 1.5])
def test_a_large_constant_is_written_where_it_is_uniform_else_copied(
    cupy: CuPy, value: float
) -> None:
    large = np.full((70, 300), value, "float32")
    x, i, other = T.fmatrix("x"), T.lvector("i"), large.copy()
    other[3] = 0
    sums = [T.inc_subtensor(T.constant(c)[i], x) for c in (large, other)]
    f, g = (function([x, i], sums, device=d) for d in ("cupy", "reference"))
    given = numbers(5, 300), np.array([3, 0, 3, 69, 1])
    for _ in range(9):
        results: Any = []
        calls = launches(cupy, lambda: results.append(f(*given)))  # noqa: B023
        for y, z in zip(results.pop(), g(*given)):
            np.testing.assert_array_equal(y, z)
            np.testing.assert_array_equal(np.signbit(y), np.signbit(z))
    # the inputs and positions with one copy, and with another, unless all is 0, what is not uniform
    assert calls["cuMemcpyHtoDAsync_v2"] == (1 if value == 0 and not np.signbit(value) else 2)


def test_what_can_not_be_recorded_runs_step_by_step(
    cupy: CuPy, monkeypatch: pytest.MonkeyPatch
) -> None:
    gemm = cupy.cublasGemmEx
    monkeypatch.setattr(cupy, "cublasGemmEx", lambda *x: 14 if cupy.is_capturing() else gemm(*x))
    f, _, _ = training("cupy")
    g, _, _ = training("reference")
    for _ in range(9):
        values = sentence(4)
        for x, y in zip(f(*values), g(*values)):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    assert not replay_of(f).has_graphs and tapes_of(f).failed == 0


@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(-1, 30), st.integers(0, 12))))
def test_parts_of_a_block_are_apart_while_both_are_needed(drawn: list[Any]) -> None:
    parts = [(size, first, first + more, k) for k, (size, first, more) in enumerate(drawn)]
    size, places = packed(parts)
    for a, (size_a, first_a, last_a, _) in enumerate(parts):
        assert places[a] % 256 == 0 and places[a] + size_a <= size
        for b, (size_b, first_b, last_b, _) in enumerate(parts[:a]):
            if first_a <= last_b and first_b <= last_a:
                assert places[a] + size_a <= places[b] or places[b] + size_b <= places[a]
    one_by_one = sum(-(-part[0] // 256) * 256 for part in parts)
    together = [p for p in parts if p[1] <= 15 <= p[2]]
    assert sum(p[0] for p in together) <= size <= one_by_one


def test_numbers_by_which_the_host_goes_are_part_of_the_kind(cupy: CuPy) -> None:
    n, i, a, x = T.lscalar("n"), T.lscalar("i"), T.fscalar("a"), T.fmatrix("x")
    hs, _ = scan(lambda h, a: a * h, outputs_info=[x], non_sequences=[a], n_steps=n)
    made = [function([n, i, a, x], [hs, hs[i, 0]], device=d) for d in ("cupy", "reference")]
    for steps, at, factor in [(3, 0, 2), (3, 1, 3), (5, 4, 2), (3, 1, 5), (5, 4, 1), (3, 0, 7),
                              (0, 0, 1), (0, 0, 1), (3, 1, 2), (5, 4, 9)]:  # fmt: skip
        given = steps, at, np.float32(factor), numbers(2, 3)
        if steps == 0:
            for f in made:
                with pytest.raises(IndexError):
                    f(*given)
            continue
        for y, z in zip(*(f(*given) for f in made)):
            np.testing.assert_array_equal(y, z)
    assert len(written(made[0])) == 3


def test_a_wrong_position_is_the_error_it_was_and_the_next_call_is_right(cupy: CuPy) -> None:
    """On the host, where positions are looked up before a loop, and in a loop's kernel."""
    E, i, h = T.fmatrix("E"), T.lmatrix("i"), T.fvector("h")
    inside, _ = scan(lambda j, h, E: h + E[j[0]] * E[j[1]], i, h, E)
    for value in (E[i].sum(0), inside):
        f, g = (function([E, i, h], value, device=d, on_unused_input="ignore")
                for d in ("cupy", "reference"))  # fmt: skip
        for at in ([[0, 2], [1, 1]], [[2, 2], [1, 0]], [[1, 0], [0, 0]], [[0, 3], [1, 1]],
                   [[0, 2], [1, 1]], [[2, -1], [1, 1]]):  # fmt: skip
            given = numbers(3, 4), np.array(at), numbers(4)
            if np.max(at) == 3:
                with pytest.raises(IndexError) as wrong:
                    f(*given)
                with pytest.raises(IndexError) as other:
                    g(*given)
                assert str(wrong.value) == str(other.value)
            else:
                np.testing.assert_allclose(f(*given), g(*given), rtol=1e-6)
        assert len(written(f)) == 1


def test_arrays_on_the_gpu_may_be_views_and_the_same_twice(cupy: CuPy) -> None:
    x, y = T.fmatrix("x"), T.fmatrix("y")
    f = function([x, y], [T.dot(x, y.T), x - y, y.T], device="cupy")
    for i in range(9):
        a, b = numbers(4, 6), numbers(4, 6)
        given = [cupy.asarray(a)[:, ::2], cupy.asarray(b)[:, ::2]]
        if i % 3 == 2:
            given[1], b = given[0], a
        if i == 4:
            without_graph(f)
        found = f(*given)
        a, b = a[:, ::2], b[:, ::2]
        for u, v in zip(found, (a @ b.T, a - b, b.T)):
            np.testing.assert_allclose(u, v, rtol=1e-5, atol=1e-6)


def test_what_can_not_be_on_a_tape_is_tried_a_few_times(cupy: CuPy) -> None:
    """A loop that ends by a value, and a choice."""
    x, a = T.fvector("x"), T.fscalar("a")
    hs, _ = scan(lambda h: (2 * h, gpuscan.until(T.sum(h) > 50)), outputs_info=[x], n_steps=9)
    f = function([x], hs, device="cupy")
    for n in range(1, 15):
        for _ in range(3):
            given = numbers(n) ** 2 + 1
            expected = given[None] * 2.0 ** np.arange(1, 10)[:, None]
            sums = np.concatenate([[given.sum()], expected[:-1].sum(1)])
            steps = int(np.argmax(sums > 50)) + 1 if (sums > 50).any() else 9
            np.testing.assert_allclose(f(given), expected[:steps], rtol=1e-5)
    assert tapes_of(f).failed == 8 and not written(f)
    choice = function([x, a], gpuscan.ifelse.ifelse(T.gt(a, 0), 2 * x, x), device="cupy")
    assert tapes_of(choice) is None


def test_a_result_is_nobody_elses(cupy: CuPy) -> None:
    """Not of the next call, and no constant of the tape."""
    x, s = T.fmatrix("x"), shared(np.ones((2, 2), "float32"))
    out = [gpuscan.Out(v, borrow=True) for v in (x + s, x, T.zeros((2, 2), "float32"))]
    f = function([x], out, updates={s: x}, device="cupy")
    kept: list[Any] = []
    for i in range(5):
        found = f(np.full((2, 2), i, "float32"))
        kept += [(y, i + (i - 1 if i else 1)) for y in found[:1]]
        kept += [(found[1], i), (found[2], 0)]
        assert len({y.data.ptr for y, _ in kept}) == len(kept)
    for y, value in kept:
        np.testing.assert_array_equal(y.memory, np.full((2, 2), value))


def test_threads_play_one_tape(cupy: CuPy) -> None:
    f, g = (function([v := T.fmatrix("v")], T.dot(T.tanh(v), v).sum(0), device=d)
            for d in ("cupy", "reference"))  # fmt: skip
    for _ in range(3):
        f(numbers(5, 5))
    without_graph(f)
    wrong = []

    def work() -> None:
        for _ in range(20):
            x = np.random.RandomState().rand(5, 5).astype("float32")
            if not np.allclose(f(x), g(x), rtol=1e-5):
                wrong.append(x)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_explain_speaks_of_the_last_call(cupy: CuPy) -> None:
    x = T.fmatrix("x")
    f = function([x], scan(lambda x, h: x + h, x, T.zeros_like(x[0]))[0], device="cupy")
    said = []
    for n in (3, 3, 3, 300, 3):
        f(numbers(5, n))
        said.append(str(f.explain()))
    assert said[0] == said[2] == said[4] != said[3]


def test_segments_of_a_loop_with_a_budget_are_on_the_tape(cupy: CuPy) -> None:
    """Their loop has launches for its steps: the loops in it."""
    x, h, W = T.tensor3("x"), T.matrix("h"), T.matrix("W")
    hs, _ = scan(lambda x, h, W: T.tanh(x + T.dot(h, W)), x, h, W, memory="every 4 steps")
    f, g = (function([x, h, W], T.grad((hs[-1] ** 2).sum(), [x, W]), device=d)
            for d in ("cupy", "reference"))  # fmt: skip
    assert "sequenced" in [s.path for s in f.explain().scans]
    for i in range(5):
        if i == 2:
            assert len(written(f)) == 1
            without_graph(f)
        given = numbers(11, 3, 5), numbers(3, 5), numbers(5, 5)
        for y, z in zip(f(*given), g(*given)):
            np.testing.assert_allclose(y, z, rtol=1e-4, atol=1e-5)


def test_a_step_that_prints_or_chooses_is_on_no_tape(
    cupy: CuPy, capsys: pytest.CaptureFixture[str]
) -> None:
    x = T.vector("x", "float32")
    prints = gpuscan.printing.Print("h")
    steps = [lambda h: prints(2 * h),
             lambda h: gpuscan.ifelse.ifelse(T.gt(h[0], 2), h, 2 * T.sort(h))]  # fmt: skip
    for step, result in zip(steps, ([8, 16], [4, 8])):
        hs, _ = scan(step, outputs_info=[x], n_steps=3)
        f = function([x], hs[-1], device="cupy")
        assert tapes_of(f) is None
        for _ in range(4):
            np.testing.assert_array_equal(f(np.array([1, 2], "float32")), result)
    assert capsys.readouterr().out.count("h __str__") == 12


def minibatches(device: str, rows: int = 4) -> tuple[Any, list[Any]]:
    """A network that learns from rows of an array on the device, which a number selects; and so
    it does its targets, a part of them."""
    state = np.random.RandomState(2)
    data = shared(state.randn(42, 3, 6).astype("float32"))
    W, V = (shared((0.3 * state.randn(6, 6)).astype("float32")) for _ in range(2))
    i, x, y = T.lscalar("i"), T.ftensor3("x"), T.fmatrix("y")
    first = T.zeros((x.shape[0], 6), "float32")
    hs, _ = scan(lambda x, h: T.tanh(x + T.dot(h, W)), x.dimshuffle(1, 0, 2), first)
    loss = ((T.dot(hs[-1], V) - y) ** 2).sum() / y.shape[0]
    steps = [(v, v - np.float32(0.1) * g) for v, g in zip((W, V), T.grad(loss, [W, V]))]
    after = (i + 1) * rows
    f = function(
        [i], [loss, y], updates=steps, device=device,
        givens={x: data[i * rows : after], y: data[i * rows : after, 0]},
    )  # fmt: skip
    return f, [W, V, data]


def test_the_number_of_a_minibatch_is_no_part_of_the_kind(cupy: CuPy) -> None:
    """Whole ones have one tape, whichever they are, and the last, which is shorter, has another;
    arrays that overlap are told apart, and new data are seen."""
    f, held = minibatches("cupy")
    g, other = minibatches("reference")
    for epoch in range(4):
        for i in [*range(11), -3]:
            if epoch == 3:
                without_graph(f)
            for x, y in zip(f(i), g(i)):
                np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
        for x, y in zip(held, other):
            np.testing.assert_allclose(x.get_value(), y.get_value(), rtol=1e-5, atol=1e-6)
        for x in (held[2], other[2]):
            x.set_value(x.get_value()[::-1] * 0.9)
    assert len(written(f)) == 2 and tapes_of(f).failed == 0


def test_a_number_that_selects_and_counts_is_part_of_the_kind(cupy: CuPy) -> None:
    x, i, k = T.fmatrix("x"), T.lscalar("i"), T.lscalar("k")
    made = [
        function([x, i, k], [(x[i : i + 2] * 2).sum(0) * k, x[k] + 1], device=d)
        for d in ("cupy", "reference")
    ]
    given = numbers(6, 3)
    for at, n in [(0, 1), (2, 1), (4, 1), (3, 1), (5, 1), (0, 2), (3, 2), (1, 2), (5, 1), (5, 1)]:
        for a, b in zip(*(f(given, at, n) for f in made)):
            np.testing.assert_allclose(a, b, rtol=1e-6)
    with pytest.raises(IndexError):
        made[0](given, 0, 6)
    # k is what the sum is multiplied by; of i is left how many rows there are, of which 5 has one
    assert len(written(made[0])) == 3


@pytest.mark.parametrize("kind", ["int8", "uint16", "int32", "int64"])
def test_positions_that_are_on_the_gpu_stay_there(cupy: CuPy, kind: str) -> None:
    """Words and labels of minibatches; below 0 they count from the end, and a wrong one is the
    error that it is, after which nothing is changed."""
    state, made = np.random.RandomState(3), []
    E, V = (state.randn(7, 4).astype("float32"), state.randn(4, 5).astype("float32"))
    words, labels = state.randint(0, 7, (12, 2)), state.randint(0, 5, 12)
    if kind != "uint16":
        words[3, 1], labels[5] = -1, -5
    for d in ("cupy", "reference"):
        held = [shared(x) for x in (E, V, words.astype(kind), labels.astype(kind))]
        i, x, y = T.lscalar("i"), held[2].type("x"), held[3].type("y")
        p = T.nnet.softmax(T.dot(T.tanh(held[0][x].sum(1)), held[1]))
        loss = -T.log(p[T.arange(y.shape[0]), y]).mean()
        steps = [(v, v - np.float32(0.1) * g) for v, g in zip(held, T.grad(loss, held[:2]))]
        batch = {x: held[2][i * 4 : (i + 1) * 4], y: held[3][i * 4 : (i + 1) * 4]}
        made.append((function([i], [loss, p], updates=steps, givens=batch, device=d), held))
    (f, held), (g, other) = made
    for epoch in range(4):
        for i in range(3):
            for a, b in zip(f(i), g(i)):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        if epoch == 1:  # nothing is read but the results, and whether all positions are right
            g(2)
            (tape,) = written(f)
            assert launches(cupy, lambda: f(2))["to the host"] == 1
        if epoch == 2:
            for x in (held[2], other[2]):
                x.set_value(np.where(words == words[6, 0], 7, words).astype(kind))
            said = []
            for h in (f, g):
                with pytest.raises(IndexError) as wrong:
                    h(1)
                said.append(str(wrong.value))
            assert said[0] == said[1]
            for x in (held[2], other[2]):
                x.set_value(words.astype(kind))
        for a, b in zip(held, other):
            np.testing.assert_allclose(a.get_value(), b.get_value(), rtol=1e-5, atol=1e-6)
