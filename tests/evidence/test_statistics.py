import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("statsmodels")
from scipy import stats

from ultralytics_sgdm.evidence import statistics
from ultralytics_sgdm.evidence.statistics import Estimate, decide


def test_the_interval_of_a_paired_difference_is_students_and_bonferronis():
    estimate = statistics.paired([2.0, 3.0, 1.0])
    assert estimate.mean == 2
    assert estimate.half == pytest.approx(4.302653 * 1 / 3**0.5, rel=1e-6)
    assert estimate.p == pytest.approx(stats.ttest_rel([3, 5, 4], [1, 2, 3]).pvalue)
    of_eight = statistics.paired([2.0, 3.0, 1.0], variants=8)
    assert of_eight.half == pytest.approx(stats.t.ppf(1 - 0.05 / 16, 2) / 3**0.5)
    assert of_eight.p == pytest.approx(8 * estimate.p)
    assert statistics.paired([2.0]) == statistics.paired([2.0, 2.0]) == Estimate(2.0)


@pytest.mark.parametrize("variants", [1, 4])
def test_interval_and_p_value_agree(variants):
    def two_way(differences):
        return statistics.two_way(differences, {"error": 0.6, "pictures_error": 0.4}, 87, variants)

    centred = np.array([-1.0, 0.3, 0.2, 0.9, -0.4])
    for differences in centred + np.linspace(1, 9, 9)[:, None]:
        for estimate in (statistics.paired(differences, variants), two_way(differences)):
            assert (abs(estimate.mean) > estimate.half) == (estimate.p < statistics.LEVEL)
        at_the_bound = centred + two_way(differences).half
        assert two_way(at_the_bound).p == pytest.approx(0.05, rel=1e-3)


def test_of_eight_variants_without_effect_none_is_called_different_in_95_of_100():
    """Scores are sums of an image's, a run's and a run's image's effect; the reference is shared by all differences."""
    rng, seeds, images, called = np.random.default_rng(0), 5, 60, []
    for _ in range(400):
        values = rng.standard_normal(images) + 0.5 * rng.standard_normal((9, seeds, 1))
        values = values + rng.standard_normal((9, seeds, images))
        drawn = np.einsum("bp,vsp->vbs", statistics.resample(range(images), 200, rng), values) / images
        found = []
        for differences, resampled in zip(values[1:].mean(2) - values[0].mean(1), drawn[1:] - drawn[0], strict=True):
            both = statistics.two_way(differences, statistics.two_way_errors(resampled, rng), images, 8)
            halves = statistics.paired(differences, 8).half, both.half
            found.append([decide(differences, half, 0, 0, seeds) in ("superior", "inferior") for half in halves])
        called.append(np.any(found, 0))
    assert (np.mean(called, 0) <= 0.06).all()  # over seeds, and over seeds and images


ABOVE, BELOW = ("undecided: above zero, by less than the margin", "undecided: below zero, by less than the margin")


@pytest.mark.parametrize(
    ("differences", "half", "verdict"),
    [
        ([0.9, 1.0, 1.1], 0.9, "superior"),
        ([-0.9, -1.0, -1.1], 0.9, "inferior"),
        ([0.5, 0.6, 0.7], 0.5, ABOVE),
        ([-0.5, -0.6, -0.7], 0.5, BELOW),
        ([0.0, 0.1, 0.2], 0.3, "equivalent"),
        ([-0.04, -0.05, -0.06], 0.04, "equivalent"),
        ([0.9, 1.0, 1.1], 1.1, "undecided"),
        ([0.9, 1.0, 1.1], np.nan, "undecided: no interval over seeds and images"),
        ([0.0, 0.0, 0.0], 0.2, "undecided: no spread over seeds"),
        ([0.9, 1.0], 0.2, "undecided: 2 of 3 planned seeds"),
    ],
)
def test_the_verdict_is_by_margins_that_are_the_same_above_and_below(differences, half, verdict):
    assert decide(differences, half, 0.7, 0.5, planned=3) == verdict
    assert decide([0.9, 1.0], 0.1, 0.7, 0.5, planned=2) == "undecided: a verdict needs 3 seeds"


def test_a_pooled_spread_leaves_the_means_of_the_groups_out():
    assert statistics.pooled_spread([[1, 3], [10, 12, 14], [7]]) == pytest.approx(((2 + 8) / 3) ** 0.5)
    assert statistics.pooled_spread([[1], [2]]) is None


def test_groups_are_drawn_whole_and_as_often_as_there_are():
    groups = ["a", "b", "a", "c", "c", "c"]
    counts = statistics.resample(groups, 4000, np.random.default_rng(0))
    assert (counts[:, 0] == counts[:, 2]).all() and (counts[:, 3] == counts[:, 5]).all()
    assert (counts[:, 0] + counts[:, 1] + counts[:, 3] == 3).all()
    assert counts.mean(0) == pytest.approx(np.ones(6), abs=0.05)


@pytest.mark.parametrize(
    ("seeds", "images", "by_seed", "by_image"), [(2, 60, 2, 0.5), (3, 60, 1, 1), (6, 40, 0.3, 3), (4, 80, 2, 0.5)]
)
def test_the_two_way_interval_holds_the_truth_as_often_as_it_says(seeds, images, by_seed, by_image):
    """A score is the mean over images of a seed's effect, an image's effect, and noise of both together."""
    rng, held = np.random.default_rng(0), []
    for _ in range(300):
        values = by_seed * rng.standard_normal((seeds, 1)) + by_image * rng.standard_normal(images)
        values = values + rng.standard_normal((seeds, images))
        counts = statistics.resample(range(images), 200, rng)
        errors = statistics.two_way_errors(counts @ values.T / images, rng)
        estimate = statistics.two_way(values.mean(1), errors, images)
        held.append(abs(estimate.mean) < estimate.half)
    assert 0.935 <= np.mean(held) <= 0.99


def test_over_images_too_the_interval_is_wider_than_over_seeds_alone():
    observed = np.array([0.5, 0.7, 0.6])
    resampled = observed + np.random.default_rng(0).normal(0, 0.8, (1000, 1))
    both, seeds = statistics.two_way(observed, statistics.two_way_errors(resampled), 87), statistics.paired(observed)
    assert seeds.mean - seeds.half > 0 > both.mean - both.half
    assert np.isnan(statistics.two_way(observed[:1], statistics.two_way_errors(resampled[:, :1]), 87).half)


@pytest.mark.parametrize("variants", [1, 8])
def test_the_number_of_seeds_that_is_named_has_the_power_in_the_test_of_the_verdict(variants):
    n = statistics.seeds_needed(1.0, 0.8, variants=variants)
    rng = np.random.default_rng(0)

    def share(n):
        estimates = [statistics.paired(differences, variants) for differences in rng.normal(1, 0.8, (1500, n))]
        return np.mean([e.mean > e.half for e in estimates])

    assert 0.79 <= share(n) <= 0.9
    assert share(n - 1) < 0.81
    assert statistics.seeds_needed(1.0, 0.8, 0.3) > statistics.seeds_needed(1.0, 0.8)
    assert statistics.seeds_needed(0.5, 0.8, 0.3) is None
