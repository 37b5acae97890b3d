"""The files of a checkpoint folder: written with their size and SHA-256, believed only after both were found right."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from rltrain.errors import CheckpointError
from rltrain.training.plain_data import parse_json

FORMAT = 1
MANIFEST = "manifest.json"
STATE = "state.json"
RESERVED_KEYS = frozenset(["format", "step", "files", "sha256"])
FILE_NAME = re.compile(r"[A-Za-z0-9_]{1,64}\.safetensors|state\.json")
_MAX_MANIFEST_BYTES = 16 << 20
_CHUNK = 1 << 20


class HashingFile:
    """A new file that is hashed while it is written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hash = hashlib.sha256()
        self._size = 0

    def __enter__(self) -> HashingFile:
        self._file: BinaryIO = open(self._path, "xb")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._file:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())

    def write(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._size += len(data)
        self._file.write(data)

    def summary(self) -> dict[str, Any]:
        return {"size": self._size, "sha256": self._hash.hexdigest()}


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
        manifest = parse_json(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged: {'empty' if not text else 'no valid JSON'}") from error
    if not isinstance(manifest, dict) or not manifest.keys() >= RESERVED_KEYS:
        raise CheckpointError(f"{path}: not the manifest of an rltrain checkpoint")
    if manifest["sha256"] != digest_of_manifest(manifest):
        raise CheckpointError(f"{path}: damaged: its SHA-256 does not match")
    if manifest["format"] != FORMAT:
        raise CheckpointError(f"{path}: format {manifest['format']!r}; this version reads format {FORMAT}")
    files = manifest["files"]
    if not isinstance(files, dict) or STATE not in files or type(manifest["step"]) is not int:
        raise CheckpointError(f"{path}: not the manifest of an rltrain checkpoint")
    for name, entry in files.items():
        if not FILE_NAME.fullmatch(name):
            raise CheckpointError(f"{path}: lists {name[:100]!r}, which is no checkpoint file's name")
        if not isinstance(entry, dict) or type(entry.get("size")) is not int or type(entry.get("sha256")) is not str:
            raise CheckpointError(f"{path}: lists {name} without its size and SHA-256")
    return manifest


def digest_of_manifest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of everything in the manifest but the digest itself."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


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


def verify_file(path: Path, entry: Mapping[str, Any]) -> None:
    """Compare a file with its size and SHA-256 in the manifest, without keeping it.

    Raises:
        CheckpointError: they differ, or the file cannot be read.
    """
    _read_verified(path, entry, keep=False)


def load_file(path: Path, entry: Mapping[str, Any]) -> Tensor:
    """The verified bytes of a file, uint8.

    Raises:
        CheckpointError: as verify_file, or the file is larger than this machine's memory.
    """
    return _read_verified(path, entry, keep=True)


def _read_verified(path: Path, entry: Mapping[str, Any], keep: bool) -> Tensor:
    with _open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != entry["size"]:
            raise CheckpointError(f"{path}: damaged: {size} bytes where the manifest says {entry['size']}")
        if keep and size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
            raise CheckpointError(f"{path}: {size} bytes are more than this machine's memory")
        data = torch.empty(size if keep else min(size, _CHUNK), dtype=torch.uint8)
        view = data.numpy().data
        digest = hashlib.sha256()
        done = 0
        while done < size:
            window = view[done : done + _CHUNK] if keep else view[: size - done]
            count = file.readinto(window)
            if not count:
                break
            digest.update(window[:count])
            done += count
    if done != size or digest.hexdigest() != entry["sha256"]:
        raise CheckpointError(f"{path}: damaged: its SHA-256 is not the manifest's")
    return data
