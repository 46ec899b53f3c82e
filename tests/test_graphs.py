"""Steps of loops that are not fused as CUDA graphs, on the emulated device: which are, what is
started, and that not a bit changes. On PyCUDA and CuPy: in test_pycuda_device and
test_cupy_device."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gpuscan
from gpuscan import function, scan
from gpuscan import tensor as T
from gpuscan.errors import DeviceError
from gpuscan.graph import leaves
from gpuscan.runtime import emulator, graphs
from gpuscan.runtime.emulated import Emulated
from gpuscan.shared import SharedVariable

pytestmark = pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing())

KERNELS = 40  # of a graph in these tests


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "KERNELS", KERNELS)


class Seen:
    """What the emulated device was asked for."""

    def __init__(self) -> None:
        self.launches = self.captures = self.replays = 0
        self.texts: set[str] = set()

    def since(self) -> tuple[int, int, int]:
        found = self.launches, self.captures, self.replays
        self.launches = self.captures = self.replays = 0
        return found


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    found = Seen()
    launch, capture, replay = Emulated._launch, Emulated.capture, Emulated.replay

    def launched(self: Any, kernel: Any, what: Any, *given: Any) -> None:
        found.launches += 1
        found.texts.add(what.source)
        launch(self, kernel, what, *given)

    def captured(self: Any) -> Any:
        found.captures += 1
        return capture(self)

    def replayed(self: Any, graph: Any) -> None:
        found.replays += 1
        replay(self, graph)

    monkeypatch.setattr(Emulated, "_launch", launched)
    monkeypatch.setattr(Emulated, "capture", captured)
    monkeypatch.setattr(Emulated, "replay", replayed)
    return found


@contextlib.contextmanager
def one_by_one() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs.Graphs, "ahead", lambda *_: None)
        yield


def made(inputs: list[Any], outputs: Any, **more: Any) -> Any:
    return function(inputs, outputs, device="emulated", fuse="never", **more)


def sequence(r: np.random.RandomState, *shape: int) -> np.ndarray:
    return (r.randn(*shape) * 0.4).astype("float32")


# ---- loops ---------------------------------------------------------------------------------------


def elman() -> Any:
    X, h, W = T.tensor3("X"), T.matrix("h"), T.matrix("W")
    hs, _ = scan(lambda x, h, W: T.tanh(x + T.dot(h, W)), sequences=X, outputs_info=h,
                 non_sequences=W)  # fmt: skip
    outputs = [hs, *T.grad((hs**2).sum(), [X, h, W])]

    def values(r: Any, n: int, batch: int = 3, width: int = 5) -> list[np.ndarray]:
        return [sequence(r, n, batch, width), sequence(r, batch, width), sequence(r, width, width)]

    return [X, h, W], outputs, values


def carries_that_change_places() -> Any:
    """And one that is another's transpose."""
    given = T.matrices("a", "b", "c", "d", "e")
    step = lambda a, b, c, d, e: [b, c, a, T.tanh(d + a - e), d.T]  # noqa: E731
    outputs, _ = scan(step, outputs_info=list(given), n_steps=(n := T.iscalar("n")))
    found = [*outputs, *(x[-1] for x in outputs), *T.grad(outputs[3].sum(), list(given))]
    return [*given, n], found, lambda r, n: [*(sequence(r, 3, 3) for _ in given), np.int32(n)]


def taps() -> Any:
    X, x0, W = T.matrix("X"), T.matrix("x0"), T.matrix("W")
    taps = {"input": X, "taps": [-2, 0]}
    ys, _ = scan(lambda a, b, x3, x1, W: T.tanh(a * x1 + b + T.dot(T.sin(W), W)[0] * x3),
                 sequences=taps, outputs_info={"initial": x0, "taps": [-3, -1]},
                 non_sequences=W)  # fmt: skip
    outputs = [ys, *T.grad(ys.sum(), [X, x0, W])]
    return [X, x0, W], outputs, lambda r, n: [
        sequence(r, n + 2, 4), sequence(r, 3, 4), sequence(r, 4, 4)]  # fmt: skip


def views() -> Any:
    """Views that are no rows of memory, and a reshape that NumPy makes by a copy."""
    x, h = T.vector("x"), T.matrix("h")

    def step(x: Any, h: Any) -> Any:
        h = T.tanh(h.T.reshape((2, 3)) * x + h[:, ::-1])
        return h, h.T, T.dot(h.T, h)[0, 1] * h[0], x

    outputs, _ = scan(step, sequences=x, outputs_info=[h, None, None, None])
    return [x, h], outputs, lambda r, n: [sequence(r, n), sequence(r, 2, 3)]


def large_sums() -> Any:
    """By kernels whose blocks count each other: the counter starts at 0 in each launch."""
    X, s, w = T.matrix("X"), T.vector("s"), T.vector("w")
    step = lambda x, s, w: T.tanh(s * 0.5 + (T.sin(x * w * s[0]) / 100).sum())  # noqa: E731
    ys, _ = scan(step, sequences=X, outputs_info=s, non_sequences=w)
    return [X, s, w], [ys], lambda r, n: [sequence(r, n, 9000), sequence(r, 2), sequence(r, 9000)]


LOOPS = [elman, carries_that_change_places, taps, views, large_sums]


@pytest.mark.parametrize("loop", LOOPS)
def test_not_a_bit_is_another(seen: Seen, loop: Any) -> None:
    inputs, outputs, values = loop()
    f = made(inputs, outputs)
    plans = f.explain().scans
    reference = function(inputs, outputs, device="reference")
    most = plans[0].graph_steps
    assert most >= graphs.LEAST and not any(p.no_graph for p in plans)
    r = np.random.RandomState(0)
    for n in (1, 7, 8, most, most, most + 1, 2 * most, 3 * most + 2, 3 * most + 2, 9):
        given = values(r, n)
        found = f(*given)
        with one_by_one():
            wanted = f(*given)
        for x, y, z in zip(found, wanted, reference(*given)):
            np.testing.assert_array_equal(x, y)
            np.testing.assert_allclose(x, z, rtol=2e-5, atol=2e-5)
    assert seen.replays > 5
    assert loop is not large_sums or any("gs_is_last" in text for text in seen.texts)
    assert not any(p.no_graph for p in f.explain().scans)


def test_other_shapes_have_graphs_of_their_own_and_few_are_kept(seen: Seen) -> None:
    inputs, outputs, values = elman()
    f = made(inputs, outputs[0])
    r = np.random.RandomState(0)
    for batch in (1, 2, 3, 4, 5, 6, 1):
        given = values(r, 25, batch)
        found = f(*given)
        with one_by_one():
            np.testing.assert_array_equal(found, f(*given))
    assert (seen.captures, seen.replays) == (7, 14)  # the first was not kept
    f(*values(r, 25, 6)), f(*values(r, 25, 5))
    assert (seen.captures, seen.replays) == (7, 18)


def test_what_is_started(seen: Seen) -> None:
    inputs, outputs, values = elman()
    f = made(inputs, outputs[0])
    (plan,) = f.explain().scans
    # the elementwise kernel, and the product, which is NumPy's here
    assert (plan.launches, plan.graph_steps) == (2, 20)
    r = np.random.RandomState(0)

    def started(n: int) -> tuple[int, int, int]:
        seen.since()
        f(*values(r, n))
        return seen.since()

    assert started(7) == started(7) == (7, 0, 0)  # too few
    assert started(12) == (12, 0, 0)  # after the first step too few are left
    assert started(12) == (12, 1, 1)
    assert started(12) == (12, 0, 1)
    assert started(30) == (30, 0, 2)  # by the graph that is there: this length may not come again
    assert started(30) == (30, 1, 2)  # 2 of 15
    assert started(25) == (25, 0, 2)  # of 12: one step is left
    assert started(33) == (33, 0, 2)  # of 15: three are left
    assert started(20) == (20, 0, 1)
    assert started(20) == (20, 1, 1)
    g = made(inputs, outputs[0])
    g(*values(r, 61))
    assert seen.since() == (61, 1, 4)  # a step, and 4 times 15


def test_contents_of_constants_may_change_and_results_are_nobody_elses(seen: Seen) -> None:
    w = gpuscan.shared(np.eye(3, dtype="float32"), "w")
    x, h = T.tensor3("x"), T.matrix("h")
    hs, _ = scan(lambda x, h: T.tanh(x + T.dot(h, w)), sequences=x, outputs_info=h)
    f = made([x, h], [hs, hs[-1]], updates={w: w * 0.5 + hs[-1].sum()})
    reference = function([x, h], [hs, hs[-1]], device="reference")
    r = np.random.RandomState(0)
    kept = []
    for _ in range(4):
        given = [sequence(r, 24, 2, 3), sequence(r, 2, 3)]
        wanted = reference(*given)
        kept.append((f(*given), wanted))
    w.set_value(np.ones((3, 3), "float32"))
    kept.append((f(*given), function([x, h], [hs, hs[-1]], device="reference")(*given)))
    for found, wanted in kept[:4]:
        for a, b in zip(found, wanted):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert seen.captures == 1


def test_a_position_that_is_the_same_in_all_steps_is_known(seen: Seen) -> None:
    h, k = T.vector("h"), T.lscalar("k")
    hs, _ = scan(lambda h, k: T.tanh(h * 0.9 + h[k]), outputs_info=h, non_sequences=k, n_steps=80)
    f = made([h, k], hs)
    assert f.explain().scans[0].graph_steps == 40
    reference = function([h, k], hs, device="reference")
    start = sequence(np.random.RandomState(0), 5)
    captured = []
    for k_ in (1, 1, 1, 3, 3, 1, -1, 3):
        np.testing.assert_allclose(f(start, k_), reference(start, k_), rtol=1e-5, atol=1e-6)
        captured.append(seen.captures)
        seen.captures = 0
    # another position is another graph, made where it comes again
    assert captured == [1, 0, 0, 0, 1, 0, 0, 0]
    with pytest.raises(IndexError):
        f(start, 5)


# ---- loops that are none -------------------------------------------------------------------------


def reason_of(step: Any, **more: Any) -> str:
    more.setdefault("outputs_info", T.matrix("h"))
    ys, updates = scan(step, **more)
    first = ys[0] if isinstance(ys, list) else ys
    inputs = [v for v in leaves([first]) if not isinstance(v, SharedVariable)]
    f = made(inputs, first, updates=updates)
    plan, *_ = f.explain().scans  # those in its step follow
    assert plan.graph_steps == 0
    assert str(plan).endswith(f" a step, not as a CUDA graph: {plan.no_graph}")
    return str(plan.no_graph)


def test_each_loop_that_is_none_says_why() -> None:
    i = T.lvector("i")
    v = T.vector("v")
    position = "the host reads a size or a position in each step"

    def until(h: Any) -> Any:
        return T.exp(h), gpuscan.scan_module.until(h.sum() > 9)

    def inner(h: Any) -> Any:
        return scan(lambda y: T.exp(y), outputs_info=h, n_steps=3, name="inside")[0][-1]

    draws = T.shared_randomstreams.RandomStreams(1)
    assert reason_of(lambda h: T.exp(T.sort(h)), n_steps=9) == "Sort runs on the host"
    assert "until a condition holds" in reason_of(until, n_steps=9)
    assert reason_of(inner, n_steps=9) == "there is a loop in a step, 'inside'"
    swapped = reason_of(lambda a, b: [b, a], outputs_info=list(T.matrices("a", "b")), n_steps=9)
    assert swapped == "a step starts no kernel"
    assert reason_of(lambda i, v: T.exp(v) + v[i], sequences=i, outputs_info=v) == position
    words = reason_of(lambda i, v: T.exp(v) + v[i].sum(), sequences=T.lmatrix("i"), outputs_info=v)
    assert words == "AdvancedSubtensor{[?]} runs on the host"
    words = reason_of(lambda h: T.exp(h) + draws.poisson(size=(2,), dtype="float32"), n_steps=9)
    assert words == "Poisson runs on the host"
    words = reason_of(lambda h: T.ifelse(h.sum() > 1, T.exp(h), T.sin(h)), n_steps=9)
    assert words == "gt runs on the host"


def test_the_text_of_one_that_is() -> None:
    inputs, outputs, _ = elman()
    f = made(inputs, outputs)
    lines = str(f.explain()).splitlines()
    way = "sequenced, scope launch (fuse='never'): 2 launches a step, as CUDA graphs of up to 20 "
    assert lines[1] == f"  scan 'scan_fn': {way}steps"
    native = function(inputs, outputs, device="reference", fuse="never")
    assert str(native.explain("h100")).splitlines()[1:] == lines[1:]


# ---- what can go wrong ---------------------------------------------------------------------------


def test_a_kernel_that_fails_in_a_replay_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, outputs, values = elman()
    f = made(inputs, outputs[0])
    given = values(np.random.RandomState(0), 36)
    wanted = f(*given)
    launch, left = emulator.launch, [20]

    def failing(*what: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise DeviceError("a kernel fails")
        launch(*what)

    monkeypatch.setattr(emulator, "launch", failing)
    with pytest.raises(DeviceError, match="a kernel fails") as e:
        f(*given)
    assert any("in a step from 0 on of scan 'scan_fn'" in note for note in e.value.__notes__)
    np.testing.assert_array_equal(f(*given), wanted)


def test_what_can_not_be_recorded_is_run_one_by_one(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, outputs, values = elman()
    f = made(inputs, outputs[0])
    multiply = Emulated.multiply

    def refused(self: Any, *given: Any) -> Any:
        from gpuscan.runtime.emulated import _own

        if _own.recorded is not None:
            raise DeviceError("a product can't be recorded\nfor a reason")
        return multiply(self, *given)

    monkeypatch.setattr(Emulated, "multiply", refused)
    given = values(np.random.RandomState(0), 36)
    found = f(*given)
    np.testing.assert_array_equal(f(*given), found)
    assert (seen.launches, seen.captures, seen.replays) == (72, 1, 0)  # it is not tried again
    (plan,) = f.explain().scans
    assert plan.no_graph == "it can't be recorded: a product can't be recorded"
    with one_by_one():
        np.testing.assert_array_equal(f(*given), found)


def test_a_shape_that_changes_is_the_users_error_in_the_step() -> None:
    h = T.vector("h")
    ys, _ = scan(lambda h: T.exp(h[1:]), outputs_info=h, n_steps=20)
    f = made([h], ys)
    with pytest.raises(ValueError, match="has changed shape"):
        f(np.ones(30, "f"))


def test_memory_goes_back_with_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    create = graphs._Graph.__init__

    def created(self: Any, *given: Any) -> None:
        create(self, *given)
        kept.extend(map(weakref.ref, (self, self.graph, *self.rows, *self.graph.held)))

    monkeypatch.setattr(graphs._Graph, "__init__", created)
    inputs, outputs, values = elman()
    f = made(inputs, outputs)
    f(*values(np.random.RandomState(0), 36))
    gc.collect()
    assert len(kept) > 100 and all(x() is not None for x in kept)
    gc.disable()
    try:
        del f
        assert all(x() is None for x in kept)
    finally:
        gc.enable()


def test_threads_that_run_one_function_do_not_share_a_graph() -> None:
    inputs, outputs, values = elman()
    f = made(inputs, outputs)
    r = np.random.RandomState(0)
    given = [values(r, 40) for _ in range(4)]
    with one_by_one():
        wanted = [f(*x) for x in given]
    f(*given[0])
    found: dict[int, list[Any]] = {k: [] for k in range(4)}

    def work(k: int) -> None:
        for _ in range(5):
            found[k].append(f(*given[k]))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for k in range(4):
        assert len(found[k]) == 5
        for result in found[k]:
            for x, y in zip(result, wanted[k]):
                np.testing.assert_array_equal(x, y)
