"""gpuscan.maths: accuracy in ulp, special values, dtypes and shapes."""

import math

import numpy as np
import pytest

from gpuscan import maths

special = pytest.importorskip("scipy.special", reason="accuracy is measured against SciPy")

WIDE = np.longdouble
# Where long double is double, references are off by an ulp themselves.
SLACK = 0.0 if np.finfo(WIDE).nmant > 60 else 1.0


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def in_double(f):
    """SciPy's float64: a reference for float32 only, since it is off by up to 100 ulp itself."""

    def reference(x):
        return f(x.astype(np.float64)).astype(WIDE)

    return reference


def logarithmic(low, high):
    return lambda rng, n: np.exp(rng.uniform(np.log(low), np.log(high), n))


def uniform(low, high):
    return lambda rng, n: rng.uniform(low, high, n)


# name, reference, samples, ulp in float32, ulp in float64
ACCURACY = [
    ("exp", np.exp, uniform(-103, 88.7), 1, 1),
    ("exp2", np.exp2, uniform(-148, 127.9), 1.1, 1.1),
    ("expm1", np.expm1, uniform(-20, 88), 2, 2),
    ("expm1", np.expm1, logarithmic(1e-30, 1), 2, 2),
    ("log", np.log, logarithmic(1e-44, 3e38), 1, 1),
    ("log", np.log, uniform(0.5, 2), 1, 1),
    ("log2", np.log2, uniform(0.1, 10), 1, 1),
    ("log10", np.log10, uniform(0.1, 10), 1, 1),
    ("log1p", np.log1p, uniform(-0.9999, 5), 1, 1),
    ("log1p", np.log1p, logarithmic(1e-30, 1e30), 1, 1),
    ("tanh", np.tanh, uniform(-10, 10), 2.5, 2.5),
    ("tanh", np.tanh, logarithmic(1e-30, 1), 2.5, 2.5),
    ("sigmoid", sigmoid, uniform(-100, 30), 2.5, 2.5),
    ("softplus", softplus, uniform(-100, 30), 2, 2),
    ("sin", np.sin, uniform(-8000, 8000), 2.5, 2.5),
    ("sin", np.sin, uniform(-7, 7), 2, 2),
    ("cos", np.cos, uniform(-8000, 8000), 2.5, 2.5),
    ("cos", np.cos, uniform(-7, 7), 2, 2),
    ("tan", np.tan, uniform(-7, 7), 3.5, 3.5),
    ("arcsin", np.arcsin, uniform(-1, 1), 2.5, 2.5),
    ("arccos", np.arccos, uniform(-1, 1), 2, 2),
    ("arctan", np.arctan, uniform(-5, 5), 2.5, 2.5),
    ("sinh", np.sinh, uniform(-89, 89), 3, 2),
    ("sinh", np.sinh, uniform(-2, 2), 2, 2),
    ("cosh", np.cosh, uniform(-89, 89), 3, 2),
    ("arcsinh", np.arcsinh, uniform(-5, 5), 2, 2),
    ("arcsinh", np.arcsinh, logarithmic(1e-30, 1e30), 2, 2),
    ("arccosh", np.arccosh, uniform(1, 5), 2, 2),
    ("arctanh", np.arctanh, uniform(-1, 1), 2, 2),
    ("erf", in_double(special.erf), uniform(-4, 4), 2.5, 2.5),
    ("erfc", in_double(special.erfc), uniform(-4, 9), 5, 5),
    ("erfinv", in_double(special.erfinv), uniform(-1, 1), 6, 6),
    ("erfcinv", in_double(special.erfcinv), logarithmic(1e-30, 1), 6, 6),
    ("normal_icdf", in_double(special.ndtri), logarithmic(1e-37, 0.45), 6, 6),
    ("normal_icdf", in_double(special.ndtri), uniform(0.51, 1), 6, 6),
    ("gammaln", in_double(special.gammaln), logarithmic(1e-30, 1e30), 3, 3),
    ("gammaln", in_double(special.gammaln), uniform(0.5, 4), 3, 3),
    ("gamma", in_double(special.gamma), uniform(1e-3, 34), 5, 5),
    ("gamma", in_double(special.gamma), uniform(-5, -1e-3), 8, 8),
    ("psi", in_double(special.psi), logarithmic(1e-30, 1e30), 4, 4),
    ("psi", in_double(special.psi), uniform(1, 12), 5, 5),
]


# In mpmath, for the float64 of these.
PRECISE = {
    "erf": lambda m, x: m.erf(x),
    "erfc": lambda m, x: m.erfc(x),
    "erfinv": lambda m, x: m.erfinv(x),
    "erfcinv": lambda m, x: m.erfinv(1 - x),
    "normal_icdf": lambda m, x: m.sqrt(2) * m.erfinv(2 * x - 1),
    "gammaln": lambda m, x: m.re(m.loggamma(x)),
    "gamma": lambda m, x: m.gamma(x),
    "psi": lambda m, x: m.digamma(x),
}


def ulps(got, wanted):
    """Distance in units of the last place of the answer; 0 where the answer is rightly rounded."""
    rounded = wanted.astype(got.dtype)
    step = np.spacing(np.abs(rounded)).astype(WIDE)
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    with np.errstate(all="ignore"):
        return np.where(same, 0, np.abs(got.astype(WIDE) - wanted) / step).astype(np.float64)


CASES = [(*row[:4], np.float32) for row in ACCURACY]
CASES += [(*row[:3], row[4] + SLACK, np.float64) for row in ACCURACY if row[0] not in PRECISE]


@pytest.mark.parametrize("name, reference, draw, bound, real", CASES)
def test_accuracy(name, reference, draw, bound, real):
    x = draw(np.random.default_rng(3), 60_000).astype(real)
    got = getattr(maths, name)(x)
    assert got.dtype == real
    with np.errstate(all="ignore"):
        error = ulps(got, reference(x.astype(WIDE)))
    i = int(error.argmax())
    assert error[i] <= bound, f"{error[i]} ulp at {x[i]!r}"


@pytest.mark.parametrize(
    "name, draw, bound", [(r[0], r[2], r[4]) for r in ACCURACY if r[0] in PRECISE]
)
def test_accuracy_of_special_float64(name, draw, bound):
    mpmath = pytest.importorskip("mpmath")
    x = draw(np.random.default_rng(6), 200)
    if name in ("erfcinv", "normal_icdf"):
        x = x[x > 1e-14]
    with mpmath.workdps(60):
        wanted = [mpmath.nstr(PRECISE[name](mpmath, mpmath.mpf(float(v))), 25) for v in x]
    error = ulps(getattr(maths, name)(x), np.array([WIDE(v) for v in wanted]))
    i = int(error.argmax())
    assert error[i] <= bound + SLACK, f"{error[i]} ulp at {x[i]!r}"


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_power_accuracy(real):
    rng = np.random.default_rng(4)
    most = 87 if real is np.float32 else 700
    x = np.exp(rng.uniform(-6, 6, 60_000)).astype(real)
    y = (rng.uniform(-most, most, x.size) / np.log(x)).astype(real)
    # Long double keeps 11 bits more, of which a power this large takes 10.
    error = ulps(maths.power(x, y), np.power(x.astype(WIDE), y.astype(WIDE)))
    assert error.max() <= (1.1 if real is np.float32 else 1.5 + SLACK)


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_arctan2_accuracy(real):
    rng = np.random.default_rng(5)
    y, x = rng.normal(size=(2, 60_000)).astype(real)
    assert ulps(maths.arctan2(y, x), np.arctan2(y.astype(WIDE), x.astype(WIDE))).max() <= 3


def test_large_angles():
    for x in [1e6, 1e10, 1e22, 6381956970095103.0 * 2.0**797, 1.7e308]:
        # The C library reduces exactly; the fourth is the worst case of float64.
        assert maths.sin(x) == pytest.approx(math.sin(x), rel=4e-16)
        assert maths.cos(x) == pytest.approx(math.cos(x), rel=4e-16)
    for x in np.array([8193, 1e5, 1e10, 1e20, 3e38], np.float32):
        assert maths.sin(x) == pytest.approx(math.sin(float(x)), rel=2.5e-7)
        assert maths.cos(x) == pytest.approx(math.cos(float(x)), rel=2.5e-7)


INF, NAN = math.inf, math.nan
SPECIAL = {
    "exp": [(-INF, 0.0), (0.0, 1.0), (-0.0, 1.0), (INF, INF), (-1e30, 0.0), (1e30, INF)],
    "exp2": [(-INF, 0.0), (INF, INF), (10.0, 1024.0), (-3.0, 0.125)],
    "expm1": [(-INF, -1.0), (-0.0, -0.0), (0.0, 0.0), (INF, INF), (1e-40, 1e-40)],
    "log": [(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (-1.0, NAN), (INF, INF), (-INF, NAN)],
    "log2": [(0.0, -INF), (8.0, 3.0), (0.25, -2.0), (-1.0, NAN), (INF, INF)],
    "log10": [(0.0, -INF), (1000.0, 3.0), (-1.0, NAN), (INF, INF)],
    "log1p": [(-1.0, -INF), (-2.0, NAN), (-0.0, -0.0), (0.0, 0.0), (INF, INF), (-INF, NAN)],
    "tanh": [(-INF, -1.0), (-0.0, -0.0), (0.0, 0.0), (INF, 1.0), (1e-40, 1e-40)],
    "sigmoid": [(-INF, 0.0), (0.0, 0.5), (INF, 1.0)],
    "softplus": [(-INF, 0.0), (INF, INF), (1e30, 1e30)],
    "sinh": [(-INF, -INF), (-0.0, -0.0), (INF, INF)],
    "cosh": [(-INF, INF), (0.0, 1.0), (INF, INF)],
    "arcsinh": [(-INF, -INF), (-0.0, -0.0), (INF, INF)],
    "arccosh": [(1.0, 0.0), (0.5, NAN), (INF, INF), (-INF, NAN)],
    "arctanh": [(1.0, INF), (-1.0, -INF), (2.0, NAN), (-0.0, -0.0), (INF, NAN)],
    "sin": [(-0.0, -0.0), (0.0, 0.0), (INF, NAN), (-INF, NAN)],
    "cos": [(0.0, 1.0), (INF, NAN)],
    "tan": [(-0.0, -0.0), (INF, NAN)],
    "arcsin": [(-0.0, -0.0), (1.5, NAN), (INF, NAN)],
    "arccos": [(1.0, 0.0), (1.5, NAN)],
    "arctan": [(-0.0, -0.0)],
    "normal_icdf": [(0.0, -INF), (1.0, INF), (0.5, 0.0), (-0.1, NAN), (1.1, NAN)],
    "erf": [(-INF, -1.0), (-0.0, -0.0), (INF, 1.0)],
    "erfc": [(-INF, 2.0), (0.0, 1.0), (INF, 0.0)],
    "erfinv": [(1.0, INF), (-1.0, -INF), (2.0, NAN), (-0.0, -0.0)],
    "erfcinv": [(0.0, INF), (2.0, -INF), (1.0, 0.0), (3.0, NAN), (-1.0, NAN)],
    "gammaln": [(0.0, INF), (1.0, 0.0), (2.0, 0.0), (-3.0, INF), (INF, INF), (-INF, INF)],
    "gamma": [
        (0.0, INF),
        (-0.0, -INF),
        (1.0, 1.0),
        (5.0, 24.0),
        (-2.0, NAN),
        (INF, INF),
        (-INF, NAN),
    ],
    "psi": [(0.0, -INF), (-0.0, INF), (-1.0, NAN), (INF, INF)],
}


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_special_values(name, real):
    function = getattr(maths, name)
    assert np.isnan(function(real(NAN)))
    for x, y in SPECIAL[name]:
        got, wanted = function(real(x)), real(y)
        assert type(got) is real
        assert (np.isnan(got) and np.isnan(wanted)) or (
            got == wanted and np.signbit(got) == np.signbit(wanted)
        ), (name, x, got)


EDGES = [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 2.5, -2.5, INF, -INF, NAN]
EDGES += [1e-40, -1e-40, 1e30, -1e30, 2.0**23 + 1, -(2.0**24) - 2]


@pytest.mark.parametrize("name", ["power", "arctan2", "mod", "floor_divide"])
@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_two_arguments_at_edges(name, real):
    x, y = np.meshgrid(np.array(EDGES, real), np.array(EDGES, real))
    got = getattr(maths, name)(x, y)
    with np.errstate(all="ignore"):
        wanted = getattr(np, name)(x, y)
    assert got.dtype == real
    # In reach of NumPy's own rounding; zeros, infinities, NaN and all signs exactly.
    np.testing.assert_allclose(got, wanted, rtol=1e-6 if real is np.float32 else 1e-14, atol=0)
    same = np.isnan(wanted) | (np.signbit(got) == np.signbit(wanted))
    assert same.all()


@pytest.mark.parametrize("name", [n for n in SPECIAL if n not in ("normal_icdf",)])
def test_shapes_and_dtypes(name):
    function = getattr(maths, name)
    grid = np.random.default_rng(0).uniform(0.1, 0.9, (3, 40, 100)).astype(np.float32)
    whole = function(grid)
    assert whole.shape == grid.shape
    # Blocks, strides and orders change no bit.
    assert np.array_equal(function(grid[:, ::3, ::-2]), whole[:, ::3, ::-2], equal_nan=True)
    assert np.array_equal(function(grid.T), whole.T, equal_nan=True)
    assert function(grid[:0]).shape == (0, 40, 100)
    assert function(np.array(0.5)).shape == ()
    half = grid.astype(np.float16)
    wanted = function(half.astype(np.float32)).astype(np.float16)
    assert function(half).dtype == np.float16
    assert np.array_equal(function(half), wanted, equal_nan=True)


def test_arguments_are_left_alone():
    x = np.linspace(-2, 2, 50)
    kept = x.copy()
    for name in SPECIAL:
        getattr(maths, name)(x)
        assert np.array_equal(x, kept), name


def test_broadcasting():
    x, y = np.ones((3, 1), np.float32) * 2, np.arange(4, dtype=np.float32)
    assert maths.power(x, y).tolist() == [[1, 2, 4, 8]] * 3
    assert maths.power(x, 3.0).dtype == np.float32
    assert type(maths.power(2.0, 3.0)) is np.float64


def test_complex_is_refused():
    with pytest.raises(TypeError, match="exp: no exact form for complex128"):
        maths.exp(1j)
