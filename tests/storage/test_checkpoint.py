"""Checkpoints: exact round trips, refusals of everything damaged or foreign, nothing executed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file as library_load
from safetensors.torch import save as library_save

from rltrain.errors import CheckpointError
from rltrain.storage import checkpoint, checkpoint_files, plain_data
from rltrain.storage.checkpoint import newest_checkpoint, read_checkpoint, verify_checkpoint, write_checkpoint
from rltrain.storage.checkpoint_folders import best_folder, clean, prune, step_folder

TENSORS = {
    "network": {"w": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(2.5)},
    "replay": {
        "obs": torch.arange(20, dtype=torch.uint8).reshape(5, 4),
        "terminated": torch.tensor([True, False]),
        "index": torch.tensor([-1, 2**62]),
        "none": torch.zeros(0, 4),
        "half": torch.tensor([1.5], dtype=torch.bfloat16),
    },
}
STATE = {
    "generator": np.random.PCG64(5).state,
    "loss": 0.1 + 0.2,
    "best": None,
    "obs": np.array([[1.5, np.nan]], dtype=np.float32),
}


def write(folder: Path, step: int = 20, value: float = 0.0) -> Path:
    tensors = {**TENSORS, "optimizer": {"m": torch.full((3,), value)}}
    return write_checkpoint(folder, step=step, manifest={"config": {"seed": 1}}, tensors=tensors, state=STATE)


def test_what_goes_in_comes_out_bit_for_bit(tmp_path: Path) -> None:
    read = read_checkpoint(write(step_folder(tmp_path, 20)))
    assert read.step == 20
    assert read.manifest["config"] == {"seed": 1}
    for stem, group in TENSORS.items():
        assert read.tensors[stem].keys() == group.keys()
        for name, tensor in group.items():
            assert read.tensors[stem][name].dtype == tensor.dtype
            assert read.tensors[stem][name].shape == tensor.shape
            assert torch.equal(read.tensors[stem][name], tensor)
    assert read.state["generator"] == STATE["generator"]
    assert read.state["generator"]["state"]["state"] > 2**64
    assert read.state["loss"] == 0.30000000000000004
    assert read.state["obs"].tobytes() == STATE["obs"].tobytes()
    assert read.state["obs"].dtype == np.float32
    read.state["obs"][0, 0] = 3  # writable


def test_weights_are_readable_by_the_safetensors_library(tmp_path: Path) -> None:
    folder = write(step_folder(tmp_path, 20))
    for stem, group in TENSORS.items():
        loaded = library_load(folder / f"{stem}.safetensors")
        assert loaded.keys() == group.keys()
        assert all(torch.equal(loaded[name], group[name]) for name in group)


def test_non_contiguous_and_shared_tensors_are_saved_as_they_look(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    group = {"t": base.t(), "row": base[1], "all": base, "again": base, "weight": torch.nn.Parameter(base)}
    folder = write_checkpoint(step_folder(tmp_path, 1), step=1, manifest={}, tensors={"network": group}, state={})
    read = read_checkpoint(folder).tensors["network"]
    assert read.keys() == group.keys()
    assert all(torch.equal(read[name], group[name]) for name in group)


def test_tensors_read_are_free_of_each_other_and_of_the_file(tmp_path: Path) -> None:
    folder = write(step_folder(tmp_path, 20))
    read = read_checkpoint(folder).tensors["replay"]
    read["obs"].zero_()
    (folder / "replay.safetensors").write_bytes(b"")  # a mapped file would now kill the process (SIGBUS)
    assert read["index"].tolist() == [-1, 2**62]
    assert not read["obs"].any()


def test_files_are_as_readable_as_their_folder(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        folder = write(step_folder(tmp_path, 20))
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o750
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}


def test_only_some_tensor_files_can_be_read(tmp_path: Path) -> None:
    folder = write(step_folder(tmp_path, 20))
    (folder / "replay.safetensors").unlink()
    assert read_checkpoint(folder, only={"network"}).tensors.keys() == {"network"}
    with pytest.raises(CheckpointError, match=r"replay\.safetensors"):
        read_checkpoint(folder)
    with pytest.raises(CheckpointError, match=r"has no value\.safetensors"):
        read_checkpoint(folder, only={"value"})


FILES = ["manifest.json", "network.safetensors", "optimizer.safetensors", "replay.safetensors", "state.json"]


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError):
        verify_checkpoint(folder)
    return str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_byte_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    folder = write(step_folder(tmp_path, 20))
    path = folder / name
    whole = path.read_bytes()
    assert sorted(os.listdir(folder)) == FILES
    for place in np.linspace(0, len(whole) - 1, 20).astype(int):
        damaged = bytearray(whole)
        damaged[place] ^= 0x01
        path.write_bytes(damaged)
        assert name in refusal(folder), place


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "torn", "longer", "link", "folder", "pipe"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str, damage: str) -> None:
    path = write(step_folder(tmp_path, 20)) / name
    whole = path.read_bytes()
    path.unlink()
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "torn":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "longer":
        path.write_bytes(whole + b"x")
    elif damage == "link":
        (tmp_path / "elsewhere").write_bytes(whole)
        path.symlink_to(tmp_path / "elsewhere")
    elif damage == "folder":
        path.mkdir()
    elif damage == "pipe":
        os.mkfifo(path)
    message = refusal(path.parent)
    assert str(path) in message
    if damage in ("empty", "torn", "longer") and name != "manifest.json":  # seen before a large file is hashed
        assert "bytes where the manifest says" in message


def test_files_of_another_checkpoint_are_refused(tmp_path: Path) -> None:
    one, two = write(step_folder(tmp_path, 20), value=1.0), write(step_folder(tmp_path, 40), value=2.0)
    shutil.copy(one / "optimizer.safetensors", two / "optimizer.safetensors")
    assert "optimizer.safetensors" in refusal(two)


def rewrite_manifest(folder: Path, **changes: Any) -> None:
    """A manifest whose own digest is right: the work of somebody who means it."""
    path = folder / "manifest.json"
    content = {**json.loads(path.read_text()), **changes}
    content["sha256"] = checkpoint_files.digest_of_manifest(content)
    path.write_text(json.dumps(content))


def entry_of(data: bytes) -> dict[str, Any]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@pytest.mark.parametrize(
    "name", ["../../secret.safetensors", "/etc/passwd", "a/b.safetensors", "x.pkl", "manifest.json", ".safetensors", ""]
)
def test_a_manifest_that_names_files_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.safetensors").write_bytes(library_save({"w": torch.ones(1)}))
    folder = write(step_folder(tmp_path, 20))
    files = json.loads((folder / "manifest.json").read_text())["files"]
    rewrite_manifest(folder, files={**files, name: entry_of((tmp_path / "secret.safetensors").read_bytes())})
    assert "no checkpoint file's name" in refusal(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 3},
        {"format": True},
        {"format": 0},
        {"step": "20"},
        {"files": []},
        {"files": {}},
        {"files": {"state.json": {}}},
        {"files": {"state.json": []}},
        {"files": {"state.json": {"size": True, "sha256": "x"}}},
        {"files": {"state.json": {"size": -1, "sha256": "x"}}},
        {"files": {"state.json": {"size": 10**30, "sha256": "x"}}},
    ],
)
def test_a_foreign_manifest_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = write(step_folder(tmp_path, 20))
    rewrite_manifest(folder, **changes)
    refusal(folder)


@pytest.mark.parametrize("text", ["[]", "{}", "3", "nonsense", "[" * 100_000, '{"a": NaN}', "1" * 5000, "\xff"])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    folder = write(step_folder(tmp_path, 20))
    (folder / "manifest.json").write_text(text, encoding="latin-1")
    assert "manifest.json" in refusal(folder)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "notes.txt").write_text("hello")
    assert "manifest.json" in refusal(tmp_path / "some")
    assert "no such checkpoint" in refusal(tmp_path / "none")


def crafted(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def tensor(shape: Any, offsets: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2**40) + b"{}",
        struct.pack("<Q", 3) + b"{}",
        crafted({"w": tensor([2**40], [0, 2**42])}),
        crafted({"w": tensor([2**31, 2**31, 4], [0, 0])}),
        crafted({"w": tensor([0, 2**61, 2**61], [0, 0])}),
        crafted({"w": tensor([2], [0, 4])}, b"\0" * 4),
        crafted({"w": tensor([-1], [0, 4])}, b"\0" * 4),
        crafted({"w": tensor([1], [-4, 0])}, b"\0" * 4),
        crafted({"w": tensor([1], [0, 4], "O")}, b"\0" * 4),
        crafted({"w": tensor([4], [0, 3], "F6_E2M3")}, b"\0" * 3),
        crafted({"w": tensor([1], [0, 4]), "v": tensor([1], [0, 4])}, b"\0" * 4),
        crafted({"w": tensor([1], [0, 4])}, b"\0" * 5),
        crafted({"w": None}),
        crafted([]),
        crafted(b"[" * 100_000),
        crafted(b'{"w":' * 100_000),
        crafted(b"\xff"),
    ],
)
def test_a_crafted_tensor_file_with_the_right_hash_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    folder = write(step_folder(tmp_path, 20))
    (folder / "network.safetensors").write_bytes(data)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    rewrite_manifest(folder, files={**files, "network.safetensors": entry_of(data)})
    with pytest.raises(CheckpointError, match=r"network\.safetensors: no valid safetensors file: \S") as caught:
        read_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_a_file_larger_than_the_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    folder = write(step_folder(tmp_path, 20))
    size = 1 << 43
    with open(folder / "network.safetensors", "r+b") as file:
        file.truncate(size)  # sparse: takes no disk
    files = json.loads((folder / "manifest.json").read_text())["files"]
    rewrite_manifest(folder, files={**files, "network.safetensors": {"size": size, "sha256": "0"}})
    with pytest.raises(CheckpointError, match=r"manifest\.json: .* memory"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "array",
    [
        {"dtype": "object", "shape": [1], "base64": "AAAAAAAAAAA="},
        {"dtype": "S8", "shape": [1], "base64": "AAAAAAAAAAA="},
        {"dtype": "float64", "shape": [2**60], "base64": "AAAAAAAAAAA="},
        {"dtype": "float64", "shape": [-1, 0], "base64": ""},
        {"dtype": "float64", "shape": "x", "base64": "AAAAAAAAAAA="},
        {"dtype": ["float64"], "shape": [1], "base64": "AAAAAAAAAAA="},
        {"dtype": "float64", "shape": [1], "base64": "!"},
        {"dtype": "float64"},
        7,
    ],
)
def test_a_crafted_array_is_refused(array: Any) -> None:
    with pytest.raises(ValueError):
        plain_data.decode(json.dumps({"a": {"__array__": array}}))


def test_plain_data_is_exact() -> None:
    data = {"i": 2**200, "f": [5e-324, 1.7976931348623157e308, -0.0], "s": "\ud800\u2028é", "b": [True, None]}
    back = plain_data.decode(plain_data.encode(data))
    assert back == data
    assert repr(back["f"]) == repr(data["f"])
    scalars = plain_data.decode(plain_data.encode({"x": np.float64(0.1), "n": np.int64(7), "t": (np.bool_(True),)}))
    assert scalars == {"x": 0.1, "n": 7, "t": [True]}
    assert type(scalars["n"]) is int
    swapped = np.array([1, 2], dtype=">i4")
    assert plain_data.decode(plain_data.encode({"a": swapped}))["a"].tolist() == [1, 2]
    generator = np.random.MT19937(3)
    assert np.array_equal(
        plain_data.decode(plain_data.encode(generator.state))["state"]["key"], generator.state["state"]["key"]
    )


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"a": float("nan")}, ValueError),
        ({"a": [1.0, float("-inf")]}, ValueError),
        ({"a": np.float32("nan")}, ValueError),
        ({1: 2}, TypeError),
        ({"__array__": 1}, TypeError),
        ({"a": torch.ones(1)}, TypeError),
        ({"a": np.array([None])}, TypeError),
        ({"a": np.longdouble(1)}, TypeError),
        ({"a": {1, 2}}, TypeError),
        ({"a": b"x"}, TypeError),
    ],
)
def test_what_is_no_plain_data_is_not_saved(tmp_path: Path, data: dict[Any, Any], error: type[Exception]) -> None:
    folder = write(step_folder(tmp_path, 20))
    with pytest.raises(error):
        write_checkpoint(folder, step=20, manifest={}, tensors={}, state=data)
    assert read_checkpoint(folder).state["loss"] == STATE["loss"]


def test_a_stem_or_key_that_is_not_allowed_is_refused(tmp_path: Path) -> None:
    folder = step_folder(tmp_path, 1)
    with pytest.raises(ValueError, match="stem"):
        write_checkpoint(folder, step=1, manifest={}, tensors={"../x": {}}, state={})
    with pytest.raises(ValueError, match="files"):
        write_checkpoint(folder, step=1, manifest={"files": {}}, tensors={}, state={})
    numbers = {"c": torch.ones(1, dtype=torch.complex128)}
    with pytest.raises(TypeError, match="complex128"):
        write_checkpoint(folder, step=1, manifest={}, tensors={"n": numbers}, state={})
    assert os.listdir(folder.parent) == []


def test_the_newest_whole_checkpoint_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckpointError, match="is no run folder"):
        newest_checkpoint(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        newest_checkpoint(tmp_path)
    for step in (20, 99_999_999, 100_000_000):
        write(step_folder(tmp_path, step), step)
    write(best_folder(tmp_path), 20)
    assert newest_checkpoint(tmp_path) == step_folder(tmp_path, 100_000_000)
    assert not capsys.readouterr().err
    (step_folder(tmp_path, 100_000_000) / "state.json").write_text("")
    assert newest_checkpoint(tmp_path) == step_folder(tmp_path, 99_999_999)
    said = f"skipped a checkpoint: {tmp_path}/checkpoints/step_100000000/state.json: damaged: 0 bytes where"
    error = capsys.readouterr().err
    assert said in error and error.endswith("; step_99999999 is taken\n")
    (step_folder(tmp_path, 99_999_999) / "replay.safetensors").write_text("")
    assert newest_checkpoint(tmp_path, only=("network",)) == step_folder(tmp_path, 99_999_999)
    assert newest_checkpoint(tmp_path) == step_folder(tmp_path, 20)
    assert newest_checkpoint(tmp_path, only=("replay",)) == step_folder(tmp_path, 20)
    (step_folder(tmp_path, 99_999_999) / "network.safetensors").write_text("")
    assert newest_checkpoint(tmp_path, only=("network",)) == step_folder(tmp_path, 20)
    for step in (20, 99_999_999):
        (step_folder(tmp_path, step) / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"no whole checkpoint.*state\.json"):
        newest_checkpoint(tmp_path)


def test_prune_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for step in (20, 40, 60):
        write(step_folder(tmp_path, step), step)
    write(best_folder(tmp_path), 20)
    (tmp_path / "checkpoints" / ".writing_step_00000080").mkdir()
    (tmp_path / "checkpoints" / ".removed_step_00000010").mkdir()
    prune(tmp_path, 2)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["best", "step_00000040", "step_00000060"]


def test_replacing_never_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before and after every change on the disk while `best` is replaced, a reader finds the old one or the new."""
    best = best_folder(tmp_path)
    write(best, 1, value=1.0)
    seen: list[int] = []

    def watch(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            seen.append(read_checkpoint(best).step)
            result = original(*args, **kwargs)
            seen.append(read_checkpoint(best).step)
            return result

        monkeypatch.setattr(owner, name, watched)

    watch(checkpoint.Path, "rename")
    watch(checkpoint.shutil, "rmtree")
    watch(checkpoint, "fsync")
    write(best, 2, value=2.0)
    assert seen[0] == 1
    assert seen[-1] == 2
    assert seen == sorted(seen)


def test_a_replacement_cut_between_its_two_renames_is_finished(tmp_path: Path) -> None:
    best, other = write(best_folder(tmp_path), 1), write(step_folder(tmp_path, 5), 5)
    best.rename(best.with_name(".previous_best"))
    other.rename(other.with_name(".previous_step_00000005"))
    assert read_checkpoint(best).step == 1
    assert newest_checkpoint(tmp_path) == other
    clean(tmp_path)
    assert sorted(os.listdir(best.parent)) == ["best", "step_00000005"]
    best.rename(best.with_name(".previous_best"))
    write(best, 2)
    assert read_checkpoint(best).step == 2
    clean(tmp_path)
    assert read_checkpoint(best).step == 2


def test_a_reader_survives_a_folder_that_is_replaced_under_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best = write(best_folder(tmp_path), 1, value=1.0)
    original = checkpoint.read_manifest
    calls = []

    def replace_after_the_manifest(folder: Path) -> dict[str, Any]:
        manifest = original(folder)
        if not calls:
            calls.append(folder)
            write(best, 2, value=2.0)
        return manifest

    monkeypatch.setattr(checkpoint, "read_manifest", replace_after_the_manifest)
    read = read_checkpoint(best)
    assert read.step == 2
    assert read.tensors["optimizer"]["m"].tolist() == [2.0] * 3


def test_a_reader_never_mixes_two_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best = write(best_folder(tmp_path), 1, value=1.0)
    original = safetensors.torch.load_file
    calls = []

    def replace_between_check_and_load(path: Path, **options: Any) -> dict[str, torch.Tensor]:
        if not calls:
            write(best, 2, value=2.0)
        calls.append(path)
        return original(path, **options)

    monkeypatch.setattr(safetensors.torch, "load_file", replace_between_check_and_load)
    read = read_checkpoint(best, only={"optimizer"})
    assert read.step == 2
    assert read.tensors["optimizer"]["m"].tolist() == [2.0] * 3
    assert len(calls) == 2
