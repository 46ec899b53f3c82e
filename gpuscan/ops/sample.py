"""Random draws as pure functions of a generator's state.

A state is a uint64 vector [key, n, r]: the key's low half is the seed's word, its high half the
site, and n is the number of the next draw. A draw reads (state, parameters, sizes), and the next
state is state + [0, 1, 0]; so what is drawn depends on seed, site, draw and element, and on nothing
else. r is 0 where one process draws everything; a draw with r > 0 is what follows the first r rows,
along the first axis, of a longer one. A draw without axes has no rows. Element i (in row-major
order, r rows included) takes these words of `philox.words(seed, site, n, lane)`:

    one word      float16 and float32 uniforms              word i of lane 0
    two words     float64 uniforms                          words 2i, 2i + 1 of lane 0
    any number    Binomial, Poisson, Multinomial: in turn   words 4i .. 4i + 3 of lanes 0, 1, ..

`Uniform` is the only draw that the rest is made from by elementwise functions and sorting, but for
counts: those are drawn by inversion where the mean is small, else by transformed rejection.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from .. import maths, philox
from ..graph import Op, Undefined, Variable, constant_leaf
from ..record import record
from ..types import FLOATS, TensorType, float_dtype
from .control import Require
from .convert import as_tensor, constant, static_int
from .elemwise import cast
from .reduce import cumsum
from .reduce import sum as total
from .scalar import add, clip, eq, floor, ge, gt, le, log, lt, normal_icdf, switch
from .shape import broadcast_to, dim, dims, dimshuffle

STATE = TensorType("uint64", (3,))

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def state_value(seed: int, site: int, draw: int = 0, rows: int = 0) -> npt.NDArray[np.uint64]:
    """The state of a site before draw number `draw`, whose first `rows` rows are drawn elsewhere;
    seed and site are 32-bit words."""
    return np.array([seed | site << 32, draw, rows], np.uint64)


def next_state(state: Variable) -> Variable:
    """The state after one draw."""
    return add(state, constant_leaf(np.array([0, 1, 0], np.uint64)))


def _key(state: Any) -> tuple[int, int, int]:
    """Seed, site and draw."""
    key = int(state[0])
    return key & 0xFFFFFFFF, key >> 32, int(state[1])


def _before(state: Any, shape: Sequence[int]) -> int:
    """How many elements of the draw are in the rows before this part of it."""
    return int(state[2]) * math.prod(shape[1:]) if shape else 0


def _check_state(state: Any) -> None:
    if not STATE.accepts(state):
        raise TypeError(f"the state of a random stream is a {STATE}, not a {state}")


def _undefined(op: Op) -> Undefined:
    return Undefined(f"a random draw ({op.label}) has no gradient for its parameters")


# ---- the base -------------------------------------------------------------------------------


@record
class Uniform(Op):
    """(state, *sizes) -> floats in the open interval (0, 1).

    float32 (r >> 9) 2^-23 + 2^-24; float64 the same with 52 bits of two words; float16 the same
    with 10 bits of a word.
    """

    dtype: str
    static: tuple[int | None, ...]  # the sizes that are known

    @property
    def steering(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(range(len(self.static) + 1))

    def infer(self, state: TensorType, *sizes: TensorType) -> TensorType:
        _check_state(state)
        if self.dtype not in FLOATS:
            raise TypeError(f"a uniform draw has a float dtype, not {self.dtype}")
        if any(s is not None and s < 0 for s in self.static):
            raise ValueError(f"negative size in the shape {self.static}")
        return TensorType(self.dtype, self.static)

    def eval(self, state: Any, *sizes: Any) -> Any:
        shape = tuple(int(s) for s in sizes)
        if any(s < 0 for s in shape):
            raise ValueError(f"negative size in the shape {shape}")
        count, first = math.prod(shape), _before(state, shape)
        if self.dtype == "float64":
            words = philox.words(*_key(state), 2 * count, start=2 * first)
            u: Any = philox.uniform64(words)
        else:
            words = philox.words(*_key(state), count, start=first)
            u = philox.uniform32(words) if self.dtype == "float32" else uniform16(words)
        return u.reshape(shape)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [None] * len(inputs)

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return inputs[1:]


def uniform16(words: philox.Words) -> npt.NDArray[np.float16]:
    """float16 in (0, 1), one word each: (r >> 22) 2^-10 + 2^-11."""
    u = (words >> np.uint32(22)).astype(np.float32)
    u *= np.float32(2.0**-10)
    u += np.float32(2.0**-11)
    return u.astype(np.float16)


def uniform(state: Variable, sizes: Sequence[Variable], dtype: str) -> Variable:
    """Uniform floats in (0, 1)."""
    return Uniform(dtype, tuple(static_int(s) for s in sizes))(state, *sizes)


# ---- compositions ---------------------------------------------------------------------------


def normal(state: Variable, sizes: Sequence[Variable], dtype: str) -> Variable:
    """Standard normal floats: the inverse CDF of a uniform (float16: of a float32 one)."""
    wide = "float32" if dtype == "float16" else dtype
    return cast(normal_icdf(uniform(state, sizes, wide)), dtype)


_TAIL = 0.022750131948179207  # the standard normal CDF at -2


def truncated_normal(state: Variable, sizes: Sequence[Variable], dtype: str) -> Variable:
    """Standard normal floats given that they lie in [-2, 2]: the inverse CDF between its values
    at the ends."""
    wide = "float32" if dtype == "float16" else dtype
    low, width, end = (constant(c, dtype=wide) for c in (_TAIL, 1 - 2 * _TAIL, 2))
    z = normal_icdf(low + width * uniform(state, sizes, wide))
    return cast(clip(z, -end, end), dtype)


def bernoulli(state: Variable, p: Variable, sizes: Sequence[Variable]) -> Variable:
    """bool: uniform < p, the uniform being of p's dtype but at least float32."""
    dtype = float_dtype(p.dtype)
    return lt(uniform(state, sizes, "float32" if dtype == "float16" else dtype), p)


def integers(state: Variable, n: Variable, sizes: Sequence[Variable]) -> Variable:
    """int64 in 0 .. n - 1: floor(n u) of a float64 uniform, so each has probability 1 / n up to
    2^-52. n must be below 2^52."""
    return cast(floor(uniform(state, sizes, "float64") * cast(n, "float64")), "int64")


def cdf(weights: Variable) -> Variable:
    """Running sums along the last axis over the whole, float64; the last is 1."""
    sums = cumsum(cast(weights, "float64"), axis=-1)
    return sums / dimshuffle(sums[..., -1], *range(sums.ndim - 1), "x")


def category(state: Variable, weights: Variable, sizes: Sequence[Variable]) -> Variable:
    """int64 in 0 .. k - 1 with probabilities in proportion to a vector of k weights: by the
    inverse CDF of a float64 uniform."""
    u = uniform(state, sizes, "float64")
    return cdf(weights).searchsorted(u, side="right")


def one_hot(state: Variable, weights: Variable) -> Variable:
    """bool, of the shape of `weights`: in each row along the last axis one element is true,
    with probabilities in proportion to the weights; one float64 uniform a row."""
    rows = dims(weights)[:-1]
    u = uniform(state, rows, "float64")
    passed = le(cdf(weights), dimshuffle(u, *range(u.ndim), "x"))
    chosen = total(passed, axis=-1)
    positions = Variable.operations["arange"](dim(weights, -1))
    return eq(positions, dimshuffle(chosen, *range(u.ndim), "x"))


def permutation(state: Variable, n: Variable, sizes: Sequence[Variable]) -> Variable:
    """int64 of shape (*sizes, n): each row 0 .. n - 1 in a random order, which is the order of n
    float64 uniforms. Two of them are equal, and then keep their order, with probability 2^-52."""
    return uniform(state, [*sizes, n], "float64").argsort(axis=-1)


def without_replacement(state: Variable, weights: Variable, k: Variable) -> Variable:
    """int64 (..., k): positions along the last axis of `weights`, drawn one after another without
    replacement in proportion to the weights. Raises ValueError when run with fewer than k
    positive weights.

    The k smallest of the exponential variates -log(u) / weight, in their order: Efraimidis and
    Spirakis, "Weighted random sampling with a reservoir" (2006), algorithm A.
    """
    w = cast(weights, "float64")
    positive = gt(w, 0)
    enough = ge(total(positive, axis=-1), k)
    w = Require(
        "Cannot take a larger sample than population when 'replace=False': fewer entries with a "
        "positive probability than the size of the sample",
        "ValueError",
    )(w, enough)
    waits = -log(uniform(state, dims(w), "float64")) / switch(positive, w, 1.0)
    order = switch(positive, waits, np.inf).argsort(axis=-1)
    return order[(..., slice(None, k))]


# ---- counts ---------------------------------------------------------------------------------


@record
class Binomial(Op):
    """(state, n, p) -> int64: the successes in n trials, n (int64) and p (float64) of one shape.

    n min(p, 1 - p) < 10: inversion of a float64 uniform, by the recurrence of the probabilities
    (BINV of Kachitvichyanukul and Schmeiser, 1988). Otherwise transformed rejection (BTRS of
    Hörmann, "The generation of binomial random variates", 1993), whose trials take lanes in turn.
    Exact but for rounding: n may be up to 2^31.
    """

    steering: ClassVar[tuple[int, ...]] = (0, 1)

    def infer(self, state: TensorType, n: TensorType, p: TensorType) -> TensorType:
        _check_state(state)
        if n.dtype != "int64" or p.dtype != "float64" or n.ndim != p.ndim:
            raise TypeError(f"Binomial takes int64 and float64 of one shape, not {n} and {p}")
        return TensorType("int64", p.shape)

    def eval(self, state: Any, n: Any, p: Any) -> Any:
        if np.any(n < 0):
            raise ValueError("binomial: n < 0")
        if not np.all((p >= 0) & (p <= 1)):
            raise ValueError("binomial: p < 0, p > 1 or p is NaN")
        index = _before(state, p.shape) + np.arange(p.size)
        return binomial_counts(state, index, np.ravel(n), np.ravel(p)).reshape(p.shape)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [None, None, _undefined(self)]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return dims(inputs[2])


@record
class Poisson(Op):
    """(state, mean) -> int64 of the shape of `mean`, a float64.

    mean < 10: inversion of a float64 uniform by the recurrence of the probabilities (Devroye,
    "Non-uniform random variate generation", 1986, X.3.3). Otherwise transformed rejection (PTRS of
    Hörmann, "The transformed rejection method for generating Poisson random variables", 1993),
    whose trials take lanes in turn. Exact but for rounding: the mean may be up to 2^31.
    """

    steering: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, state: TensorType, mean: TensorType) -> TensorType:
        _check_state(state)
        if mean.dtype != "float64":
            raise TypeError(f"Poisson takes a float64 mean, not {mean}")
        return TensorType("int64", mean.shape)

    def eval(self, state: Any, mean: Any) -> Any:
        if not np.all((mean >= 0) & (mean < 2.0**63)):
            raise ValueError("poisson: the mean is negative, NaN or too large")
        index = _before(state, mean.shape) + np.arange(mean.size)
        return poisson_counts(state, index, np.ravel(mean)).reshape(mean.shape)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [None, _undefined(self)]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return dims(inputs[1])


@record
class Multinomial(Op):
    """(state, n, weights) -> int64 of the shape of `weights`: how often each of the categories
    along the last axis comes up in n trials; n (int64) has the shape of the leading axes.

    One binomial a category, given what the categories before it left (Devroye, 1986, XI.1.5).
    """

    steering: ClassVar[tuple[int, ...]] = (0, 1)

    def infer(self, state: TensorType, n: TensorType, weights: TensorType) -> TensorType:
        _check_state(state)
        if n.dtype != "int64" or weights.dtype != "float64" or n.ndim != weights.ndim - 1:
            raise TypeError(
                f"Multinomial takes int64 and float64 with one more axis, not {n} and {weights}"
            )
        return TensorType("int64", weights.shape)

    def eval(self, state: Any, n: Any, weights: Any) -> Any:
        k = weights.shape[-1]
        rows = np.reshape(weights, (-1, k)) if weights.size else np.zeros((0, k))
        # what a category and those after it weigh: the last with any weight gets what is left
        rest = np.cumsum(rows[:, ::-1], axis=1)[:, ::-1]
        if np.any(n < 0):
            raise ValueError("multinomial: n < 0")
        if not np.all(rows >= 0) or not np.all((rest[:, :1] > 0) & np.isfinite(rest[:, :1])):
            raise ValueError("multinomial: pvals < 0, pvals is NaN, or a row of pvals sums to 0")
        counts = np.zeros(rows.shape, np.int64)
        left = np.ravel(n).astype(np.int64)
        # one distribution is no row of several: it is the same for all
        before = _before(state, weights.shape) if weights.ndim > 1 else 0
        first = before + np.arange(len(rows)) * k
        for j in range(k - 1):
            p = np.divide(rows[:, j], rest[:, j], out=np.zeros(len(rows)), where=rest[:, j] > 0)
            counts[:, j] = binomial_counts(state, first + j, left, p)
            left = left - counts[:, j]
        counts[:, k - 1 :] = left[:, None]
        return counts.reshape(weights.shape)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [None, None, _undefined(self)]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return dims(inputs[2])


def binomial(state: Variable, n: Variable, p: Variable, sizes: Sequence[Variable]) -> Variable:
    """int64: the successes in n trials."""
    return Binomial()(
        state, broadcast_to(cast(n, "int64"), sizes), broadcast_to(cast(p, "float64"), sizes)
    )


def poisson(state: Variable, mean: Variable, sizes: Sequence[Variable]) -> Variable:
    """int64 Poisson variates."""
    return Poisson()(state, broadcast_to(cast(mean, "float64"), sizes))


def multinomial(
    state: Variable, n: Variable, weights: Variable, sizes: Sequence[Variable]
) -> Variable:
    """int64 of shape (*sizes, k): counts of k categories in n trials."""
    rows = broadcast_to(cast(weights, "float64"), [*sizes, dim(weights, -1)])
    return Multinomial()(state, broadcast_to(cast(as_tensor(n), "int64"), sizes), rows)


# ---- how counts are drawn -------------------------------------------------------------------

_SMALL = 10.0  # the mean from which rejection is used; both methods hold there
_NEGLIGIBLE = 2.0**-60  # a probability that a 52-bit uniform can't resolve


def binomial_counts(state: Any, index: Integers, n: Integers, p: Floats) -> Integers:
    """Binomial(n, p) for the elements of these indices; all arrays are flat."""
    flipped = p > 0.5
    q = np.where(flipped, 1 - p, p)
    trials = n.astype(np.float64)
    counts = np.zeros(len(index), np.int64)

    small = trials * q < _SMALL
    m, s = trials[small], q[small]
    u, _ = uniform_pair(state, index[small], 0)
    none = maths.exp(m * maths.log1p(-s))
    counts[small] = _inverse(u, none, lambda k: (m - k) / (k + 1) * (s / (1 - s)))

    large = ~small
    m, s = trials[large], q[large]
    deviation = np.sqrt(m * s * (1 - s))
    mode = np.floor((m + 1) * s)
    b = 1.15 + 2.53 * deviation
    odds = maths.log(s / (1 - s))
    base = maths.gammaln(mode + 1) + maths.gammaln(m - mode + 1)

    def log_ratio(k: Floats, of: Integers) -> Floats:
        """log(P(k) / P(mode)), -inf outside 0 .. n."""
        inside = np.clip(k, 0, m[of])
        value = base[of] - maths.gammaln(inside + 1) - maths.gammaln(m[of] - inside + 1)
        value = value + (inside - mode[of]) * odds[of]
        return np.where(inside == k, value, -np.inf)

    counts[large] = _transformed_rejection(
        state, index[large], -0.0873 + 0.0248 * b + 0.01 * s, b, m * s + 0.5,
        (2.83 + 5.1 / b) * deviation, 0.92 - 4.2 / b, log_ratio,
    )  # fmt: skip
    return np.where(flipped, n - counts, counts)


def poisson_counts(state: Any, index: Integers, mean: Floats) -> Integers:
    """Poisson(mean) for the elements of these indices; all arrays are flat."""
    counts = np.zeros(len(index), np.int64)
    small = mean < _SMALL
    m = mean[small]
    u, _ = uniform_pair(state, index[small], 0)
    counts[small] = _inverse(u, maths.exp(-m), lambda k: m / (k + 1))

    large = ~small
    m = mean[large]
    log_m = maths.log(m)
    b = 0.931 + 2.53 * np.sqrt(m)

    def log_probability(k: Floats, of: Integers) -> Floats:
        inside = np.maximum(k, 0)
        value = inside * log_m[of] - m[of] - maths.gammaln(inside + 1)
        return np.where(inside == k, value, -np.inf)

    counts[large] = _transformed_rejection(
        state, index[large], -0.059 + 0.02483 * b, b, m + 0.43,
        1.1239 + 1.1328 / (b - 3.4), 0.9277 - 3.6224 / (b - 2), log_probability,
    )  # fmt: skip
    return counts


def uniform_pair(state: Any, index: Integers, lane: int) -> tuple[Floats, Floats]:
    """Per index i two float64 uniforms: of words 4i, 4i + 1 and 4i + 2, 4i + 3 of the lane."""
    seed, site, draw = _key(state)
    i = index.astype(np.uint64)
    counter = np.empty((len(i), 4), np.uint32)
    counter[:, 0] = i & _LOW
    counter[:, 1] = ((i >> _32 << np.uint64(16)) + np.uint64(lane)) & _LOW
    counter[:, 2] = draw & 0xFFFFFFFF
    counter[:, 3] = draw >> 32
    words = philox.philox4x32(counter, np.array([seed, site], np.uint32))
    u = philox.uniform64(words.reshape(-1)).reshape(-1, 2)
    return u[:, 0], u[:, 1]


def _inverse(u: Floats, first: Floats, ratio: Callable[[Floats], Floats]) -> Integers:
    """The least k with u < P(0) + ... + P(k), where P(0) = first and P(k + 1) = ratio(k) P(k)."""
    k, p, sums = np.zeros(len(u)), first, first
    going = np.ones(len(u), bool)
    while True:
        p = p * ratio(k)
        going = going & (u >= sums) & (p > _NEGLIGIBLE)
        if not going.any():
            return k.astype(np.int64)
        k = k + going
        sums = sums + p


def _transformed_rejection(
    state: Any, index: Integers, a: Floats, b: Floats, c: Floats, alpha: Floats, sure: Floats,
    log_f: Callable[[Floats, Integers], Floats],
) -> Integers:  # fmt: skip
    """k = floor((2 a / (1/2 - |u|) + b) u + c) for u uniform in (-1/2, 1/2), taken where a second
    uniform v is below `sure` in the middle, or else where it is below the ratio of log_f's
    density to that of k. Element by element a trial takes one lane."""
    result = np.zeros(len(index), np.int64)
    left = np.arange(len(index))
    lane = 0
    while left.size:
        u, v = uniform_pair(state, index[left], lane)
        u = u - 0.5
        edge = 0.5 - np.abs(u)
        a_, b_ = a[left], b[left]
        k = np.floor((2 * a_ / edge + b_) * u + c[left])
        bound = maths.log(v * alpha[left] / (a_ / (edge * edge) + b_))
        taken = ((edge >= 0.07) & (v <= sure[left])) | (bound <= log_f(k, left))
        result[left[taken]] = k[taken].astype(np.int64)
        left = left[~taken]
        lane += 1
    return result
