"""A large replay lies in parts, of which a save writes those that changed: what is read is what was there, always."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import CPU, DISCRETE, VECTOR, dqn_config, run_config
from whole_runs import KillAfter, StopAfter, assert_same_run, flip_a_byte, newest, one_line, resume, train

from rltrain.config.schema import CheckpointConfig, EvalConfig
from rltrain.errors import CheckpointError
from rltrain.experience import UniformReplay
from rltrain.storage import checkpoint_parts
from rltrain.storage.checkpoint import newest_checkpoint, read_checkpoint, verify_checkpoint, write_checkpoint
from rltrain.storage.checkpoint_files import digest_of_manifest
from rltrain.storage.checkpoint_folders import step_folder
from rltrain.storage.checkpoint_parts import PartWriter


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of these replays has 40 bytes: seven to a part."""
    monkeypatch.setattr(checkpoint_parts, "PART_BYTES", 300)


def fill(replay: UniformReplay, count: int, first: int) -> None:
    rows = np.arange(first, first + count, dtype=np.float32)
    obs = np.repeat(rows[:, None], 3, 1)
    replay.add(obs, rows.astype(np.int64), rows, obs + 0.5, rows)


def save(run: Path, step: int, replay: UniformReplay, parts: PartWriter) -> Path:
    tensors = {f"replay.{name}": tensor for name, tensor in replay.state_dict().items()}
    return write_checkpoint(
        step_folder(run, step), step=step, manifest={}, tensors={"replay": tensors}, state={},
        rings={"replay": replay.ring("replay")}, parts=parts,
    )  # fmt: skip


def assert_holds(folder: Path, replay: UniformReplay) -> None:
    read = read_checkpoint(folder).tensors["replay"]
    expected = {f"replay.{name}": tensor for name, tensor in replay.state_dict().items()}
    assert read.keys() == expected.keys()
    for name, tensor in expected.items():
        assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor), name


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    capacity=st.integers(8, 60),
    steps=st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["save", "load", "prune"])), max_size=8),
)
def test_every_checkpoint_holds_the_replay_of_its_moment(
    tmp_path_factory: pytest.TempPathFactory, capacity: int, steps: list[tuple[int, str]]
) -> None:
    run = tmp_path_factory.mktemp("run")
    replay, parts, written = UniformReplay(capacity, VECTOR, DISCRETE, CPU), PartWriter(), 1
    fill(replay, 1, 0)
    for number, (count, what) in enumerate(steps):
        fill(replay, count, written)
        written += count
        folder = save(run, number, replay, parts)
        assert_holds(folder, replay)
        if what == "load":
            state = {key.removeprefix("replay."): t for key, t in read_checkpoint(folder).tensors["replay"].items()}
            replay, parts = UniformReplay(capacity, VECTOR, DISCRETE, CPU), PartWriter()
            replay.load_state_dict(state)
        if what == "prune":
            shutil.rmtree(folder)


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    replay, parts = UniformReplay(70, VECTOR, DISCRETE, CPU), PartWriter()  # ten parts of seven rows
    fill(replay, 70, 0)
    fill(replay, 5, 70)
    first = save(tmp_path, 1, replay, parts)
    fill(replay, 3, 75)  # rows 5, 6 and 7: the parts 0 and 1
    second = save(tmp_path, 2, replay, parts)
    names = [f"replay_{number:04d}.safetensors" for number in range(10)]
    assert json.loads((second / "manifest.json").read_text())["parts"] == {"replay": names}
    new = [name for name in names if not os.path.samefile(first / name, second / name)]
    assert new == names[:2]
    shutil.rmtree(first)
    assert_holds(second, replay)
    fill(replay, 60, 78)
    assert_holds(save(tmp_path, 3, replay, parts), replay)
    verify_checkpoint(second)


def test_a_part_that_somebody_changed_or_that_cannot_be_linked_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay, parts = UniformReplay(70, VECTOR, DISCRETE, CPU), PartWriter()
    fill(replay, 70, 0)
    first = save(tmp_path, 1, replay, parts)
    flip_a_byte(first / "replay_0004.safetensors")
    (first / "replay_0005.safetensors").unlink()
    assert_holds(save(tmp_path, 2, replay, parts), replay)
    with pytest.raises(CheckpointError, match=r"replay_0004\.safetensors"):
        read_checkpoint(first)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    third = save(tmp_path, 3, replay, parts)
    assert_holds(third, replay)
    assert not os.path.samefile(step_folder(tmp_path, 2) / "replay_0000.safetensors", third / "replay_0000.safetensors")


def test_a_small_replay_is_one_file(tmp_path: Path) -> None:
    replay = UniformReplay(7, VECTOR, DISCRETE, CPU)
    fill(replay, 7, 0)
    folder = save(tmp_path, 1, replay, PartWriter())
    assert sorted(os.listdir(folder)) == ["manifest.json", "replay.safetensors", "state.json"]


@pytest.mark.parametrize(
    "parts",
    [
        [], {"replay": 3}, {"replay": ["../x"]}, {"replay": ["state.json"]}, {"other": ["replay_0000.safetensors"]},
        {"replay": ["replay_0000.safetensors"] * 2}, {"replay": ["replay.safetensors"]}, {"replay": [["x"]]},
        {"replay": ["replay_0000.safetensors"], "replay_0000": ["replay_0001.safetensors"]},
    ],
)  # fmt: skip
def test_hostile_parts_are_refused_in_one_line(parts: object, tmp_path: Path) -> None:
    replay = UniformReplay(20, VECTOR, DISCRETE, CPU)
    fill(replay, 20, 0)
    folder = save(tmp_path, 1, replay, PartWriter())
    manifest = {**json.loads((folder / "manifest.json").read_text()), "parts": parts}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "sha256": digest_of_manifest(manifest)}))
    with pytest.raises(CheckpointError, match=r"manifest\.json: its parts are not those of its files"):
        read_checkpoint(folder)


def test_parts_that_do_not_belong_together(tmp_path: Path) -> None:
    """Whole by their hashes, and of two rings."""
    replay = UniformReplay(20, VECTOR, DISCRETE, CPU)
    fill(replay, 20, 0)
    tensors = {f"replay.{name}": tensor for name, tensor in replay.state_dict().items()}
    parts = {"a": {"x": torch.zeros(2, 3)}, "b": {"x": torch.zeros(2, 4)}, "c": {"y": torch.zeros(2, 3)}}
    for other in "bc":
        folder = step_folder(tmp_path, ord(other))
        write_checkpoint(folder, step=1, manifest={}, tensors={"replay": tensors, **parts}, state={})
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["parts"] = {"replay": ["a.safetensors", f"{other}.safetensors"]}
        (folder / "manifest.json").write_text(json.dumps({**manifest, "sha256": digest_of_manifest(manifest)}))
        with pytest.raises(CheckpointError, match=r"a\.safetensors"):
            read_checkpoint(folder)


def test_a_run_with_parts_stops_is_killed_and_continues_exactly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_config(
        dqn_config(buffer_size=50), num_envs=2, total_steps=180, eval=EvalConfig(None, 2),
        checkpoint=CheckpointConfig(20, 3, True),
    )  # fmt: skip
    looks = train(config, tmp_path / "whole")
    assert newest(tmp_path / "whole").manifest["parts"]["replay"]
    train(config, tmp_path / "run", StopAfter(looks // 3))
    assert resume(tmp_path / "run", stop=KillAfter(looks // 3, tmp_path / "run")) == -1
    folder = newest_checkpoint(tmp_path / "run")
    capsys.readouterr()
    part = next(folder.glob("replay_0000*"))
    damaged = part.read_bytes()
    part.unlink()  # not in place: the older checkpoints may share it
    part.write_bytes(damaged[:-1] + bytes([damaged[-1] ^ 1]))
    capsys.readouterr()
    assert resume(tmp_path / "run") == 0
    assert f"skipped a checkpoint: {part}: damaged: its SHA-256" in capsys.readouterr().err
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_all_checkpoints_share_a_damaged_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, and the network can still be used."""
    from rltrain.cli import main

    config = run_config(dqn_config(buffer_size=100), total_steps=90, checkpoint=CheckpointConfig(10, 3, True))
    train(config, tmp_path / "run", StopAfter(80))
    flip_a_byte(newest_checkpoint(tmp_path / "run") / "replay_0001.safetensors")
    capsys.readouterr()
    assert resume(tmp_path / "run") == 2
    assert "replay_0001.safetensors" in one_line(capsys)
    for named in (tmp_path / "run", newest_folder(tmp_path / "run")):
        assert main(["evaluate", str(named), "episodes=1", "--json"]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["checkpoint"] == newest_folder(tmp_path / "run").name and "skipped" not in err


def newest_folder(run: Path) -> Path:
    return sorted(run.glob("checkpoints/step_*"))[-1]
