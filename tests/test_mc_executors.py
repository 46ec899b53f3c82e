"""Chains shared out among the workers of executors are the chains of one process."""

import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

import gpuscan
from gpuscan import mc
from gpuscan import tensor as T
from gpuscan.mc import executors

ROOT = Path(__file__).resolve().parents[1]
START = np.linspace(-1, 1, 21).reshape(7, 3).astype("float32")


def kernel():
    """Elementwise, with data, a loop in the step, and statistics."""
    random = T.shared_randomstreams.RandomStreams(8)
    centre = gpuscan.shared(np.array([1, 2, 3], "float32"), "centre")

    def noisy(x):
        return centre + 0.5 * (x - centre) + random.normal(x.shape, dtype="float32")

    def step(x):
        x = gpuscan.scan(noisy, None, x, n_steps=2)[0][-1]
        return x, {"last": x[:, 2]}

    return mc.gibbs(step)


def run(**options):
    return mc.sample(
        kernel(), START, draws=30, tune=5, seed=4, discard_tuned_samples=False, **options
    )


@pytest.fixture(scope="module")
def whole():
    return run()


def check_equal(found, whole):
    for group in ("warmup_posterior", "posterior", "sample_stats"):
        assert found[group].sizes == whole[group].sizes
        for name, values in whole[group].data_vars.items():
            np.testing.assert_array_equal(found[group][name], values)


class Now:
    """An executor that runs a task when it is submitted, and counts what it is sent."""

    def __init__(self):
        self.programs, self.tasks = 0, 0

    def submit(self, work, key, program, *arguments):
        self.tasks += 1
        self.programs += program is not None
        future = Future()
        try:
            future.set_result(work(key, program, *arguments))
        except Exception as e:
            future.set_exception(e)
        return future


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("spawn")  # the workers inherit nothing
    with ProcessPoolExecutor(2, context) as pool:
        yield pool


@pytest.mark.parametrize("options", [dict(), dict(chains_per_task=3, chunk=11)], ids=str)
def test_processes(processes, whole, options):
    check_equal(run(executor=processes, **options), whole)


def test_threads(whole):
    with ThreadPoolExecutor(3) as pool:
        check_equal(run(executor=pool, chunk=4), whole)


@pytest.mark.parametrize("size", [1, 2, 7, 50])
def test_any_number_of_chains_a_task(whole, size):
    check_equal(run(executor=Now(), chains_per_task=size), whole)


def test_a_program_is_sent_once_to_each_worker():
    executor = Now()
    executors._programs.known.clear()
    run(executor=executor, chains_per_task=3, chunk=7)
    assert (executor.tasks, executor.programs) == (3 * (1 + 5), 3)


class Forgetful(Now):
    def submit(self, *arguments):
        executors._programs.known.clear()
        return super().submit(*arguments)


def test_a_worker_that_lacks_the_program_asks_for_it(whole):
    executor = Forgetful()
    check_equal(run(executor=executor, chains_per_task=4, chunk=10), whole)
    assert (executor.tasks, executor.programs) == (2 * (1 + 3 + 3), 2 * (1 + 3))


def test_a_worker_keeps_the_programs_that_it_met_last():
    executors._programs.known.clear()
    for _ in range(executors._KEPT + 3):
        run(executor=Now(), keep=[])
    assert len(executors._programs.known) <= executors._KEPT


def test_dask(whole):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        check_equal(run(executor=client.get_executor(), chains_per_task=3), whole)


def test_mpi(whole, tmp_path):
    pytest.importorskip("mpi4py")
    mpiexec = Path(sys.executable).with_name("mpiexec")
    if not mpiexec.exists():
        pytest.skip("there is no mpiexec")
    script = tmp_path / "chains.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        from mpi4py.futures import MPIPoolExecutor
        sys.path.insert(0, {str(ROOT)!r})
        from tests import test_mc_executors as here
        if __name__ == "__main__":
            with MPIPoolExecutor() as pool:
                found = here.run(executor=pool, chunk=20, chains_per_task=3)
            found.to_netcdf("found.nc", engine="h5netcdf")
        """)
    )
    command = [mpiexec, "-n", "2", sys.executable, "-m", "mpi4py.futures", script]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100
    )
    assert not done.returncode, done.stderr
    import xarray

    with xarray.open_datatree(tmp_path / "found.nc", engine="h5netcdf") as found:
        check_equal(found, whole)


def counting():
    """A table that is read at a position that grows: IndexError for a chain that starts late."""
    table = gpuscan.shared(np.arange(20, dtype="float32"))
    return mc.gibbs(lambda x, n: [table[n], n + 1])


def test_a_task_that_fails_names_its_chains(processes):
    start = {"x": np.zeros(6, "float32"), "n": np.array([0, 0, 0, 0, 15, 0])}
    with pytest.raises(RuntimeError, match="chains 4 to 5: IndexError"):
        mc.sample(counting(), start, draws=10, tune=0, executor=processes, chains_per_task=2)
    check_equal(run(executor=processes), run())  # the pool goes on


def test_a_worker_that_dies_names_chains():
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, context) as pool,
        mc.stream(kernel(), START, tune=0, executor=pool, chunk=5, chains_per_task=4) as stream,
    ):
        next(stream)
        pool.submit(os._exit, 1)
        with pytest.raises(RuntimeError, match="chains [04] to [36]: BrokenProcessPool"):
            for _ in range(5):
                next(stream)


class Breaks(Now):
    """An executor that takes no task after the sixth."""

    def submit(self, *arguments):
        if self.tasks == 6:
            raise BrokenProcessPool("a worker died")
        return super().submit(*arguments)


def test_a_pool_that_breaks_between_chunks_names_chains():
    options = {"tune": 0, "executor": Breaks(), "chunk": 5, "chains_per_task": 4}
    with mc.stream(kernel(), START, **options) as stream:
        for _ in range(3):
            next(stream)
        with pytest.raises(RuntimeError, match="chains 0 to 3: BrokenProcessPool: a worker died"):
            next(stream)


def test_the_callers_executor_stays_open():
    with ThreadPoolExecutor(1) as pool:
        run(executor=pool)
        assert pool.submit(threading.get_ident).result()
