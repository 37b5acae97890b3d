"""Loggers of `loggers=[...]`: one of the user's own, and Weights & Biases."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import rltrain.jobs.training
import rltrain.storage.plain_files
from rltrain.cli import main
from rltrain.errors import RequestError
from rltrain.loggers.further import find_logger
from rltrain.storage.files import write_atomic

SHORT = [
    "algo=reinforce", "total_steps=300", "eval.period=150", "eval.episodes=1", "log_period=100", "hydra.run.dir=run",
]  # fmt: skip
OWN = """
import json
from rltrain.loggers.logger import NullLogger

class Lines(NullLogger):
    def __init__(self, folder, resume_step, config):
        self._file = open(folder / "lines.txt", "a")
        self._write("begin", resume_step, config["seed"])

    def _write(self, *what):
        print(json.dumps(what), file=self._file, flush=True)

    def log(self, step, scalars):
        self._write("log", step, sorted(scalars))

    def result(self, step, scalars):
        self._write("result", step, scalars)

    def close(self, completed=None):
        self._write("close", completed)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_logger.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rltrain.jobs.training, "REPORT_EPISODES", 2)
    monkeypatch.delitem(sys.modules, "own_logger", raising=False)
    return tmp_path


def lines(run: Path) -> list[list[Any]]:
    return [json.loads(line) for line in (run / "lines.txt").read_text().splitlines()]


def test_a_logger_of_one_s_own_is_told_all(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "loggers=[own_logger:Lines]", "seed=7"]) == 0
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    told = lines(folder / "run")
    assert told[0] == ["begin", None, 7]
    assert [line[1:] for line in told if line[0] == "log"] == [
        [row["step"], sorted(set(row) - {"step"})] for row in rows
    ]
    mean = json.loads((folder / "run" / "result.json").read_text())["episode_return"]["mean"]
    assert told[-2][:2] == ["result", 300] and told[-2][2]["final/episode_return"] == mean
    assert [line for line in told if line[0] == "close"] == [["close", True]] == told[-1:]
    assert "rltrain resume run total_steps=600 trust=true\n" in capsys.readouterr().out


def test_a_resumed_run_tells_it_where_it_continues(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "loggers=[own_logger:Lines]"]) == 0
    assert main(["resume", "run", "total_steps=400"]) == 2
    assert "loggers=own_logger:Lines: the stored config would import" in capsys.readouterr().err
    assert main(["resume", "run", "total_steps=400", "trust=true"]) == 0
    assert lines(folder / "run")[-1] == ["close", True]
    assert ["begin", 300, 0] in lines(folder / "run")


def test_a_module_that_the_user_types_needs_no_trust(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT]) == 0
    assert main(["resume", "run", "total_steps=400", "loggers=[own_logger:Lines]"]) == 0
    assert lines(folder / "run")[0] == ["begin", 300, 0]
    assert main(["resume", "run", "total_steps=500"]) == 2  # it is stored now
    assert "loggers=own_logger:Lines: the stored config would import" in capsys.readouterr().err
    assert main(["resume", "run", "total_steps=500", "loggers=[own_logger:Lines]"]) == 0


@pytest.mark.slow
def test_each_member_of_a_population_has_its_own(folder: Path) -> None:
    sweep = [*SHORT[:-1], "loggers=[own_logger:Lines]", "seed=3,4", "hydra.sweep.dir=sweep"]
    assert main(["-m", *sweep]) == 0
    for number, seed in enumerate((3, 4)):
        told = lines(folder / "sweep" / str(number))
        assert told[0] == ["begin", None, seed] and told[-1] == ["close", True]
        assert sum(line[0] == "result" for line in told) == 1


FAULTY = """
from rltrain.loggers.logger import NullLogger

class NotClosed(NullLogger):
    def close(self):
        pass

class NotLogged(NullLogger):
    def log(self, step, scalars):
        raise ValueError("disk full")

class NotMade(NullLogger):
    def __init__(self, folder):
        pass
"""


@pytest.fixture
def faulty(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "faulty_logger.py").write_text(FAULTY)
    monkeypatch.delitem(sys.modules, "faulty_logger", raising=False)


FAILS_FOR_ONE = """
from rltrain.loggers.logger import NullLogger

class Fails(NullLogger):
    def __init__(self, folder, resume_step, config):
        self._one = folder.name == "1"
        self._fail("made")

    def _fail(self, where):
        if self._one and where == WHERE:
            raise OSError("no network")

    def log(self, step, scalars):
        self._fail("log")

    def result(self, step, scalars):
        self._fail("result")
"""


@pytest.mark.parametrize("where", ["made", "log", "result"])
def test_a_logger_that_fails_for_one_job_fails_no_other(
    where: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "partly.py").write_text(f"WHERE = {where!r}\n{FAILS_FOR_ONE}")
    monkeypatch.delitem(sys.modules, "partly", raising=False)
    assert main(["-m", *SHORT[:-1], "loggers=[partly:Fails]", "seed=3,4,5", "hydra.sweep.dir=sweep"]) == 1
    check_that_only_job_1_failed(folder, "loggers=[partly:Fails]: OSError: no network")
    assert "no network" in (folder / "sweep" / "1" / "run.log").read_text()


@pytest.mark.parametrize("name", ["result.json", "config.yaml"])
def test_a_file_that_cannot_be_written_fails_its_job_alone(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, data: bytes | str) -> None:
        if path.name == name and path.parent.name == "1":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_atomic(path, data)

    monkeypatch.setattr(rltrain.storage.plain_files, "write_atomic", refuse)
    assert main(["-m", *SHORT[:-1], "seed=3,4,5", "hydra.sweep.dir=sweep"]) == 1
    check_that_only_job_1_failed(folder, "No space left on device")


def check_that_only_job_1_failed(folder: Path, why: str) -> None:
    records = [json.loads((folder / "sweep" / str(number) / "run.json").read_text()) for number in range(3)]
    assert [record["status"] for record in records] == ["completed", "failed", "completed"]
    assert why in records[1]["reason"]
    for number in (0, 2):
        assert json.loads((folder / "sweep" / str(number) / "result.json").read_text())["env_step"] >= 300


@pytest.mark.usefixtures("faulty")
def test_a_logger_that_cannot_be_closed_takes_nothing_from_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    """It inherits all else, being made too."""
    assert main([*SHORT, "loggers=[faulty_logger:NotClosed]"]) == 0
    out, err = capsys.readouterr()
    assert "greedy return" in out and "run folder      run\n" in out
    (line,) = [line for line in err.splitlines() if "loggers=" in line]
    assert line.startswith("warning   loggers=[faulty_logger:NotClosed]: TypeError: ")
    assert line.endswith(", when it was closed")


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NotLogged", "ValueError: disk full, at faulty_logger.py:10 (traceback in run/run.log)"),
        ("NotMade", "TypeError: NotMade.__init__() takes 2 positional arguments but 4 were given (traceback in"),
    ],
)
def test_a_logger_that_raises_is_named(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, f"loggers=[faulty_logger:{name}]"]) == 1
    assert f"rltrain: loggers=[faulty_logger:{name}]: {said}" in capsys.readouterr().err


def test_a_logger_is_told_that_a_run_failed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(rltrain.jobs.training, "final_evaluation", fail)
    assert main([*SHORT, "loggers=[own_logger:Lines]"]) == 1
    assert [line for line in lines(folder / "run") if line[0] == "close"] == [["close", False]]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tensorboards", "neither wandb nor module:Class"),
        ("no_such_module:Logger", "No module named 'no_such_module'"),
        ("own_logger:Words", "the module own_logger has no Words"),
    ],
)
def test_what_is_no_logger_is_refused_before_anything_is_written(
    name: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SHORT, f"loggers=[{name}]"]) == 2
    assert said in capsys.readouterr().err
    assert not (folder / "run").exists()


def test_wandb_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"pip install 'rltrain\[wandb\]'"):
        find_logger("wandb")


class FakeWandb(ModuleType):
    """Takes what W&B would be sent."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)
        self.begun: list[dict[str, Any]] = []
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.summary: dict[str, float] = {}
        self.ended: list[int] = []

    Settings = dict

    def init(self, **how: Any) -> FakeWandb:
        self.begun.append(how)
        return self

    def log(self, scalars: dict[str, float], step: int) -> None:
        self.rows.append((step, scalars))

    def finish(self, exit_code: int) -> None:
        self.ended.append(exit_code)


def test_wandb_gets_the_rows_the_config_and_the_result(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delitem(sys.modules, "rltrain.loggers.wandb", raising=False)
    assert main([*SHORT, "loggers=[wandb]", "seed=5"]) == 0
    assert main(["resume", "run", "total_steps=400"]) == 0
    first, second = fake.begun
    assert first["config"]["seed"] == 5 and first["config"]["algo"]["name"] == "reinforce"
    assert first["id"] == second["id"] and first["resume"] == "allow"
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [step for step, _ in fake.rows] == [row["step"] for row in rows]
    result = json.loads((folder / "run" / "result.json").read_text())
    assert fake.summary["final/episode_return"] == result["episode_return"]["mean"]
    assert fake.ended == [0, 0]


@pytest.fixture
def wandb_runs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each W&B run is begun with."""
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delitem(sys.modules, "rltrain.loggers.wandb", raising=False)
    return fake.begun


def test_a_run_folder_is_one_wandb_run_wherever_it_lies(
    folder: Path, wandb_runs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(place: Path, resume_step: int | None) -> dict[str, Any]:
        find_logger("wandb")(place, resume_step, {})
        return wandb_runs[-1]

    (run := folder / "run").mkdir()
    id = begin(run, None)["id"]
    moved = run.rename(folder / "moved")
    monkeypatch.chdir(moved)
    resumed = begin(Path(), 300)
    assert (resumed["id"], resumed["name"], resumed["group"]) == (id, "moved", folder.name)
    assert begin(moved, None)["id"] != id  # a new run in a folder where there was another
    (folder / "run").mkdir()
    (earlier := folder / "earlier" / "wandb").mkdir(parents=True)  # of a version that kept no id
    of_path = hashlib.sha256(str(earlier.parent).encode()).hexdigest()[:16]
    assert begin(earlier.parent, 300)["id"] == of_path
    assert begin(earlier.parent.rename(folder / "later"), 400)["id"] == of_path
    (folder / "first").mkdir()  # wandb is added by this resume
    assert begin(folder / "first", 300)["id"] != hashlib.sha256(str(folder / "first").encode()).hexdigest()[:16]
    (folder / "run" / "wandb_id.txt").write_text("../x")
    assert begin(folder / "run", 300)["id"].isalnum()


def test_the_page_s_logger_logs(folder: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "loggers.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (folder / "csv_logger.py").write_text(code)
    assert main([*SHORT, "loggers=[csv_logger:CsvLogger]"]) == 0
    rows = [line.split(",") for line in (folder / "run" / "returns.csv").read_text().splitlines()]
    result = json.loads((folder / "run" / "result.json").read_text())
    assert len(rows) > 2 and rows[-1] == ["300", str(result["episode_return"]["mean"])]
