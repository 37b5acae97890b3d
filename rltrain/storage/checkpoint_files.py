"""The files of a checkpoint folder: written with their size and SHA-256, believed only after both were found right."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from rltrain.errors import CheckpointError
from rltrain.machine import whole_memory
from rltrain.storage import plain_data
from rltrain.terminal.shell import unusable

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 2  # 1 had no parts
MANIFEST = "manifest.json"
STATE = "state.json"
RESERVED_KEYS = frozenset(["format", "step", "files", "parts", "sha256"])
FILE_NAME = re.compile(r"[A-Za-z0-9_]{1,64}\.safetensors|state\.json")
_MAX_MANIFEST_BYTES = 16 << 20


def write_text(path: Path, text: str) -> dict[str, Any]:
    """Make a new file, which the caller brings to the disk; its size and SHA-256."""
    path.write_bytes(text.encode())
    return _seal(path)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Make a new safetensors file, which the caller brings to the disk; its size and SHA-256.

    Tensors on a device, non-contiguous ones and those that share memory are copied on the host first.

    Raises:
        OSError: the disk is full or refuses.
        TypeError: a dtype that the format does not have, for instance complex128.
    """
    import safetensors.torch  # not above: `resume` refuses what a manifest tells without waiting for torch

    host: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        saved = tensor.detach().cpu().contiguous()
        if saved.untyped_storage().data_ptr() in storages:
            saved = saved.clone()  # the library refuses overlapping tensors
        storages.add(saved.untyped_storage().data_ptr())
        host[name] = saved
    try:
        safetensors.torch.save_file(host, path)
    except KeyError as error:
        raise TypeError(f"{path.name}: a tensor is {error.args[0]}, which is not saved") from error
    except SafetensorError as error:
        raise OSError(str(error).rpartition("I/O error: ")[2]) from error
    path.chmod(path.parent.stat().st_mode & 0o666)  # the library makes it for its owner's eyes only
    return _seal(path)


def _seal(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"size": file.tell(), "sha256": digest}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The verified manifest of a checkpoint folder.

    Raises:
        CheckpointError: missing, foreign, damaged, or it names a file outside its folder.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such checkpoint folder")
    with _open_regular(path) as file:
        text = file.read(_MAX_MANIFEST_BYTES + 1)
    if len(text) > _MAX_MANIFEST_BYTES:
        raise CheckpointError(f"{path}: larger than the {_MAX_MANIFEST_BYTES} bytes that a manifest may have")
    try:
        manifest = plain_data.parse_json(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged: {'empty' if not text else 'no valid JSON'}") from error
    if not isinstance(manifest, dict) or not manifest.keys() >= RESERVED_KEYS - {"parts"}:
        raise CheckpointError(f"{path}: not the manifest of an rltrain checkpoint")
    if manifest["sha256"] != digest_of_manifest(manifest):
        raise CheckpointError(f"{path}: damaged: its SHA-256 does not match")
    if type(manifest["format"]) is not int or not 1 <= manifest["format"] <= FORMAT:
        raise CheckpointError(_other_format(path, manifest["format"]))
    files = manifest["files"]
    if not isinstance(files, dict) or STATE not in files or type(manifest["step"]) is not int:
        raise CheckpointError(f"{path}: not the manifest of an rltrain checkpoint")
    for name, entry in files.items():
        if not FILE_NAME.fullmatch(name):
            raise CheckpointError(f"{path}: lists {name[:100]!r}, which is no checkpoint file's name")
        if not isinstance(entry, dict) or type(entry.get("size")) is not int or type(entry.get("sha256")) is not str:
            raise CheckpointError(f"{path}: lists {name} without its size and SHA-256")
    if sum(entry["size"] for entry in files.values()) > whole_memory():
        raise CheckpointError(f"{path}: lists files that are larger than this machine's memory")
    _check_parts(path, manifest.get("parts", {}), files)
    return manifest


def _check_parts(path: Path, parts: Any, files: Mapping[str, Any]) -> None:
    """Every part belongs to one file that is there, and is there itself."""
    lists = list(parts.values()) if isinstance(parts, dict) else [None]
    names = [name for found in lists for name in (found if isinstance(found, list) else [None])]
    wholes = [f"{stem}.safetensors" for stem in parts] if isinstance(parts, dict) else []
    known = all(isinstance(name, str) and name in files for name in [*names, *wholes])
    if not known or len({*names, *wholes, STATE}) != len(names) + len(wholes) + 1:
        raise CheckpointError(f"{path}: its parts are not those of its files")


def _other_format(path: Path, found: object) -> str:
    newer = " and was written by a newer version of rltrain" if type(found) is int and found > FORMAT else ""
    return f"{path}: has format {str(found)[:100]}{newer}; this version reads formats 1 to {FORMAT}"


def digest_of_manifest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of everything in the manifest but the digest itself."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@contextmanager
def open_verified(path: Path, entry: Mapping[str, Any]) -> Iterator[io.BufferedReader]:
    """A file, at its beginning, whose size and SHA-256 were found to be the manifest's.

    Raises:
        CheckpointError: they differ, the file cannot be read, or it is larger than this machine's memory.
    """
    with _open_regular(path) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            if size != entry["size"]:
                raise CheckpointError(f"{path}: damaged: {size} bytes where the manifest says {entry['size']}")
            if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                raise CheckpointError(f"{path}: damaged: its SHA-256 is not the manifest's")
            file.seek(0)
            yield file
        except OSError as error:
            raise CheckpointError(unusable(path, error, "read")) from error


def read_tensors(path: Path, entry: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a verified file, on the CPU.

    Raises:
        CheckpointError: as open_verified, or it is no safetensors file.
    """
    import safetensors.torch

    with open_verified(path, entry):
        try:
            # Read, not mapped: should a mapped file be cut or become unreachable, the process would die of SIGBUS.
            return safetensors.torch.load_file(path, backend="pread")
        except (SafetensorError, RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise CheckpointError(f"{path}: no valid safetensors file: {reason}") from error


def read_state(path: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The plain data of a verified file.

    Raises:
        CheckpointError: as open_verified, or it holds anything else.
    """
    with open_verified(path, entry) as file:
        try:
            state = plain_data.decode(file.read())
        except ValueError as error:
            raise CheckpointError(f"{path}: no valid state: {error}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: no valid state: not a mapping")
    return state


def _open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file, following no link and waiting for no pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: missing from the checkpoint") from error
    except OSError as error:
        reason = "a link, not a file" if path.is_symlink() else error.strerror
        raise CheckpointError(f"{path}: cannot be read: {reason}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CheckpointError(f"{path}: cannot be read: not a regular file")
    return os.fdopen(descriptor, "rb")
