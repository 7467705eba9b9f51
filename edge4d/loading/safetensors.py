"""Reads a safetensors file: eight bytes of header length, a JSON header, then raw tensors. Runs nothing."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from edge4d.errors import LoadError

if TYPE_CHECKING:
    from pathlib import Path

    import torch

__all__ = ["read_safetensors"]

_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of `path` by name.

    Raises:
        LoadError: the header cannot be read, or a tensor lies outside the file.
    """
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    if start > len(data):
        raise LoadError(f"{path}: a safetensors file cut off inside its header", hint="copy or download it again")
    try:
        header = json.loads(data[8:start])
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        return {name: _tensor(data, start, name, entry) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LoadError(f"{path}: a damaged safetensors file: {error}", hint="copy or download it again") from None


def _tensor(data: bytearray, start: int, name: str, entry: dict[str, Any]) -> torch.Tensor:
    import torch

    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"{name} has the element type {entry['dtype']}, known are {', '.join(_DTYPES)}")
    dtype: torch.dtype = getattr(torch, _DTYPES[entry["dtype"]])
    shape = [int(size) for size in entry["shape"]]
    begin, end = entry["data_offsets"]
    count = math.prod(shape)
    if min([begin, *shape]) < 0 or end - begin != count * dtype.itemsize or start + end > len(data):
        raise ValueError(f"{name} of shape {shape} does not fit the bytes {begin}…{end} of {len(data) - start}")
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    # A copy: tensors may start at an odd byte of the file, and must not keep the whole file alive.
    raw = torch.frombuffer(data, dtype=torch.uint8, count=end - begin, offset=start + begin).clone()
    return raw.view(dtype).reshape(shape)
