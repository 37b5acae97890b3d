"""What environments render, in the forms that are known from the field, as pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from rltrain.policy.frames import NoFrame, pictures_of, same_size

RGB = np.zeros((4, 6, 3), np.uint8)
RGB[1, 2] = 255, 128, 0


def pixels(rendered: Any) -> np.ndarray:
    (picture,) = pictures_of(rendered)
    return np.asarray(picture)


@pytest.mark.parametrize(
    "rendered",
    [
        RGB,
        RGB.astype(np.int64),
        RGB.astype(np.float32) / 255,
        RGB.astype(np.float64),
        RGB.astype(np.int64) + 1000 * (RGB == 255),
        np.dstack([RGB, RGB[..., :1]]),
        np.moveaxis(RGB, -1, 0),
        RGB[::-1][::-1],
        [RGB],
        (RGB,),
        RGB.tolist(),
        Image.fromarray(RGB),
    ],
    ids=[
        "rgb", "int64", "0 to 1", "floats to 255", "too large", "rgba", "channels first", "strided", "list", "tuple",
        "nested", "PIL",
    ],
)  # fmt: skip
def test_one_picture(rendered: Any) -> None:
    assert np.array_equal(pixels(rendered), RGB)


def test_grey_and_truth() -> None:
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    for rendered in (grey, grey[..., None], grey / 255.0):
        assert np.array_equal(pixels(rendered), np.repeat(grey[..., None], 3, axis=2))
    assert pixels(grey > 3).max() == 255
    assert pixels(np.full((2, 2), np.nan)).max() == 0


def test_several_pictures_and_none() -> None:
    assert len(pictures_of([RGB, RGB])) == 2
    assert pictures_of([]) == []


@pytest.mark.parametrize(
    ("rendered", "what"),
    [
        (None, "gives None"),
        ("###", "gives text"),
        (["###"], "gives text"),
        ({}, "gives dict"),
        (np.zeros((0, 6, 3)), r"shape \[0, 6, 3\]"),
        (np.zeros((7, 6, 2)), r"shape \[7, 6, 2\]"),
        (np.zeros((1, 4, 6, 3)), r"shape \[1, 4, 6, 3\]"),
        (7, r"shape \[\]"),
        (np.array(["a"]), "no array of numbers"),
        ([RGB, None], "gives None"),
    ],
)
def test_what_is_no_picture(rendered: Any, what: str) -> None:
    with pytest.raises(NoFrame, match=what):
        pictures_of(rendered)


def test_large_pictures_shrink_and_all_have_one_size() -> None:
    (large,) = pictures_of(np.zeros((3000, 1500, 3), np.uint8))
    assert large.size == (320, 640)
    small = Image.fromarray(RGB).quantize(64)
    assert [picture.size for picture in same_size([small, large.quantize(64), small])] == [(320, 640)] * 3
    assert np.array_equal(np.asarray(same_size([small, large])[0].convert("RGB"))[:4, :6], RGB)
