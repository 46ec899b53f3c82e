"""Random streams: containers whose methods each make a stream of draws.

`rng.uniform(...)` makes a new stream, a site of the container: a shared state, and a variable that
is redrawn at every call of a function (and at every step of a scan), for the state's default
update is the next state. Sites are numbered in the order of the calls, so the same seed and the
same calls give the same numbers, on every device.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..config import config
from ..graph import Constant, Variable, constant_leaf
from ..ops import sample
from ..ops.control import Require, UndefinedGrad, ifelse
from ..ops.convert import as_tensor, constant, constant_value, static_int
from ..ops.elemwise import cast
from ..ops.indexing import take
from ..ops.reduce import sum as total
from ..ops.scalar import abs_, add, eq, ge, le, true_div
from ..ops.shape import as_int64, broadcast_to, dim, dims, product, reshape, sizes_list, with_ones
from ..ops.sorting import take_along_axis
from ..shared import SharedVariable
from ..types import FLOATS, dtype_name, promote

Draw = Callable[[Variable], Variable]

_WORD = 0xFFFFFFFF


class Streams:
    """What both containers share; they differ in the numbering of their sites, in the defaults
    of some methods, and in the gradient.

    The arguments `size`, `ndim` and `dtype` mean the same everywhere. size: an int or a tuple of
    ints and symbolic integers, where -1 takes the size from the parameters; a symbolic vector such
    as x.shape, which needs ndim where its length is not known; or None, the parameters' shape. A
    draw broadcasts its parameters to that size. The gradient with respect to the parameters is
    undefined (NullTypeGradError).
    """

    _first_site = 0
    _too_wide: type[Exception] = ValueError

    def __init__(self, seed: Any = None) -> None:
        self.default_instance_seed = seed
        self.state_updates: list[tuple[SharedVariable, Variable]] = []
        self._word = self.word_of(seed)

    # ---- the container ------------------------------------------------------------------------

    @staticmethod
    def word_of(seed: Any) -> int:
        """A seed as a 32-bit word. An int below 2^32 is that word itself; the digits d of a
        larger one, base 2^32 from the highest, and the ints of a sequence are folded in turn as
        h = h * 2654435769 + d.

        Raises ValueError for a negative seed, TypeError for what is not an int.
        """
        if seed is None:
            return int.from_bytes(os.urandom(4), "little")
        word = 0
        for number in seed if isinstance(seed, list | tuple | np.ndarray) else [seed]:
            value = int(number) if isinstance(number, int | np.integer) else static_int(number)
            if value is None:
                raise TypeError(f"a seed is an int or several ints, not {seed!r}")
            if value < 0:
                raise ValueError(f"a seed can't be negative, got {seed!r}")
            for shift in range((max(value.bit_length(), 1) - 1) // 32 * 32, -1, -32):
                word = word * 2654435769 + (value >> shift & _WORD) & _WORD
        return word

    def seed(self, seed: Any = None) -> None:
        """Starts every stream again as if the container had been made with this seed; None
        takes the seed that it was made with."""
        self._word = self.word_of(self.default_instance_seed if seed is None else seed)
        for k, (state, _) in enumerate(self.state_updates):
            state.set_value(self._initial(k), borrow=True)

    def updates(self) -> list[tuple[SharedVariable, Variable]]:
        """(state, next state) of every stream."""
        return list(self.state_updates)

    def __getitem__(self, item: Any) -> np.ndarray:
        """The value of a stream's state; `item` is the state, or the draw."""
        return self._state_of(item).get_value()

    def __setitem__(self, item: Any, value: Any) -> None:
        self._state_of(item).set_value(value)

    def _state_of(self, item: Any) -> SharedVariable:
        state = item if isinstance(item, SharedVariable) else getattr(item, "rng", None)
        if not any(state is known for known, _ in self.state_updates):
            raise KeyError(f"{item} is no stream of this container")
        return state  # type: ignore[return-value]

    def _initial(self, k: int) -> np.ndarray:
        return sample.state_value(self._word, self._first_site + k)

    def _stream(
        self, draw: Draw, dtype: Any, parameters: Sequence[Variable] = (), fixed: bool = True
    ) -> Variable:
        """A new stream, which `draw` makes from its state. fixed: no gradient is defined for the
        parameters."""
        k = len(self.state_updates)
        state = SharedVariable(sample.STATE, self._initial(k), f"rng_{k}")
        state.tag.is_rng = True  # type: ignore[attr-defined]
        new = sample.next_state(state)
        state.default_update = new
        result = cast(draw(state), dtype_name(dtype))
        symbolic = [p for p in parameters if not isinstance(p, Constant)]
        if fixed and symbolic:
            reason = "a random draw has no gradient for its parameters"
            result = UndefinedGrad(reason)(result, *symbolic)
        self.state_updates.append((state, new))
        result.rng = result.rstate = state
        result.update = (state, new)
        return result

    def _affine(
        self, kind: Callable[..., Variable], size: Any, shift: Any, scale: Any, ndim: int | None,
        dtype: str, fixed: bool,
    ) -> Variable:  # fmt: skip
        """shift + scale * z, of a standard variate z."""
        shift, scale = cast(shift, dtype), cast(scale, dtype)
        sizes = _sizes(size, ndim, shift, scale)
        plain = _is(shift, 0) and _is(scale, 1)

        def draw(state: Variable) -> Variable:
            z = kind(state, sizes, dtype)
            return z if plain else self._of_size(shift + scale * z, sizes)

        return self._stream(draw, dtype, (shift, scale), fixed)

    def _of_size(self, result: Variable, sizes: Sequence[Variable]) -> Variable:
        """The result, which parameters must not make wider than the size that was asked for."""
        ones = [i for i, s in enumerate(sizes) if static_int(s) == 1]
        for axis in ones:
            if result.type.shape[axis] not in (1, None):
                raise self._too_wide(
                    f"size is 1 on axis {axis}, where a parameter is wider: increase the size to "
                    "match the broadcasting pattern of the parameters"
                )
        return with_ones(result, ones)

    # ---- the draws ----------------------------------------------------------------------------

    def random_integers(
        self, size: Any = None, low: Any = 0, high: Any = 1, ndim: int | None = None,
        dtype: Any = "int64",
    ) -> Variable:  # fmt: skip
        """Integers from low to high, both included; high - low must be below 2^52."""
        low, high = (cast(as_tensor(b), "int64") for b in (low, high))
        ends = constant_value(low), constant_value(high)
        if ends[0] is not None and ends[1] is not None and np.any(ends[0] > ends[1]):
            raise ValueError("random_integers: low > high")
        sizes = _sizes(size, ndim, low, high)

        def draw(state: Variable) -> Variable:
            count = high - low + constant(1, dtype="int64")
            return add(low, sample.integers(state, count, sizes))

        return self._stream(draw, dtype, (low, high))

    def poisson(
        self, size: Any = None, lam: Any = 1.0, ndim: int | None = None, dtype: Any = "int64"
    ) -> Variable:
        """Poisson counts of mean lam."""
        mean = as_tensor(1.0 if lam is None else lam)
        sizes = _sizes(size, ndim, mean)
        return self._stream(lambda state: sample.poisson(state, mean, sizes), dtype, (mean,))

    def permutation(
        self, size: Any = None, n: Any = 1, ndim: int | None = None, dtype: Any = "int64"
    ) -> Variable:
        """Permutations of 0 .. n - 1 along a last axis, as many as size says; None: one."""
        if size is None or (isinstance(size, list | tuple) and not size):
            if ndim not in (None, 0, 1):
                raise TypeError(
                    f"permutation: one permutation was asked for, but {ndim} dimensions of them"
                )
            size, ndim = (), None
        length, sizes = as_int64(n, "permutation: n"), _sizes(size, ndim)
        return self._stream(lambda state: sample.permutation(state, length, sizes), dtype)

    def shuffle_row_elements(self, input: Any) -> Variable:
        """`input` with every row, along the last axis, shuffled on its own. The permutations
        are the result's attribute `permutation`."""
        x = as_tensor(input)
        if x.ndim == 0:
            raise TypeError("shuffle_row_elements: a scalar has no rows")
        order = self.permutation(tuple(dims(x)[:-1]), dim(x, -1))
        shuffled = take_along_axis(x, order, -1)
        shuffled.permutation = order
        shuffled.rng = shuffled.rstate = order.rng  # type: ignore[attr-defined]
        shuffled.update = order.update  # type: ignore[attr-defined]
        return shuffled

    def _uniform(
        self, size: Any, low: Any, high: Any, ndim: int | None, dtype: Any, fixed: bool
    ) -> Variable:
        low, high = as_tensor(low), as_tensor(high)
        wanted = _float(dtype, low, high)
        low, high = cast(low, wanted), cast(high, wanted)
        width = high if _is(low, 0) else high - low
        return self._affine(sample.uniform, size, low, width, ndim, wanted, fixed)

    def _normal(
        self, size: Any, avg: Any, std: Any, ndim: int | None, dtype: Any, fixed: bool,
        truncate: bool = False,
    ) -> Variable:  # fmt: skip
        avg, std = as_tensor(avg), as_tensor(std)
        kind = sample.truncated_normal if truncate else sample.normal
        return self._affine(kind, size, avg, std, ndim, _float(dtype, avg, std), fixed)

    def _bernoulli(self, size: Any, p: Any, ndim: int | None, dtype: Any) -> Variable:
        p = as_tensor(p)
        sizes = _sizes(size, ndim, p)

        def draw(state: Variable) -> Variable:
            return self._of_size(sample.bernoulli(state, p, sizes), sizes)

        return self._stream(draw, dtype, (p,))

    def _multinomial(
        self, sizes: Sequence[Variable], n: Any, pvals: Variable, dtype: Any
    ) -> Variable:
        if static_int(n) == 1:  # one trial is elementwise
            rows = broadcast_to(pvals, [*sizes, dim(pvals, -1)])
            return self._stream(lambda state: sample.one_hot(state, rows), dtype, (pvals,))

        def draw(state: Variable) -> Variable:
            return sample.multinomial(state, n, pvals, sizes)

        return self._stream(draw, dtype, (pvals,))


class RandomStreams(Streams):
    """Streams with the methods and arguments of Theano's shared_randomstreams.RandomStreams.

    seed: an int of any size, several ints, or None, which takes entropy from the system.
    """

    def binomial(
        self, size: Any = None, n: Any = 1, p: Any = 0.5, ndim: int | None = None,
        dtype: Any = "int64", prob: Any = None,
    ) -> Variable:  # fmt: skip
        """The successes in n trials of probability p (`prob` is p's old name)."""
        p = as_tensor(p if prob is None else prob)
        if static_int(n) == 1:
            return self._bernoulli(size, p, ndim, dtype)
        trials = as_tensor(n)
        sizes = _sizes(size, ndim, trials, p)
        return self._stream(
            lambda state: sample.binomial(state, trials, p, sizes), dtype, (trials, p)
        )

    def uniform(
        self, size: Any = None, low: Any = 0.0, high: Any = 1.0, ndim: int | None = None,
        dtype: Any = None,
    ) -> Variable:  # fmt: skip
        """Floats between low and high; dtype None is the promotion of theirs and floatX."""
        return self._uniform(size, low, high, ndim, dtype, fixed=True)

    def normal(
        self, size: Any = None, avg: Any = 0.0, std: Any = 1.0, ndim: int | None = None,
        dtype: Any = None,
    ) -> Variable:  # fmt: skip
        """Normal floats; dtype None is the promotion of avg's, std's and floatX."""
        return self._normal(size, avg, std, ndim, dtype, fixed=True)

    def truncated_normal(
        self, size: Any = None, avg: Any = 0.0, std: Any = 1.0, ndim: int | None = None,
        dtype: Any = None,
    ) -> Variable:  # fmt: skip
        """Normal floats cut off at two standard deviations of the normal; std is that of the
        result."""
        return self._normal(size, avg, _untruncated(std), ndim, dtype, True, truncate=True)

    def choice(
        self, size: Any = None, a: Any = 2, replace: Any = True, p: Any = None,
        ndim: int | None = None, dtype: Any = "int64",
    ) -> Variable:  # fmt: skip
        """Elements of the vector a, or of 0 .. a - 1 for a scalar a, with the probabilities p
        (None: equal ones); size None: one. Without replacement they are drawn in turn.

        Raises ValueError when run where p has negative elements or does not sum to 1, or where
        too few elements are there to be drawn without replacement.
        """
        a = as_tensor(a)
        if a.ndim > 1:
            raise ValueError(f"choice: a.ndim ({a.ndim}) must be 0 or 1")
        given = p is not None and (isinstance(p, Variable | np.ndarray) or p not in (0, [], ()))
        weights = as_tensor(p) if given else None
        if weights is not None and weights.ndim != 1:
            raise ValueError(f"choice: p.ndim ({weights.ndim}) must be 1")
        n = dim(a, 0) if a.ndim else as_int64(a, "choice: a")
        if weights is not None:
            weights = Require("choice: probabilities are not non-negative", "ValueError")(
                cast(weights, "float64"), ge(weights, 0)
            )
            weights = Require("choice: probabilities do not sum to 1", "ValueError")(
                weights, le(abs_(total(weights) - 1), 1e-5)
            )
            weights = Require("choice: 'a' and 'p' must have same size", "ValueError")(
                weights, eq(dim(weights, 0), n)
            )
        sizes = _sizes(() if size is None else size, ndim)

        def with_replacement(state: Variable) -> Variable:
            if weights is None:
                return sample.integers(state, n, sizes)
            return sample.category(state, weights, sizes)

        def without(state: Variable) -> Variable:
            equal = broadcast_to(1.0, [n]) if weights is None else weights
            order = sample.without_replacement(state, equal, product(sizes))
            return reshape(order, sizes, ndim=len(sizes))

        def draw(state: Variable) -> Variable:
            match static_int(replace):
                case None:
                    places = ifelse(replace, with_replacement(state), without(state))
                case 0:
                    places = without(state)
                case _:
                    places = with_replacement(state)
            return take(a, places, 0) if a.ndim else places

        return self._stream(draw, dtype, () if p is None else (as_tensor(p),))

    def multinomial(
        self, size: Any = None, n: Any = 1, pvals: Any = (0.5, 0.5), ndim: int | None = None,
        dtype: Any = "int64",
    ) -> Variable:  # fmt: skip
        """Counts in n trials of the categories along pvals' last axis; size is the shape of the
        leading axes. Rows of pvals are divided by their sums."""
        trials, rows = as_tensor(n), as_tensor(pvals)
        if rows.ndim == 0:
            raise TypeError("multinomial: pvals must have at least one dimension")
        sizes = _sizes(size, ndim, trials, rows[..., 0])
        return self._multinomial(sizes, trials, rows, dtype)


class MRG_RandomStreams(Streams):
    """Streams with the methods and arguments of Theano's rng_mrg.MRG_RandomStreams. Its sites are
    numbered from 2^31, so it shares no numbers with a RandomStreams of the same seed.

    seed: a positive int or six ints. uniform, normal and truncated_normal are differentiable
    with respect to their parameters. `use_cuda`, `nstreams` and `target` are accepted and change
    nothing: a draw is the same on every device.
    """

    _first_site = 1 << 31
    _too_wide = NotImplementedError

    def __init__(self, seed: Any = 12345, use_cuda: Any = None) -> None:
        super().__init__(seed)

    @staticmethod
    def word_of(seed: Any) -> int:
        if isinstance(seed, list | tuple | np.ndarray):
            numbers = list(seed)
            if len(numbers) != 6:
                raise TypeError("seed should be 1 integer or 6 integers")
            for part, which in ((numbers[:3], "first"), (numbers[3:], "last")):
                if not any(part):
                    raise ValueError(f"The {which} 3 values of seed should not be all 0", seed)
        elif static_int(seed) is None:
            raise TypeError("seed should be 1 integer or 6 integers")
        elif static_int(seed) == 0:
            raise ValueError("seed should not be 0", seed)
        return Streams.word_of(seed)

    def uniform(
        self, size: Any = None, low: Any = 0.0, high: Any = 1.0, ndim: int | None = None,
        dtype: Any = None, nstreams: Any = None, **kwargs: Any,
    ) -> Variable:  # fmt: skip
        """Floats between low and high; dtype None is the promotion of theirs and floatX.

        Raises ValueError for a size that is known and not positive.
        """
        _accept(kwargs, "uniform")
        return self._uniform(_positive(size), low, high, ndim, dtype, fixed=False)

    def binomial(
        self, size: Any = None, n: Any = 1, p: Any = 0.5, ndim: int | None = None,
        dtype: Any = "int64", nstreams: Any = None, **kwargs: Any,
    ) -> Variable:  # fmt: skip
        """1 with probability p, otherwise 0. Raises NotImplementedError for other n than 1."""
        _accept(kwargs, "binomial")
        if static_int(n) != 1:
            raise NotImplementedError(
                "MRG_RandomStreams.binomial with n > 1; RandomStreams.binomial has it"
            )
        return self._bernoulli(_positive(size), p, ndim, dtype)

    def multinomial(
        self, size: Any = None, n: Any = 1, pvals: Any = None, ndim: int | None = None,
        dtype: Any = "int64", nstreams: Any = None, **kwargs: Any,
    ) -> Variable:  # fmt: skip
        """Counts in n trials of the categories in each row of the matrix pvals, which is divided
        by its sum. size and ndim must be None."""
        _accept(kwargs, "multinomial")
        if pvals is None:
            raise TypeError("You have to specify pvals")
        _positive(size)
        for value, what in ((size, "a size"), (ndim, "an ndim")):
            if value is not None:
                raise ValueError(
                    f"Provided {what} argument to MRG_RandomStreams.multinomial, which does not "
                    "use it"
                )
        rows = as_tensor(pvals)
        if rows.ndim != 2:
            raise NotImplementedError(
                "MRG_RandomStreams.multinomial only implemented for pvals.ndim = 2"
            )
        return self._multinomial([dim(rows, 0)], as_tensor(n), rows, dtype)

    def choice(
        self, size: Any = 1, a: Any = None, replace: Any = True, p: Any = None,
        ndim: int | None = None, dtype: Any = "int64", nstreams: Any = None, **kwargs: Any,
    ) -> Variable:  # fmt: skip
        """Per row of the matrix p, `size` positions drawn in turn without replacement, with
        probabilities in proportion to p: shape (rows, size). replace must be False."""
        _accept(kwargs, "choice")
        if replace:
            raise NotImplementedError(
                "MRG_RandomStreams.choice only works without replacement for now."
            )
        if a is not None:
            raise TypeError(
                "For now, a has to be None in MRG_RandomStreams.choice. Sampled values are between "
                "0 and p.shape[1]-1"
            )
        if p is None:
            raise TypeError("For now, p has to be specified in MRG_RandomStreams.choice.")
        if ndim is not None:
            raise ValueError("ndim argument to MRG_RandomStreams.choice is not used.")
        rows = as_tensor(p)
        if rows.ndim != 2:
            raise NotImplementedError("MRG_RandomStreams.choice is only implemented for p.ndim = 2")
        k = as_int64(size, "choice: size")
        return self._stream(
            lambda state: sample.without_replacement(state, rows, k), dtype, (rows,)
        )

    def multinomial_wo_replacement(
        self, size: Any = None, n: Any = 1, pvals: Any = None, ndim: int | None = None,
        dtype: Any = "int64", nstreams: Any = None, **kwargs: Any,
    ) -> Variable:  # fmt: skip
        """The old name of `choice(size=n, replace=False, p=pvals)`; size must be None."""
        warnings.warn(
            "MRG_RandomStreams.multinomial_wo_replacement() is deprecated: use "
            "MRG_RandomStreams.choice(size=n, replace=False, p=pvals)",
            DeprecationWarning,
            stacklevel=2,
        )
        if size is not None:
            raise AssertionError("multinomial_wo_replacement: size must be None")
        return self.choice(n, None, False, pvals, ndim, dtype, nstreams, **kwargs)

    def normal(
        self, size: Any = None, avg: Any = 0.0, std: Any = 1.0, ndim: int | None = None,
        dtype: Any = None, nstreams: Any = None, truncate: bool = False, **kwargs: Any,
    ) -> Variable:  # fmt: skip
        """Normal floats; dtype None is the promotion of avg's, std's and floatX. truncate: cut
        off at two standard deviations, which makes the result's smaller than std."""
        _accept(kwargs, "normal")
        return self._normal(_positive(size), avg, std, ndim, dtype, False, truncate)

    def truncated_normal(
        self, size: Any = None, avg: Any = 0.0, std: Any = 1.0, ndim: int | None = None,
        dtype: Any = None, nstreams: Any = None, **kwargs: Any,
    ) -> Variable:  # fmt: skip
        """Normal floats cut off at two standard deviations of the normal; std is that of the
        result."""
        return self.normal(
            size, avg, _untruncated(std), ndim, dtype, nstreams, truncate=True, **kwargs
        )


# ---- arguments ------------------------------------------------------------------------------


def _sizes(size: Any, ndim: int | None, *parameters: Variable) -> list[Variable]:
    """The sizes of a draw, from its arguments."""
    widest = max((p.ndim for p in parameters), default=0)
    if size is None:
        sizes = [_parameters_size(parameters, i - widest) for i in range(widest)]
        if ndim is not None and ndim != widest:
            raise ValueError(f"ndim is {ndim}, but the parameters have {widest} dimensions")
        return sizes
    if isinstance(size, list | tuple | np.ndarray) and np.ndim(size) == 1:
        given = list(size)
        known = [static_int(s) for s in given]
        if any(k is not None and k < -1 for k in known):
            raise ValueError(f"negative size in {tuple(given)}")
        given = [
            _parameters_size(parameters, i - len(given), required=True) if k == -1 else s
            for i, (s, k) in enumerate(zip(given, known))
        ]
        sizes = sizes_list(given, "size")
    else:
        if isinstance(size, Variable) and size.type.shape == (None,) and ndim is not None:
            message = f"the size of random numbers must have as many elements as ndim says: {ndim}"
            size = Require(message, "ValueError")(size, eq(dim(size, 0), ndim))
        sizes = sizes_list(size, "size", ndim)
    if ndim is not None and len(sizes) != ndim:
        raise ValueError(f"ndim should be equal to len(size), but ndim={ndim}, size={size}")
    if widest > len(sizes):
        raise ValueError(
            f"ndim should be at least as big as required by the parameters: size has {len(sizes)} "
            f"dimensions, a parameter has {widest}"
        )
    return sizes


def _parameters_size(
    parameters: Sequence[Variable], from_right: int, required: bool = False
) -> Variable:
    """What the parameters broadcast to on an axis, counted from the right as -1, -2, ..."""
    here = [p for p in parameters if p.ndim >= -from_right]
    if required and not here:
        raise ValueError("a size of -1 must be on an axis of one of the parameters")
    for p in here:
        if p.type.shape[from_right] != 1:
            return dim(p, from_right)
    return constant_leaf(np.asarray(1, "int64"))


def _positive(size: Any) -> Any:
    """The size, in which known sizes must be positive."""
    given = size if isinstance(size, list | tuple) else [size]
    if any((known := static_int(s)) is not None and known <= 0 for s in given):
        raise ValueError("The specified size contains a dimension with value <= 0", size)
    return size


def _float(dtype: Any, *parameters: Variable) -> str:
    """The dtype of a draw of floats."""
    if dtype is None:
        return promote(config.floatX, *[p.dtype for p in parameters])
    name = dtype_name(dtype)
    if name not in FLOATS:
        raise TypeError(f"this draw has a float dtype, not {name}")
    return name


def _accept(kwargs: dict[str, Any], what: str) -> None:
    """Theano's argument `target`, which changes nothing; any other is a TypeError."""
    if unknown := [k for k in kwargs if k != "target"]:
        raise TypeError(f"{what}() got unexpected keyword arguments {unknown}")


_STD = 0.8796256610342398  # of a standard normal cut off at -2 and 2


def _untruncated(std: Any) -> Variable:
    std = as_tensor(std)
    return true_div(std, constant(_STD, dtype=std.dtype if std.type.is_float else config.floatX))


def _is(x: Variable, value: int) -> bool:
    data = constant_value(x)
    return data is not None and data.ndim == 0 and bool(data == value)
