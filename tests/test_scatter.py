"""Additions at positions of integer arrays outside of loops, whatever adds them: in order; and
elements that a GPU reads at positions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscan import config, function
from gpuscan import tensor as T
from gpuscan.runtime import cuda_routines, emulator, scatter, threads


@given(
    rows=st.integers(1, 5), tail=st.sampled_from([(), (1,), (7,), (3, 2), (0,)]),
    where=st.lists(st.integers(-5, 4), max_size=12), twice=st.booleans(),
    dtype=st.sampled_from(["float32", "float64", "int64"]), whole=st.booleans(),
)  # fmt: skip
def test_each_position_gets_every_addition_in_order(rows, tail, where, twice, dtype, whole):
    where = np.array([w % rows - rows * (w < 0) for w in where], "int64")
    if twice:  # an index of two axes
        where = np.stack([where, where[::-1]])
    rng = np.random.default_rng(len(where))
    x = (rng.normal(size=(rows, *tail)) * 9).astype(dtype)
    y = (rng.normal(size=where.shape + tail if whole else tail) * 9).astype(dtype)
    expected = x.copy()
    for i, w in enumerate(where.reshape(-1)):
        expected[w] += np.broadcast_to(y, where.shape + tail).reshape(where.size, *tail)[i]

    i, a, b = T.as_tensor(where).type("i"), T.as_tensor(x).type("x"), T.as_tensor(y).type("y")
    f = function([a, b, i], T.inc_subtensor(a[i], b))
    kept = x.copy()
    np.testing.assert_array_equal(f(x, y, where), expected)
    np.testing.assert_array_equal(x, kept)


def test_a_position_out_of_range_is_an_error():
    x, i = T.matrix("x"), T.lvector("i")
    f = function([x, i], T.inc_subtensor(x[i], x[i]))
    with pytest.raises(IndexError, match="out of bounds"):
        f(np.ones((3, 2), "float32"), [0, 3])


@pytest.mark.own_device
def test_threads_share_the_columns():
    """As many as there are, whose number is odd and whose shares are uneven."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 1030)), rng.normal(size=(400, 1030))
    where = rng.integers(0, 9, 400)
    a, b, i = T.dmatrix("x"), T.dmatrix("y"), T.lvector("i")
    expected = function([a, b, i], T.inc_subtensor(a[i], b), device="reference")(x, y, where)
    f = function([a, b, i], T.inc_subtensor(a[i], b), device="native")
    assert x.size * 40 > scatter._WORTH_SHARING
    with config.change_flags(threads=3), pytest.MonkeyPatch.context() as patch:
        shares, run = [], threads.run
        patch.setattr(threads, "run", lambda k, s, *m: shares.append(s.count) or run(k, s, *m))
        np.testing.assert_array_equal(f(x, y, where), expected)
        assert shares == [3]


@pytest.mark.own_device
@pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing())
def test_on_a_gpu_one_launch_adds(monkeypatch):
    started, call = [], cuda_routines.Routine.__call__
    monkeypatch.setattr(
        cuda_routines.Routine, "__call__", lambda k, *a: started.append(k.name) or call(k, *a)
    )
    x, y, i = T.matrix("x"), T.matrix("y"), T.ivector("i")
    f = function([x, y, i], T.inc_subtensor(x[i], y), device="emulated")
    rows = np.arange(12, dtype="float32").reshape(4, 3)
    np.testing.assert_array_equal(
        f(np.ones((2, 3), "float32"), rows, [0, 1, -1, 1]), [[1, 2, 3], [19, 22, 25]]
    )
    assert started == ["scatter"]


INDICES = {
    "rows": lambda x, i: x[i],
    "columns": lambda x, i: x[:, i],
    "pairs": lambda x, i: x[i, i[::-1]],
    "of a slice": lambda x, i: x[1:, i, ::2],
    "apart": lambda x, i: x[i, :, i],
    "outer": lambda x, i: x[i[:, None], i],
    "one position": lambda x, i: x[i, 1],
}


@pytest.mark.own_device
@pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing())
@pytest.mark.parametrize("dtype", ["bool", "int16", "float32", "float64"])
@pytest.mark.parametrize("index", INDICES)
def test_on_a_gpu_one_launch_reads(monkeypatch, index, dtype):
    started, call = [], cuda_routines.Routine.__call__
    monkeypatch.setattr(
        cuda_routines.Routine, "__call__", lambda k, *a: started.append(k.name) or call(k, *a)
    )
    x, i = T.TensorType(dtype, (None,) * 3)("x"), T.ivector("i")
    f, g = (function([x, i], INDICES[index](x, i), device=d) for d in ("emulated", "reference"))
    values = (np.random.default_rng(0).normal(size=(4, 5, 4)) * 9).astype(dtype)
    for where in ([0, 1, -1, 1], [3], []):
        for table in (values, values[::-1], np.asfortranarray(values)):
            np.testing.assert_array_equal(f(table, where), g(table, where))
    assert set(started) == {"gather"}
    texts = []
    for h in (f, g):
        with pytest.raises(IndexError) as e:
            h(values, [0, 9])
        texts.append(str(e.value))
    assert texts[0] == texts[1]


@pytest.mark.own_device
@pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing())
@pytest.mark.parametrize("rows, wide", [(3, 70), (300, 70), (40, 1)])
def test_warps_share_rows_and_columns(rows, wide):
    """Also where they have several rows each, and one row gets most of what there is."""
    rng = np.random.default_rng(rows)
    where = np.where(rng.random(500) < 0.5, 1, rng.integers(0, rows, 500))
    x, y = (rng.normal(size=(n, wide)).astype("float32") for n in (rows, 500))
    a, b, i = T.fmatrix("x"), T.fmatrix("y"), T.lvector("i")
    f, g = (function([a, b, i], T.inc_subtensor(a[i], b), device=d)
            for d in ("emulated", "reference"))  # fmt: skip
    np.testing.assert_array_equal(f(x, y, where), g(x, y, where))


def test_rows_are_shared_out_as_there_are_warps():
    shares = cuda_routines._shares
    assert [shares(n, 1, 132) for n in (1, 2, 3, 104)] == [1, 2, 4, 128]
    assert shares(50_000, 32, 132) == 256 and shares(50_000, 10**9, 132) == 1
