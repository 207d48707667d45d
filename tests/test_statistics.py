"""The statistics of a comparison, held to scipy, to numbers worked out by hand, and to laws."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from minboost import InputError
from minboost.analysis.intervals import sign_test, wilson
from minboost.comparison import paired, statistics
from minboost.comparison.paired import (
    MCNEMAR,
    SIGN_FLIP,
    SIGN_FLIP_DRAWN,
    cohens_h,
    difference,
    gained_and_lost,
    holm,
    odds_ratio,
    paired_test,
    sign_flip_test,
)
from minboost.comparison.statistics import (
    ALIKE,
    BCA,
    DIFFERENCE,
    FEW,
    FIXED,
    PERCENTILE,
    SHARE,
    mean_over_cases,
)

# Of each case the outcomes of its runs: few cases, or enough of them for a bootstrap.
runs = st.lists(st.booleans(), min_size=1, max_size=4)
cases = st.builds(
    lambda some, times: some * times,
    st.lists(runs, min_size=1, max_size=20),
    st.sampled_from([1, 15, 30]),
)
pairs = st.lists(
    st.integers(1, 3).flatmap(
        lambda n: st.tuples(
            st.lists(st.booleans(), min_size=n, max_size=n),
            st.lists(st.booleans(), min_size=n, max_size=n),
        )
    ),
    min_size=1,
    max_size=12,
)


def ends(estimate):
    return estimate.low, estimate.high


def drawn(count, share, runs=1, seed=0, alike=1.5):
    """Outcomes of ``count`` cases: each case has its own chance, the same for all of its runs."""
    rng = np.random.default_rng(seed)
    if runs == 1:
        return [[float(one)] for one in rng.random(count) < share]
    chances = rng.beta(share * alike, (1 - share) * alike, size=count)
    return (rng.random((count, runs)) < chances[:, None]).astype(float).tolist()


# ---- intervals of a mean


@pytest.mark.parametrize("accelerated", [True, False], ids=["BCa", "percentile"])
@pytest.mark.parametrize(
    "outcomes",
    [
        drawn(40, 0.9),
        drawn(280, 0.3),
        drawn(60, 0.8, runs=5),
        [[x] for x in np.random.default_rng(4).gamma(2.0, size=45).tolist()],
    ],
    ids=["40 shares", "280 shares", "60 cases of 5 runs", "skewed numbers"],
)
def test_the_interval_is_the_bootstrap_of_scipy_over_the_means_of_the_cases(outcomes, accelerated):
    means = np.array([np.mean(case) for case in outcomes])
    theirs = stats.bootstrap(
        (means,),
        np.mean,
        n_resamples=40_000,
        batch=1000,
        method="BCa" if accelerated else "percentile",
        rng=np.random.default_rng(8),
    ).confidence_interval
    ours = mean_over_cases(outcomes, accelerated=accelerated, resamples=40_000)
    assert ours.value == pytest.approx(means.mean())
    assert ours.method == (BCA if accelerated else PERCENTILE)
    # The end of an interval is a quantile q, whose error is √(q(1−q)/B) over the density there. For
    # a nearly normal mean that is .0021 standard errors of the mean; BCa's bias z₀ adds about as
    # much again. A share moves in steps: one more.
    error = means.std(ddof=1) / math.sqrt(len(means))
    step = 0 if len(np.unique(means)) > 10 else np.diff(np.unique(means)).min() / len(means)
    assert ends(ours) == pytest.approx((theirs.low, theirs.high), abs=0.05 * error + step)


def test_the_pooled_interval_is_the_bootstrap_of_scipy_over_sums_and_counts():
    rng = np.random.default_rng(1)
    outcomes = [(rng.random(rng.integers(1, 4)) < 0.7).astype(float).tolist() for _ in range(50)]
    sums, counts = np.array([(sum(case), len(case)) for case in outcomes]).T
    theirs = stats.bootstrap(
        (sums, counts),
        lambda s, n, axis: s.sum(axis) / n.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        batch=1000,
        rng=np.random.default_rng(3),
    ).confidence_interval
    ours = mean_over_cases(outcomes, bounds=SHARE, pooled=True, resamples=20_000)
    assert ours.value == pytest.approx(sums.sum() / counts.sum())
    assert (ours.cases, ours.answers) == (50, counts.sum())
    assert ends(ours) == pytest.approx((theirs.low, theirs.high), abs=0.005)


def test_drawing_cases_and_drawing_their_counts_are_the_same_bootstrap(monkeypatch):
    outcomes = drawn(200, 0.4, runs=3)
    by_count = mean_over_cases(outcomes, resamples=20_000)
    monkeypatch.setattr(statistics, "DRAW_COUNTS_UP_TO", 10_000)
    by_case = mean_over_cases(outcomes, resamples=20_000)
    assert ends(by_count) == pytest.approx(ends(by_case), abs=0.003)


def test_drawing_in_parts_changes_nothing(monkeypatch):
    numbers = [[x] for x in np.random.default_rng(4).normal(size=30).tolist()]
    for outcomes in (numbers, drawn(30, 0.5)):
        at_once = mean_over_cases(outcomes)
        with monkeypatch.context() as patch:
            patch.setattr(statistics, "CHUNK", 999)
            assert mean_over_cases(outcomes) == at_once


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("count", [1, 7, 12, 500])
def test_all_or_none_gives_wilsons_interval_and_not_one_without_width(share, count):
    estimate = mean_over_cases([[share]] * count, bounds=SHARE)
    assert ends(estimate) == pytest.approx(wilson(share * count, count))
    assert estimate.method == ALIKE
    assert estimate.low < estimate.high


def test_alike_cases_between_the_bounds_might_be_otherwise_on_either_side():
    # 20 cases, each with one of two runs right. Wilson gives none of 20 at most
    # u = 1.96² / (20 + 1.96²) = 0.16113 that would be otherwise: at 0, or at 1.
    estimate = mean_over_cases([[0.0, 1.0]] * 20, bounds=SHARE)
    assert ends(estimate) == pytest.approx((0.5 * (1 - 0.16113), 0.5 + 0.5 * 0.16113), abs=1e-5)
    # No difference in 20 cases: those others could each be gained, or each be lost.
    estimate = mean_over_cases([[0.0]] * 20, bounds=DIFFERENCE)
    assert ends(estimate) == pytest.approx((-0.16113, 0.16113), abs=1e-5)


def test_without_bounds_alike_cases_say_nothing_of_others():
    estimate = mean_over_cases([[2.5]] * 20)
    assert (estimate.low, estimate.value, estimate.high, estimate.method) == (2.5, 2.5, 2.5, FIXED)


def test_cases_that_only_rounding_parts_are_alike():
    outcomes = [[1.1 - 1.0], [4.1 - 4.0]] * 20
    assert outcomes[0] != outcomes[1]
    estimate = mean_over_cases(outcomes)
    assert (estimate.method, estimate.value) == (FIXED, pytest.approx(0.1))


def test_few_cases_get_wilsons_interval_with_as_many_trials_as_cases():
    # 4 cases, 3 runs each, 9 of 12 right: as 3 of 4, not as 9 of 12.
    outcomes = [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    estimate = mean_over_cases(outcomes, bounds=SHARE)
    assert (estimate.value, estimate.method) == (0.75, FEW)
    assert ends(estimate) == pytest.approx(wilson(3, 4))
    # On [−1, 1] the mean .5 is the share .75 of the way.
    estimate = mean_over_cases([[1.0], [1.0], [1.0], [-1.0]], bounds=DIFFERENCE)
    assert ends(estimate) == pytest.approx([2 * end - 1 for end in wilson(3, 4)])
    # Cases with 1, 1 and 2 checks are worth 4² / (1 + 1 + 4) cases with one.
    estimate = mean_over_cases([[1.0], [0.0], [1.0, 1.0]], bounds=SHARE, pooled=True)
    assert ends(estimate) == pytest.approx(wilson(2, 16 / 6))


def test_runs_are_no_cases():
    """Five runs that always agree leave the interval of one run; five times the cases narrow it."""
    once = drawn(40, 0.6)
    agreeing = mean_over_cases([case * 5 for case in once], bounds=SHARE)
    assert ends(agreeing) == ends(mean_over_cases(once, bounds=SHARE))
    assert (agreeing.cases, agreeing.answers) == (40, 200)
    more = mean_over_cases(once * 5, bounds=SHARE)
    assert more.high - more.low < 0.6 * (agreeing.high - agreeing.low)


@settings(deadline=None, max_examples=60)
@given(outcomes=cases, pooled=st.booleans(), accelerated=st.booleans())
def test_the_interval_holds_the_mean_and_stays_within_the_bounds(outcomes, pooled, accelerated):
    estimate = mean_over_cases(
        outcomes, bounds=SHARE, pooled=pooled, accelerated=accelerated, resamples=300
    )
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.low < estimate.high


@settings(deadline=None, max_examples=60)
@given(outcomes=cases, data=st.data(), pooled=st.booleans())
def test_the_order_of_cases_does_not_matter(outcomes, data, pooled):
    other = data.draw(st.permutations(outcomes))
    first, second = (
        mean_over_cases(some, bounds=SHARE, pooled=pooled, resamples=200)
        for some in (outcomes, other)
    )
    assert first == second


@settings(deadline=None, max_examples=60)
@given(outcomes=cases, times=st.integers(2, 4))
def test_repeating_every_run_does_not_narrow_the_interval(outcomes, times):
    once = mean_over_cases(outcomes, bounds=SHARE, resamples=200)
    often = mean_over_cases([case * times for case in outcomes], bounds=SHARE, resamples=200)
    assert ends(often) == ends(once)


@pytest.mark.parametrize(
    ("outcomes", "bounds", "message"),
    [
        ([], None, "at least one case"),
        ([[1.0], []], None, "case 2 has no outcome"),
        ([[1.0], [2.0]], SHARE, r"an outcome of case 2 must lie in \[0, 1\], got 2.0"),
        ([[math.nan]], SHARE, r"must lie in \[0, 1\], got nan"),
        ([[math.inf]], None, "must be finite, got inf"),
    ],
    ids=["no case", "no run", "too large", "not a number", "infinite"],
)
def test_outcomes_that_have_no_mean_are_refused(outcomes, bounds, message):
    with pytest.raises(InputError, match=message):
        mean_over_cases(outcomes, bounds=bounds)


def coverage(draw, truth, trials, **arguments):
    hits = 0
    for trial in range(trials):
        low, high = ends(mean_over_cases(draw(trial), resamples=1000, **arguments))
        hits += low <= truth <= high
    return hits / trials


@pytest.mark.slow
def test_bca_holds_extreme_shares_more_often_than_the_percentile_bootstrap():
    """The trial that chose BCa for shares: 5 runs that resemble each other, a share near 0 or 1."""
    worst = {True: 1.0, False: 1.0}
    for count, share in itertools.product((40, 100), (0.05, 0.5, 0.9)):
        for accelerated in worst:
            held = coverage(
                lambda seed, n=count, p=share: drawn(n, p, runs=5, seed=seed),
                share,
                600,
                bounds=SHARE,
                accelerated=accelerated,
            )
            worst[accelerated] = min(worst[accelerated], held)
    assert worst[True] > 0.92
    assert worst[False] < 0.9


@pytest.mark.slow
def test_the_percentile_bootstrap_holds_small_differences_more_often_than_bca():
    """The trial that chose percentiles for differences: as many gained as lost."""

    def draw(seed):
        rng = np.random.default_rng(seed)
        return rng.choice([1.0, -1.0, 0.0], p=[0.05, 0.05, 0.9], size=(50, 1)).tolist()

    held = {
        accelerated: coverage(draw, 0.0, 1500, bounds=DIFFERENCE, accelerated=accelerated)
        for accelerated in (True, False)
    }
    assert held[False] > 0.93
    assert held[True] < held[False] - 0.02


@pytest.mark.slow
def test_wilson_on_few_cases_holds_the_share_where_the_bootstrap_does_not(monkeypatch):
    """The trial that chose where there are too few cases for a bootstrap."""

    def held(count, share):
        return coverage(
            lambda seed: drawn(count, share, runs=3, seed=seed), share, 600, bounds=SHARE
        )

    tried = [(2, 0.3), (3, 0.5), (5, 0.3), (10, 0.8), (20, 0.05), (20, 0.9), (29, 0.5)]
    assert min(held(*one) for one in tried) > 0.93
    monkeypatch.setattr(statistics, "ENOUGH_BCA", 0)
    assert min(held(*one) for one in tried if one[0] > 9) < 0.91
    assert min(held(*one) for one in tried) < 0.86


# ---- paired tests


def pair(arm, plain):
    return [bool(one) for one in arm], [bool(one) for one in plain]


def test_one_run_a_case_is_mcnemars_exact_test():
    # 9 gained, 2 lost, 20 alike: 2 · P(X ≤ 2 | 11, ½) = 2 · (1 + 11 + 55) / 2048.
    some = [pair([1], [0])] * 9 + [pair([0], [1])] * 2 + [pair([1], [1])] * 20
    found = paired_test(some)
    assert (found.name, found.p) == (MCNEMAR, pytest.approx(134 / 2048))
    assert found.p == pytest.approx(stats.binomtest(9, 11).pvalue)


@settings(deadline=None, max_examples=60)
@given(gained=st.integers(0, 30), lost=st.integers(0, 30), alike=st.integers(1, 5))
def test_for_one_run_the_sign_flip_test_is_mcnemars(gained, lost, alike):
    gaps = [Fraction(1)] * gained + [Fraction(-1)] * lost + [Fraction(0)] * alike
    assert sign_flip_test(gaps).p == pytest.approx(sign_test(gained, lost), rel=1e-9)


def by_hand(gaps):
    """Over all 2ⁿ choices of signs."""
    seen = abs(sum(gaps))
    sums = [
        abs(sum(sign * gap for sign, gap in zip(signs, gaps, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(gaps))
    ]
    return sum(one >= seen for one in sums) / len(sums)


def test_a_small_sign_flip_test_worked_out_by_hand():
    # 1, 2/3, −1/3 in thirds: 3, 2, −1, sum 4. The 8 sums of ±3 ±2 ±1 are ±6, ±4, ±2, ±0: of them
    # ±6 and ±4 are as far from 0.
    some = [
        pair([1, 1, 1], [0, 0, 0]),
        pair([1, 1, 0], [0, 0, 0]),
        pair([0, 0, 0], [0, 0, 1]),
        pair([0, 1, 0], [1, 0, 0]),  # the same mean
    ]
    found = paired_test(some)
    assert (found.name, found.p) == (SIGN_FLIP, 0.5)
    assert gained_and_lost(some) == (2, 1)


@settings(deadline=None, max_examples=60)
@given(some=pairs)
def test_the_paired_test_counts_all_choices_of_signs(some):
    gaps = [Fraction(sum(arm), len(arm)) - Fraction(sum(plain), len(plain)) for arm, plain in some]
    found = paired_test(some)
    assert found.p == pytest.approx(by_hand([gap for gap in gaps if gap]), rel=1e-9)
    assert 0 < found.p <= 1


def test_the_sign_flip_test_is_scipys_permutation_test():
    rng = np.random.default_rng(2)
    gaps = [Fraction(int(one), 5) for one in rng.integers(-3, 6, size=14)]
    theirs = stats.permutation_test(
        (np.array([float(gap) for gap in gaps]),),
        lambda one, axis: one.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert sign_flip_test(gaps).p == pytest.approx(theirs.pvalue, rel=1e-9)


def test_many_cases_are_worked_out_as_well():
    """560 cases with five runs: no enumeration would end, and a normal distribution is near."""
    rng = np.random.default_rng(3)
    gaps = [Fraction(int(one), 5) for one in rng.integers(-4, 6, size=560)]
    found = sign_flip_test(gaps)
    numbers = np.array([float(gap) for gap in gaps])
    z = (abs(numbers.sum()) - 0.1) / math.sqrt((numbers**2).sum())  # half a step less
    assert found.name == SIGN_FLIP
    assert found.p == pytest.approx(2 * stats.norm.sf(z), rel=0.02)


def test_drawn_signs_come_near_the_exact_test_and_never_give_0():
    gaps = [Fraction(k, 7) for k in (3, 2, 2, -1, 4, -2, 5, 1, 1, 3)]
    exact = sign_flip_test(gaps)
    some = sign_flip_test(gaps, work=0)
    assert (exact.name, some.name) == (SIGN_FLIP, SIGN_FLIP_DRAWN)
    error = math.sqrt(exact.p * (1 - exact.p) / paired.DRAWS)
    assert some.p == pytest.approx(exact.p, abs=4 * error)
    assert some == sign_flip_test(gaps[::-1], work=0)
    assert sign_flip_test([Fraction(1)] * 100, work=0, draws=999).p == 1 / 1000
    assert sign_flip_test([Fraction(0)] * 5, work=0).p == 1


def test_a_p_value_that_no_float_can_hold_is_not_0():
    assert 0 < paired_test([pair([1], [0])] * 2000).p < 1e-300
    assert 0 < paired_test([pair([1, 1], [0, 0])] * 2000).p < 1e-300


def test_arms_that_never_differ_have_p_1():
    assert paired_test([pair([1], [1]), pair([0], [0])]).p == 1
    assert paired_test([pair([1, 0], [0, 1])] * 5).p == 1


@settings(deadline=None, max_examples=60)
@given(some=pairs, data=st.data())
def test_a_comparison_does_not_depend_on_the_order_and_turns_around_with_the_arms(some, data):
    other = data.draw(st.permutations(some))
    assert paired_test(some) == paired_test(other)
    turned = [(plain, arm) for arm, plain in some]
    assert paired_test(some).p == pytest.approx(paired_test(turned).p)
    assert difference(some).value == pytest.approx(-difference(turned).value)
    assert gained_and_lost(some) == gained_and_lost(turned)[::-1]


@settings(deadline=None, max_examples=60)
@given(some=pairs)
def test_repeating_every_run_leaves_the_comparison_as_it_is(some):
    twice = [(arm * 2, plain * 2) for arm, plain in some]
    assert difference(twice).value == pytest.approx(difference(some).value)
    assert ends(difference(twice)) == pytest.approx(ends(difference(some)))
    assert paired_test(twice).p == pytest.approx(paired_test(some).p)


def test_the_difference_is_paired():
    # Arm 14 and plain 10 of 20, no case lost: 4 of 20 differ.
    some = [pair([1], [1])] * 10 + [pair([1], [0])] * 4 + [pair([0], [0])] * 6
    found = difference(some)
    assert (found.value, found.method) == (pytest.approx(0.2), PERCENTILE)
    # The resampled mean is Binomial(20, 1/5) / 20.
    assert ends(found) == tuple(stats.binom(20, 0.2).ppf([0.025, 0.975]) / 20)


@pytest.mark.parametrize(
    "some", [[], [pair([1, 0], [1])], [pair([], [])]], ids=["none", "uneven", "empty"]
)
def test_sides_that_do_not_pair_are_refused(some):
    for function in (paired_test, difference):
        with pytest.raises(InputError, match="case"):
            function(some)
    with pytest.raises(InputError, match="at least one case"):
        sign_flip_test([])


# ---- several arms, sizes of effects


def test_holm_by_hand():
    # Sorted .005, .01, .03, .04, times 4, 3, 2, 1: .02, .03, .06, .04 → .06, since none may fall.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@given(ps=st.lists(st.floats(1e-300, 1), max_size=8))
def test_holm_keeps_the_order_and_lowers_none(ps):
    corrected = holm(ps)
    assert all(0 < p <= one <= 1 for p, one in zip(ps, corrected, strict=True))
    assert all(one <= p * len(ps) * (1 + 1e-12) for p, one in zip(ps, corrected, strict=True))
    ordered = [one for _, one in sorted(zip(ps, corrected, strict=True))]
    assert ordered == sorted(ordered)


@given(ps=st.lists(st.floats(0.001, 1), min_size=1, max_size=6), level=st.floats(0.01, 0.5))
def test_holm_rejects_just_what_stepping_down_rejects(ps, level):
    """His own wording: from the smallest on, as long as p(k) ≤ level / (m − k + 1)."""
    rejected = 0
    for rank, p in enumerate(sorted(ps)):
        if (len(ps) - rank) * p > level:
            break
        rejected += 1
    assert sum(one <= level for one in holm(ps)) == rejected


def test_cohens_h_by_hand():
    # φ = 2·asin(√p): φ(1) = π, φ(½) = π/2, φ(¼) = π/3, φ(0) = 0.
    assert cohens_h(1.0, 0.5) == pytest.approx(math.pi / 2)
    assert cohens_h(0.25, 0.5) == pytest.approx(-math.pi / 6)
    assert cohens_h(1.0, 0.0) == pytest.approx(math.pi)
    assert cohens_h(0.3, 0.3) == 0


@pytest.mark.parametrize(("gained", "lost"), [(9, 2), (1, 1), (2, 9), (140, 60), (1, 300)])
def test_the_odds_ratio_has_clopper_and_pearsons_interval(gained, lost):
    found = odds_ratio(gained, lost)
    theirs = stats.binomtest(gained, gained + lost).proportion_ci(method="exact")
    assert found.value == gained / lost
    assert found.low == pytest.approx(theirs.low / (1 - theirs.low), rel=1e-6)
    assert found.high == pytest.approx(theirs.high / (1 - theirs.high), rel=1e-6)


def test_odds_without_a_loss_are_infinite_and_without_a_difference_there_are_none():
    # P(5 of 5) = p⁵ = .025 at p = .025^(1/5).
    p = 0.025**0.2
    found = odds_ratio(5, 0)
    assert (found.value, found.high) == (math.inf, math.inf)
    assert found.low == pytest.approx(p / (1 - p))
    found = odds_ratio(0, 5)
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx((1 - p) / p)
    assert odds_ratio(0, 0) is None


@given(gained=st.integers(0, 40), lost=st.integers(0, 40))
def test_the_odds_ratio_leaves_out_1_just_where_mcnemars_test_is_significant(gained, lost):
    found = odds_ratio(gained, lost)
    if found is None:
        assert gained == lost == 0
        return
    assert found.low <= found.value <= found.high
    assert (not found.low <= 1 <= found.high) == (sign_test(gained, lost) <= 0.05)


@pytest.mark.parametrize(
    "call",
    [
        lambda: holm([0.5, 1.5]),
        lambda: holm([math.nan]),
        lambda: cohens_h(1.2, 0.5),
        lambda: odds_ratio(-1, 2),
        lambda: mean_over_cases([[1.0]], resamples=0),
        lambda: sign_flip_test([Fraction(1)], draws=0),
    ],
    ids=["p above 1", "no p", "share above 1", "negative", "no resample", "no draw"],
)
def test_values_out_of_range_are_refused(call):
    with pytest.raises(InputError, match="must"):
        call()
