"""Wilson's interval: published values, SciPy, exact ends, and refusals."""

import pytest

from nachos_min.eenn.intervals import wilson_interval


@pytest.mark.parametrize(
    ("correct", "samples", "confidence", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17, 1998, table I, method 3: his four examples
        (81, 263, 0.95, 0.2553, 0.3662),
        (15, 148, 0.95, 0.0624, 0.1605),
        (0, 20, 0.95, 0.0, 0.1611),
        (1, 29, 0.95, 0.0061, 0.1718),
        (20, 20, 0.95, 0.8389, 1.0),
    ],
)
def test_wilson_interval_known_values(
    correct: int, samples: int, confidence: float, low: float, high: float
) -> None:
    assert wilson_interval(correct, samples, confidence) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("correct", "samples", "confidence"), [(7, 9, 0.9), (300, 360, 0.99), (1, 1, 0.95)])
def test_wilson_interval_is_scipys(correct: int, samples: int, confidence: float) -> None:
    from scipy.stats import binomtest  # slow to import: only here

    theirs = binomtest(correct, samples).proportion_ci(confidence, method="wilson")
    assert wilson_interval(correct, samples, confidence) == pytest.approx((theirs.low, theirs.high), rel=1e-12)


def test_wilson_interval_ends_are_exact() -> None:
    assert wilson_interval(0, 7)[0] == 0.0
    assert wilson_interval(7, 7)[1] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0), "samples must be >= 1, got 0"),
        ((3, 2), "correct must be between 0 and samples = 2, got 3"),
        ((-1, 2), "correct must be between 0 and samples = 2, got -1"),
        ((1, 2, 1.0), "confidence must be between 0 and 1, got 1.0"),
    ],
)
def test_wilson_interval_refuses(arguments: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wilson_interval(*arguments)
