"""Random streams: what is drawn, from which words, in which dtype and shape; what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpuscan.tensor as T
from gpuscan import maths, philox
from gpuscan.config import config
from gpuscan.errors import NullTypeGradError
from gpuscan.evaluate import Program
from gpuscan.function import function
from gpuscan.gradient import grad
from gpuscan.graph import leaves
from gpuscan.ops import sample
from gpuscan.scan.frontend import scan
from gpuscan.shared import SharedVariable
from gpuscan.tensor.random import MRG_RandomStreams, RandomStreams
from gpuscan.types import TensorType

BOTH = [RandomStreams, MRG_RandomStreams]
MRG_SITE = 1 << 31
scalar, vector, matrix = (TensorType("float32", (None,) * n) for n in range(3))
positive = TensorType("int64", ())


def calls(outputs, times=1, given=None):
    """The outputs' values in calls one after another, which advance the random states."""
    given = given or {}
    states = [v for v in leaves(outputs) if isinstance(v, SharedVariable)]
    program = Program([*given, *states], [*outputs, *(s.default_update for s in states)])
    now, rows = [s.get_value() for s in states], []
    for _ in range(times):
        got = program(*(np.asarray(x, v.dtype) for v, x in given.items()), *now)
        rows.append(got[: len(outputs)])
        now = list(got[len(outputs) :])
    return rows


def value(output, given=None):
    return calls([output], given=given)[0][0]


def words(seed, site, draw, count, lane=0):
    return philox.words(seed, site, draw, count, lane)


# ---- from which words -------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "site"), [(RandomStreams, 0), (MRG_RandomStreams, MRG_SITE)])
def test_element_i_of_draw_n_is_word_i_of_philox(kind, site):
    draw = kind(987).uniform((3, 5), dtype="float32")
    for n, (u,) in enumerate(calls([draw], 3)):
        np.testing.assert_array_equal(u.ravel(), philox.uniform32(words(987, site, n, 15)))


def test_a_float64_draw_takes_two_words_an_element():
    u = value(RandomStreams(3).uniform((7,), dtype="float64"))
    np.testing.assert_array_equal(u, philox.uniform64(words(3, 0, 0, 14)))


def test_a_float16_draw_takes_the_upper_ten_bits_of_a_word():
    u = value(RandomStreams(3).uniform((900,), dtype="float16"))
    exact = (words(3, 0, 0, 900) >> 22).astype("f8") * 2.0**-10 + 2.0**-11
    np.testing.assert_array_equal(u.astype("f8"), exact)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_uniforms_never_reach_zero_or_one(dtype):
    ends = np.array([[0] * 2, [0xFFFFFFFF] * 2], np.uint32)
    make = {"float16": sample.uniform16, "float32": philox.uniform32, "float64": philox.uniform64}
    low, high = (make[dtype](end)[0] for end in ends)
    assert 0 < low < high < 1
    assert low + high == 1


def test_a_normal_is_the_inverse_cdf_of_the_uniform():
    z = value(RandomStreams(3).normal((7,), dtype="float32"))
    np.testing.assert_array_equal(z, maths.normal_icdf(philox.uniform32(words(3, 0, 0, 7))))


def test_a_bernoulli_is_a_uniform_below_p():
    x = value(RandomStreams(3).binomial((50,), 1, np.float32(0.3)))
    np.testing.assert_array_equal(x, philox.uniform32(words(3, 0, 0, 50)) < np.float32(0.3))


def test_a_rejection_takes_words_4i_to_4i_plus_3_of_each_lane():
    state = sample.state_value(8, 5, 2**33 + 1)
    for lane in (0, 3):
        u, v = sample.uniform_pair(state, np.array([6, 1]), lane)
        for k, i in enumerate((6, 1)):
            four = philox.words(8, 5, 2**33 + 1, 4, lane, 4 * i)
            assert [u[k], v[k]] == philox.uniform64(four).tolist()


def test_the_index_may_pass_32_bits():
    (u,), _ = sample.uniform_pair(sample.state_value(8, 5), np.array([2**33 + 3]), 1)
    four = philox.words(8, 5, 0, 4, 1, 4 * (2**33 + 3))
    assert u == philox.uniform64(four)[0]


def test_the_state_is_key_count_and_rows_and_its_count_advances_by_one():
    rng = RandomStreams(77)
    rng.uniform((2,))
    draw = rng.uniform((2,))
    np.testing.assert_array_equal(draw.rng.get_value(), np.array([77 | 1 << 32, 0, 0], "uint64"))
    after = value(draw.rng.default_update)
    np.testing.assert_array_equal(after, np.array([77 | 1 << 32, 1, 0], "uint64"))


# ---- on what it depends -----------------------------------------------------------------------

DRAWS = {
    "uniform": lambda r, s: r.uniform(s),
    "uniform64": lambda r, s: r.uniform(s, dtype="float64"),
    "normal": lambda r, s: r.normal(s),
    "truncated_normal": lambda r, s: r.truncated_normal(s),
    "bernoulli": lambda r, s: r.binomial(s, 1, 0.4),
    "binomial": lambda r, s: r.binomial(s, 100, 0.4),
    "few": lambda r, s: r.binomial(s, 9, 0.4),
    "poisson": lambda r, s: r.poisson(s, 40.0),
    "rare": lambda r, s: r.poisson(s, 2.0),
    "integers": lambda r, s: r.random_integers(s, -3, 90),
    "choice": lambda r, s: r.choice(s, 90),
    "weighted": lambda r, s: r.choice(s, 3, p=[0.2, 0.5, 0.3]),
    "permutation": lambda r, s: r.permutation(s, 6),
    "multinomial": lambda r, s: r.multinomial(s, 50, [0.2, 0.5, 0.3]),
    "one of three": lambda r, s: r.multinomial(s, 1, [0.2, 0.5, 0.3]),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_small_draw_is_the_start_of_a_large_one(name):
    small = value(DRAWS[name](RandomStreams(5), (4, 5)))
    large = value(DRAWS[name](RandomStreams(5), (60,)))
    np.testing.assert_array_equal(small.reshape(20, *small.shape[2:]), large[:20])


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_may_go_on_after_rows_that_are_drawn_elsewhere(name):
    whole = value(DRAWS[name](RandomStreams(5), (9, 5)))
    for first, last in ((0, 4), (4, 9), (7, 8)):
        rng = RandomStreams(5)
        part = DRAWS[name](rng, (last - first, 5))
        rng[part] = sample.state_value(5, 0, 0, first)
        np.testing.assert_array_equal(value(part), whole[first:last])


@pytest.mark.parametrize("size", [(5,), (5, 3), (5, 2, 2)])
def test_rows_that_are_drawn_elsewhere_are_left_out_by_loops_too(size):
    """On every device: the loop has rows that threads share, columns, and a scalar draw."""

    def run(rows, before):
        rng = RandomStreams(5)
        n = T.lscalar()
        shape = (n, *size[1:])

        def step(x):
            shared_by_rows = rng.uniform((), dtype="float32")
            return x * rng.uniform(shape, dtype="float32") + shared_by_rows - rng.normal(shape)

        out, updates = scan(step, outputs_info=T.zeros(shape, "float32"), n_steps=4)
        wide = rng.uniform(shape, dtype="float64")
        f = function([n], [out, wide], updates=updates)
        for k, (state, _) in enumerate(rng.state_updates):
            state.set_value(sample.state_value(5, k, 0, before))
        return [*f(rows), *f(rows)]

    whole = run(size[0], 0)
    for first, last in ((0, 2), (2, 5), (3, 4)):
        loop, wide, loop_after, wide_after = run(last - first, first)
        np.testing.assert_array_equal(loop, whole[0][:, first:last])
        np.testing.assert_array_equal(wide, whole[1][first:last])
        np.testing.assert_array_equal(loop_after, whole[2][:, first:last])
        np.testing.assert_array_equal(wide_after, whole[3][first:last])


@pytest.mark.parametrize("name", DRAWS)
def test_draws_of_a_stream_and_streams_of_a_container_differ(name):
    rng = RandomStreams(5)
    one, other = DRAWS[name](rng, (60,)), DRAWS[name](rng, (60,))
    (a, b), (c, _) = calls([one, other], 2)
    assert not np.array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize("name", DRAWS)
def test_the_same_seed_and_calls_give_the_same_numbers(name):
    first, second = (DRAWS[name](RandomStreams(5), (30,)) for _ in range(2))
    assert first is not second
    np.testing.assert_array_equal(value(first), value(second))


def test_another_seed_gives_other_numbers():
    a, b = (value(RandomStreams(s).uniform((30,))) for s in (5, 6))
    assert not np.intersect1d(a, b).size


def test_the_two_kinds_of_container_share_no_numbers():
    a, b = (value(kind(5).uniform((30,))) for kind in BOTH)
    assert not np.intersect1d(a, b).size


def test_no_seed_takes_entropy_from_the_system():
    a, b = (value(RandomStreams().uniform((30,))) for _ in range(2))
    assert not np.intersect1d(a, b).size


def test_an_element_depends_on_its_own_parameters_only():
    p = np.array([0.1, 0.5, 0.5, 0.9])
    q = np.array([0.1, 0.2, 0.5, 0.001])
    a, b = (value(RandomStreams(5).binomial(None, 300, v)) for v in (p, q))
    np.testing.assert_array_equal(a[[0, 2]], b[[0, 2]])


# ---- the container ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
def test_seeding_starts_all_streams_again(kind):
    rng = kind(5)
    draws = [rng.uniform((4,)), rng.normal((4,))]
    before = calls(draws)[0]
    rng.seed(6)
    after = calls(draws)[0]
    other = kind(6)
    np.testing.assert_array_equal(after[1], calls([other.uniform((4,)), other.normal((4,))])[0][1])
    assert not np.array_equal(before[0], after[0])
    rng.seed()
    np.testing.assert_array_equal(calls(draws)[0][0], before[0])


@pytest.mark.parametrize("kind", BOTH)
def test_streams_made_after_seeding_have_the_new_seed(kind):
    rng = kind(5)
    rng.uniform((4,))
    rng.seed(6)
    late = rng.uniform((4,))
    assert int(late.rng.get_value()[0]) & 0xFFFFFFFF == 6


def test_the_container_lists_its_streams_in_order():
    rng = RandomStreams(5)
    a, b = rng.uniform((4,)), rng.normal((4,))
    assert rng.updates() == rng.state_updates == [a.update, b.update]
    assert a.update == (a.rng, a.rng.default_update)
    assert [a.rng.name, b.rng.name] == ["rng_0", "rng_1"]
    assert a.rng.tag.is_rng


def test_a_state_can_be_read_and_set_through_the_container():
    rng = RandomStreams(5)
    draw = rng.uniform((4,))
    (_,), (second,) = calls([draw], 2)
    state = rng[draw.rng]
    state[1] += np.uint64(1)
    rng[draw.rng] = state
    np.testing.assert_array_equal(value(draw), second)


def test_a_state_of_another_container_is_refused():
    with pytest.raises(KeyError):
        RandomStreams(5)[RandomStreams(5).uniform((4,)).rng]


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, np.int64(7), np.uint32(9)])
def test_a_seed_of_32_bits_is_the_word_itself(seed):
    draw = RandomStreams(seed).uniform((1,))
    assert int(draw.rng.get_value()[0]) == int(seed)


@given(st.integers(2**32, 2**200), st.integers(2**32, 2**200))
def test_larger_seeds_are_folded_to_32_bits(a, b):
    first, second = (int(RandomStreams(s).uniform((1,)).rng.get_value()[0]) for s in (a, b))
    assert 0 <= first < 2**32
    assert a == b or first != second  # 1 in 2^32 pairs may fail


def test_six_seeds_are_accepted_and_their_order_matters():
    a, b = (
        value(MRG_RandomStreams(s).uniform((4,))) for s in ([1, 2, 3, 4, 5, 6], (2, 1, 3, 4, 5, 6))
    )
    assert not np.intersect1d(a, b).size


@pytest.mark.parametrize(
    ("seed", "error", "text"),
    [
        (0, ValueError, "seed should not be 0"),
        (-3, ValueError, "negative"),
        (1.5, TypeError, "1 integer or 6"),
        ([1, 2], TypeError, "1 integer or 6"),
        ([0, 0, 0, 1, 1, 1], ValueError, "first 3"),
        ([1, 1, 1, 0, 0, 0], ValueError, "last 3"),
    ],
)
def test_seeds_that_mrg_refuses(seed, error, text):
    with pytest.raises(error, match=text):
        MRG_RandomStreams(seed)


@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), (1.5, TypeError), ("a", TypeError)])
def test_seeds_that_random_streams_refuses(seed, error):
    with pytest.raises(error):
        RandomStreams(seed)


# ---- shapes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    ("size", "static", "shape"),
    [
        ((2, 3), (2, 3), (2, 3)),
        ([2, 3], (2, 3), (2, 3)),
        (4, (4,), (4,)),
        (np.int32(4), (4,), (4,)),
        (np.array([2, 3]), (2, 3), (2, 3)),
    ],
)
def test_sizes_that_are_known(kind, size, static, shape):
    draw = kind(5).normal(size)
    assert draw.type.shape == static
    assert value(draw).shape == shape


@pytest.mark.parametrize("kind", BOTH)
def test_a_size_may_be_symbolic(kind):
    x, n = matrix("x"), positive("n")
    by_shape, mixed, by_scalar = (
        kind(5).uniform(x.shape), kind(5).uniform((n, 2)), kind(5).uniform(n)
    )  # fmt: skip
    assert by_shape.type.shape == (None, None)
    assert mixed.type.shape == (None, 2)
    assert value(by_shape, {x: np.zeros((3, 4))}).shape == (3, 4)
    assert value(mixed, {n: 5}).shape == (5, 2)
    assert value(by_scalar, {n: 5}).shape == (5,)


def test_a_size_vector_of_unknown_length_needs_ndim():
    sizes = TensorType("int64", (None,))("sizes")
    draw = RandomStreams(5).uniform(sizes, ndim=2)
    assert value(draw, {sizes: [3, 4]}).shape == (3, 4)
    with pytest.raises(ValueError, match="ndim"):
        RandomStreams(5).uniform(sizes)


@pytest.mark.parametrize("kind", BOTH)
def test_without_a_size_the_parameters_have_the_shape(kind):
    low, high = matrix("low"), vector("high")
    draw = kind(5).uniform(None, low, high)
    got = value(draw, {low: np.zeros((2, 3)), high: np.full(3, 10)})
    assert got.shape == (2, 3)
    assert got.max() > 1


def test_without_size_and_parameters_a_draw_is_a_scalar():
    assert RandomStreams(5).uniform().ndim == RandomStreams(5).choice().ndim == 0


def test_minus_one_takes_the_size_of_the_parameters():
    p = matrix("p")
    draw = RandomStreams(5).binomial((4, 1, -1), 1, p)
    assert value(draw, {p: np.full((1, 3), 0.5)}).shape == (4, 1, 3)


def test_the_sizes_are_known_without_drawing():
    n = positive("n")
    state = RandomStreams(5).uniform().rng
    p = sample.broadcast_to(np.float64(0.5), [n, 3])
    trials = sample.broadcast_to(np.int64(9), [n, 3])
    draws = [
        sample.uniform(state, [n, p.shape[1]], "float32"), sample.Binomial()(state, trials, p),
        sample.Poisson()(state, p), sample.Multinomial()(state, trials[:, 0], p),
    ]  # fmt: skip
    for draw in draws:
        sizes = draw.op.sizes(draw.inputs, draw)
        assert not any(v is state for v in leaves(sizes))
        assert calls(list(sizes), given={n: 4})[0] == (4, 3)


@pytest.mark.parametrize(
    ("build", "error", "text"),
    [
        (lambda r: r.uniform((2, 3), ndim=1), ValueError, "ndim"),
        (lambda r: r.uniform((2,), np.zeros((2, 2))), ValueError, "at least as big"),
        (lambda r: r.uniform((2, -3)), ValueError, "negative|<= 0"),
        (lambda r: r.uniform((2.5,)), TypeError, "integer"),
        (lambda r: r.uniform(vector("v"), ndim=1), TypeError, "integer"),
        (lambda r: r.uniform((2,), dtype="int64"), TypeError, "float dtype"),
        (lambda r: r.permutation(None, 4, ndim=2), TypeError, "one permutation"),
        (lambda r: r.random_integers((2,), 3, 1), ValueError, "low > high"),
    ],
)
@pytest.mark.parametrize("kind", BOTH)
def test_arguments_that_are_refused(kind, build, error, text):
    with pytest.raises(error, match=text):
        build(kind(5))


@pytest.mark.parametrize(
    ("kind", "error"), [(RandomStreams, ValueError), (MRG_RandomStreams, NotImplementedError)]
)
def test_parameters_may_not_be_wider_than_the_size(kind, error):
    low, p = np.zeros((2, 3)), np.full(2, 0.5)
    for build in (lambda r: r.uniform((1, 3), low), lambda r: r.binomial((1,), 1, p)):
        with pytest.raises(error, match="increase the size"):
            build(kind(5))


def test_parameters_that_turn_out_wider_than_the_size_are_refused():
    p = vector("p")
    with pytest.raises(ValueError, match="size 1"):
        value(RandomStreams(5).binomial((1,), 1, p), {p: [0.5, 0.5]})


def test_a_negative_size_is_refused_when_the_value_is_there():
    n = positive("n")
    with pytest.raises(ValueError, match="negative size"):
        value(RandomStreams(5).uniform((n,)), {n: -1})


def test_an_empty_draw_is_empty():
    for name, draw in DRAWS.items():
        assert value(draw(RandomStreams(5), (0,))).size == 0, name


@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda r: r.uniform((0, 3)), ValueError),
        (lambda r: r.normal(0), ValueError),
        (lambda r: r.binomial((2,), n=2), NotImplementedError),
        (lambda r: r.multinomial(), TypeError),
        (lambda r: r.multinomial((2,), 1, [[0.5, 0.5]]), ValueError),
        (lambda r: r.multinomial(None, 1, [[0.5, 0.5]], ndim=1), ValueError),
        (lambda r: r.multinomial(pvals=[0.5, 0.5]), NotImplementedError),
        (lambda r: r.choice(2, p=[[0.5, 0.5]]), NotImplementedError),
        (lambda r: r.choice(2, 4, False, p=[[0.5, 0.5]]), TypeError),
        (lambda r: r.choice(2, None, False), TypeError),
        (lambda r: r.choice(2, None, False, p=[[0.5, 0.5]], ndim=1), ValueError),
        (lambda r: r.choice(2, None, False, p=[0.5, 0.5]), NotImplementedError),
        (lambda r: r.uniform((2,), colour=1), TypeError),
    ],
)
def test_what_mrg_does_not_have(build, error):
    with pytest.raises(error):
        build(MRG_RandomStreams(5))


def test_theanos_arguments_for_devices_change_nothing():
    plain = value(MRG_RandomStreams(5).normal((4,)))
    with_them = MRG_RandomStreams(5, use_cuda=True).normal((4,), nstreams=8, target="dev0")
    np.testing.assert_array_equal(value(with_them), plain)


# ---- dtypes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("floatX", ["float32", "float64"])
def test_default_dtypes(kind, floatX):
    with config.change_flags(floatX=floatX):
        rng = kind(5)
        assert rng.uniform((2,)).dtype == rng.normal((2,)).dtype == floatX
        assert rng.truncated_normal((2,)).dtype == floatX
        assert rng.uniform((2,), np.float64(0), 1).dtype == "float64"
        assert rng.normal((2,), 0, np.ones(2, "int32")).dtype == "float64"
        assert rng.binomial((2,)).dtype == rng.poisson((2,)).dtype == "int64"
        assert rng.random_integers((2,)).dtype == rng.permutation((2,), 3).dtype == "int64"
        assert rng.multinomial(pvals=[[0.5, 0.5]]).dtype == "int64"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes_that_are_asked_for(dtype):
    rng = RandomStreams(5)
    draws = [
        rng.uniform((3,), -1, 1, dtype=dtype), rng.normal((3,), 1.0, 2.0, dtype=dtype),
        rng.truncated_normal((3,), dtype=dtype), rng.binomial((3,), 1, 0.5, dtype=dtype),
        rng.binomial((3,), 8, 0.5, dtype=dtype), rng.poisson((3,), 2.0, dtype=dtype),
        rng.choice((3,), 4, dtype=dtype), rng.multinomial((3,), 1, dtype=dtype),
    ]  # fmt: skip
    for draw, got in zip(draws, calls(draws)[0]):
        assert draw.dtype == got.dtype == dtype


# ---- the methods' meaning -----------------------------------------------------------------------


def test_uniform_lies_between_low_and_high():
    u = value(RandomStreams(5).uniform((5000,), -3.0, 2.0))
    assert -3 < u.min() < -2.99
    assert 1.99 < u.max() < 2


def test_random_integers_include_both_ends():
    x = value(RandomStreams(5).random_integers((500,), -2, 1))
    assert sorted(set(x.tolist())) == [-2, -1, 0, 1]


def test_random_integers_of_parameters_that_broadcast():
    low, high = np.array([[0], [100]]), np.array([3, 5, 7])
    x = value(RandomStreams(5).random_integers((200, 2, 3), low, low + high))
    assert (x.min(0) == low + 0 * high).all()
    assert (x.max(0) == low + high).all()


def test_binomial_without_chance():
    n = np.array([0, 5, 5, 1000, 1000])
    p = np.array([0.5, 0.0, 1.0, 0.0, 1.0])
    np.testing.assert_array_equal(value(RandomStreams(5).binomial(None, n, p)), [0, 0, 5, 0, 1000])


def test_binomial_takes_p_by_its_old_name():
    assert value(RandomStreams(5).binomial((9,), 1, prob=1.0)).all()


@pytest.mark.parametrize(
    "build",
    [
        lambda r: r.binomial((2,), 5, 1.5),
        lambda r: r.binomial((2,), -5, 0.5),
        lambda r: r.poisson((2,), -1.0),
        lambda r: r.poisson((2,), np.nan),
        lambda r: r.multinomial(None, 5, [[0.5, -0.5]]),
        lambda r: r.multinomial(None, 5, [[0.0, 0.0]]),
        lambda r: r.choice((2,), 2, p=[0.5, 0.6]),
        lambda r: r.choice((2,), 2, p=[1.5, -0.5]),
        lambda r: r.choice((2,), 3, p=[0.5, 0.5]),
        lambda r: r.choice((4,), 3, replace=False),
        lambda r: r.choice((2,), 3, replace=False, p=[0, 1, 0]),
    ],
)
def test_parameters_that_are_refused_when_the_value_is_there(build):
    with pytest.raises(ValueError):
        value(build(RandomStreams(5)))


def test_poisson_of_mean_zero_is_zero():
    assert not value(RandomStreams(5).poisson((9,), 0.0)).any()


@pytest.mark.parametrize("n", [1, 20])
def test_multinomial_counts_the_trials(n):
    weights = np.array([[0.2, 0.8, 0.0], [0.0, 0.0, 3.0]])
    counts = value(RandomStreams(5).multinomial((40, 2), n, weights))
    assert (counts.sum(-1) == n).all()
    assert not counts[..., 0, 2].any()
    assert (counts[:, 1] == [0, 0, n]).all()


def test_multinomial_takes_the_size_from_n_and_pvals():
    assert value(RandomStreams(5).multinomial(None, [3, 4], [[0.5, 0.5]])).sum(-1).tolist() == [
        3,
        4,
    ]
    assert value(RandomStreams(5).multinomial((7, -1), 4, [[0.5, 0.5]] * 3)).shape == (7, 3, 2)


def test_permutations_are_permutations():
    p = value(RandomStreams(5).permutation((3, 2), 6))
    assert p.shape == (3, 2, 6)
    assert (np.sort(p, -1) == np.arange(6)).all()
    assert value(RandomStreams(5).permutation(n=4)).shape == (4,)


@pytest.mark.parametrize("shape", [(6,), (3, 4), (2, 3, 4)])
def test_shuffled_rows_are_the_rows_in_the_permutations_order(shape):
    x = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    shuffled = RandomStreams(5).shuffle_row_elements(x)
    got, order = calls([shuffled, shuffled.permutation])[0]
    np.testing.assert_array_equal(got, np.take_along_axis(x, order, -1))
    assert not np.array_equal(got, x)


def test_choice_takes_elements_of_a_vector():
    a = np.array([5, 7, 11])
    x = value(RandomStreams(5).choice((50,), a, p=[0.5, 0.0, 0.5]))
    assert set(x.tolist()) == {5, 11}


def test_choice_without_replacement_takes_each_once():
    a = np.arange(10, 18)
    x = value(RandomStreams(5).choice((2, 4), a, replace=False))
    assert sorted(x.ravel()) == a.tolist()


def test_replace_may_be_symbolic():
    replace = TensorType("bool", ())("replace")
    draw = RandomStreams(5).choice((3,), 3, replace)
    for flag in (True, False):
        same = RandomStreams(5).choice((3,), 3, flag)
        np.testing.assert_array_equal(value(draw, {replace: flag}), value(same))


def test_mrg_chooses_positions_of_each_row():
    p = np.array([[0.2, 0.3, 0.5], [0.5, 0.0, 0.5]])
    x = value(MRG_RandomStreams(5).choice(2, None, False, p))
    assert x.shape == (2, 2)
    assert x[0, 0] != x[0, 1]
    assert sorted(x[1]) == [0, 2]


def test_the_old_name_of_choice_warns():
    p = np.array([[0.2, 0.3, 0.5]])
    with pytest.warns(DeprecationWarning):
        old = MRG_RandomStreams(5).multinomial_wo_replacement(n=2, pvals=p)
    np.testing.assert_array_equal(value(old), value(MRG_RandomStreams(5).choice(2, None, False, p)))


def test_truncated_normals_lie_within_two_deviations():
    z = value(RandomStreams(5).truncated_normal((5000,), 3.0, 0.8796256610342398))
    assert 1 <= z.min() < 1.02
    assert 4.98 < z.max() <= 5


# ---- gradients ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        lambda r, p: r.uniform((3,), p, 1.0),
        lambda r, p: r.uniform((3,), 0.0, p),
        lambda r, p: r.normal((3,), p),
        lambda r, p: r.normal((3,), 0.0, p),
        lambda r, p: r.binomial((3,), 1, p, dtype="float32"),
        lambda r, p: r.binomial((3,), 5, p, dtype="float32"),
        lambda r, p: r.poisson((3,), p, dtype="float32"),
        lambda r, p: r.multinomial(None, 1, T.stack([p, 1 - p]), dtype="float32"),
        lambda r, p: r.multinomial(None, 3, T.stack([p, 1 - p]), dtype="float32"),
        lambda r, p: r.choice((3,), 2, p=T.stack([p, 1 - p]), dtype="float32"),
    ],
)
def test_the_gradient_of_a_parameter_is_undefined(build):
    p = scalar("p")
    with pytest.raises(NullTypeGradError):
        grad(build(RandomStreams(5), p).sum(), p)


@pytest.mark.parametrize(
    "build",
    [
        lambda r, p: r.binomial((3,), 1, p, dtype="float32"),
        lambda r, p: r.multinomial(None, 1, T.stack([p, 1 - p]).reshape((1, 2)), dtype="float32"),
    ],
)
def test_mrgs_discrete_draws_have_no_gradient_either(build):
    p = scalar("p")
    with pytest.raises(NullTypeGradError):
        grad(build(MRG_RandomStreams(5), p).sum(), p)


def test_mrgs_uniform_and_normal_are_differentiable():
    a, b = scalar("a"), scalar("b")
    given_ = {a: 1.5, b: 4.0}
    u = MRG_RandomStreams(5).uniform((30,), a, b)
    x, da, db = calls([u, grad(u.sum(), a), grad(u.sum(), b)], given=given_)[0]
    assert da + db == pytest.approx(30, rel=1e-5)
    assert 1.5 * da + 4 * db == pytest.approx(x.sum(), rel=1e-5)
    z = MRG_RandomStreams(5).normal((30,), a, b)
    x, da, db = calls([z, grad(z.sum(), a), grad(z.sum(), b)], given=given_)[0]
    assert da == 30
    assert 1.5 * da + 4 * db == pytest.approx(x.sum(), rel=1e-5)


def test_a_draw_is_a_constant_for_other_gradients():
    w, x = scalar("w"), vector("x")
    mask = RandomStreams(5).binomial(x.shape, 1, 0.5, dtype="float32")
    g, m = calls([grad((w * x * mask).sum(), w), mask], given={w: 2.0, x: [1, 2, 3, 4]})[0]
    assert g == (m * [1, 2, 3, 4]).sum()


def test_the_gradient_passes_through_shuffled_rows():
    x = vector("x")
    shuffled = RandomStreams(5).shuffle_row_elements(x)
    weights = np.arange(4, dtype="float32")
    cost = (shuffled * weights).sum()
    g, order = calls([grad(cost, x), shuffled.permutation], given={x: np.zeros(4)})[0]
    np.testing.assert_array_equal(g[order], weights)


# ---- in functions and scans -----


def test_a_function_advances_the_state_at_every_call():
    draw = RandomStreams(5).uniform((4,), dtype="float32")
    f = function([], draw)
    still = function([], draw, no_default_updates=True)
    for n in range(3):
        np.testing.assert_array_equal(f(), philox.uniform32(words(5, 0, n, 4)))
    np.testing.assert_array_equal(still(), philox.uniform32(words(5, 0, 3, 4)))
    np.testing.assert_array_equal(still(), philox.uniform32(words(5, 0, 3, 4)))


def test_a_draw_that_is_used_twice_is_drawn_once():
    draw = RandomStreams(5).uniform((4,))
    assert not function([], draw + draw - 2 * draw)().any()


def test_the_pair_of_a_draw_can_be_given_as_an_update():
    draw = RandomStreams(5).uniform((4,), dtype="float32")
    f = function([], draw, updates=[draw.update])
    f()
    np.testing.assert_array_equal(f(), philox.uniform32(words(5, 0, 1, 4)))


@pytest.mark.parametrize("kind", BOTH)
def test_step_i_of_a_scan_is_draw_i_of_one_stream(kind):
    rng, x = kind(5), matrix("x")

    def step(previous):
        return rng.uniform(previous.shape, dtype="float32") + 0 * previous

    rows, updates = scan(step, outputs_info=x, n_steps=3)
    f = function([x], rows, updates=updates)
    site = kind._first_site
    for call in range(2):
        for i, row in enumerate(f(np.zeros((2, 3), "float32"))):
            expected = philox.uniform32(words(5, site, 3 * call + i, 6))
            np.testing.assert_array_equal(row.ravel(), expected)


def test_two_streams_in_a_scan_keep_their_own_counts():
    rng = RandomStreams(5)

    def step():
        return rng.uniform((2,), dtype="float32"), rng.normal((2,), dtype="float32")

    (us, zs), updates = scan(step, n_steps=3)
    u, z = function([], [us, zs], updates=updates)()
    for i in range(3):
        np.testing.assert_array_equal(u[i], philox.uniform32(words(5, 0, i, 2)))
        np.testing.assert_array_equal(z[i], philox.normal32(words(5, 1, i, 2)))


def test_multinomial_with_as_many_categories_as_a_call_says():
    p = T.matrix("p")
    f = function([p], RandomStreams(3).multinomial(pvals=p))
    for n in (1, 2, 5):
        found = f(np.eye(n, dtype="f"))
        assert np.array_equal(found, np.eye(n))
