"""How far a number measured on few images can be trusted."""
from statistics import NormalDist
from typing import NamedTuple, Sequence, Tuple, Union

import numpy as np

Numbers = Union[Sequence[int], np.ndarray]


def wilson_interval(hits, n, confidence: float = 0.95) -> Tuple:
    """Return the score interval of a proportion (Wilson 1927, "Probable inference, the law of succession, and
    statistical inference", JASA 22).

    Unlike the textbook interval it stays inside [0, 1] and has a width for 0 or n hits. Without any image it is its own
    limit for n -> 0: everything, (0, 1).

    Args:
        hits: Right predictions, a number or an array.
        n: Images, likewise.
        confidence: Coverage aimed at.

    Returns:
        Lower and upper end as fractions: floats for numbers, arrays for arrays.

    >>> lo, hi = wilson_interval(9, 10)
    >>> round(lo, 3), round(hi, 3)
    (0.596, 0.982)
    """
    hits, n = np.broadcast_arrays(np.asarray(hits, dtype=np.float64), np.asarray(n, dtype=np.float64))
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    misses = n - hits
    centre = (hits + z2 / 2) / (n + z2)
    half = np.sqrt(z2) / (n + z2) * np.sqrt(hits * misses / np.maximum(n, 1e-300) + z2 / 4)
    lo = np.where(hits == 0, 0.0, np.clip(centre - half, 0, 1))  # exactly 0 and 1 at the ends, whatever the rounding
    hi = np.where(misses == 0, 1.0, np.clip(centre + half, 0, 1))
    return (lo, hi) if lo.ndim else (float(lo), float(hi))


def balanced_accuracy_interval(
        hits: Numbers,
        counts: Numbers,
        confidence: float = 0.95,
        draws: int = 2000,
        seed: int = 0,
) -> Tuple[float, float]:
    """Return the percentile interval of the mean recall over classes, by stratified bootstrap (Efron & Tibshirani, "An
    Introduction to the Bootstrap", 1993, chapter 13).

    Images are drawn again within each class, so the number of right ones is binomial. Where every class is all right or
    all wrong, drawing again changes nothing and would claim certainty; then it is Wilson's interval for the effective
    number of images (Kish) of a mean over K classes, `K^2 / sum_c 1/n_c`.

    Args:
        hits: Right predictions per class (C,).
        counts: Images per class (C,); classes without images are left out.
        confidence: Coverage aimed at.
        draws: Number of bootstrap draws.
        seed: Seed of the draws, which leave the global random state alone.

    Returns:
        Lower and upper end as fractions; NaN where no class has an image.
    """
    hits_, counts_ = np.asarray(hits, dtype=np.int64), np.asarray(counts, dtype=np.int64)
    hits_, counts_ = hits_[counts_ > 0], counts_[counts_ > 0]
    classes = len(counts_)
    if not classes:
        return float('nan'), float('nan')
    recall = hits_ / counts_
    if np.isin(recall, (0, 1)).all():
        effective = classes ** 2 / (1 / counts_).sum()
        return wilson_interval(recall.mean() * effective, effective, confidence)
    rng = np.random.default_rng(seed)
    means = np.zeros(draws)
    for count, rate in zip(counts_, recall):  # class by class: draws x 8142 classes at once would be large
        means += rng.binomial(count, rate, size=draws) / count
    lo, hi = np.quantile(means / classes, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(lo), float(hi)


def group_interval(
        hits: Numbers,
        counts: Numbers,
        classes: Numbers,
        confidence: float = 0.95,
) -> Tuple[float, float]:
    """Return Wilson's interval of the mean recall over some classes: many, medium or few.

    The number of images is the effective one of a mean over K classes (Kish), `K^2 / sum_c 1/n_c`: all of them where
    the classes have equally many.

    Returns:
        Lower and upper end as fractions; NaN where no class has an image.
    """
    chosen = np.asarray(classes, dtype=np.int64)
    hits_, counts_ = np.asarray(hits, dtype=np.int64)[chosen], np.asarray(counts, dtype=np.int64)[chosen]
    hits_, counts_ = hits_[counts_ > 0], counts_[counts_ > 0]
    if not len(counts_):
        return float('nan'), float('nan')
    effective = len(counts_) ** 2 / (1 / counts_).sum()
    return wilson_interval((hits_ / counts_).mean() * effective, effective, confidence)


class PairedInterval(NamedTuple):
    """Mean, standard deviation (n - 1) and interval of differences, in their unit."""
    mean: float
    sd: float
    lo: float
    hi: float


def paired_interval(differences: Sequence[float], confidence: float = 0.95) -> PairedInterval:
    """Return Student's t-interval for the mean of paired differences, such as two methods run on the same seeds.

    Args:
        differences: One difference per pair (n,).
        confidence: Coverage aimed at.

    Returns:
        Mean, standard deviation and both ends; of one pair only the mean is known and the others are NaN.

    Raises:
        ValueError: There is no difference at all.

    >>> paired_interval([1.0, 2.0, 3.0]).mean
    2.0
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError('paired_interval expects at least one difference.')
    mean = float(values.mean())
    if len(values) == 1:
        return PairedInterval(mean, float('nan'), float('nan'), float('nan'))
    from scipy.stats import t
    sd = float(values.std(ddof=1))
    half = float(t.ppf((1 + confidence) / 2, len(values) - 1)) * sd / len(values) ** 0.5
    return PairedInterval(mean, sd, mean - half, mean + half)
