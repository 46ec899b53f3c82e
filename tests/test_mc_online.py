"""Moments and split R-hat of draws that aren't kept; values that aren't finite."""

import io
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscan.mc.kernel import Chunk
from gpuscan.mc.online import Moments, NonFinite

pytestmark = pytest.mark.own_device  # these use none


def draws_of(chains=4, draws=60, shape=(3,), seed=0, dtype="float64"):
    """Correlated draws of chains around different means: (chains, draws, ...)."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(chains, draws, *shape))
    shift = random.normal(size=(chains, 1, *shape)) / 4
    return (np.cumsum(noise, axis=1) / 9 + noise + shift + 5).astype(dtype)


def chunks_of(x, lengths, chains=None):
    at = 0
    for n in lengths:
        numbers = np.arange(len(x)) if chains is None else chains
        yield Chunk(False, at, numbers, {"x": x[:, at : at + n]}, {})
        at += n


def moments_of(x, lengths, total=None, **options):
    found = Moments(total, **options)
    for chunk in chunks_of(x, lengths):
        found.update(chunk)
    return found


def lengths_of(total, seed):
    """Lengths that sum to total."""
    random, left = np.random.default_rng(seed), total
    while left:
        n = min(left, int(random.integers(1, 1 + random.choice([1, 5, 50]))))
        yield n
        left -= n


def split_r_hat(first, last):
    """From its definition, for halves of draws: (chains, draws)."""
    parts = np.concatenate([first, last])
    n = parts.shape[1]
    within = parts.var(axis=1, ddof=1).mean()
    between = n * parts.mean(axis=1).var(ddof=1)
    return np.sqrt(((n - 1) / n * within + between / n) / within)


@given(st.integers(2, 90), st.integers(0, 9), st.booleans(), st.sampled_from(["f4", "f8"]))
def test_mean_and_variance_are_those_of_all_draws(draws, seed, known, dtype):
    x = draws_of(draws=draws, dtype=dtype, seed=seed)
    found = moments_of(x, lengths_of(draws, seed), draws if known else None)
    wide = x.astype("float64")
    assert found.count == draws
    np.testing.assert_allclose(found.mean()["x"], wide.mean((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(found.variance()["x"], wide.var((0, 1), ddof=1), rtol=1e-12)
    mean, variance = found.chain_moments()["x"]
    np.testing.assert_allclose(mean, wide.mean(1), rtol=1e-12)
    np.testing.assert_allclose(variance, wide.var(1, ddof=1), rtol=1e-11)


def test_a_mean_far_from_zero_leaves_the_variance_its_digits():
    x = draws_of() + 1e9
    exact = (x - 1e9).var((0, 1), ddof=1)  # 1e9 is exact in float64, and so is the difference
    np.testing.assert_allclose(moments_of(x, [7] * 8 + [4]).variance()["x"], exact, rtol=1e-6)


@given(st.integers(4, 200), st.integers(0, 9))
def test_r_hat_of_a_run_of_known_length_splits_all_of_it(draws, seed):
    x = draws_of(draws=draws, shape=(), seed=seed)
    found = moments_of(x, lengths_of(draws, seed), draws)
    half = draws // 2
    expected = split_r_hat(x[:, :half], x[:, draws - half :])
    np.testing.assert_allclose(found.r_hat()["x"], expected, rtol=1e-12)


@pytest.mark.parametrize("draws", [100, 101])
def test_r_hat_is_arvizs_split_r_hat(draws):
    az = pytest.importorskip("gpuscan.mc.output").import_arviz()
    x = draws_of(draws=draws, shape=())
    found = moments_of(x, [draws], draws)
    np.testing.assert_allclose(found.r_hat()["x"], az.rhat(x, method="split"), rtol=1e-12)


def test_r_hat_of_an_endless_run_splits_what_is_complete():
    """Blocks of 4, then of 8, ...: two or three of them, whose first and last are the halves."""
    x = draws_of(draws=100, shape=())
    found, seen = Moments(), {}
    for chunk in chunks_of(x, [1] * 100):
        found.update(chunk)
        seen[found.count] = found.r_hat()["x"]
    assert all(np.isnan(seen[n]) for n in range(1, 8))
    for n, (length, start) in {
        8: (4, 4),
        12: (4, 8),
        16: (8, 8),
        30: (8, 16),
        64: (32, 32),
    }.items():
        expected = split_r_hat(x[:, :length], x[:, start : start + length])
        np.testing.assert_allclose(seen[n], expected, rtol=1e-12)
    assert seen[71] == seen[64] and seen[96] != seen[64]


def test_r_hat_tells_chains_that_stay_apart():
    x = np.random.default_rng(0).normal(size=(4, 400))
    assert moments_of(x, [400]).r_hat()["x"] < 1.02
    x[2] += 1
    assert moments_of(x, [400]).r_hat()["x"] > 1.1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_chain_that_is_not_finite_concerns_no_other(bad):
    x = draws_of(chains=5)
    x[3, 17, 1] = bad
    found = moments_of(x, [10] * 6, 60)
    others = np.delete(x, 3, axis=0)
    without = moments_of(others, [10] * 6, 60)
    for what in ("mean", "variance", "r_hat"):
        values, expected = getattr(found, what)()["x"], getattr(without, what)()["x"]
        np.testing.assert_allclose(values[1], expected[1], rtol=1e-12)
    np.testing.assert_allclose(found.mean()["x"][[0, 2]], x.mean((0, 1))[[0, 2]], rtol=1e-12)
    assert np.isnan(moments_of(x[3:4], [60]).mean()["x"][1])


@given(st.integers(0, 70), st.integers(0, 9), st.booleans())
def test_a_stored_state_goes_on_bit_for_bit(cut, seed, known):
    x = draws_of(draws=71)
    total = 71 if known else None
    lengths = [*lengths_of(cut, seed), *lengths_of(71 - cut, seed + 1)]
    whole = moments_of(x, lengths, total)
    stored, at = Moments(total), 0
    for chunk in chunks_of(x, lengths):
        if chunk.first == cut:
            file = io.BytesIO()
            np.savez(file, **stored.arrays())
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                stored = Moments.from_arrays(arrays)
            at += 1
        stored.update(chunk)
    assert at == 1
    first, second = whole.arrays(), stored.arrays()
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


def test_tasks_merge_in_the_order_of_their_chains():
    x = draws_of(chains=6, draws=53)
    whole = moments_of(x, [20, 33], 53)
    parts = []
    for numbers in ([4, 5], [0, 1, 2, 3]):
        part = Moments(53)
        for chunk in chunks_of(x[numbers], [20, 33], np.array(numbers)):
            part.update(chunk)
        parts.append(part)
    merged = parts[0].merge(parts[1])
    for name, values in whole.arrays().items():
        np.testing.assert_array_equal(merged.arrays()[name], values)
    with pytest.raises(ValueError, match="share a chain"):
        merged.merge(merged)
    with pytest.raises(ValueError, match="53 draws"):
        merged.merge(Moments(53))


def test_what_does_not_follow_is_refused():
    x = draws_of()
    chunks = list(chunks_of(x, [30, 30]))
    found = Moments(50)
    with pytest.raises(ValueError, match="draws from 30 on"):
        found.update(chunks[1])
    found.update(chunks[0])
    with pytest.raises(ValueError, match="60 draws in a run of 50"):
        found.update(chunks[1])
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Moments(0)
    with pytest.raises(ValueError, match="no variable 'y'; there are x"):
        Moments(names=["y"]).update(chunks[0])


def test_the_warm_up_does_not_count():
    x, found = draws_of(), Moments()
    found.update(Chunk(True, 0, np.arange(4), {"x": x}, {}))
    assert found.count == 0 and found.mean() == {}


def test_integers_and_booleans():
    x = np.random.default_rng(0).integers(0, 2, (4, 40))
    for dtype in ("int64", "bool", "int8"):
        found = moments_of(x.astype(dtype), [40])
        np.testing.assert_allclose(found.mean()["x"], x.mean())
        np.testing.assert_allclose(found.variance()["x"], x.var(ddof=1))


def test_as_labelled_array():
    found = moments_of(draws_of(), [60])
    labelled = found.to_xarray(dims={"x": ["side"]}, coords={"side": ["a", "b", "c"]})
    assert labelled["x"].dims == ("metric", "side")
    row = labelled["x"].sel(side="b")
    np.testing.assert_array_equal(row.sel(metric="mean"), found.mean()["x"][1])
    np.testing.assert_array_equal(row.sel(metric="sd"), np.sqrt(found.variance()["x"][1]))
    np.testing.assert_array_equal(row.sel(metric="r_hat"), found.r_hat()["x"][1])


def test_memory_does_not_grow_with_the_run():
    random, found = np.random.default_rng(0), Moments()
    element = 8 * 50 * 400  # bytes of a float64 for each
    tracemalloc.start()
    sizes = []
    for i in range(128):
        x = random.random((50, 8, 400))
        found.update(Chunk(False, 8 * i, np.arange(50), {"x": x}, {}))
        sizes.append(tracemalloc.get_traced_memory()[0] - x.nbytes)
    tracemalloc.stop()
    assert max(sizes) < 8.1 * element
    assert max(sizes[64:]) < 1.01 * max(sizes[16:64])


# ---- values that aren't finite -------------------------------------------------------------------


def test_non_finite_values_are_counted_and_the_first_is_named():
    x, lp = draws_of(chains=3), np.zeros((3, 60))
    x[2, 41, 0] = x[1, 41, 2] = np.nan
    x[2, 55] = np.inf
    lp[0, 3] = -np.inf
    energy = np.full((3, 60), np.nan)  # a trajectory that diverged has none
    whole = NonFinite()
    whole.update(Chunk(False, 100, np.array([7, 8, 9]), {"x": x}, {"lp": lp, "energy": energy}))
    assert whole.lines() == [
        "x: 5 values not finite, first at draw 141 of chain 8",
        "lp: 1 value not finite, first at draw 103 of chain 7",
    ]
    parts = NonFinite()
    for i in range(3):  # each chain alone, in two chunks
        for at in (30, 0):
            part, rows = NonFinite(), (slice(i, i + 1), slice(at, at + 30))
            samples, stats = {"x": x[rows]}, {"lp": lp[rows]}
            part.update(Chunk(False, 100 + at, np.array([7 + i]), samples, stats))
            parts = parts.merge(part)
    assert parts.found == whole.found
    assert NonFinite.from_json(whole.to_json()).found == whole.found


def test_the_warm_up_is_told_from_the_draws():
    found = NonFinite()
    found.update(Chunk(True, 0, np.arange(1), {"x": np.full((1, 2), np.nan)}, {}))
    found.update(
        Chunk(False, 0, np.arange(1), {"x": np.ones((1, 2)), "k": np.ones((1, 2), int)}, {})
    )
    assert found.lines() == ["x: 2 values not finite in the warm-up, first at draw 0 of chain 0"]
