import numpy as np
import pytest

from ultralytics_sgdm.evidence import report, statistics

pytest.importorskip("scipy")


def test_the_interval_of_a_paired_difference_is_students():
    estimate = statistics.paired({0: 3.0, 1: 5.0, 2: 4.0, 9: 0.0}, {0: 1.0, 1: 2.0, 2: 3.0})
    assert (estimate.mean, estimate.df) == (2, 2)
    assert estimate.half == pytest.approx(4.302653 * 1 / 3**0.5, rel=1e-6)
    assert statistics.paired({0: 3.0}, {0: 1.0}).half is None
    with pytest.raises(ValueError, match="no seed is common"):
        statistics.paired({0: 3.0}, {1: 1.0})


def test_where_no_seed_differs_nothing_is_said_of_what_is_needed():
    runs = {"a": {seed: {None: {"mAP50-95": 0.0}} for seed in range(3)}}
    text = report.power(runs, None)
    assert "No two seeds of an arm differ" in text and "| difference |" not in text
    runs["a"][0][None]["mAP50-95"] = 0.02
    text = report.power(runs, None)
    assert "Spread over seeds, pooled over all arms: 1.15 points (2 degrees of freedom)." in text
    assert "| difference | seeds an arm needs at 80 % power |" in text and "\n| 2.0 | 7 |  |\n" in text


def test_a_pooled_spread_leaves_the_means_of_the_groups_out():
    assert statistics.pooled_spread([[1, 3], [10, 12, 14], [7]]) == (pytest.approx(((2 + 8) / 3) ** 0.5), 3)
    assert statistics.pooled_spread([[1], [2]]) is None
    estimate = statistics.pooled([5, 7], [2, 2, 2, 2], (2.0, 10))
    assert estimate.mean == 4
    assert estimate.error == pytest.approx(2 * (1 / 2 + 1 / 4) ** 0.5)


def test_groups_are_drawn_whole_and_as_often_as_there_are():
    groups = ["a", "b", "a", "c", "c", "c"]
    counts = statistics.resample(groups, 4000, np.random.default_rng(0))
    assert (counts[:, 0] == counts[:, 2]).all() and (counts[:, 3] == counts[:, 5]).all()
    assert (counts[:, 0] + counts[:, 1] + counts[:, 3] == 3).all()
    assert counts.mean(0) == pytest.approx(np.ones(6), abs=0.05)


@pytest.mark.parametrize(
    ("seeds", "pictures", "by_seed", "by_picture"), [(2, 60, 2, 0.5), (3, 60, 1, 1), (6, 40, 0.3, 3), (4, 80, 2, 0.5)]
)
def test_the_two_way_interval_holds_the_truth_as_often_as_it_says(seeds, pictures, by_seed, by_picture):
    """A score is the mean over pictures of a seed's effect, a picture's effect, and noise of both together."""
    rng, held = np.random.default_rng(0), []
    for _ in range(300):
        values = by_seed * rng.standard_normal((seeds, 1)) + by_picture * rng.standard_normal(pictures)
        values = values + rng.standard_normal((seeds, pictures))
        counts = statistics.resample(range(pictures), 200, rng)
        estimate = statistics.two_way(values.mean(1), counts @ values.T / pictures, pictures, rng=rng)
        held.append(abs(estimate.mean) < estimate.half)
    assert 0.935 <= np.mean(held) <= 0.99


def test_over_pictures_too_the_interval_is_wider_than_over_seeds_alone():
    observed = np.array([0.5, 0.7, 0.6])
    resampled = observed + np.random.default_rng(0).normal(0, 0.8, (1000, 1))
    both = statistics.two_way(observed, resampled, 87)
    seeds = statistics.paired(dict(enumerate(observed)), dict.fromkeys(range(3), 0.0))
    assert both.mean == pytest.approx(seeds.mean)
    assert seeds.mean - seeds.half > 0 > both.mean - both.half
    assert statistics.two_way(observed[:1], resampled[:, :1], 87).half is None


def test_two_seeds_that_ended_alike_by_chance_are_not_sure_of_a_difference():
    observed = np.array([0.9, 1.1])
    by_picture = np.random.default_rng(0).normal(0, 0.2, (1000, 1))
    both = statistics.two_way(observed, observed + by_picture, 364)
    seeds = statistics.paired(dict(enumerate(observed)), dict.fromkeys(range(2), 0.0))
    assert both.half > seeds.half > seeds.mean


def test_the_number_of_seeds_that_is_named_has_the_power():
    n = statistics.seeds_needed(1.0, 0.8)
    rng = np.random.default_rng(0)
    half = statistics.quantile(0.975, 2 * (n - 1))

    def share(n):
        a, b = rng.normal(1, 0.8, (4000, n)), rng.normal(0, 0.8, (4000, n))
        error = ((a.var(1, ddof=1) + b.var(1, ddof=1)) / n) ** 0.5
        return ((a.mean(1) - b.mean(1)) / error > half).mean()

    assert share(n) == pytest.approx(0.83, abs=0.05)
    assert share(n - 2) < 0.8
    assert statistics.seeds_needed(1.0, 0.8, pictures_error=0.3) > n
    assert statistics.seeds_needed(0.5, 0.8, pictures_error=0.3) is None


def test_the_number_of_pictures_shrinks_their_error_to_what_the_seeds_leave():
    n = statistics.pictures_needed(1.0, 100, 0.5, 0.2)
    reach = 1.0 / (statistics.quantile(0.975, np.inf) + statistics.quantile(0.8, np.inf))
    assert 0.5**2 * 100 / n + 0.2**2 == pytest.approx(reach**2, rel=0.01)
    assert statistics.pictures_needed(1.0, 100, 0.5, 0.4) is None


def test_two_looks_err_no_more_often_than_one():
    """Without any difference, the share of comparisons that either of two looks calls one is 5 %."""
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 200_000))
    levels = statistics.LOOKS[1]
    bounds = [statistics.quantile(1 - level / 2, np.inf) for level in levels]
    called = (abs(first) > bounds[0]) | (abs(first + second) / 2**0.5 > bounds[1])
    assert called.mean() == pytest.approx(0.05, abs=0.002)
