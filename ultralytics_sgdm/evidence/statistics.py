"""How sure a difference is: intervals over seeds, over pictures, over both; the noise floor; power. Pure functions.

A score depends on the seed of a training and on the pictures that it is scored on. An interval over seeds alone says
what holds for those pictures; `two_way` resamples both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import import_extra as extra

CONFIDENCE = 0.95
POWER = 0.8
LEAST_SEEDS, LEAST_PICTURES = 5, 300  # an interval that rests on fewer says so
LOOKS = ((0.05,), (0.0052, 0.0480))  # two-sided levels of one look, and of two after O'Brien and Fleming (1979)


class Estimate(NamedTuple):
    """A mean difference, the half width of its interval (None where it has none) and what that rests on.

    Attributes:
        mean: Mean of the differences.
        half: Half width of the interval.
        error: Standard error.
        df: Degrees of freedom of Student's t, None if two kinds meet.
    """

    mean: float
    half: float | None
    error: float | None
    df: float | None


def quantile(p: float, df: float) -> float:
    """Return Student's t at probability `p`."""
    return float(extra("scipy.stats", "compare").t.ppf(p, df))


def interval(mean: float, error: float, df: float, confidence: float = CONFIDENCE) -> Estimate:
    """Return the estimate of a mean with a standard error."""
    return Estimate(mean, quantile((1 + confidence) / 2, df) * error, error, df)


def paired(ours: Mapping[int, float], reference: Mapping[int, float], confidence: float = CONFIDENCE) -> Estimate:
    """Return the mean of the differences over common seeds, with Student's interval.

    Args:
        ours: Score of each seed.
        reference: The same of what they are compared with.
        confidence: Of the interval.

    Raises:
        ValueError: If no seed is common.
    """
    differences = [ours[seed] - reference[seed] for seed in sorted(ours.keys() & reference.keys())]
    if not differences:
        raise ValueError("no seed is common to both")
    n, mean = len(differences), float(np.mean(differences))
    if n < 2:
        return Estimate(mean, None, None, None)
    return interval(mean, float(np.std(differences, ddof=1)) / n**0.5, n - 1, confidence)


def pooled_spread(groups: Sequence[Sequence[float]]) -> tuple[float, int] | None:
    """Return the common standard deviation of groups with means of their own, and its degrees of freedom.

    None if no group has two members.
    """
    df = sum(len(g) - 1 for g in groups)
    if df < 1:
        return None
    squares = sum(float(((np.asarray(g) - np.mean(g)) ** 2).sum()) for g in groups)
    return (squares / df) ** 0.5, df


def pooled(
    ours: Sequence[float], reference: Sequence[float], spread: tuple[float, int], confidence: float = CONFIDENCE
) -> Estimate:
    """Return the difference of two means with an interval by the spread that `pooled_spread` gives."""
    sd, df = spread
    mean = float(np.mean(ours) - np.mean(reference))
    return interval(mean, sd * (1 / len(ours) + 1 / len(reference)) ** 0.5, df, confidence)


def two_way(
    observed: np.ndarray,
    resampled: np.ndarray,
    pictures: int,
    confidence: float = CONFIDENCE,
    rng: np.random.Generator | None = None,
) -> Estimate:
    """Return a mean difference with an interval over seeds and pictures together.

    A bootstrap of both at once (Owen, "The pigeonhole bootstrap", 2007, arXiv 0712.1111): each resample of the pictures
    meets a resample of the seeds. Of n seeds n - 1 are drawn, so that the variance of their mean is not biased (Rao
    and Wu, JASA 1988). The interval is that of `over_both`.

    Args:
        observed: Difference of each seed on all pictures, (n,).
        resampled: The same on each of B resamples of the pictures, (B, n).
        pictures: How many pictures, or groups of them, were resampled.
        confidence: Of the interval.
        rng: Source of the draws of seeds.
    """
    n = len(observed)
    if n < 2:
        return Estimate(float(observed.mean()), None, None, None)
    rng = rng or np.random.default_rng(0)
    drawn = rng.integers(0, n, (len(resampled), n - 1))
    error = float(np.take_along_axis(resampled, drawn, 1).mean(1).std(ddof=1))
    return over_both(observed, error, float(resampled.mean(1).std(ddof=1)), pictures, confidence)


def over_both(
    observed: np.ndarray, error: float, pictures_error: float, pictures: int, confidence: float = CONFIDENCE
) -> Estimate:
    """Return a mean difference with Student's interval over seeds and pictures, of the error that `two_way` gives.

    The squares of the half widths over the seeds and over the pictures add (Zou and Donner, Statistics in Medicine
    2008), so the interval is no surer of the seeds than they allow. Satterthwaite's degrees of freedom trust a variance
    that few seeds guess: with two, such an interval of 95 % holds the truth in as few as 87 of 100.

    Args:
        observed: Difference of each seed on all pictures, (n,), n of 2 or more.
        error: Standard error over both.
        pictures_error: Standard error that the pictures alone give.
        pictures: How many pictures, or groups of them, there are.
        confidence: Of the interval.
    """
    n = len(observed)
    seeds, by_picture = float(observed.var(ddof=1)) / n, pictures_error**2
    if seeds + by_picture == 0:
        return Estimate(float(observed.mean()), 0.0, error, None)
    student = [quantile((1 + confidence) / 2, count - 1) for count in (n, pictures)]
    widening = ((student[0] ** 2 * seeds + student[1] ** 2 * by_picture) / (seeds + by_picture)) ** 0.5
    return Estimate(float(observed.mean()), widening * error, error, None)


def resample(groups: Sequence[object], count: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each picture is drawn in each of `count` bootstrap resamples of whole groups.

    Args:
        groups: Group of each picture (P,), such as its video; a picture's own name where there are none.
        count: B, the number of resamples.
        rng: Source of the draws.

    Returns:
        Counts of shape (B, P).
    """
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    n = int(member.max()) + 1
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=count)
    return drawn[:, member]


def seeds_needed(difference: float, spread: float, pictures_error: float = 0.0, power: float = POWER) -> int | None:
    """Return how many seeds an arm needs to see a difference at 95 % confidence; None if no number is enough.

    Args:
        difference: What is to be seen.
        spread: Standard deviation of an arm's score over seeds.
        pictures_error: Standard error of the difference that the pictures alone give, which no seed removes.
        power: Probability to see it.
    """
    if not _reach(difference, power, math.inf) > pictures_error:
        return None
    for n in range(2, 10_000):
        error = (2 * spread**2 / n + pictures_error**2) ** 0.5
        if error <= _reach(difference, power, 2 * (n - 1)):
            return n
    return None


def pictures_needed(difference: float, pictures: int, pictures_error: float, seeds_error: float) -> int | None:
    """Return how many pictures are needed to see a difference with the present seeds; None if no number is enough.

    Args:
        difference: What is to be seen.
        pictures: How many there are.
        pictures_error: Standard error of the difference that these give.
        seeds_error: Standard error that the seeds give.
    """
    room = _reach(difference, POWER, math.inf) ** 2 - seeds_error**2
    return math.ceil(pictures * pictures_error**2 / room) if room > 0 else None


def _reach(difference: float, power: float, df: float) -> float:
    """Return the largest standard error at which a difference is seen with a probability."""
    return abs(difference) / (quantile((1 + CONFIDENCE) / 2, df) + quantile(power, df))
