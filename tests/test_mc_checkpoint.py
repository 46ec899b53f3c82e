"""Checkpoints: a run that goes on is the run without a break, whenever it was killed."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import gpuscan
from gpuscan import mc, saving
from gpuscan import tensor as T
from gpuscan.mc import checkpoint as checkpoints

ROOT = Path(__file__).resolve().parents[1]
START = np.linspace(-1, 1, 12).reshape(4, 3).astype("float32")
GROUPS = ("warmup_posterior", "warmup_sample_stats", "posterior", "sample_stats", "reduced")


def kernel(decay=0.5, centre=0.0):
    streams = T.shared_randomstreams.RandomStreams(8)
    data = gpuscan.shared(np.float32(centre), "centre")

    def step(x):
        x = np.float32(decay) * x + data + streams.normal(x.shape, dtype="float32")
        return x, {"lp": x.sum(axis=1)}

    return mc.gibbs(step)


def run(path=None, init=START, model=None, **options):
    given = dict(draws=60, tune=25, seed=4, reduce=["mean", "r_hat"], discard_tuned_samples=False)
    if path is not None:
        given["every"] = 10
    return mc.sample(model or kernel(), init, checkpoint=path, **{**given, **options})


class Killed(BaseException):
    """Ends a run as nothing else does."""


@pytest.fixture
def killed(tmp_path, monkeypatch):
    """A checkpoint of a run that was cut off while it wrote its n-th file."""

    def make(n, **options):
        path, real, left = tmp_path / "run.npz", os.replace, [n]

        def replace(source, target):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            real(source, target)

        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(saving.os, "replace", replace)
            run(path, **options)
        return path

    return make


def check_equal(found, whole, groups=GROUPS):
    assert set(found.children) == set(whole.children)
    for group in groups:
        for name, values in whole[group].data_vars.items():
            np.testing.assert_array_equal(found[group][name], values)


# ---- going on -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(0, 18, 3))
def test_a_run_that_goes_on_is_the_run_without_a_break(killed, n):
    whole = run(chunk=10)  # moments depend in rounding on how draws come
    path = killed(n)
    there = path.exists()
    assert there == (n > 1)  # the first part comes before it
    found = run(path, init=None if there else START, chunk=10)
    check_equal(found, whole)
    assert not list(path.parent.glob(".*"))
    check_equal(run(path), whole)  # a finished one is read


def test_chunks_tasks_and_every_may_differ_after_the_break(killed):
    found = run(killed(9), every=7, chunk=3, chains_per_task=3)
    check_equal(found, run(), ("warmup_posterior", "posterior", "sample_stats"))


def test_a_finished_run_becomes_longer(tmp_path):
    path = tmp_path / "run.npz"
    run(path, draws=20, reduce=None)
    found, whole = run(path, draws=60, reduce=None), run(reduce=None)
    check_equal(found, whole, ("warmup_posterior", "posterior"))


def test_the_seed_of_a_run_without_one_is_kept(killed):
    path = killed(8, seed=None)
    found = run(path, seed=None)
    check_equal(run(seed=found.attrs["seed"], chunk=10), found, ("posterior",))


def test_nothing_is_written_twice(tmp_path):
    path = tmp_path / "run.npz"
    run(path)
    parts = sorted((tmp_path / "run.npz.draws").iterdir())
    assert [p.name for p in parts] == [f"{k:06d}.npz" for k in range(len(parts))]
    draws = [saving.load(p).arrays for p in parts]
    assert sum(a["draws/samples/x"].shape[1] for a in draws if "draws/first" in a) == 60
    assert path.stat().st_size < 10_000  # no samples


def test_parts_of_a_run_whose_checkpoint_was_removed_go(tmp_path):
    path = tmp_path / "run.npz"
    run(path)
    path.unlink()
    run(path, draws=10)
    parts = sorted(p.name for p in (tmp_path / "run.npz.draws").iterdir())
    assert parts == ["000000.npz", "000001.npz", "000002.npz"]


def test_values_that_are_not_finite_are_counted_across_a_break(killed):
    model = mc.gibbs(lambda x: x * x)
    start = np.array([[0.5], [1e10]], "float32")
    options = dict(model=model, init=start, tune=0)
    assert run(killed(8, **options), **options).attrs["non_finite"] == '[[false, "x", 59, 1, 1]]'


# ---- streams ------------------------------------------------------------------------------------


def draws_of(chunk):
    return list(chunk["posterior"].draw.values)


def test_a_stream_goes_on_after_what_was_looked_at(tmp_path):
    path, options = tmp_path / "run.npz", dict(tune=5, seed=4, chunk=10, every=10)
    first = mc.stream(kernel(), START, checkpoint=path, **options)
    for _ in range(3):
        next(first)  # asking for the third says that the second was looked at
    first.close()
    second = mc.stream(kernel(), checkpoint=path, draws=60, **options)
    chunks = list(second)
    assert draws_of(chunks[0]) == list(range(20, 30))
    whole = run(reduce=None, tune=5)["posterior"].x
    found = np.concatenate([c["posterior"].x for c in chunks], axis=1)
    np.testing.assert_array_equal(found, whole[:, 20:])
    assert list(mc.stream(kernel(), checkpoint=path, draws=60, **options)) == []


def test_a_cursor_is_saved_anywhere(tmp_path):
    with mc.stream(kernel(), START, seed=4, tune=0, chunk=7) as one:
        next(one)
        one.checkpoint(tmp_path / "here.npz")
        expected = next(one)["posterior"].x
    with mc.stream(kernel(), seed=4, tune=0, chunk=7, checkpoint=tmp_path / "here.npz") as other:
        np.testing.assert_array_equal(next(other)["posterior"].x, expected)


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (dict(model=kernel(decay=0.25)), "the model"),
        (dict(model=kernel(centre=1.0)), "the model"),
        (dict(model=mc.random_walk_metropolis(lambda x: x.sum(axis=1))), "the kernel is gibbs the"),
        (dict(init=START + 1), "init"),
        (dict(init=START[:3]), "the variables"),
        (dict(init=START.astype("float64")), "the variables|makes 'x'"),
        (dict(init={"y": START}), "the variables"),
        (dict(seed=5), "seed is 4 there and 5 here"),
        (dict(tune=26), "tune is 25 there and 26 here"),
        (dict(thin=2), "thin is 1 there and 2 here"),
        (dict(keep=()), "keep"),
        (dict(reduce="mean"), "reduce"),
        (dict(discard_tuned_samples=True), "discard_tuned_samples"),
        (dict(draws=50), "has 60 draws, and draws is 50"),
        (dict(draws=70), "reduces a run of 60 draws, and draws is 70"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_checkpoint_of_another_run_is_refused_by_name(tmp_path, options, text):
    path = tmp_path / "run.npz"
    run(path)
    before = path.read_bytes()
    with pytest.raises((ValueError, TypeError), match=text) as caught:
        run(path, **options)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_one_of_another_version_is_refused_by_name(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    run(path)
    monkeypatch.setattr(gpuscan, "__version__", "99.0")
    with pytest.raises(ValueError, match="gpuscan's version is .* there and 99.0 here"):
        run(path)


def test_a_stream_is_no_gathered_run(tmp_path):
    path = tmp_path / "run.npz"
    run(path, reduce=None)
    with pytest.raises(ValueError, match="the kind of run is sample there and stream here"):
        mc.stream(kernel(), checkpoint=path, tune=25, seed=4, discard_tuned_samples=False)


def test_files_of_others_are_refused(tmp_path):
    path = tmp_path / "run.npz"
    with pytest.raises(ValueError, match="expected a path that ends in .npz"):
        run(tmp_path / "run.pkl")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        run(tmp_path / "nowhere" / "run.npz")
    np.savez(path, x=START)
    with pytest.raises(ValueError, match="no checkpoint that this version can go on from"):
        run(path)
    path.write_bytes(b"half")
    with pytest.raises(ValueError, match="not a whole"):
        run(path)


# ---- Ctrl-C and SIGKILL -------------------------------------------------------------------------

LONG = dict(draws=1500, tune=200, chunk=5, every=10, reduce=None)


def test_a_run_that_is_killed_goes_on_bit_for_bit(tmp_path):
    path, times = tmp_path / "run.npz", random.Random(5)
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from tests import test_mc_checkpoint as here\n"
        f"here.run({str(path)!r}, **here.LONG)"
    )
    for seed in range(3):
        before = path.stat().st_mtime_ns if path.exists() else 0
        settings = {**os.environ, "PYTHONHASHSEED": str(seed)}  # the order in sets is another
        process = subprocess.Popen([sys.executable, "-c", code], env=settings)
        while process.poll() is None:  # until it has gone on
            if path.exists() and path.stat().st_mtime_ns != before:
                break
            time.sleep(0.001)
        time.sleep(times.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was over before it was killed"
        saved = checkpoints.load(path)  # never half-written
        assert saved.parts > 0
    assert saved.point.drawn < LONG["draws"]
    whole = dict(draws=1500, tune=200, reduce=None)
    check_equal(run(path, every=None, **whole), run(**whole), GROUPS[:4])


# It may come between an open and the block that closes: the collector closes that file.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_leaves_the_last_checkpoint(tmp_path):
    path = tmp_path / "run.npz"
    options = dict(tune=0, seed=4, chunk=10, every=10)

    def interrupt():
        while not path.exists():
            time.sleep(0.001)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job of a shell ignores it
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            mc.sample(kernel(), START, draws=10**6, checkpoint=path, **options)
    finally:
        signal.signal(signal.SIGINT, before)
    thread.join()
    assert not [t for t in threading.enumerate() if t.name.startswith("gpuscan.mc")]
    drawn = checkpoints.load(path).point.drawn
    assert 0 < drawn < 10**6
    found = mc.sample(kernel(), draws=drawn + 20, checkpoint=path, tune=0, seed=4)
    whole = mc.sample(kernel(), START, draws=drawn + 20, tune=0, seed=4)
    check_equal(found, whole, ("posterior", "sample_stats"))
