"""mc.sample and mc.stream: what a run draws, on what that does not depend, what is refused."""

import gc
import threading
import time
import tracemalloc

import numpy as np
import pytest

import gpuscan
from gpuscan import mc, philox
from gpuscan import tensor as T
from gpuscan.config import config
from gpuscan.mc.kernel import OWN
from gpuscan.mc.program import build, initial_streams
from gpuscan.ops import sample as states
from gpuscan.runtime.device import missing

SCALE = OWN + "scale"
START = np.linspace(-1, 1, 15).reshape(5, 3).astype("float32")


class Walk:
    """x becomes x / 2 plus scaled noise; the warm-up changes the scale of each chain as it is
    told. Elementwise, so that its positions are the same to the last bit wherever it runs."""

    name = "walk"

    def start(self, position):
        return {**position, SCALE: T.ones((position["x"].shape[0],), "float32")}

    def step(self, state, random):
        noise = random.normal(state["x"].shape, dtype="float32")
        new = 0.5 * state["x"] + state[SCALE][:, None] * noise
        stats = {"scale": state[SCALE], "first": new[:, 0]}
        return {"x": new, SCALE: state[SCALE]}, stats

    def schedule(self, tune):
        return {"factor": np.linspace(1, 2, tune, dtype="float32")}

    def tune(self, state, told, random):
        new, stats = self.step(state, random)
        return {**new, SCALE: 0.5 * state[SCALE] + told["factor"]}, stats

    def check(self, state):
        if not np.isfinite(state["x"]).all():
            raise ValueError("walk: 'x' is not finite at the start")


def by_numpy(seed, draws, tune, start=START):
    """What Walk draws, as a loop: (draws of the warm-up, draws), each (chains, draws, 3)."""
    x, scale, found = start, np.ones(len(start), "float32"), []
    factors = np.linspace(1, 2, tune, dtype="float32")
    for phase, site, steps in (("tune", 1, tune), ("draw", 0, draws)):
        for n in range(steps):
            words = philox.words(seed, site, n, x.size)
            noise = philox.normal32(words).reshape(x.shape)
            x = np.float32(0.5) * x + scale[:, None] * noise
            if phase == "tune":
                scale = np.float32(0.5) * scale + factors[n]
            found.append(x)
    rows = np.array(found).reshape(tune + draws, *start.shape).swapaxes(0, 1)
    return rows[:, :tune], rows[:, tune:]


def x_of(tree, group="posterior"):
    return tree[group].x.values


def noise_kernel():
    """Gibbs whose variables are plain noise of streams of their own."""
    random = T.shared_randomstreams.RandomStreams(8)
    return mc.gibbs(lambda *xs: [random.normal(x.shape, dtype=x.dtype) for x in xs])


# ---- which numbers ------------------------------------------------------------------------------


def test_draws_are_those_of_the_loop_in_numpy():
    tree = mc.sample(Walk(), START, draws=40, tune=30, seed=9, discard_tuned_samples=False)
    warmup, draws = by_numpy(9, 40, 30)
    np.testing.assert_array_equal(x_of(tree), draws)
    np.testing.assert_array_equal(x_of(tree, "warmup_posterior"), warmup)
    np.testing.assert_array_equal(tree["sample_stats"]["first"], draws[:, :, 0])
    assert len(np.unique(tree["warmup_sample_stats"]["scale"][0])) == 30
    assert tree["posterior"].x.dims[:2] == ("chain", "draw")


def test_a_kept_draw_is_the_last_of_thin_steps():
    tree = mc.sample(Walk(), START, draws=12, tune=4, thin=5, seed=9)
    _, draws = by_numpy(9, 60, 4)
    np.testing.assert_array_equal(x_of(tree), draws[:, 4::5])
    np.testing.assert_array_equal(tree["sample_stats"]["first"], draws[:, 4::5, 0])


def test_a_chain_draws_the_same_whichever_come_after_it():
    whole = mc.sample(Walk(), START, draws=9, tune=0, seed=1)
    part = mc.sample(Walk(), START[:2], draws=9, tune=0, seed=1)
    np.testing.assert_array_equal(x_of(whole)[:2], x_of(part))


@pytest.mark.parametrize(
    "options",
    [
        dict(chunk=1), dict(chunk=7), dict(chunk=1000), dict(chunk_bytes=200),
        dict(chains_per_task=1), dict(chains_per_task=2, chunk=13), dict(chains_per_task=99),
    ],
    ids=str,
)  # fmt: skip
def test_draws_do_not_depend_on_chunks_or_tasks(options):
    found = mc.sample(
        Walk(), START, draws=50, tune=20, seed=3, discard_tuned_samples=False, **options
    )
    warmup, draws = by_numpy(3, 50, 20)
    np.testing.assert_array_equal(x_of(found), draws)
    np.testing.assert_array_equal(x_of(found, "warmup_posterior"), warmup)


@pytest.mark.parametrize("threads", [1, 3])
def test_draws_do_not_depend_on_threads(threads):
    start = np.zeros((3000, 30), "float32")
    with config.change_flags(threads=threads):
        found = mc.sample(Walk(), start, draws=3, tune=2, seed=3)
    np.testing.assert_array_equal(x_of(found), by_numpy(3, 3, 2, start)[1])


@pytest.mark.parametrize("name", ["reference", "native"])
def test_elementwise_draws_do_not_depend_on_the_device(name):
    if missing(name):
        pytest.skip(missing(name))
    found = mc.sample(Walk(), START, draws=20, tune=10, seed=3, device=name)
    np.testing.assert_array_equal(x_of(found), by_numpy(3, 20, 10)[1])
    assert found.attrs["device"] == name


def hmc_kernel():
    scales = np.array([1.0, 2.0, 0.5])
    return mc.hmc(lambda x: -((x / scales) ** 2).sum(axis=1) / 2, n_steps=3)


def test_products_and_sums_depend_on_tasks_and_devices_in_rounding_only():
    start = {"x": START.astype("float64")}

    def run(**options):
        return x_of(mc.sample(hmc_kernel(), start, draws=10, tune=10, seed=3, **options))

    whole = run()
    for options in (dict(chains_per_task=2), dict(device="reference"), dict(chunk=3)):
        np.testing.assert_allclose(run(**options), whole, rtol=1e-6, atol=1e-9)


def test_a_seed_is_all_that_draws_depend_on():
    def run(seed):
        return mc.sample(Walk(), START, draws=5, tune=0, seed=seed)

    np.testing.assert_array_equal(x_of(run(2**40 + 1)), x_of(run(2**40 + 1)))
    one, other = run(None), run(None)
    assert not np.array_equal(x_of(one), x_of(other))
    np.testing.assert_array_equal(x_of(run(one.attrs["seed"])), x_of(one))


def test_the_users_streams_get_new_keys_and_stay_as_they_are():
    random = T.shared_randomstreams.RandomStreams(8)
    made = []

    def step(x):
        made.append(random.uniform(x.shape, dtype="float32"))
        return made[-1]

    found = mc.sample(mc.gibbs(step), START, draws=4, tune=0, seed=6)
    expected = philox.uniform32(philox.words(6, 0, 3, 15)).reshape(5, 3)
    np.testing.assert_array_equal(x_of(found)[:, 3], expected)
    np.testing.assert_array_equal(random[made[0]], states.state_value(8, 0))


def test_loops_of_the_step_draw_on():
    random = T.shared_randomstreams.RandomStreams(8)

    def noisy(x):
        return 0.5 * x + random.normal(x.shape, dtype="float32")

    def step(x):
        return gpuscan.scan(noisy, None, x, n_steps=3)[0][-1]

    one = mc.sample(mc.gibbs(step), START, draws=8, tune=0, seed=6)
    split = mc.sample(mc.gibbs(step), START, draws=8, tune=0, seed=6, chains_per_task=2, chunk=3)
    plain = mc.sample(mc.gibbs(noisy), START, draws=24, tune=0, seed=6)
    np.testing.assert_array_equal(x_of(one), x_of(plain)[:, 2::3])
    np.testing.assert_array_equal(x_of(one), x_of(split))


def test_a_scalar_draw_is_shared_by_all_chains_in_all_tasks():
    random = T.shared_randomstreams.RandomStreams(8)
    kernel = mc.gibbs(lambda x: x + random.uniform((), dtype="float32"))
    found = mc.sample(kernel, np.zeros(6, "float32"), draws=9, tune=0, seed=1, chains_per_task=2)
    assert (x_of(found) == x_of(found)[0]).all()
    assert len(np.unique(x_of(found)[0])) == 9


# ---- what is kept -------------------------------------------------------------------------------


def two():
    return {"a": np.zeros((4, 2)), "b": np.zeros((4, 3), "float32")}


def test_keep_names_the_variables_whose_draws_are_kept():
    whole = mc.sample(noise_kernel(), two(), draws=6, tune=0, seed=1)
    found = mc.sample(noise_kernel(), two(), draws=6, tune=0, seed=1, keep="b")
    assert list(found["posterior"].data_vars) == ["b"]
    assert [whole["posterior"][n].dtype.name for n in "ab"] == ["float64", "float32"]
    np.testing.assert_array_equal(found["posterior"].b, whole["posterior"].b)


def test_reductions_are_those_of_the_draws_and_need_none_kept():
    whole = mc.sample(noise_kernel(), two(), draws=100, tune=5, seed=1)["posterior"]
    found = mc.sample(
        noise_kernel(), two(), draws=100, tune=5, seed=1, keep=(), chunk=7,
        reduce=["mean", "variance", "r_hat"],
    )  # fmt: skip
    assert set(found.children) == {"reduced"}
    for name in "ab":
        draws = whole[name].values.astype("float64")
        reduced = found["reduced"][name]
        np.testing.assert_allclose(reduced.sel(metric="mean"), draws.mean((0, 1)))
        np.testing.assert_allclose(reduced.sel(metric="variance"), draws.var((0, 1), ddof=1))
        halves = draws.reshape(8, 50, -1)
        within, between = halves.var(1, ddof=1).mean(0), halves.mean(1).var(0, ddof=1)
        np.testing.assert_allclose(reduced.sel(metric="r_hat"), np.sqrt(between / within + 0.98))


def test_dims_and_coords_name_axes():
    found = mc.sample(
        noise_kernel(), two(), draws=3, tune=0, seed=1, keep=["a"], reduce="mean",
        dims={"a": ["side"], "b": ["place"]}, coords={"side": ["left", "right"]},
    )  # fmt: skip
    assert found["posterior"].a.dims == ("chain", "draw", "side")
    assert list(found["posterior"].side.values) == ["left", "right"]
    assert found["reduced"].b.dims == ("metric", "place")


def test_integers_and_several_axes_are_kept_as_they_are():
    random = T.shared_randomstreams.RandomStreams(8)
    kernel = mc.gibbs(lambda s: T.cast(random.binomial(s.shape, 1, 0.5), "int8"))
    found = mc.sample(kernel, {"s": np.zeros((2, 3, 4), "int8")}, draws=5, tune=0, seed=1)
    assert found["posterior"].s.dtype == "int8"
    assert found["posterior"].s.shape == (2, 5, 3, 4)


def test_a_list_of_floats_has_the_dtype_of_the_settings():
    found = mc.sample(Walk(), [[0.0, 1.0], [2.0, 3.0]], draws=1, tune=0, seed=1)
    assert x_of(found).dtype == config.floatX


def test_no_draws_are_a_tree_too():
    found = mc.sample(Walk(), START, draws=0, tune=5, seed=1)
    assert found["posterior"].x.shape == (5, 0, 3)
    assert found["sample_stats"]["scale"].shape == (5, 0)


# ---- values that are not finite -----------------------------------------------------------------


def test_what_is_not_finite_is_counted_and_stays_in_its_chain():
    kernel = mc.gibbs(lambda x: x * x)
    start = np.array([0.5, 1e10, -1.0], "float32")  # the second is Inf from its second draw on
    found = mc.sample(kernel, start, draws=6, tune=0)
    assert found.attrs["non_finite"] == '[[false, "x", 5, 1, 1]]'
    np.testing.assert_array_equal(np.isfinite(x_of(found)).all(1), [True, False, True])
    hidden = mc.sample(kernel, start, draws=6, tune=0, keep=())
    assert hidden.attrs["non_finite"] == '[[false, "x", 1, 5, 1]]'  # the last position


# ---- streams ------------------------------------------------------------------------------------


def test_chunks_follow_on_each_other_and_are_bounded():
    chunks = list(mc.stream(Walk(), START, draws=200, tune=10, seed=3, chunk_bytes=2000))
    sizes = [sum(v.nbytes for g in c.children.values() for v in g.data_vars.values())
             for c in chunks]  # fmt: skip
    assert max(sizes) <= 2000
    assert len(chunks) >= 200 * (60 + 40) // 2000
    np.testing.assert_array_equal(np.concatenate([c["posterior"].draw for c in chunks]), range(200))
    x = np.concatenate([x_of(c) for c in chunks], axis=1)
    np.testing.assert_array_equal(x, by_numpy(3, 200, 10)[1])


def test_a_group_that_the_caller_keeps_stays_whole():
    groups = [c["posterior"] for c in mc.stream(Walk(), START, draws=40, tune=0, seed=3, chunk=5)]
    x = np.concatenate([g.x for g in groups], axis=1)
    np.testing.assert_array_equal(x, by_numpy(3, 40, 0)[1])


def test_a_stream_has_the_warm_up_where_it_is_wanted():
    chunks = list(
        mc.stream(Walk(), START, draws=8, tune=8, seed=3, chunk=4, discard_tuned_samples=False)
    )
    assert [sorted(c.children)[0] for c in chunks] == ["warmup_posterior"] * 2 + ["posterior"] * 2


def test_an_endless_stream_goes_on_until_it_is_closed():
    with mc.stream(Walk(), START, tune=0, seed=3, chunk=10, reduce="mean") as run:
        for _ in range(7):
            chunk = next(run)
        assert chunk["posterior"].draw[-1] == 69
        assert run.draws == run.reduced.attrs["draws"] == 70
        np.testing.assert_array_equal(run.state["x"], x_of(chunk)[:, -1])
    assert list(run) == []


def computing():
    return [t for t in threading.enumerate() if t.name.startswith("gpuscan.mc")]


def test_the_next_chunk_is_computed_meanwhile():
    run = mc.stream(Walk(), START, tune=0, seed=3, chunk=10)
    next(run)
    pending = run._pending[1][0]
    assert pending.result(timeout=60).moved.samples["x"].shape == (10, 5, 3)
    run.close()


def test_a_stream_that_is_left_stops_computing():
    before = len(computing())
    for _ in mc.stream(Walk(), START, seed=3, chunk=10):
        assert len(computing()) == before + 1
        break
    gc.collect()
    for _ in range(200):
        if len(computing()) == before:
            break
        time.sleep(0.01)
    assert len(computing()) == before


def test_an_error_in_a_chunk_comes_through():
    table = gpuscan.shared(np.arange(20, dtype="float32"))

    def step(x, n):
        return [table[n], n + 1]

    start = {"x": np.zeros(2, "float32"), "n": np.array([0, 5])}
    run = mc.stream(mc.gibbs(step), start, tune=0, seed=1, chunk=5)
    assert [x_of(next(run))[1, -1], x_of(next(run))[1, -1], x_of(next(run))[1, -1]] == [9, 14, 19]
    with pytest.raises(IndexError):
        next(run)
    assert run.draws == 15


def test_a_run_of_any_length_holds_memory_constant():
    start = np.zeros((200, 50), "float32")

    def peak(draws):
        tracemalloc.start()
        for _ in mc.stream(Walk(), start, draws=draws, tune=0, seed=1, chunk=25, reduce="mean"):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(50)
    short, long = peak(100), peak(1500)
    assert 25 * start.nbytes < short  # NumPy's arrays are counted
    assert long < short + 50 * start.nbytes  # of 1400 more


def test_a_dropped_draw_costs_no_memory():
    start = np.zeros((200, 50), "float32")
    tracemalloc.start()
    mc.sample(Walk(), start, draws=2, tune=0, seed=1, thin=500)
    assert tracemalloc.get_traced_memory()[1] < 40 * start.nbytes
    tracemalloc.stop()


def test_functions_are_built_once_for_any_number_of_chains_and_steps():
    program = build(Walk(), {"x": START}, {}, False, True, ["x"], True, False, False, None)
    streams = initial_streams(9, program.streams)
    for chains, steps, thin in ((5, 4, 3), (2, 12, 1), (1, 3, 4)):
        state = program.begin({"x": START[:chains]})
        moved = program.move(False, steps, thin, state, streams, {})
        expected = by_numpy(9, 12, 0)[1][:chains, thin - 1 :: thin]
        np.testing.assert_array_equal(moved.samples["x"].swapaxes(0, 1), expected)
        np.testing.assert_array_equal(moved.streams, [[9, 12, 0]])


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("init", "options", "error", "text"),
    [
        ({"a": np.zeros((3, 1)), "b": np.zeros(4)}, {}, ValueError, "3 of 'a' and 4 of 'b'"),
        (np.zeros((0, 3)), {}, ValueError, "init has no chains"),
        ({}, {}, ValueError, "init has no variables"),
        (None, {}, ValueError, "init is missing"),
        (1.5, {}, ValueError, "'x' is a number"),
        (np.zeros(3, complex), {}, TypeError, "'x': dtype complex128"),
        (np.array([None, 1]), {}, TypeError, "'x': dtype object"),
        ([[1.0], [1.0, 2.0]], {}, TypeError, "'x' can't be an array"),
        ({"draw": START}, {}, ValueError, "no variable can be called 'draw'"),
        ({"own/x": START}, {}, ValueError, "'own/x' can't be a variable's name"),
        (T.matrix(), {}, TypeError, "'x' is the symbolic"),
        (np.full((2, 3), np.nan, "float32"), {}, ValueError, "'x' is not finite at the start"),
        (START, dict(chains=4), ValueError, "chains is 4, and init has 5"),
        (START, dict(draws=-1), ValueError, "draws is -1, expected at least 0"),
        (START, dict(draws=None), TypeError, "draws is None, expected an int"),
        (START, dict(draws=2.5), TypeError, "draws is 2.5, expected an int"),
        (START, dict(tune=-1), ValueError, "tune is -1"),
        (START, dict(thin=0), ValueError, "thin is 0, expected at least 1"),
        (START, dict(chunk=0), ValueError, "chunk is 0"),
        (START, dict(chunk_bytes=99), ValueError, "chunk_bytes is 99, and one draw .* takes 100"),
        (START, dict(chains_per_task=0), ValueError, "chains_per_task is 0"),
        (START, dict(executor=3), TypeError, "executor is 3, expected one with a method submit"),
        (START, dict(keep=["y"]), ValueError, "keep names 'y'; the variables are x"),
        (START, dict(reduce="median"), ValueError, "reduce names 'median', expected some of mean"),
        (START, dict(seed=-1), ValueError, "negative"),
        (START, dict(seed="one"), (TypeError, ValueError), "seed"),
        (START, dict(every=5), ValueError, "every is 5, but checkpoint names no file"),
        (START, dict(dims={"x": ["a", "b"]}), ValueError, "dims"),
        (START, dict(dims={"y": ["a"]}), ValueError, "y"),
        (START, dict(coords={"x_dim_0": [1, 2]}), ValueError, "coords"),
        (START, dict(device="abacus"), Exception, "abacus"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_bad_arguments_are_named_before_anything_runs(init, options, error, text):
    with pytest.raises(error, match=text) as caught:
        mc.sample(Walk(), init, **{"draws": 10**12, "tune": 0, **options})
    assert "\n" not in str(caught.value)


class Changed(Walk):
    """Walk with another step."""

    def __init__(self, step=None, start=None):
        self._step, self._start = step, start

    def step(self, state, random):
        new, stats = super().step(state, random)
        return self._step(new, stats, random) if self._step else (new, stats)

    def start(self, position):
        state = super().start(position)
        return self._start(state) if self._start else state


@pytest.mark.parametrize(
    ("kernel", "error", "text"),
    [
        (Changed(lambda n, s, r: ({**n, "x": n["x"].astype("float64")}, s)), TypeError,
         "walk step makes 'x' a float64 matrix .*, expected a float32 matrix .*Built at"),
        (Changed(lambda n, s, r: ({**n, "x": n["x"][:, :2]}, s)), TypeError, "makes 'x' a"),
        (Changed(lambda n, s, r: ({"x": n["x"]}, s)), ValueError, "walk step gives x, expected"),
        (Changed(lambda n, s, r: (n, {"lp": n["x"]})), ValueError, "statistic 'lp' is a float32 m"),
        (Changed(start=lambda s: {**s, "y": s["x"]}), ValueError, "adds 'y'"),
        (Changed(start=lambda s: {**s, OWN + "t": s["x"].sum()}), ValueError, "'own/t' is a scala"),
        (Changed(start=lambda s: {SCALE: s[SCALE]}), TypeError, "start.. makes 'x' nothing"),
        (Changed(start=lambda s: {**s, SCALE: s[SCALE][:3]}), ValueError, "'own/scale' has 3 rows"),
        (lambda x: x, TypeError, "expected what mc.gibbs.step., .* give"),
    ],
)  # fmt: skip
def test_a_kernel_that_breaks_the_protocol_is_named(kernel, error, text):
    with pytest.raises(error, match=text):
        mc.sample(kernel, START, draws=10, tune=0)


def test_a_step_that_updates_a_shared_variable_is_refused():
    count = gpuscan.shared(np.float32(0), "count")
    count.default_update = count + 1
    with pytest.raises(ValueError, match="would update the shared variable count"):
        mc.sample(mc.gibbs(lambda x: x + count), START, draws=3, tune=0)


@pytest.mark.parametrize("size", [lambda x: (3,), lambda x: x.T.shape, lambda x: (2 * 5,)])
def test_draws_that_cannot_be_shared_out_are_refused_where_they_would_be(size):
    random = T.shared_randomstreams.RandomStreams(8)

    def step(x):
        drawn = random.normal(size(x), dtype="float32", ndim=len(size(START)))
        return x + drawn.sum()

    mc.sample(mc.gibbs(step), START, draws=3, tune=0)
    with pytest.raises(ValueError, match="a random draw of the step has (3|10) rows for 5 chains"):
        mc.sample(mc.gibbs(step), START, draws=3, tune=0, chains_per_task=2)


def test_a_draw_with_as_many_rows_as_chains_by_chance_is_refused_too():
    random = T.shared_randomstreams.RandomStreams(8)
    kernel = mc.gibbs(lambda x: x + random.normal((5, 3), dtype="float32").sum())
    with pytest.raises(ValueError, match="has 5 rows for 10 chains"):
        mc.sample(kernel, START, draws=3, tune=0, chains_per_task=2)
