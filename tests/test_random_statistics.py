"""Whether the draws have the distributions that they are named after.

Every test draws with a fixed seed, so it gives the same answer every time. A p-value is uniform
where the code is right; one test asks for p > 1e-4, and there are about 150 p-values here, so a
right implementation fails somewhere with probability 1.5 %, once, when a seed is first chosen. The
sample sizes make a wrong constant or an off-by-one far less likely than that to pass: the tests of
the tests at the end show it.
"""

import numpy as np
import pytest
from scipy import stats
from test_random import calls, value

from gpuscan import maths
from gpuscan.tensor.random import MRG_RandomStreams, RandomStreams

THRESHOLD = 1e-4
N = 100_000
BOTH = [RandomStreams, MRG_RandomStreams]


def fit_continuous(x, distribution):
    """Kolmogorov and Smirnov's p-value."""
    return stats.kstest(np.ravel(x).astype("f8"), distribution.cdf).pvalue


def fit_counts(x, distribution, least=10.0):
    """Pearson's chi-square p-value; the values are put in cells that expect at least 10."""
    x = np.ravel(x)
    low, high = int(distribution.ppf(1e-12)), int(distribution.ppf(1 - 1e-12))
    step = max(1, (high - low) // 400)
    edges = np.arange(low, high + step, step)
    expected = np.diff(distribution.cdf(np.concatenate([[-np.inf], edges, [np.inf]]))) * x.size
    seen = np.bincount(np.searchsorted(edges, x, side="left"), minlength=len(expected))
    cells = [[0.0, 0.0]]
    for e, s in zip(expected, seen):
        if cells[-1][0] >= least:
            cells.append([0.0, 0.0])
        cells[-1][0] += e
        cells[-1][1] += s
    if len(cells) > 1 and cells[-1][0] < least:
        rest = cells.pop()
        cells[-1] = [a + b for a, b in zip(cells[-1], rest)]
    e, s = np.array(cells).T
    assert len(e) > 1
    return stats.chisquare(s, e * s.sum() / e.sum()).pvalue


def fit_cells(seen, probabilities):
    """Pearson's p-value of counts in cells of given probabilities."""
    return stats.chisquare(seen, np.asarray(probabilities) * np.sum(seen)).pvalue


def moments_fit(x, mean, variance, fourth):
    """Whether the mean and the variance are within 4.5 standard errors (1 in 150,000)."""
    x = np.ravel(x).astype("f8")
    of_mean = (x.mean() - mean) / np.sqrt(variance / x.size)
    of_variance = (np.mean((x - mean) ** 2) - variance) / np.sqrt((fourth - variance**2) / x.size)
    return max(abs(of_mean), abs(of_variance)) < 4.5


# ---- floats -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniform(kind, dtype):
    u = value(kind(11).uniform((N,), -2.0, 3.0, dtype=dtype))
    assert fit_continuous(u, stats.uniform(-2, 5)) > THRESHOLD


def test_uniform16_takes_each_of_its_1024_values():
    u = value(RandomStreams(11).uniform((N,), dtype="float16"))
    seen = np.bincount((u.astype("f8") * 1024).astype(int), minlength=1024)
    assert fit_cells(seen, np.full(1024, 1 / 1024)) > THRESHOLD


@pytest.mark.parametrize("bits", [slice(0, 8), slice(8, 16), slice(15, 23)])
def test_all_bits_of_a_float32_uniform_are_uniform(bits):
    u = value(RandomStreams(12).uniform((N,), dtype="float32"))
    integers = (u.astype("f8") * 2**23).astype(np.int64)
    byte = integers >> (23 - bits.stop) & 255
    assert fit_cells(np.bincount(byte, minlength=256), np.full(256, 1 / 256)) > THRESHOLD


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal(kind, dtype):
    z = value(kind(13).normal((N,), 3.0, 2.0, dtype=dtype))
    assert fit_continuous(z, stats.norm(3, 2)) > THRESHOLD
    assert moments_fit(z, 3, 4, 3 * 16)


def test_normal_tails():
    z = value(RandomStreams(14).normal((10 * N,), dtype="float32"))
    edges = np.array([-np.inf, -4.5, -4, -3.5, -3, 3, 3.5, 4, 4.5, np.inf])
    seen, _ = np.histogram(z, np.nan_to_num(edges))
    assert fit_cells(seen, np.diff(stats.norm.cdf(edges))) > THRESHOLD


def test_normal16():
    z = value(RandomStreams(15).normal((N,), dtype="float16"))
    assert moments_fit(z, 0, 1, 3)


@pytest.mark.parametrize("kind", BOTH)
def test_truncated_normal_has_the_deviation_that_was_asked_for(kind):
    z = value(kind(16).truncated_normal((N,), 1.0, 2.0, dtype="float64"))
    whole = stats.truncnorm(-2, 2, loc=1, scale=2 / stats.truncnorm.std(-2, 2))
    assert fit_continuous(z, whole) > THRESHOLD
    assert moments_fit(z, 1, 4, whole.stats("k") * 16 + 3 * 16)


def test_a_truncated_normal_of_mrg_keeps_the_scale():
    z = value(MRG_RandomStreams(16).normal((N,), 1.0, 2.0, dtype="float64", truncate=True))
    assert fit_continuous(z, stats.truncnorm(-2, 2, loc=1, scale=2)) > THRESHOLD


# ---- counts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("p", [1e-3, 0.3, 0.5, 0.97])
def test_bernoulli(kind, p):
    x = value(kind(21).binomial((N,), 1, np.float32(p)))
    assert stats.binomtest(int(x.sum()), N, float(np.float32(p))).pvalue > THRESHOLD


# on both sides of n min(p, 1 - p) = 10, where the method changes
@pytest.mark.parametrize(
    ("n", "p"),
    [
        (2, 0.5), (5, 0.3), (19, 0.5), (20, 0.5), (21, 0.5), (33, 0.3), (34, 0.3), (33, 0.7),
        (34, 0.7), (100, 0.09), (100, 0.11), (1000, 0.001), (1000, 0.3), (10**4, 0.999),
        (10**5, 0.5), (10**6, 1e-5), (2**31, 0.4), (2**31, 3e-9),
    ],
)  # fmt: skip
def test_binomial(n, p):
    x = value(RandomStreams(22).binomial((3 * N,), n, np.float64(p)))
    assert fit_counts(x, stats.binom(n, p)) > THRESHOLD


@pytest.mark.parametrize(
    "mean", [1e-3, 0.1, 1.0, 5.0, 9.99, 10.0, 10.01, 12.5, 30.0, 150.0, 1e3, 1e5, 1e8]
)
def test_poisson(mean):
    x = value(RandomStreams(23).poisson((3 * N,), np.float64(mean)))
    assert fit_counts(x, stats.poisson(mean)) > THRESHOLD


def test_poisson_of_many_means_at_once():
    means = np.geomspace(0.01, 1000, 50)
    x = value(RandomStreams(24).poisson((4000, 50), means))
    scores = (x.mean(0) - means) / np.sqrt(means / 4000)
    assert stats.kstest(scores, "norm").pvalue > THRESHOLD


@pytest.mark.parametrize("high", [1, 5, 1000])
def test_random_integers(high):
    x = value(RandomStreams(25).random_integers((N,), -1, high))
    cells = np.full(high + 2, 1 / (high + 2))
    assert fit_cells(np.bincount(x + 1, minlength=high + 2), cells) > THRESHOLD


# ---- categories ---------------------------------------------------------------------------------

WEIGHTS = np.array([0.05, 0.4, 0.15, 0.1, 0.3])


@pytest.mark.parametrize("kind", BOTH)
def test_one_of_several_categories(kind):
    x = value(kind(31).multinomial(pvals=np.tile(WEIGHTS, (N, 1))))
    assert fit_cells(x.sum(0), WEIGHTS) > THRESHOLD


@pytest.mark.parametrize("n", [3, 200])
@pytest.mark.parametrize("j", range(5))
def test_each_count_of_a_multinomial_is_binomial(n, j):
    x = value(RandomStreams(32).multinomial((N,), n, WEIGHTS))
    assert fit_counts(x[:, j], stats.binom(n, WEIGHTS[j])) > THRESHOLD


@pytest.mark.parametrize("kind", BOTH)
def test_the_counts_of_a_multinomial_together(kind):
    x = value(kind(33).multinomial(pvals=np.tile([0.2, 0.5, 0.3], (N, 1)), n=4))
    pairs = [(a, b) for a in range(5) for b in range(5 - a)]
    whole = stats.multinomial(4, [0.2, 0.5, 0.3])
    seen = [int(((x[:, 0] == a) & (x[:, 1] == b)).sum()) for a, b in pairs]
    assert fit_cells(seen, [whole.pmf([a, b, 4 - a - b]) for a, b in pairs]) > THRESHOLD


def test_choice():
    x = value(RandomStreams(34).choice((N,), 7))
    assert fit_cells(np.bincount(x, minlength=7), np.full(7, 1 / 7)) > THRESHOLD


def test_weighted_choice():
    x = value(RandomStreams(35).choice((N,), 5, p=WEIGHTS))
    assert fit_cells(np.bincount(x, minlength=5), WEIGHTS) > THRESHOLD


def _ordered_pairs(weights):
    """P(first i, then j) when two are drawn in turn without replacement."""
    w = weights / weights.sum()
    return np.array([[0 if i == j else w[i] * w[j] / (1 - w[i]) for j in range(len(w))]
                     for i in range(len(w))])  # fmt: skip


def _pair_p_value(pairs, weights):
    k = len(weights)
    seen = np.bincount(pairs[:, 0] * k + pairs[:, 1], minlength=k * k)
    expected = _ordered_pairs(weights).ravel()
    assert not seen[expected == 0].any()
    return fit_cells(seen[expected > 0], expected[expected > 0])


def test_mrgs_choice_draws_in_turn_without_replacement():
    x = value(MRG_RandomStreams(36).choice(2, None, False, np.tile(WEIGHTS, (N, 1))))
    assert _pair_p_value(x, WEIGHTS) > THRESHOLD


@pytest.mark.parametrize("p", [None, WEIGHTS])
def test_choice_draws_in_turn_without_replacement(p):
    draw = RandomStreams(37).choice((2,), 5, False, p)
    pairs = np.array([row[0] for row in calls([draw], 4000)])
    assert _pair_p_value(pairs, np.ones(5) if p is None else p) > THRESHOLD


def test_all_orders_of_a_permutation_are_equally_likely():
    x = value(RandomStreams(38).permutation((N,), 5))
    codes = x @ 5 ** np.arange(5)
    orders, seen = np.unique(codes, return_counts=True)
    assert len(orders) == 120
    assert fit_cells(seen, np.full(120, 1 / 120)) > THRESHOLD


def test_shuffled_rows_take_all_orders_equally_often():
    rows = np.tile(np.arange(4), (N, 1))
    x = value(RandomStreams(39).shuffle_row_elements(rows))
    _, seen = np.unique(x @ 4 ** np.arange(4), return_counts=True)
    assert fit_cells(seen, np.full(24, 1 / 24)) > THRESHOLD


# ---- independence -------------------------------------------------------------------------------


def dependence(a, b, cells=16):
    """Pearson's p-value of the table of two uniforms that are independent."""
    table = np.histogram2d(np.ravel(a), np.ravel(b), cells, [[0, 1]] * 2)[0]
    return fit_cells(table.ravel(), np.full(cells * cells, 1 / cells**2))


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_consecutive_draws_are_independent(kind, dtype):
    (a,), (b,), (c,) = calls([kind(41).uniform((N,), dtype=dtype)], 3)
    assert min(dependence(a, b), dependence(b, c), dependence(a, c)) > THRESHOLD


@pytest.mark.parametrize("kind", BOTH)
def test_sites_are_independent(kind):
    rng = kind(42)
    a, b, c = calls([rng.uniform((N,)) for _ in range(3)])[0]
    assert min(dependence(a, b), dependence(b, c), dependence(a, c)) > THRESHOLD


def test_seeds_that_are_neighbours_are_independent():
    a, b, c = (value(RandomStreams(s).uniform((N,))) for s in (1, 2, 3))
    assert min(dependence(a, b), dependence(b, c), dependence(a, c)) > THRESHOLD


def test_the_two_kinds_of_container_are_independent():
    a, b = (value(kind(43).uniform((N,))) for kind in BOTH)
    assert dependence(a, b) > THRESHOLD


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 5, 8, 64])
def test_elements_of_a_draw_are_independent(lag):
    u = value(RandomStreams(44).uniform((N,)))
    assert dependence(u[:-lag], u[lag:]) > THRESHOLD


def test_one_element_over_many_draws_is_uniform():
    draw = RandomStreams(45).uniform((3,))
    u = np.array([row[0] for row in calls([draw], 5000)])
    for i in range(3):
        assert fit_continuous(u[:, i], stats.uniform) > THRESHOLD
    assert dependence(u[:-1, 0], u[1:, 0], 8) > THRESHOLD
    assert dependence(u[:, 0], u[:, 1], 8) > THRESHOLD


def test_one_element_over_many_sites_is_uniform():
    rng = RandomStreams(46)
    u = np.array(calls([rng.uniform(()) for _ in range(2000)])[0])
    assert fit_continuous(u, stats.uniform) > THRESHOLD
    assert dependence(u[:-1], u[1:], 4) > THRESHOLD


@pytest.mark.parametrize("mean", [3.0, 50.0])
def test_counts_are_uncorrelated_with_those_of_the_next_draw_and_site(mean):
    rng = RandomStreams(47)
    (a, b), (c, _) = calls([rng.poisson((N,), mean), rng.poisson((N,), mean)], 2)
    for x, y in ((a, b), (a, c), (a[:-1], a[1:])):
        assert abs(np.corrcoef(x, y)[0, 1]) < 4.5 / np.sqrt(N)


# ---- the tests themselves -----


def test_the_tests_see_a_small_error():
    x = np.random.default_rng(0).poisson(10.1, 3 * N)
    assert fit_counts(x, stats.poisson(10)) < THRESHOLD
    x = np.random.default_rng(0).binomial(1000, 0.301, 3 * N)
    assert fit_counts(x, stats.binom(1000, 0.3)) < THRESHOLD
    z = np.random.default_rng(0).normal(0.02, 1, N)
    assert fit_continuous(z, stats.norm) < THRESHOLD
    u = np.random.default_rng(0).uniform(size=N)
    assert dependence(u, (u + np.random.default_rng(1).uniform(0, 0.9, N)) % 1) < THRESHOLD


def test_maths_and_scipy_agree_on_the_logarithm_of_the_gamma_function():
    from scipy.special import gammaln

    x = np.geomspace(1, 2.0**31, 1000)
    np.testing.assert_allclose(maths.gammaln(x), gammaln(x), rtol=4e-15, atol=1e-15)
