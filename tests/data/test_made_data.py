"""The data that scripts make: reproducible, balanced, and readable as any other file."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

pytest.importorskip("bench.intervals", reason="an installed copy has no bench")
pytest.importorskip("matplotlib", reason="the letters are drawn from its fonts")

from bench.fresh_data import letters, main, shapes
from bench.make_digits import CREDIT, make_digits
from nachos_min.data import load
from nachos_min.data.load import DIGITS


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


def test_digits_are_made_again_byte_for_byte(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="only making digits.h5 needs scikit-learn")
    make_digits(tmp_path / "once.h5")
    make_digits(tmp_path / "twice.h5")
    assert (tmp_path / "once.h5").read_bytes() == (tmp_path / "twice.h5").read_bytes()
    with h5py.File(tmp_path / "once.h5") as made, h5py.File(DIGITS) as shipped:
        assert dict(made.attrs) == dict(shipped.attrs) == CREDIT
        for name in ("images", "labels", "test_images", "test_labels"):
            assert made[name].dtype == shipped[name].dtype
            np.testing.assert_array_equal(made[name][()], shipped[name][()])


def test_other_digits_are_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = SimpleNamespace(images=np.zeros((5, 8, 8)), target=np.zeros(5))
    monkeypatch.setattr("bench.make_digits.import_module", lambda _: SimpleNamespace(load_digits=lambda: other))
    with pytest.raises(RuntimeError, match=r"digits are not the 1,797 images of 8 x 8 with"):
        make_digits(tmp_path / "digits.h5")
