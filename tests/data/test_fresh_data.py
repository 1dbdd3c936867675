"""The data to judge by: reproducible, balanced, and readable as any other file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("bench.intervals", reason="an installed copy has no bench")
pytest.importorskip("matplotlib", reason="the letters are drawn from its fonts")

from bench.fresh_data import letters, main, shapes
from nachos_min.data import load


@pytest.mark.parametrize(("draw", "image", "classes"), [(letters, (16, 16), 26), (shapes, (32, 32, 3), 10)])
def test_images_follow_from_the_generator(draw: Callable[..., Any], image: tuple[int, ...], classes: int) -> None:
    images, labels = draw(60, np.random.default_rng(7))
    assert images.dtype == np.uint8
    assert images.shape == (60, *image)
    counts = np.bincount(labels, minlength=classes)
    assert counts.max() - counts.min() <= 1
    again, same = draw(60, np.random.default_rng(7))
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(labels, same)
    assert (images != draw(60, np.random.default_rng(8))[0]).any()


@pytest.mark.parametrize("kind", ["letters", "shapes"])
def test_the_file_is_a_data_set_whose_test_split_is_fresh(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"{kind}.npz"
    main(kind, str(file), train=104, fresh=52, seed=3)
    data = load(str(file), validation="whole")
    assert (len(data.train) + len(data.validation), len(data.test)) == (104, 52)
    with np.load(file) as arrays:
        seen = {image.tobytes() for image in arrays["images"]}
        assert not seen & {image.tobytes() for image in arrays["test_images"]}
