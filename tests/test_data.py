"""Minibatches that a thread makes ahead of time, and windows of long sequences."""

import contextlib
import gc
import itertools
import sys
import threading
import time
import traceback
import weakref
from collections import namedtuple

import numpy as np
import pytest

import gpuscan
from gpuscan import tensor as T
from gpuscan.data import prefetch, streams, windows
from gpuscan.errors import DeviceError
from gpuscan.runtime.device import missing
from gpuscan.runtime.emulated import Uploads
from gpuscan.shared import is_on_gpu

Pair = namedtuple("Pair", "x y")


def threads():
    return [t for t in threading.enumerate() if t.name == "prefetch"]


@pytest.fixture(autouse=True)
def no_thread_stays():
    assert not threads()
    yield
    ended(threads())


def ended(those, seconds=10):
    for t in those:
        t.join(seconds)
        assert not t.is_alive()


def arrays(n):
    """Of unequal shapes and orders, so that page-locked memory of one size serves several."""
    r = np.random.default_rng(0)
    for i in range(n):
        yield r.standard_normal((i % 5, 3)).astype("f").T, np.full(i % 7 + 1, i, "int64")


def fetched(x):
    """NumPy's array of one that may be on a GPU."""
    return x.get() if is_on_gpu(x) else x


# ---- the iterator --------------------------------------------------------------------------------


def test_items_come_in_their_order_and_end(device):
    with prefetch(arrays(40), 3, device) as found:
        for (x, i), (x0, i0) in zip(found, arrays(40), strict=True):
            assert np.array_equal(fetched(x), x0) and np.array_equal(fetched(i), i0)
        assert next(found, "no more") == "no more"
    assert list(prefetch([], device=device)) == []


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_at_most_so_many_items_wait(depth):
    taken = []
    source = (taken.append(i) or i for i in itertools.count())
    with prefetch(source, depth, "reference") as found:
        for used in range(20):
            assert next(found) == used
            until = time.monotonic() + 5
            while len(taken) < used + 1 + depth and time.monotonic() < until:
                time.sleep(0.001)
            time.sleep(0.002)  # for one too many
            assert len(taken) == used + 1 + depth


def test_items_are_made_while_the_consumer_works():
    begun = threading.Event()

    def source():
        yield 0
        begun.set()
        yield 1

    with prefetch(source()) as found:
        assert next(found) == 0
        assert begun.wait(10)  # nobody has asked for it yet


def test_an_error_comes_after_the_items_before_it_with_its_traceback():
    def broken_source():
        yield 1
        yield 2
        raise KeyError("lost")

    found = prefetch(broken_source())
    assert [next(found), next(found)] == [1, 2]
    with pytest.raises(KeyError, match="lost") as e:
        next(found)
    assert "broken_source" in "".join(traceback.format_tb(e.value.__traceback__))
    assert list(found) == []  # as after any iterator's error


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_an_error_that_ends_programs_is_the_consumers(error):
    def source():
        raise error
        yield

    with pytest.raises(type(error)):
        next(prefetch(source()))


# ---- leaving early -------------------------------------------------------------------------------


def test_close_ends_the_thread(device):
    found = prefetch(itertools.repeat(np.zeros(3)), 2, device)
    next(found)
    (thread,) = threads()
    found.close()
    assert not thread.is_alive()
    assert list(found) == []
    found.close()


def test_break_and_the_garbage_collector_end_the_thread():
    for _ in prefetch(itertools.count()):
        break
    ended(threads())


def test_it_is_collected_in_a_cycle():
    found = prefetch(itertools.count())
    found.itself = found
    next(found)
    dead = weakref.ref(found)
    del found
    gc.collect()
    assert dead() is None
    ended(threads())


def test_an_error_in_the_loop_ends_the_thread():
    def program():
        with prefetch(itertools.count()) as found:
            for i in found:
                1 / (i - 3)

    with pytest.raises(ZeroDivisionError):
        program()
    assert not threads()


def test_the_iterable_is_dropped_at_the_end():
    class Source:
        def __iter__(self):
            while True:
                yield self

    source = Source()
    dead = weakref.ref(source)
    with prefetch(source) as found:
        del source
        next(found)
    gc.collect()
    assert dead() is None


def test_items_belong_to_the_consumer_alone():
    class Item: ...

    with prefetch((Item() for _ in range(1)), device="reference") as found:
        item = next(found)
        ended(threads())  # at the end of the iterable
        dead = weakref.ref(item)
        del item
        gc.collect()
        assert dead() is None


def test_an_error_leaves_no_frames_behind():
    class Big: ...

    def source():
        big = Big()
        seen.append(weakref.ref(big))
        yield
        raise ValueError

    seen = []
    gc.disable()
    try:
        found = prefetch(source())
        next(found)
        with contextlib.suppress(ValueError):
            next(found)
        ended(threads())
        assert seen[0]() is None  # without the garbage collector
    finally:
        gc.enable()


def test_a_program_that_leaves_it_open_ends(tmp_path):
    import subprocess

    program = (
        "import itertools; from gpuscan.data import prefetch\n"
        "p = prefetch(itertools.count()); print(next(p))"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


# ---- arrays on the device ------------------------------------------------------------------------


def test_structures_keep_their_kinds(device):
    item = Pair([np.arange(3), (1.5, "a", None)], {"k": np.ones((2, 0)), "n": np.float32(2)})
    (found,) = prefetch([item], device=device)
    assert type(found) is Pair and type(found.x) is list and type(found.x[1]) is tuple
    assert found.x[1] == (1.5, "a", None) and type(found.y) is dict
    assert np.array_equal(fetched(found.x[0]), np.arange(3)) and found.y["k"].shape == (2, 0)
    assert type(found.y["n"]) is np.float32


def test_a_function_takes_them(device):
    x, n = T.fmatrix("x"), T.lvector("n")
    f = gpuscan.function([x, n], [x.sum(), n.sum()], device=device)
    for (a, b), (a0, b0) in zip(prefetch(arrays(12), 2, device), arrays(12), strict=True):
        total, number = f(a, b)
        assert number == b0.sum()
        assert total == pytest.approx(a0.sum(), abs=1e-5)


emulated = pytest.mark.skipif(bool(missing("emulated")), reason=missing("emulated") or "-")


@emulated
@pytest.mark.parametrize("depth", [1, 3])
def test_memory_is_used_again_only_when_its_copy_is_done(depth, monkeypatch):
    """The emulated device copies at the last moment: what is filled too early shows."""
    made = []
    staging = Uploads.staging
    monkeypatch.setattr(Uploads, "staging", lambda s, n: made.append(n) or staging(s, n))
    source = (np.full(100, i, "f") for i in range(60))
    kept = list(prefetch(source, depth, "emulated"))
    for i, x in enumerate(kept):
        assert (x == i).all()
    assert len(made) <= depth + 1  # one that waits or is made each, and one on its way


@emulated
def test_copies_of_later_items_are_started_before_they_are_needed(monkeypatch):
    calls = []
    start, finish = Uploads.start, Uploads.finish
    monkeypatch.setattr(Uploads, "start", lambda s, *a: calls.append("start") or start(s, *a))
    monkeypatch.setattr(Uploads, "finish", lambda s, c: calls.append("finish") or finish(s, c))
    with prefetch([np.zeros(2)] * 3, 4, "emulated") as found:
        ended(threads())
        next(found)
        assert calls == ["start"] * 3 + ["finish"]


@emulated
def test_what_is_left_early_on_a_device_is_no_error():
    with prefetch((np.full(1000, i) for i in range(9)), 3, "emulated") as found:
        assert (next(found) == 0).all()


def test_what_cannot_be(device):
    for depth in (0, -1, 1.5, True, None):
        with pytest.raises(ValueError, match="depth is a whole number above 0, got"):
            prefetch([1], depth, device)
    with pytest.raises(TypeError, match="not iterable"):
        prefetch(3, device=device)
    with pytest.raises(ValueError, match="device 'abacus' is not one of"):
        prefetch([1], device="abacus")
    if missing("cupy"):
        with pytest.raises(DeviceError, match="device 'cupy' is not available"):
            prefetch([1], device="cupy")


# ---- long sequences ------------------------------------------------------------------------------


def test_streams_lie_side_by_side():
    assert np.array_equal(streams(np.arange(11), 3), [[0, 3, 6], [1, 4, 7], [2, 5, 8]])
    assert streams(np.zeros((10, 4)), 2).shape == (5, 2, 4)
    assert streams(np.arange(3), 3).shape == (1, 3)


def test_windows_overlap_and_leave_nothing_out():
    x = np.arange(10)
    assert [list(w) for w in windows(x, 4)] == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [8, 9]]
    assert [list(w) for w in windows(x, 3)][-1] == [6, 7, 8, 9]
    assert [list(w) for w in windows(x, 4, overlap=0)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [list(w) for w in windows(x, 4, start=4)] == [[4, 5, 6, 7, 8], [8, 9]]
    assert list(windows(x[:1], 4)) == []
    for n, length, overlap in itertools.product(range(8), range(1, 4), range(3)):
        found = [w[overlap:] for w in windows(np.arange(n), length, overlap)]
        joined = np.concatenate([np.zeros(0, int), *found])
        assert np.array_equal(joined, np.arange(overlap, n))  # each step follows once


def test_windows_are_views():
    x = np.arange(10)
    assert all(np.shares_memory(w, x) for w in windows(x, 3))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: streams(np.arange(3), 4), "4 pieces of a sequence of 3"),
        (lambda: streams(np.arange(3), 0), "0 pieces of a sequence of 3"),
        (lambda: streams(5, 1), "1 pieces of a sequence of no axis"),
        (lambda: windows(np.arange(3), 0), "length 0, overlap 1, start 0"),
        (lambda: windows(np.arange(3), 1, -1), "length 1, overlap -1, start 0"),
        (lambda: windows(np.arange(3), 1, 1, -1), "length 1, overlap 1, start -1"),
    ],
)
def test_sequences_that_cannot_be_cut(call, words):
    with pytest.raises(ValueError, match=words):
        call()
