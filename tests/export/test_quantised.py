"""Networks in integers: near those in float, the same in NumPy and in C to the last bit, and within int32."""

import ctypes
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trained_networks import CASES, IMAGES, trained

from nachos_min.data import Split
from nachos_min.eenn.inference import exit_answers
from nachos_min.eenn.thresholds import apply_thresholds
from nachos_min.export import quantised as of
from nachos_min.export.c_check import SANITIZED, c_answers
from nachos_min.export.c_layers import int8_code
from nachos_min.export.c_source import write_code
from nachos_min.export.comparison import Engine
from nachos_min.export.folded import Layer
from nachos_min.export.quantised import MOST, quantised
from nachos_min.macs import ops

compiled = pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler here")


def in_integers(case):
    """A network in integers, the images that showed its scales, and these scaled."""
    network, images = trained(case)
    shown = network.scaled(images)
    return quantised(network, shown), images, shown


@pytest.mark.parametrize("case", CASES)
def test_logits_are_near_those_in_float(case):
    integers, _, shown = in_integers(case)
    found, expected = integers.answers(shown), exit_answers(integers.trained.network, shown)
    noise = np.sqrt(np.square(found.logits - expected.logits).mean(axis=(0, 2)))
    assert (noise < 0.06 * np.sqrt(np.square(expected.logits).mean(axis=(0, 2)))).all()
    np.testing.assert_allclose(found.h, expected.h, atol=0.1)


@compiled
@pytest.mark.parametrize("case", CASES)
def test_c_computes_the_same_integers_to_the_last_bit(case, tmp_path):
    integers, images, shown = in_integers(case)
    write_code(integers.trained, int8_code(integers), tmp_path)
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC"]
    library = tmp_path / "network.so"
    subprocess.run(["cc", *flags, "-o", library, tmp_path / "network.c", "-lm"], check=True)

    class Answer(ctypes.Structure):
        _fields_ = [(name, ctypes.c_int) for name in ("label", "exit")]
        _fields_ += [("confidence", ctypes.c_double), ("logits", ctypes.POINTER(ctypes.c_float))]

    predict, answer, exits = ctypes.CDLL(str(library)).predict_full, Answer(), len(integers.trained.thresholds)
    expected = integers.answers(shown).logits
    classes = expected.shape[2]
    for exit_ in range(exits):
        thresholds = (ctypes.c_double * exits)(*[2.0] * exit_, *[0.0] * (exits - exit_))
        for image, logits in zip(images, expected[:, exit_], strict=True):
            predict(np.ascontiguousarray(image).ctypes.data_as(ctypes.c_void_p), thresholds, ctypes.byref(answer))
            assert answer.exit == exit_
            np.testing.assert_array_equal(np.ctypeslib.as_array(answer.logits, (classes,)), logits)


@compiled
def test_early_stopping_in_c_agrees_under_sanitizers(tmp_path):
    integers, images, shown = in_integers("squeeze and excitation, smaller input")
    integers = integers.leaving(Split(shown, np.zeros(IMAGES, np.int64)), (15, 15, 10))
    write_code(integers.trained, int8_code(integers), tmp_path)
    exits = len(integers.trained.thresholds)
    found = Engine(integers.trained, images, integers).compare(*c_answers(tmp_path, images, exits, SANITIZED))
    assert (found.equal, found.near) == (True, 0)
    assert "the same integers in NumPy" in str(found)


def test_thresholds_let_as_many_images_leave_as_wanted():
    integers, _, shown = in_integers("bytes")
    labels = np.arange(IMAGES) % 5
    for counts in ((IMAGES, 0, 0), (0, 0, IMAGES), (10, 20, 10)):
        chosen = integers.leaving(Split(shown, labels), counts)
        assert chosen.figures(Split(shown, labels)).exit_counts == counts
        tables = chosen.answers(shown).tables(chosen.trained.confidence)
        left = apply_thresholds(tables.confidence, chosen.trained.thresholds)
        right = tables.predicted[np.arange(IMAGES), left] == labels
        assert chosen.figures(Split(shown, labels), balanced=True).correct == right.sum()


@given(st.integers(1, 3000), st.floats(-30, 8), st.floats(-30, 8), st.integers(0, 2**32 - 1))
def test_no_sum_leaves_int32_and_no_channel_loses_its_bias(inputs, weight_size, bias_size, seed):
    rng = np.random.default_rng(seed)
    weight = (rng.normal(size=(inputs, 4)) * 2.0**weight_size).astype(np.float32)
    weight[:, 0] = 0
    bias = (rng.normal(size=4) * 2.0**bias_size).astype(np.float32)
    layer = Layer("linear", ops.Linear((inputs,), 4), (-1,), 1, weight, bias)
    in_steps, added, step = of._weights(layer, np.ones(inputs))
    largest = MOST * np.abs(in_steps.astype(np.int64)).sum(axis=0) + np.abs(added.astype(np.int64))
    assert largest.max() < 2**31
    np.testing.assert_allclose(added * step, bias, rtol=1e-6, atol=step.max())


@given(st.lists(st.floats(1e-12, 1e6), min_size=1, max_size=5))
def test_factors_are_their_ratios(ratios):
    (factors,), (shift,) = of._fixed(np.array(ratios))
    assert 1 <= shift <= 62
    np.testing.assert_allclose(factors / 2.0**shift, ratios, rtol=1e-7, atol=max(ratios) * 2.0**-29)


def test_halves_are_rounded_up():
    np.testing.assert_array_equal(
        of._rounded(np.array([-3, -2, -1, 1, 2, 3, 999]), 1, -1, 2), [-1, -1, 0, 1, 1, 2, 2]
    )
