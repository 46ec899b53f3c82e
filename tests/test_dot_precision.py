"""config.dot_precision: what products on a CUDA device are accurate to."""

import numpy as np
import pytest
from models import MODELS

import gpuscan
from gpuscan import tensor as T
from gpuscan.config import config
from gpuscan.errors import DeviceError
from gpuscan.runtime import emulator

pytestmark = pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing())

# Half of what a factor's last bit is worth, relative to the factor: significands of 11, 8 and 11
# bits.
ROUNDING = {"float32": 2.0**-24, "tf32": 2.0**-11, "bf16": 2.0**-8, "fp16": 2.0**-11}


def product_of_a_step(precision, dtype="float32", hidden=48, batch=5):
    """h @ W as a loop of one step computes it, exactly, and what an error may be: the rounding of
    both factors of each term (2 u + u^2) and of a sum of float32."""
    rng = np.random.default_rng(3)
    h = rng.normal(size=(batch, hidden)).astype(dtype)
    weight = gpuscan.shared(rng.normal(size=(hidden, hidden)).astype(dtype), name="W")
    start, n = T.matrix("h", dtype=dtype), T.lscalar("n")
    rows, _ = gpuscan.scan(lambda h: T.dot(h, weight), outputs_info=start, n_steps=n)
    with config.change_flags(dot_precision=precision):
        f = gpuscan.function([start, n], rows[-1], device="emulated", fuse="always")
        found = f(h, 1)
    wide = [x.astype("float64") for x in (h, weight.get_value())]
    u = ROUNDING[precision]
    magnitude = np.abs(wide[0]) @ np.abs(wide[1])
    return f, found - wide[0] @ wide[1], (2 * u + u * u + hidden * 2.0**-24) * magnitude


@pytest.mark.parametrize("precision", ROUNDING)
def test_products_are_as_accurate_as_their_factors(precision):
    f, error, bound = product_of_a_step(precision)
    assert (np.abs(error) <= bound).all()
    assert f.explain().scans[0].scope == "block"
    if precision != "float32":  # and factors are rounded, not only said to be
        exact_sum = product_of_a_step("float32")[2].max()
        assert np.abs(error).max() > exact_sum


def test_double_precision_stays_as_it_is():
    _, error, _ = product_of_a_step("bf16", "float64")
    assert np.abs(error).max() < 1e-12


def test_an_architecture_without_the_type_says_so(monkeypatch):
    from gpuscan.codegen.limits import of
    from gpuscan.runtime.emulated import Emulated

    monkeypatch.setattr(Emulated, "limits", of("t4"))
    with pytest.raises(DeviceError, match="'bf16' needs sm_80, and t4 is an sm_75: use 'fp16'"):
        product_of_a_step("bf16")


# ---- outside of fused loops ----------------------------------------------------------------------


def product_of_two(precision, dtype="float32", shape=(7, 48, 9)):
    """x @ w[:, ::2] as a function of its own computes it, and the operands: one is a view."""
    rng = np.random.default_rng(4)
    given = [rng.normal(size=s).astype(dtype) for s in (shape[:2], (shape[1], 2 * shape[2]))]
    x, w = T.matrix("x", dtype=dtype), T.matrix("w", dtype=dtype)
    with config.change_flags(dot_precision=precision):
        f = gpuscan.function([x, w], T.dot(x, w[:, ::2]), device="emulated")
    return f(*given), given[0], given[1][:, ::2]


@pytest.mark.parametrize("precision", ROUNDING)
def test_products_outside_of_loops_are_as_accurate_as_their_factors(precision):
    """As in a loop: the rounding of both factors of each term, and of a sum of float32."""
    found, x, w = product_of_two(precision)
    exact, magnitude = (f(x.astype("d")) @ f(w.astype("d")) for f in (np.positive, np.abs))
    u, sums = ROUNDING[precision], len(w) * 2.0**-24
    error = np.abs(found - exact)
    assert (error <= ((2 * u + u * u) + sums) * magnitude).all()
    if precision == "float32":
        assert found.tobytes() == (x @ w).tobytes()
    else:
        assert error.max() > (sums * magnitude).max()


def test_products_of_double_precision_outside_of_loops_stay_as_they_are():
    found, x, w = product_of_two("bf16", "float64")
    assert found.tobytes() == (x @ w).tobytes()


def test_what_is_beyond_fp16_is_infinite():
    x = T.matrix("x")
    found = {}
    for precision in ("bf16", "fp16"):
        with config.change_flags(dot_precision=precision):
            f = gpuscan.function([x], T.dot(x, x.T), device="emulated")
        found[precision] = f(np.full((1, 1), 1e5, "f"))
    assert np.isinf(found["fp16"])
    assert np.abs(found["bf16"] - 1e10) < 1e10 * 2.0**-7


def test_outside_of_loops_a_gpu_without_the_type_computes_in_float32(monkeypatch):
    from gpuscan.codegen.limits import of
    from gpuscan.runtime.emulated import Emulated

    monkeypatch.setattr(Emulated, "limits", of("t4"))
    found, x, w = product_of_two("bf16")
    assert found.tobytes() == (x @ w).tobytes()
    found, x, w = product_of_two("fp16")
    assert found.tobytes() != (x @ w).tobytes()


@pytest.mark.parametrize("fuse", ["never", "auto"])
def test_launches_take_the_precision_of_when_the_function_was_made(monkeypatch, fuse):
    """In a loop that is launches, too: one that is found to be quicker so at its first call."""
    from gpuscan import compile_cuda
    from gpuscan.runtime.emulated import Emulated

    monkeypatch.setattr(compile_cuda, "in_launches", lambda launch, sequence: sequence())
    multiply, seen = Emulated.multiply, []

    def noted(self, found, x, y, precision):
        seen.append(precision)
        multiply(self, found, x, y, precision)

    monkeypatch.setattr(Emulated, "multiply", noted)
    x, h0, w = T.tensor3("x"), T.matrix("h0"), T.matrix("w")
    h, _ = gpuscan.scan(
        lambda x, h: T.tanh(T.dot(x, w) + T.dot(h, w)), sequences=x, outputs_info=h0
    )
    with config.change_flags(dot_precision="tf32"):
        f = gpuscan.function([x, h0, w], h[-1], device="emulated", fuse=fuse)
    f(np.ones((3, 2, 5), "f"), np.zeros((2, 5), "f"), np.ones((5, 5), "f"))
    assert seen == ["tf32"] * len(seen)
    assert len(seen) == 4  # of the inputs at once, and one a step


# ---- which there are ----------------------------------------------------------------------------


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="fp8"):
        config.dot_precision = "fp8"


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_an_lstm_and_its_gradient_stay_close(precision):
    """Errors of products do not grow over the steps of a loop that forgets: within 30 roundings of
    the factors, relative to the largest element."""
    rng = np.random.default_rng(5)
    hidden, batch, steps = 32, 4, 6
    u = gpuscan.shared((rng.normal(size=(hidden, 4 * hidden)) / 6).astype("float32"), name="U")
    x, h0, c0 = T.tensor3("x"), T.matrix("h0"), T.matrix("c0")

    def step(x, h, c):
        z = x + T.dot(h, u)
        i, f, o, g = (z[:, k * hidden : (k + 1) * hidden] for k in range(4))
        c = T.nnet.sigmoid(f) * c + T.nnet.sigmoid(i) * T.tanh(g)
        return T.nnet.sigmoid(o) * T.tanh(c), c

    (h, _), _ = gpuscan.scan(step, sequences=x, outputs_info=[h0, c0])
    outputs = [h, T.grad((h**2).sum(), u)]
    given = [
        rng.normal(size=(steps, batch, 4 * hidden)).astype("float32"),
        *np.zeros((2, batch, hidden), "float32"),
    ]
    wanted = gpuscan.function([x, h0, c0], outputs, device="reference")(*given)
    with config.change_flags(dot_precision=precision):
        found = gpuscan.function([x, h0, c0], outputs, device="emulated", fuse="always")(*given)
    for a, b in zip(found, wanted):
        error = np.abs(a - b).max() / np.abs(b).max()
        assert 1e-6 < error < 30 * ROUNDING[precision]


def unpublished(body, weights, traces, states):
    return body, []


@pytest.mark.parametrize("model", ["lstm", "gru_reset_before", "gru_reset_after", "elman"])
@pytest.mark.parametrize(("hidden", "batch", "precision"), [(16, 3, "bf16"), (40, 17, "fp16")])
def test_rows_that_are_exchanged_rounded_change_no_bit(
    monkeypatch, precision, model, hidden, batch
):
    """A factor is rounded by who leaves it, and not by who reads it: forward and backward."""
    from gpuscan.codegen import block_kernel
    from gpuscan.runtime.emulated import Emulated

    monkeypatch.setattr(Emulated, "scope", "grid")
    launched, launch = [], Emulated.launch

    def noted(self, kernel, what, arguments):
        launched.append(what.source)
        return launch(self, kernel, what, arguments)

    monkeypatch.setattr(Emulated, "launch", noted)
    made = MODELS[model](hidden)
    found = {}
    for steps in (1, 4):
        given = made.values(batch, steps, seed=2)
        for published in (True, False):
            with monkeypatch.context() as patch, config.change_flags(dot_precision=precision):
                if not published:
                    patch.setattr(block_kernel, "published", unpublished)
                launched.clear()
                found[published] = made.function("emulated")(*given)
                texts = [x for x in launched if "gs_held_wmma" in x]
                assert len(texts) == 2
                rounded = ["multiply_rounded" in x for x in texts]
                # what gru_reset_before multiplies with backward is in memory that is used again
                assert rounded == [published, published and model != "gru_reset_before"]
        for a, b in zip(found[True], found[False]):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("scope", ["block", "grid"])
def test_products_of_a_vector_read_a_whole_step(monkeypatch, scope):
    """A state without rows: how far apart they are says nothing of how many elements there are."""
    from gpuscan.runtime.emulated import Emulated

    monkeypatch.setattr(Emulated, "scope", scope)
    rng = np.random.default_rng(6)
    u = gpuscan.shared((rng.normal(size=(24, 24)) / 5).astype("float32"), name="U")
    x, h0 = T.matrix("x"), T.vector("h0")
    h, _ = gpuscan.scan(lambda x, h: T.tanh(x + T.dot(h, u)), sequences=x, outputs_info=h0)
    outputs = [h, T.grad((h**2).sum(), u)]
    given = [rng.normal(size=(5, 24)).astype("float32"), np.ones(24, "float32")]
    wanted = gpuscan.function([x, h0], outputs, device="reference")(*given)
    for precision, bound in (("float32", 1e-5), ("fp16", 30 * ROUNDING["fp16"])):
        with config.change_flags(dot_precision=precision):
            found = gpuscan.function([x, h0], outputs, device="emulated", fuse="always")(*given)
        for a, b in zip(found, wanted):
            assert np.abs(a - b).max() < bound * np.abs(b).max()


def test_half_as_many_bytes_are_exchanged():
    plans = {}
    for precision in ("float32", "fp16"):
        with config.change_flags(dot_precision=precision):
            made = MODELS["lstm"](1600)  # of which no half of the GPU holds the weights
            f = made.function("reference")
            f(*made.values(16, 2, seed=0))
            plans[precision] = f.explain(target="h100").scans
    for a, b in zip(plans["float32"], plans["fp16"]):
        assert a.kernel.exchanged == 2 * b.kernel.exchanged > 0
        assert b.kernel.kept == a.kernel.kept
