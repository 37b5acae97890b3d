"""The run folder: its record, its configuration as plain data, its log and its lock."""

from __future__ import annotations

import json
import logging
import os
import resource
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from rltrain.errors import RequestError, RunFailed
from rltrain.storage import files
from rltrain.storage.run_folder import RunFolder, git_state, newest_run, versions

HOLDER = """
import sys, time
from pathlib import Path
from rltrain.storage.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(path: Path) -> subprocess.Popen[bytes]:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    return holder


def test_a_held_folder_is_refused_naming_the_holder_and_a_dead_one_does_not_block(tmp_path: Path) -> None:
    holder = hold(tmp_path)
    try:
        with pytest.raises(RequestError) as caught, RunFolder(tmp_path):
            pass
        assert str(tmp_path) in str(caught.value)
        assert f"process {holder.pid} on " in str(caught.value)
        assert "\n" not in str(caught.value)
        assert f"process {holder.pid} on " in (tmp_path / ".lock").read_text()
    finally:
        holder.kill()
        holder.communicate()
    with RunFolder(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
    with RunFolder(tmp_path):
        pass


def test_one_process_cannot_hold_a_folder_twice(tmp_path: Path) -> None:
    with RunFolder(tmp_path), pytest.raises(RequestError, match="in use"), RunFolder(tmp_path):
        pass


def test_the_lock_dies_with_its_holder_although_a_child_lives_on(tmp_path: Path) -> None:
    code = """
import os, subprocess, sys
from pathlib import Path
from rltrain.storage.run_folder import RunFolder
folder = RunFolder(Path(sys.argv[1])).__enter__()
code = "import sys; sys.stdin.read()"
child = subprocess.Popen([sys.executable, "-c", code], stdin=0, stdout=subprocess.DEVNULL, close_fds=False)
print(child.pid, flush=True)
os._exit(1)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        holder.wait()
        os.kill(child, 0)
        with RunFolder(tmp_path):
            pass


def test_a_folder_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "run.log").mkdir()
    for folder in (tmp_path / "none", tmp_path / "file", tmp_path / "taken"):
        with pytest.raises(RequestError) as caught, RunFolder(folder):
            pass
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)
    (tmp_path / "taken" / "run.log").rmdir()
    with RunFolder(tmp_path / "taken"):  # the refusal did not keep the lock
        pass


def test_the_record_is_merged_and_replaced_whole(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_record(status="running", seed=3, versions=versions())
    assert folder.write_record(status="completed")["seed"] == 3
    record = json.loads((tmp_path / "run.json").read_text())
    assert record == folder.read_record()
    assert (record["status"], record["seed"]) == ("completed", 3)
    assert record["versions"].keys() == {"python", "rltrain", "torch", "numpy", "gymnasium"}
    with pytest.raises(ValueError):
        folder.write_result({"a": float("nan")})
    assert sorted(os.listdir(tmp_path)) == ["run.json"]


def test_a_full_disk_keeps_the_earlier_record(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_record(status="running")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(RunFailed, match=r"run\.json: cannot be written"):
            folder.write_record(argv=["x" * 10_000])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert folder.read_record() == {"status": "running"}
    assert os.listdir(tmp_path) == ["run.json"]


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\xff"])
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text, encoding="latin-1")
    with pytest.raises(RequestError, match=r"run\.json"):
        RunFolder(tmp_path).read_record()


def test_a_config_comes_back_equal_and_unresolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "told")
    shared = [120, 84]
    plain = {
        "name": "${oc.env:SECRET}",
        "seed": 3,
        "lr": 1e-05,
        "text": ["1e5", "null", "yes", "2026-01-01", "!!python/name:os.system", "é", "", "a: b", " x"],
        "network": {"hidden": shared, "again": shared},
        "none": None,
        "big": 2**70,
    }
    folder = RunFolder(tmp_path)
    folder.write_config(plain)
    assert folder.read_config() == plain
    assert list(folder.read_config()) == list(plain)
    assert "told" not in (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['touch pwned']",
        "a: !!python/name:os.system",
        "a: &x [1, 1]\nb: [*x, *x]",
        "- 1",
        "a: [",
        "a: " + "[" * 5000,
        "a: \x00",
        "\xff\xfe\xff",
        "a: 2026-13-45",
    ],
)
def test_a_config_that_is_no_plain_data_is_refused(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(RequestError) as caught:
        RunFolder(tmp_path).read_config()
    assert "config.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pwned").exists()


def test_the_log_holds_tracebacks_and_ends_with_its_run(tmp_path: Path) -> None:
    log = logging.getLogger("rltrain.test")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with RunFolder(tmp_path / name):
            try:
                raise ValueError(f"in {name}")
            except ValueError:
                log.exception("the run failed")
    log.error("after")
    text = (tmp_path / "one" / "run.log").read_text()
    assert "Traceback" in text
    assert "ValueError: in one" in text
    assert "two" not in text
    assert "after" not in text


def test_a_log_on_a_full_disk_is_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with RunFolder(tmp_path):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
            for _ in range(100):
                logging.getLogger("rltrain.test").error("x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "Logging error" not in capsys.readouterr().err


def test_the_newest_run_is_found(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no run"):
        newest_run(tmp_path)
    for index, name in enumerate(["2026/b", "2026/a", "multirun/0"]):
        (tmp_path / name).mkdir(parents=True)
        RunFolder(tmp_path / name).write_record(status="running")
        os.utime(tmp_path / name / "run.json", (index, index))
    assert newest_run(tmp_path) == tmp_path / "multirun/0"
    os.utime(tmp_path / "2026/a/run.json", (9, 9))
    assert newest_run(tmp_path) == tmp_path / "2026/a"


def test_the_newest_run_to_evaluate_is_no_trial_of_a_search(tmp_path: Path) -> None:
    for index, name in enumerate(["2026/mine", "tune/study/batch_000/trial_0_seed_1000"]):
        (tmp_path / name / "checkpoints/best").mkdir(parents=True)
        (tmp_path / name / "checkpoints/best/manifest.json").touch()
        RunFolder(tmp_path / name).write_record(status="completed")
        os.utime(tmp_path / name / "run.json", (index, index))
    (tmp_path / "tune/study/study.yaml").touch()
    assert newest_run(tmp_path, saved=True) == tmp_path / "2026/mine"
    assert newest_run(tmp_path) == tmp_path / "tune/study/batch_000/trial_0_seed_1000"
    assert newest_run(tmp_path / "tune", saved=True) == newest_run(tmp_path)


def test_git_state(tmp_path: Path) -> None:
    assert git_state(tmp_path / "none") is None

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-qm", "x")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "file").write_text("2")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": True}


def test_processes_that_write_one_file_at_once_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "[a].json"
    code = "import sys, pathlib, rltrain.storage.files as f; f.write_atomic(pathlib.Path(sys.argv[1]), 'theirs')"
    with files.written_together():
        files.write_atomic(path, "ours")
        subprocess.run([sys.executable, "-c", code, str(path)], check=True)
        assert path.read_text() == "theirs"
    assert path.read_text() == "ours"


def test_what_a_killed_writer_left_is_removed_by_a_later_one(tmp_path: Path) -> None:
    left, new = tmp_path / ".writing_[a].json.1", tmp_path / ".writing_[a].json.2"
    for path in (left, new, other := tmp_path / ".writing_b.json.1"):
        path.touch()
    for path in (left, other):
        os.utime(path, (0, 0))
    files.write_atomic(tmp_path / "[a].json", "1")
    assert {path.name for path in tmp_path.iterdir()} == {"[a].json", new.name, other.name}


class TestWrittenTogether:
    @pytest.fixture
    def done(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The names of what is brought to the disk (+) and put in place (>), in their order."""
        done: list[str] = []
        sync, replace = files.fsync, os.replace
        monkeypatch.setattr(files, "fsync", lambda path: (done.append(f"+{path.name}"), sync(path)))
        monkeypatch.setattr(files.os, "replace", lambda a, b: (done.append(f">{b.name}"), replace(a, b)))
        return done

    def test_no_file_has_its_name_before_all_are_on_the_disk(self, tmp_path: Path, done: list[str]) -> None:
        with files.written_together():
            files.write_atomic(tmp_path / "a", "1")
            files.write_atomic(tmp_path / "b", b"2")
            assert not (tmp_path / "a").exists() and done == []
        assert done == [f"+.writing_a.{os.getpid()}", f"+.writing_b.{os.getpid()}", ">a", ">b", f"+{tmp_path.name}"]
        assert [(tmp_path / name).read_text() for name in "ab"] == ["1", "2"]
        files.write_atomic(tmp_path / "a", "3")
        assert (tmp_path / "a").read_text() == "3"

    def test_what_was_written_before_an_error_stays(self, tmp_path: Path) -> None:
        with suppress(KeyError), files.written_together():
            files.write_atomic(tmp_path / "a", "1")
            raise KeyError
        assert (tmp_path / "a").read_text() == "1" and len(list(tmp_path.iterdir())) == 1

    def test_a_disk_that_refuses_leaves_everything_as_it_was(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(path: Path) -> None:
            if path.name.startswith(".writing_b."):
                raise OSError(28, "No space left on device")

        (tmp_path / "a").write_text("0")
        monkeypatch.setattr(files, "fsync", full)
        together = ExitStack()
        together.enter_context(files.written_together())
        for name in "abc":
            files.write_atomic(tmp_path / name, "1")
        with pytest.raises(OSError, match="No space left") as error:
            together.close()
        assert error.value.filename == str(tmp_path / "b")
        assert (tmp_path / "a").read_text() == "0" and len(list(tmp_path.iterdir())) == 1

    def test_an_error_names_one_file(self, tmp_path: Path) -> None:
        (tmp_path / "taken").mkdir()
        with pytest.raises(IsADirectoryError) as error:
            files.write_atomic(tmp_path / "taken", "1")
        assert str(error.value) == f"[Errno 21] Is a directory: '{tmp_path / 'taken'}'"
