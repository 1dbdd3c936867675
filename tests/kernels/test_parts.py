"""Large maps in parts: the same bits for any number of threads, and what the plain whole computes."""

import numpy as np
import pytest

import oracles
from nachos_kernels import activation, batch_norm, bias, conv2d, depthwise, parts


@pytest.fixture
def threads():
    """Return `set_threads`; one thread again afterwards."""
    yield parts.set_threads
    parts.set_threads(1)


def results():
    """Return what every operator that works in parts computes, forward and back, on maps of several parts."""
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((2, 13, 64, 64, 16), np.float32)
    w1, w3 = rng.standard_normal((1, 1, 16, 16), np.float32), rng.standard_normal((3, 3, 16, 16), np.float32)
    w5, wd = rng.standard_normal((5, 5, 8, 16), np.float32), rng.standard_normal((3, 3, 16), np.float32)
    gamma, beta = rng.standard_normal((2, 16), np.float32)
    found = []
    for w, stride, sides, groups in ((w1, 1, 0, 1), (w3, 1, 1, 1), (w3, 2, 1, 1), (w5, 1, 2, 2)):
        settings = (stride, stride), (sides,) * 4, (1, 1), groups
        y = conv2d.conv2d_forward(x, w, *settings)
        assert len(parts.parts_of(len(y), y.size)) >= 3
        gy = np.ascontiguousarray(g[:, : y.shape[1], : y.shape[2]])
        found += [y, conv2d.conv2d_grad_input(gy, w, x.shape, *settings)]
        found.append(conv2d.conv2d_grad_weight(gy, x, w.shape, *settings))
    for stride in (1, 2):
        settings = (stride, stride), (1, 1, 1, 1), (1, 1)
        y = depthwise.depthwise_forward(x, wd, *settings)
        assert len(parts.parts_of(len(y), y.size)) >= 3
        gy = np.ascontiguousarray(g[:, : y.shape[1], : y.shape[2]])
        found += [y, depthwise.depthwise_grad_input(gy, wd, x.shape, *settings)]
        found.append(depthwise.depthwise_grad_weight(gy, x, wd.shape, *settings))
    y = x.copy()
    bias.bias_forward(y, beta, True)
    found += [y, *bias.bias_grad(g, y, True)]
    y, mean, var = batch_norm.batch_norm_forward(x, gamma, beta, 1e-5, activation.HSWISH)
    found += [y, mean, var]
    found += batch_norm.batch_norm_grad(g, x, gamma, beta, mean, var, 1e-5, activation.HSWISH)
    return found


def test_any_number_of_threads_gives_the_same_bits(threads, monkeypatch):
    monkeypatch.setattr(parts, "PART", 1 << 16)  # then the smaller maps of a strided convolution have three, too
    one = results()
    threads(3)
    for alone, together in zip(one, results(), strict=True):
        np.testing.assert_array_equal(alone, together)


def test_statistics_of_parts_are_those_of_the_whole():
    x = np.random.default_rng(1).standard_normal((200_003, 5)) + 10
    ones, zeros = np.ones(5), np.zeros(5)
    assert len(parts.parts_of(len(x), x.size)) == 3
    found = batch_norm.batch_norm_forward(x, ones, zeros, 1e-5, activation.IDENTITY)
    for result, wanted in zip(found, oracles.batch_norm_forward(x, ones, zeros, 1e-5, "identity"), strict=True):
        np.testing.assert_allclose(result, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("length", "numbers"), [(1, 10**9), (7, 10), (7, 10**7), (1000, 3 * parts.PART), (0, 0)])
def test_parts_are_the_whole(length, numbers):
    found = parts.parts_of(length, numbers)
    assert [place for part in found for place in range(part.start, part.stop)] == list(range(length))
    assert length == 0 or all(part.stop > part.start for part in found)
    assert len(found) <= max(1, numbers // parts.PART)


def test_threads_must_be_a_number_of_them():
    with pytest.raises(ValueError, match=r"^threads must be >= 1, got 0$"):
        parts.set_threads(0)


def test_an_error_in_a_part_reaches_the_caller(threads):
    threads(2)
    with pytest.raises(ZeroDivisionError):
        parts.each(lambda part: 1 // part.start, [slice(0, 1), slice(1, 2)])
