"""Work outside of loops: what shares a nest, which nests share a kernel, and that they compute the
same. On the native and the emulated device."""

import numpy as np
import pytest

import gpuscan
from gpuscan import optim
from gpuscan import tensor as T
from gpuscan.codegen import nest
from gpuscan.codegen.nest import lower_nests
from gpuscan.codegen.program import Scratch
from gpuscan.config import config
from gpuscan.graph import toposort
from gpuscan.ops.create import Arange
from gpuscan.ops.softmax import LogSoftmax, Softmax
from gpuscan.runtime import threads
from gpuscan.runtime.device import missing
from gpuscan.runtime.emulated import Emulated

DEVICES = [
    pytest.param(d, marks=pytest.mark.skipif(bool(missing(d)), reason=f"{missing(d)}"))
    for d in ("native", "emulated")
]
on_both = pytest.mark.parametrize("where", DEVICES)


@pytest.fixture
def kernels(monkeypatch):
    """The kernels that were started, one after the other."""
    found = []
    run, launch = threads.run, Emulated.launch

    def started(kernel, shares, *rest):
        found.append(shares.count)
        return run(kernel, shares, *rest)

    def launched(self, kernel, what, arguments):
        found.append(what.grid)
        return launch(self, kernel, what, arguments)

    monkeypatch.setattr(threads, "run", started)
    monkeypatch.setattr(Emulated, "launch", launched)
    return found


def arrays(count, dtype="float32", seed=0):
    """Arrays of so many different shapes."""
    rng = np.random.default_rng(seed)
    shapes = [[(5 + k,), (3 + k, 7), (2, 3, k + 1), (1, 4 + k)][k % 4] for k in range(count)]
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def on_reference(inputs, outputs, *given):
    return gpuscan.function(inputs, outputs, device="reference")(*given)


def nests_of(outputs, lanes=True):
    f = gpuscan.function([], outputs, device="reference", on_unused_input="ignore")
    return lower_nests(f.maker.fgraph.outputs, lanes=lanes)


def close(found, expected, rtol=1e-5, atol=1e-7):
    for x, y in zip(found, expected, strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        np.testing.assert_allclose(x, y, rtol, atol)


# ---- the updates of an optimizer -----------------------------------------------------------------


@on_both
@pytest.mark.parametrize("count", [1, 3, 12])
def test_updates_are_one_kernel_and_the_norm_one_more(kernels, where, count):
    """Adam's, of parameters of different shapes. On a GPU what follows from the norm is another
    one, as the host would have to wait for the norm."""

    def trained(device, bound):
        params, grads = ([gpuscan.shared(a) for a in arrays(count, seed=s)] for s in (0, 1))
        clipped, _ = optim.clip_by_global_norm(grads, bound) if bound else (grads, None)
        updates = optim.adam(clipped, params)
        f = gpuscan.function([], updates=updates, device=device)
        f()
        kernels.clear()
        f()
        return len(kernels), [s.get_value() for s in updates]

    for bound, number in ((None, 1), (0.1, 2 if where == "native" else 3)):
        started, values = trained(where, bound)
        assert started == number
        close(values, trained("reference", bound)[1], 2e-5)


def test_a_schedule_is_computed_in_a_kernel_too(kernels):
    """NumPy has no cosine that gives the same bits, and takes a hundred microseconds for one."""
    w, g = gpuscan.shared(np.ones(3)), gpuscan.shared(np.ones(3))
    updates = optim.sgd([g], [w], optim.cosine_decay(0.1, 10))
    f = gpuscan.function([], updates=updates, device="native")
    kernels.clear()
    f()
    assert len(kernels) == 2
    for _ in range(3):
        f()
    rates = [0.05 * (1 + np.cos(np.pi * k / 10)) for k in range(4)]
    np.testing.assert_allclose(w.get_value(), 1 - sum(rates), rtol=1e-14)


def test_a_kernel_has_no_more_parameters_than_cuda_allows():
    params, grads = ([gpuscan.shared(a) for a in arrays(45, seed=s)] for s in (0, 1))
    updates = list(optim.adam(grads, params).values())
    for lanes in (True, False):
        found = nests_of(updates, lanes)
        sizes = [len(n.program.pointers) + len(n.program.integers) for n in found]
        assert 2 <= len(found) <= 8 and max(sizes) <= nest.MOST_PARAMETERS
    close(gpuscan.function([], updates, device="native")(), on_reference([], updates))


# ---- what shares a nest --------------------------------------------------------------------------


def test_operands_whose_sizes_have_to_agree_share_a_nest():
    x, y, z = (gpuscan.shared(a) for a in np.ones((3, 4, 5), "f4"))
    (found,) = nests_of([(x + 1) * y, T.exp(z) - y, T.tanh(x)])
    assert len(found.program.pieces) == 1
    for other in (np.ones((4, 6), "f4"), np.ones((5, 5), "f4")):
        z.set_value(other)
        for outputs in ([(x + 1) * y, T.exp(z) - y], [(x + 1) * y, T.exp(z) * 2, T.tanh(z) - y]):
            with pytest.raises(ValueError, match="Input dimension mis-match"):
                gpuscan.function([], outputs, device="native")()


def test_what_only_later_values_of_its_shape_read_waits_for_them():
    """A number from the host stands between the two halves of the chain."""
    x, y = (gpuscan.shared(a) for a in np.ones((2, 4, 5), "f4"))
    scale = gpuscan.shared(2.0)
    factor = T.cast(scale * scale - 1 / scale, "float32")
    mean = 0.9 * x + 0.1 * y
    (found,) = nests_of([mean, y - mean * factor])
    assert [v.op.label for v in found.values] == ["add", "sub"]


# ---- which nests share a kernel ------------------------------------------------------------------


def test_sums_of_what_is_there_anyway_share_a_kernel_and_others_do_not():
    """A value that only a sum reads would have to wait in memory for the other sums."""
    x, y = (gpuscan.shared(np.ones((4, 4), "f4")) for _ in range(2))
    (both,) = nests_of([(x * x).sum(), (y * y).sum()])
    assert len(both.program.pieces) == 2
    a, b = T.dot(x, y), T.dot(y, x)
    assert [len(n.program.pieces) for n in nests_of([(a * a).sum(), (b * b).sum()])] == [1, 1]
    (both,) = nests_of([(a * a).sum(), (b * b).sum(), a, b])
    assert len(both.program.pieces) == 2


def test_a_kernel_that_needs_another_comes_behind_it():
    """Two chains of the same length, which a product joins crosswise."""
    x, y = (gpuscan.shared(np.eye(3, dtype="f4") + k) for k in range(2))
    p, q = T.exp(-x), T.exp(-y) + 1
    r, s = T.tanh(T.dot(p, q)), T.dot(q, r0 := T.tanh(p.T))
    outputs = [r * s + 1, T.exp(s) - r0, p * r]
    close(gpuscan.function([], outputs, device="native", fuse="auto")(), on_reference([], outputs))


@on_both
def test_nests_of_all_kinds_in_one_kernel(kernels, where):
    x = [T.fmatrix() for _ in range(4)]
    outputs = [
        T.exp(x[0]) + 1, T.tanh(x[1][:1]) * 2, (x[2] * x[2]).sum(), T.exp(x[3]).sum(axis=1),
        T.exp(x[2]).max(), (x[3] * 2 + 1).sum(axis=0), (abs(x[1]) * 2).T, T.log1p(x[0].sum() ** 2),
    ]  # fmt: skip
    f = gpuscan.function(x, outputs, device=where)
    for rows in ((3, 5, 700, 4), (1, 1, 1, 1), (900, 2, 3, 60), (0, 3, 0, 0)):
        given = [np.random.default_rng(n).normal(size=(n, 6)).astype("f4") for n in rows]
        if not all(rows):
            with pytest.raises(ValueError, match="zero-size array"):
                f(*given)
            continue
        kernels.clear()
        close(f(*given), on_reference(x, outputs, *given), 1e-5, 1e-5)
    assert len(kernels) < len(outputs)


@on_both
def test_one_of_the_nests_may_be_empty(where):
    x, y = T.fmatrix(), T.fmatrix()
    outputs = [T.exp(x) + 1, T.tanh(y) * 2, (x * x).sum(), (y * y).sum(), T.exp(x).sum(axis=1)]
    f = gpuscan.function([x, y], outputs, device=where)
    for shapes in (((0, 3), (2, 2)), ((3, 0), (2, 2)), ((0, 0), (0, 5))):
        given = [np.ones(s, "f4") for s in shapes]
        close(f(*given), on_reference([x, y], outputs, *given))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_threads_share_them_by_their_work(kernels, monkeypatch, count):
    monkeypatch.setattr(threads, "WORTH_SHARING", 1)
    values = [*arrays(9, "float64"), np.ones((2, 4000)), np.ones((4000, 2)), np.ones((0, 3))]
    given = [gpuscan.shared(a) for a in values]
    outputs = [T.exp(x) * 2 + k for k, x in enumerate(given)] + [(x * x).sum() for x in given]
    with config.change_flags(threads=count):
        found = gpuscan.function([], outputs, device="native")()
    assert kernels == [count]
    assert all(np.array_equal(a, b) for a, b in zip(found[:12], on_reference([], outputs[:12])))
    close(found[12:], on_reference([], outputs[12:]), 1e-14)


# ---- sums ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3_000_000,), (3000, 1000), (1, 1, 999_999), (100_000, 3, 1)])
def test_a_long_sum_in_float32_loses_little(shape):
    x = T.TensorType("float32", (None,) * len(shape))()
    values = np.random.default_rng(1).random(shape, "float32")
    found = gpuscan.function([x], (x * x).sum(), device="native")(values)
    exact = (values.astype("float64") ** 2).sum()
    assert abs(found / exact - 1) < 3e-7


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 511, 512, 513, 1500])
def test_sums_of_every_length(n):
    x, y = T.imatrix(), T.dvector()
    outputs = [(x * 2 + 1).sum(), (x.T / 2).sum(dtype="float64"), T.exp(y).sum(), T.sqrt(y).prod()]
    f = gpuscan.function([x, y], outputs, device="native")
    given = np.arange(3 * n, dtype="int32").reshape(3, n), np.linspace(0, 1, n)
    close(f(*given), on_reference([x, y], outputs, *given), 1e-13)


AXES = [0, 1, 2, (0, 1), (0, 2), (1, 2)]


@pytest.mark.parametrize("kind", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("shape", [(5, 7, 70), (1, 9, 3), (33, 1, 1), (64, 2, 33)])
def test_reductions_along_axes_are_shared_and_stay_the_same(monkeypatch, shape, kind):
    monkeypatch.setattr(threads, "WORTH_SHARING", 1)
    x = T.dtensor3()
    outputs = [getattr(y, kind)(axis=axes) for y in (x, T.exp(x / 9)) for axes in AXES]
    values = np.random.default_rng(1).normal(size=shape) + 1
    values[:, :1, -1:] = np.nan if kind in ("max", "min") else -0.0
    f = gpuscan.function([x], outputs, device="native")
    found = []
    for count in (1, 2, 3):
        with config.change_flags(threads=count):
            found.append(f(values))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    close(found[0], on_reference([x], outputs, values), 1e-13, 1e-13)


def test_an_extreme_of_nothing_is_refused():
    x = T.fmatrix()
    f = gpuscan.function([x], [x.max(axis=0), T.exp(x).min(axis=1)], device="native")
    assert [len(y) for y in f(np.ones((2, 3), "float32"))] == [3, 2]
    for shape in ((0, 3), (3, 0)):
        with pytest.raises(ValueError, match="zero-size array"):
            f(np.ones(shape, "float32"))


@pytest.mark.parametrize("shape", [(5, 7, 70), (1, 9, 3), (33, 1, 1), (2, 0, 3), (0, 4, 3)])
@on_both
def test_softmaxes_are_kernels_and_the_same_to_the_bit(kernels, where, shape):
    x = T.TensorType("float32", (None,) * 3)()
    outputs = [op(axis)(y) for op in (Softmax, LogSoftmax) for axis in range(3)
               for y in (x, T.exp(x) * 2)]  # fmt: skip
    values = np.random.default_rng(1).normal(size=shape).astype("float32")
    values[:, -1:, :1] = np.nan
    values[:, :1, -1:] = np.inf
    f = gpuscan.function([x], outputs, device=where)
    found = f(values)
    assert kernels or not values.size
    for a, b in zip(found, on_reference([x], outputs, values), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_threads_share_the_rows_of_a_softmax(kernels, monkeypatch, count):
    monkeypatch.setattr(threads, "WORTH_SHARING", 1)
    x = T.fmatrix()
    values = np.random.default_rng(1).normal(size=(50, 9)).astype("float32")
    with config.change_flags(threads=count):
        found = gpuscan.function([x], T.nnet.softmax(x), device="native")(values)
    assert kernels == [count]
    np.testing.assert_array_equal(found, on_reference([x], [T.nnet.softmax(x)], values)[0])


# ---- rows ----------------------------------------------------------------------------------------


def cross_entropy(x, y):
    z = x - x.max(axis=1, keepdims=True)
    return T.log(T.exp(z).sum(axis=1)) - (z * y).sum(axis=1)


def layer_norm(x, y):
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / T.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5) * y


BY_ROWS = {
    "cross entropy": lambda x, y: [cross_entropy(x, y)],
    "its gradients": lambda x, y: T.grad(cross_entropy(x, y).sum(), [x, y]),
    "layer norm": lambda x, y: [layer_norm(x, y)],
    "its gradient": lambda x, y: [T.grad((layer_norm(x, y) * y).sum(), x)],
    "softmax of a softmax": lambda x, y: [T.nnet.softmax(T.nnet.softmax(x) * y) + y],
}


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("case", BY_ROWS)
def test_what_needs_the_same_rows_is_one_kernel(kernels, monkeypatch, case, count):
    monkeypatch.setattr(threads, "WORTH_SHARING", 1)
    x, y = T.fmatrix(), T.fmatrix()
    outputs = BY_ROWS[case](x, y)
    f = gpuscan.function([x, y], outputs, device="native")
    for shape in ((60, 37), (1, 5), (3, 1), (0, 4)):
        rng = np.random.default_rng(1)
        given = [rng.normal(size=shape).astype("float32") for _ in range(2)]
        kernels.clear()
        with config.change_flags(threads=count):
            found = f(*given)
        assert len(kernels) == 1
        close(found, on_reference([x, y], outputs, *given), 1e-4, 1e-5)
    assert lower_nests(f.maker.fgraph.outputs)


@pytest.mark.parametrize("columns", [5, None])
@pytest.mark.parametrize("kind", ["sum", "prod", "max"])
def test_a_worker_computes_no_more_than_its_rows(monkeypatch, kind, columns):
    """What a reduction adds up is not stored before, of all rows."""
    monkeypatch.setattr(threads, "WORTH_SHARING", 1)
    x = T.TensorType("float64", (None, columns))()
    outputs = [getattr(T.exp(y) - 1, kind)(axis=axis) for axis in (0, 1) for y in (x, x[:, ::-1])]
    of_both = gpuscan.function([x], [*outputs, *BY_ROWS["its gradients"](x, x)], device="reference")
    for found in lower_nests(of_both.maker.fgraph.outputs):
        assert not any(isinstance(p, Scratch) for p in found.program.pointers)
    values = np.random.default_rng(1).normal(size=(40, columns or 70)) / 9
    for count in (1, 2, 3):
        with config.change_flags(threads=count):
            found = gpuscan.function([x], outputs, device="native")(values)
        close(found, on_reference([x], outputs, values), 1e-12)


def test_few_values_of_many_rows_are_work_as_well(kernels):
    """Of a group of many nests the largest says how much there is to do."""
    x, y = T.fmatrix(), T.fmatrix()
    outputs = BY_ROWS["its gradients"](x, y)
    given = [np.random.default_rng(1).normal(size=(2048, 103)).astype("float32") for _ in range(2)]
    with config.change_flags(threads=2):
        gpuscan.function([x, y], outputs, device="native")(*given)
    assert kernels == [2]


def test_positions_are_computed_where_they_are_read():
    x, n = T.fmatrix(), T.lscalar()
    outputs = [T.exp(x) * T.arange(x.shape[1]), T.eq(T.arange(n, n + 3 * x.shape[0], 3)[:, None],
               T.cast(x * 9, "int64")) * 2 + 1]  # fmt: skip
    values = np.random.default_rng(1).random((60, 37), "float32")
    f = gpuscan.function([x, n], outputs, device="native")
    assert any(isinstance(v.op, Arange) for v in toposort(f.maker.fgraph.outputs))
    for k in (0, 4):
        close(f(values, k), on_reference([x, n], outputs, values, k))
    found = lower_nests(f.maker.fgraph.outputs)
    assert found and not any(isinstance(v.op, Arange) for nest in found for v in nest.operands)


def test_what_needs_other_rows_or_something_in_between_is_another_kernel(kernels):
    x, y = T.dmatrix(), T.dmatrix()
    first = T.exp(x) * 2
    others = [
        T.sin(first[::-1]) * 3, T.sin(first.T) * 3, (first * 2).sum(axis=0) * 2 + 1,
        T.sin(T.dot(first, y)) * 2, T.cos(T.roll(first, 1, axis=0)) + 1,
        T.exp(first[:, None, :] - first[None, :, :]).sum(axis=2),
    ]  # fmt: skip
    given = [np.random.default_rng(1).normal(size=(6, 6)) for _ in range(2)]
    for other in others:
        outputs = [first, other]
        kernels.clear()
        found = gpuscan.function([x, y], outputs, device="native", on_unused_input="ignore")(*given)
        assert len(kernels) > 1
        wanted = gpuscan.function([x, y], outputs, device="reference", on_unused_input="ignore")
        close(found, wanted(*given), 1e-12)


def test_kernels_do_not_wait_for_each_other_in_a_circle():
    """Of two chains of rows each needs a product with the other's first value."""
    x, y, w = T.dmatrix(), T.dmatrix(), T.dmatrix()
    a, b = T.exp(x) * 2, T.sin(y) * 2
    outputs = [
        T.tanh(a - a.max(axis=1, keepdims=True) + T.dot(b, w)) * 2,
        T.cos(b - b.max(axis=1, keepdims=True) + T.dot(a, w)) * 2,
    ]
    given = [np.random.default_rng(k).normal(size=(5, 5)) for k in range(3)]
    found = gpuscan.function([x, y, w], outputs, device="native")(*given)
    close(found, on_reference([x, y, w], outputs, *given), 1e-12)
