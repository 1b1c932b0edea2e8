"""Intervals of differences between models over seeds and images, verdicts, and power. Pure functions.

A comparison of k `variants` with one reference makes k intervals at once, each with the confidence 1 - 0.05 / k, so
that together they hold with 95 % (Bonferroni; Dunn, JASA 1961). Unlike Dunnett's test this needs no common variance and
no known correlation, which two-way intervals lack; unlike in Holm's procedure intervals and p-values always agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import import_extra

LEVEL = 0.05  # probability that any interval of a comparison leaves out the truth
MIN_SEEDS, MAX_SEEDS = 3, 1000  # of a verdict, of a search for the number that is needed
FEW_SEEDS, FEW_IMAGES = 5, 300  # a report warns below them
SAME = 1e-9  # seeds whose differences are no further apart do not vary


class Estimate(NamedTuple):
    """A mean difference, half its simultaneous interval, and its adjusted p-value, NaN where they are unknown."""

    mean: float
    half: float = np.nan
    p: float = np.nan


def paired(differences: Sequence[float], variants: int = 1) -> Estimate:
    """Return the estimate of a mean difference over seeds alone, by Student's paired t-test."""
    mean = float(np.mean(differences))
    if np.ptp(differences) < SAME:
        return Estimate(mean)
    test = import_extra("scipy.stats", "compare").ttest_1samp(differences, 0)
    high = test.confidence_interval(1 - LEVEL / variants).high
    return Estimate(mean, float(high) - mean, min(1.0, variants * float(test.pvalue)))


def two_way_errors(resampled: np.ndarray, rng: np.random.Generator | None = None) -> dict[str, float | None]:
    """Return the standard error of a mean difference over seeds and images, and that over images alone, by name.

    `resampled` holds the difference of each seed on each of B resamples of the images, (B, n). Each of them meets a
    resample of the seeds (Owen, "The pigeonhole bootstrap", 2007, arXiv 0712.1111), of n - 1 seeds, so that the
    variance of their mean is not biased (Rao and Wu, JASA 1988). One seed has no error over both.
    """
    n, error = resampled.shape[1], None
    if n > 1:
        drawn = (rng or np.random.default_rng(0)).integers(0, n, (len(resampled), n - 1))
        error = float(np.take_along_axis(resampled, drawn, 1).mean(1).std(ddof=1))
    return {"error": error, "pictures_error": float(resampled.mean(1).std(ddof=1))}


def two_way(differences: Sequence[float], errors: Mapping[str, Any], images: int, variants: int = 1) -> Estimate:
    """Return the estimate of a mean difference over seeds and images, from what `two_way_errors` returns.

    The squares of the half widths over the seeds and over the images (or groups of them) add (Zou and Donner,
    Statistics in Medicine 2008), so the interval is no surer of the seeds than they allow.
    """
    mean, n, error = float(np.mean(differences)), len(differences), errors["error"]
    if error is None or np.ptp(differences) < SAME:
        return Estimate(mean)
    student = import_extra("scipy.stats", "compare").t
    variances = np.array([np.var(differences, ddof=1) / n, errors["pictures_error"] ** 2])

    def half(level: float) -> float:
        quantiles = student.ppf(1 - level / 2, [n - 1, images - 1])
        return float(error * ((quantiles**2 @ variances) / variances.sum()) ** 0.5)

    p = least = 1e-12
    if half(least) > abs(mean):  # the level at which the interval ends at zero
        p = import_extra("scipy.optimize", "compare").brentq(lambda level: half(level) - abs(mean), least, 1)
    return Estimate(mean, half(LEVEL / variants), min(1.0, variants * p))


def resample(groups: Sequence[object], count: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each of P images, with its group, is drawn in resamples of whole groups, (count, P)."""
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    n = int(member.max()) + 1
    return rng.multinomial(n, np.full(n, 1 / n), size=count)[:, member]


def decide(differences: Sequence[float], half: float, better: float, equal: float, planned: int) -> str:
    """Return the verdict on a variant, with half its interval: superior, inferior, equivalent, or undecided and why.

    Only what could have shown a difference decides: all planned seeds, three or more, and differences that vary.
    """
    if len(differences) < planned:
        return f"undecided: {len(differences)} of {planned} planned seeds"
    if len(differences) < MIN_SEEDS:
        return f"undecided: a verdict needs {MIN_SEEDS} seeds"
    if np.ptp(differences) < SAME:
        return "undecided: no spread over seeds"
    if np.isnan(half):
        return "undecided: no interval over seeds and images"
    mean = float(np.mean(differences))
    if abs(mean) >= better and abs(mean) > half:
        return "superior" if mean > 0 else "inferior"
    if abs(mean) + half <= equal:
        return "equivalent"
    side = "above" if mean > 0 else "below"
    return f"undecided: {side} zero, by less than the margin" if abs(mean) > half else "undecided"


def pooled_spread(groups: Sequence[Sequence[float]]) -> float | None:
    """Return the common standard deviation of groups with means of their own, None if no group has two members."""
    degrees = [len(g) - 1 for g in groups]
    squares = sum(float(np.square(np.subtract(g, np.mean(g))).sum()) for g in groups)
    return (squares / sum(degrees)) ** 0.5 if any(degrees) else None


def seeds_needed(difference: float, spread: float, images_error: float = 0.0, variants: int = 1) -> int | None:
    """Return how many seeds show a difference with a power of 80 %, by the interval's test; None if 1,000 are too few.

    The spread is that of the differences over seeds; the standard error over the images is one that no seed removes.
    """
    n: np.ndarray = np.arange(MIN_SEEDS, MAX_SEEDS + 1)
    effect = abs(difference) / np.sqrt(spread**2 + n * images_error**2)
    test = import_extra("statsmodels.stats.power", "compare").TTestPower()
    enough = test.power(effect, n, LEVEL / variants) >= 0.8
    return int(n[np.argmax(enough)]) if enough.any() else None
