"""State as JSON, exactly: what goes in comes out equal, and reading it can build nothing but plain data.

Integers of any size and finite floats are kept exactly (JSON holds the shortest text that reads back as the same
double). A NumPy scalar becomes the Python number, a tuple a list, and a NumPy array of bools or numbers an object
`{"__array__": {"dtype", "shape", "base64"}}`, so that it keeps every bit, NaN included.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

_ARRAY_TAG = "__array__"
_ARRAY_DTYPES = frozenset(
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"]
)


def encode(data: Any) -> str:
    """JSON text of nested dicts, lists, numbers, strings, None and NumPy arrays.

    Raises:
        ValueError: a NaN or infinite float outside an array.
        TypeError: a value that is no plain data, or a key that is no string; names its place.
    """
    return json.dumps(_to_json(data, "state"), separators=(",", ":"))


def decode(text: str | bytes) -> Any:
    """The inverse of `encode`; arrays are fresh and writable.

    Raises:
        ValueError: not JSON, NaN, an array of another kind of data or of another size than it declares.
    """
    return parse_json(text, _restore_array)


def parse_json(text: str | bytes, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Untrusted JSON: every way in which it can be wrong is a ValueError."""
    try:
        return json.loads(text, object_hook=object_hook, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _to_json(value: Any, place: str) -> Any:
    if value is None or (isinstance(value, str | bool | int) and not isinstance(value, np.generic)):
        return value
    if isinstance(value, np.generic) and value.dtype.name in _ARRAY_DTYPES:
        return _to_json(value.item(), place)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{place} is {value}; only finite numbers are saved")
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{place} has the key {key!r}; keys are strings")
        if _ARRAY_TAG in value:
            raise TypeError(f"{place} has the key {_ARRAY_TAG}, which is reserved")
        return {key: _to_json(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, np.ndarray) and value.dtype.name in _ARRAY_DTYPES:
        little_endian = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
        text = base64.b64encode(little_endian.tobytes()).decode()
        return {_ARRAY_TAG: {"dtype": value.dtype.name, "shape": list(value.shape), "base64": text}}
    raise TypeError(f"{place} is a {type(value).__name__}, which is not plain data")


def _restore_array(item: dict[str, Any]) -> Any:
    if _ARRAY_TAG not in item:
        return item
    try:
        array = item[_ARRAY_TAG]
        dtype, shape = array["dtype"], array["shape"]
        if dtype not in _ARRAY_DTYPES:
            raise ValueError(f"dtype {dtype}")
        data = base64.b64decode(array["base64"], validate=True)
        return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).astype(dtype).reshape(shape)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"an array is malformed: {error}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number that is saved")
