"""Confidence intervals for the accuracies that certificates state.

An accuracy measured on a few hundred samples is uncertain by some percent; a certificate says by how much.
Read nothing before it. Left out: intervals for average MACs.
"""

from math import sqrt

from scipy.special import ndtri


def wilson_interval(correct: int, samples: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval (low, high) of an accuracy, both in [0, 1].

    It solves |p - p_hat| = z sqrt(p (1 - p) / n) for p, with p_hat = correct / samples, and so stays inside
    [0, 1] and keeps a width even when every answer is right; p_hat +- z sqrt(p_hat (1 - p_hat) / n) does not.

    Args:
        correct: number of right answers, 0 to `samples`.
        samples: number of answers, at least 1.
        confidence: probability with which the interval covers the true accuracy, in (0, 1).

    Raises:
        ValueError: if an argument is outside its range.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.

    >>> low, high = wilson_interval(90, 100)
    >>> round(low, 4), round(high, 4)
    (0.8256, 0.9448)
    """
    if samples < 1:
        raise ValueError(f"samples must be >= 1, got {samples}")
    if not 0 <= correct <= samples:
        raise ValueError(f"correct must be between 0 and samples = {samples}, got {correct}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    z = float(ndtri(0.5 + confidence / 2.0))  # quantile of the normal distribution, 1.96 for 95 %
    share = correct / samples
    centre = share + z * z / (2 * samples)
    half_width = z * sqrt(share * (1 - share) / samples + z * z / (4 * samples * samples))
    scale = 1 + z * z / samples
    # At correct = 0 and = samples one end is 0 or 1 exactly; the square root reaches it only up to rounding.
    low = 0.0 if correct == 0 else (centre - half_width) / scale
    high = 1.0 if correct == samples else (centre + half_width) / scale
    return low, high
