"""What the images and labels of a data set are, and what is given later, checked and brought to the same."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.data.dataset import DataError, Images, Scaling, chunks, fitted_size, resized
from nachos_min.data.labels import plain_labels
from nachos_min.data.limits import ANY, Room

_WIDER, _NARROWER = 10, 100  # times the range of the training images: values that are on another scale
_OVERSHOOT = 16  # beyond 0 and 255, of bytes that were resized elsewhere
_MANY = 32  # images that are not all nearly constant by chance


@dataclass(frozen=True, eq=False)
class Seen:
    """What the images of a data set are before they are scaled, and their labels."""

    shape: tuple[int, int, int]  # (H, W, C) of one image; a signal has height 1
    dtype: str  # "uint8" or "float32", what the values were kept as
    least: float  # of the values of the training images
    most: float
    scaling: Scaling  # of the training images
    layout: str | None  # of the user's arrays, as the option `layout`; None: channels last
    class_names: tuple[str, ...]
    class_labels: tuple[int | bool | str, ...] = ()  # of each class its label as the data had it; empty: its name
    resolution: int | None = None  # as the option; larger images are resized as those of the data set were

    def images(self, given: Any, room: Room = ANY, *, any_scale: bool = False) -> NDArray[Any]:
        """Return images as the user has them as uint8 or float32 [N, H, W, C] of this shape, unscaled.

        Axes are as the user's data had them. The axis of one channel, or of one row, may be missing. So may that of
        the images, for a single one. Values are finite and on the scale of the training images; `any_scale` accepts
        others, since rows of a table have outliers. DataError for anything else, or if resized they find no `room`.
        """
        try:
            array = np.asarray(given)
        except ValueError as error:  # lists of unequal lengths
            raise DataError(f"images must have one shape, but {error}") from None
        if isinstance(given, np.ma.MaskedArray):
            raise DataError(f"images must be a plain array, got a {type(given).__name__}")
        if array.dtype.kind not in "buif":
            raise DataError(f"images must be real numbers, got {array.dtype}")
        array = self._laid_out(array)
        self._check_values(array, any_scale)
        kind = np.uint8 if array.dtype in (np.uint8, np.bool_) else np.float32
        stored = array.astype(kind, order="C", copy=False)
        if stored.shape[1:] == self.shape:
            return stored
        return resized(Images(stored), self.shape[:2], room, as_bytes=self.dtype == "uint8").stored

    def _laid_out(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view of `array` as [N, H, W, C]."""
        _, _, channels = self.shape
        axes = "NCHW" if self.layout == "chw" else "NHWC"
        forms = [axes]
        forms += [axes.replace("C", "")] if channels == 1 else []
        forms += [form.replace("H", "") for form in forms] if self.shape[0] == 1 else []
        for exactly in (True, False):
            for form in (*forms, *(form[1:] for form in forms)):
                if len(form) == array.ndim and self._fits(dict(zip(form, array.shape, strict=True)), exactly):
                    return _in_order(array, form)
        sides = dict(zip("HWC", map(str, self.shape), strict=True))
        full, many, one = (
            f"[{', '.join(sides.get(axis, axis) for axis in form)}]" for form in (axes, forms[-1], forms[-1][1:])
        )
        last, first = "channels last", "channels first"
        here, there, other = (first, last, "NHWC") if axes == "NCHW" else (last, first, "NCHW")
        other = other[-array.ndim :]
        if array.ndim in (3, 4) and self._fits(dict(zip(other, array.shape, strict=True)), exactly=False):
            raise DataError(f"images must have {here}, {full}, got {there}, {list(array.shape)}")
        raise DataError(f"images must be {many} or {one}, as in training, got shape {list(array.shape)}")

    def _fits(self, sides: dict[str, int], exactly: bool) -> bool:
        size = sides.get("H", 1), sides["W"]
        if sides.get("C", 1) != self.shape[2] or 0 in size:
            return False
        return (size if exactly else fitted_size(size, self.resolution)) == self.shape[:2]

    def _check_values(self, images: NDArray[Any], any_scale: bool) -> None:
        """Check that values are finite and on the scale of the training images."""
        if not images.size:
            return
        parts = [images[part] for part in chunks(images.shape)]
        least, most = (float(end(list(map(end, parts)))) for end in (np.min, np.max))
        if not np.isfinite([least, most]).all():  # a NaN is both
            raise DataError(f"images must be finite, got {most if most == np.inf else least}")
        if any_scale:
            return
        spread, own = self.most - self.least, most - least
        outside = max(self.least - least, most - self.most) > (_WIDER - 1) * spread
        if self.dtype == "uint8":
            outside |= max(-least, most - 255) > _OVERSHOOT
        no_bytes = most <= 1 or any((part != np.floor(part)).any() for part in parts)
        if self.dtype == "uint8" and no_bytes:
            narrow = own * (2 if least < 0 else _WIDER) < spread
        else:  # few images may be dark
            narrow = own * _NARROWER < spread and len(images) >= _MANY
        if outside or (narrow and own):
            rule = f"on the scale of the training images, {self.least:g} to {self.most:g}"
            raise DataError(f"values of images must be {rule}, got {least:g} to {most:g}")

    def classes(self, labels: Any) -> NDArray[np.int64]:
        """Return the class, int64 [N], of labels as the data had them or names of classes; DataError for others."""
        plain = plain_labels("given", "labels", np.asarray(labels))
        known = [self.class_names, self.class_labels]  # the second is looked up first
        numbers = dict[str, int]()
        for each in known if plain.dtype.kind == "i" else reversed(known):
            numbers |= {str(label): number for number, label in enumerate(each)}
        for label in np.unique(plain).tolist():
            if str(label) not in numbers:
                some = ", ".join(self.class_names[:10]) + (", ..." if len(self.class_names) > 10 else "")
                raise DataError(f"labels must each be one of the run's ({some}), got {label!r}")
        return np.array([numbers[label] for label in plain.astype(str).tolist()], np.int64)

    def labels(self, classes: NDArray[np.int64]) -> NDArray[Any]:
        """Return the label of each class number: its name if the data had names, else the label as they had it."""
        own = self.class_labels or self.class_names
        return np.array(own if tuple(map(str, own)) == self.class_names else self.class_names)[classes]


def _in_order(array: NDArray[Any], form: str) -> NDArray[Any]:
    """Return a view of `array`, whose axes are `form`, as [N, H, W, C]; axes that it lacks have length 1."""
    moved = array.transpose([form.index(axis) for axis in "NHWC" if axis in form])
    return moved[tuple(slice(None) if axis in form else None for axis in "NHWC")]
