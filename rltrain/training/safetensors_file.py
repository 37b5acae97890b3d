"""The safetensors format (https://github.com/huggingface/safetensors#format), written and read in one pass.

Own code, because a checkpoint hashes while it writes, wants a full disk as a plain OSError, and on reading turns
exactly the bytes whose hash was verified into tensors, without a second copy of a large replay.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from rltrain.training.plain_data import parse_json

MAX_HEADER_BYTES = 16 << 20
_LENGTH = struct.Struct("<Q")
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def write_tensors(write: Callable[[Any], object], tensors: Mapping[str, Tensor]) -> None:
    """Give the file's bytes to `write`, piece by piece; tensors on a device are copied to the host one at a time.

    Raises:
        TypeError: a dtype that the format (as used here) does not have, for instance complex numbers.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES:
            raise TypeError(f"tensor {name} is {tensor.dtype}, which is not saved")
    # Widest elements first keeps every tensor aligned to its own size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {}
    offset = 0
    for name in names:
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write(_LENGTH.pack(len(text)) + text)
    for name in names:
        if tensors[name].numel():
            flat = tensors[name].detach().cpu().contiguous().reshape(-1)
            write(flat.view(torch.uint8).numpy().data)


def parse_tensors(data: Tensor) -> dict[str, Tensor]:
    """The tensors in a file's bytes (`data`: uint8, the whole file). They are views of it: no copy is made.

    Raises:
        ValueError: any departure from the format; nothing is allocated by what the header claims.
    """
    if len(data) < _LENGTH.size:
        raise ValueError("shorter than a header")
    (length,) = _LENGTH.unpack(bytes(data[: _LENGTH.size].numpy()))
    if length > min(len(data) - _LENGTH.size, MAX_HEADER_BYTES):
        raise ValueError(f"declares a header of {length} bytes")
    start = _LENGTH.size + length
    header = parse_json(bytes(data[_LENGTH.size : start].numpy()))
    if not isinstance(header, dict):
        raise ValueError("header is not a mapping")
    header.pop("__metadata__", None)
    body = data[start:]
    ranges = {name: _checked_range(name, entry, len(body)) for name, entry in header.items()}
    covered = 0
    for begin, end in sorted(ranges.values()):
        if begin != covered:
            raise ValueError("tensors overlap or leave holes")
        covered = end
    if covered != len(body):
        raise ValueError(f"{len(body)} bytes of data where {covered} are declared")
    return {
        name: _view(body[begin:end], _DTYPES[header[name]["dtype"]], header[name]["shape"])
        for name, (begin, end) in ranges.items()
    }


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _checked_range(name: str, entry: Any, size: int) -> tuple[int, int]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"tensor {name!r} has the dtype {dtype!r}")
    if not isinstance(shape, list) or len(shape) > 64 or not all(map(_is_count, shape)):
        raise ValueError(f"tensor {name!r} has no valid shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise ValueError(f"tensor {name!r} has no valid offsets")
    begin, end = offsets
    if not begin <= end <= size or end - begin != math.prod(shape) * _DTYPES[dtype].itemsize:
        raise ValueError(f"tensor {name!r} does not fit its place in the file")
    return begin, end


def _view(data: Tensor, dtype: torch.dtype, shape: list[int]) -> Tensor:
    if len(data) == 0:
        if math.prod(max(size, 1) for size in shape) >= 1 << 62:
            raise ValueError("an empty tensor declares an absurd shape")
        return torch.empty(shape, dtype=dtype)
    if data.data_ptr() % dtype.itemsize:
        data = data.clone()
    return data.view(dtype).reshape(shape)
