"""Training from Python does what the command line does."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rltrain
import rltrain.jobs.training
import rltrain.training.stopping
from rltrain.cli import main
from rltrain.errors import CheckpointError, RequestError, RunFailed
from rltrain.report.curve import learning_curve, learning_curve_png
from rltrain.terminal.interrupts import ECHO_SECONDS, RUN_SIGNALS
from rltrain.training.loop import Loop

ROOT = Path(__file__).parents[1]
SHORT = ["algo=reinforce", "total_steps=300", "eval.period=150", "eval.episodes=1", "log_period=100"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rltrain.jobs.training, "REPORT_EPISODES", 2)
    return tmp_path


def rows_of(run: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{tag: value for tag, value in row.items() if not tag.startswith("time/")} for row in rows]


def test_a_run_is_that_of_the_command_line(folder: Path) -> None:
    run = rltrain.train(SHORT)
    assert main([*SHORT, "hydra.run.dir=typed"]) == 0
    assert run.path.is_relative_to(folder / "outputs")
    assert rows_of(run.path) == rows_of(folder / "typed")
    assert run.status == "completed"
    assert run.config == rltrain.Run("typed").config
    assert run.result == rltrain.Run("typed").result
    assert run.policy("best").env_step <= run.policy().env_step == 300
    assert run.policy().act(np.zeros(4)) in (0, 1)


def test_metrics_are_columns_of_equal_length() -> None:
    run = rltrain.train(SHORT)
    steps = [row["step"] for row in rows_of(run.path)]
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 400, "new": 1.5, "text": "x", "none": null}\n{"torn')
    metrics = run.metrics
    assert metrics["step"].tolist() == [*steps, 400]
    assert {len(column) for column in metrics.values()} == {len(steps) + 1}
    assert np.isnan(metrics["new"][:-1]).all() and metrics["new"][-1] == 1.5
    assert math.isnan(metrics["text"][-1]) and math.isnan(metrics["none"][-1])


def test_a_notebook_shows_the_learning_curve() -> None:
    picture = rltrain.train(SHORT)._repr_png_()
    assert picture is not None and picture.startswith(b"\x89PNG")


def test_the_learning_curve_of_a_run_that_ended_has_the_threshold_of_its_result() -> None:
    run = rltrain.train(SHORT)
    (axes,) = learning_curve(run.path).axes
    assert "threshold 475" in axes.get_legend_handles_labels()[1]
    assert (run.path / "learning_curve.png").read_bytes() == learning_curve_png(run.path)


def test_a_sweep_holds_its_runs_in_the_order_of_the_jobs() -> None:
    sweep = rltrain.sweep([*SHORT, "seed=7,5,6"])
    assert [run.config["seed"] for run in sweep] == [7, 5, 6] == [run.config["seed"] for run in sweep[:]]
    assert len(sweep) == 3 and {run.status for run in sweep} == {"completed"}
    picture = sweep[0]._repr_png_()
    assert picture is not None and picture.startswith(b"\x89PNG") and not list(sweep[0].path.glob("*.png"))
    assert [job["folder"] for job in sweep.results["jobs"]] == [run.path.name for run in sweep]
    assert [run.path for run in rltrain.Sweep(sweep.path)] == [run.path for run in sweep]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["algo=dqqn"], "did you mean dqn"),
        (["algo.gama=0.9"], "algo.gamma"),
        (["seed=0,1"], "rltrain.sweep"),
        (["-m", "seed=0"], "-m: is an option of the command line"),
        (["dry_run=true"], "nothing was trained"),
        (["resume"], "resume: is a command of the shell; here settings are given, as env=CartPole-v1"),
    ],
)
def test_what_is_wrong_is_said_as_the_command_line_says_it(overrides: list[str], said: str, folder: Path) -> None:
    with pytest.raises(RequestError, match=re.escape(said)):
        rltrain.train(overrides)
    assert not (folder / "outputs").exists()


@pytest.mark.parametrize(
    ("overrides", "meant"),
    [("seed=0", "['seed=0']"), ({"seed": 0}, "['seed=0']"), (None, "['env="), (5, "['env="), ([3], "['env=")],
)
def test_overrides_are_a_list_of_texts(overrides: Any, meant: str) -> None:
    for command in (rltrain.train, rltrain.sweep):
        with pytest.raises(
            RequestError, match=re.escape(f"overrides={overrides!r}: must be a list of texts, as {meant}")
        ):
            command(overrides)


@pytest.mark.parametrize("opened", [rltrain.Run, rltrain.Sweep, rltrain.load])
def test_a_folder_is_named_by_its_path(opened: Any, folder: Path) -> None:
    with pytest.raises(RequestError, match="3: is no path"):
        opened(3)
    with pytest.raises(RequestError, match="nowhere: no such folder"):
        opened("nowhere")


def test_a_run_that_fails_raises(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rltrain.training.loop.Loop.run", lambda self: 1 / 0)
    with pytest.raises(RunFailed, match="ZeroDivisionError"):
        rltrain.train(SHORT)
    (run,) = map(rltrain.Run, folder.glob("outputs/*/*"))
    assert run.status == "failed" and run.result is None
    with pytest.raises(CheckpointError):
        run.policy()
    with pytest.raises(
        CheckpointError, match=r"has no best checkpoint: the run made no evaluation \(eval.period=150\)"
    ):
        run.policy("best")


def test_a_sweep_returns_with_its_failed_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rltrain.training.loop.Loop.run", lambda self: 1 / 0)
    (run,) = rltrain.sweep([*SHORT, "seed=3"])
    assert run.status == "failed" and run.result is None


def test_a_policy_of_a_plug_in_is_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the message of a name that is not registered says to do."""
    run = rltrain.train(SHORT)
    (folder / "plug_in_of_a_policy.py").touch()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("RLTRAIN_PLUGINS", "plug_in_of_a_policy")
    for load in (lambda: rltrain.load(run.path), run.policy):
        monkeypatch.delitem(sys.modules, "plug_in_of_a_policy", raising=False)
        load()
        assert "plug_in_of_a_policy" in sys.modules


def test_folders_without_a_run_are_refused(folder: Path) -> None:
    with pytest.raises(RequestError, match="no run folder"):
        rltrain.Run(folder)
    with pytest.raises(RequestError, match="no folder of a sweep"):
        rltrain.Sweep(folder)
    run = rltrain.train(SHORT)
    with pytest.raises(RequestError, match="last or best"):
        run.policy("newest")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"^device='gpu': must be"):
        rltrain.load(run.path, "gpu")
    assert run.policy(device="auto").act([0.0, 0.0, 0.0, 0.0]) in (0, 1)


def test_a_process_trains_once_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def train(settings: list[str]) -> Path:
        if settings == ["seed=1"]:
            with ThreadPoolExecutor(1) as threads:
                told.append(str(threads.submit(rltrain.train, ["seed=2"]).exception()))
        (folder / "config.yaml").touch()
        return folder

    monkeypatch.setattr("rltrain.commands.train.run_one", train)
    rltrain.train(["seed=1"])
    rltrain.train(["seed=1"])
    assert told == ["this process is training already: one training at a time; rltrain.sweep trains many runs"] * 2


def test_a_second_ctrl_c_comes_back_to_the_caller(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook has more in its memory than the run that is stopped."""
    presses = iter(range(2))
    ended: list[int] = []

    class Pressed(Loop):
        def run(self) -> None:
            for _ in presses:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1.5 * ECHO_SECONDS)
            super().run()

    monkeypatch.setattr(rltrain.jobs.training, "Loop", Pressed)
    monkeypatch.setattr(rltrain.training.stopping, "_end_process", ended.append)
    before = [signal.getsignal(number) for number in RUN_SIGNALS]
    with pytest.raises(KeyboardInterrupt):
        rltrain.train([*SHORT, "hydra.run.dir=run"])
    assert not ended
    assert [signal.getsignal(number) for number in RUN_SIGNALS] == before
    assert rltrain.Run("run").status == "interrupted"
    assert rltrain.train(SHORT).status == "completed"


@pytest.mark.parametrize("deterministic", [False, True])
def test_torch_computes_afterwards_as_before(deterministic: bool, folder: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    torch.use_deterministic_algorithms(deterministic)
    try:
        rltrain.train([*SHORT, f"device.deterministic={str(not deterministic).lower()}", "device.threads=1"])
        assert torch.get_num_threads() == before + 1
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(before)


def test_the_output_streams_are_given_back(capsys: pytest.CaptureFixture[str]) -> None:
    rltrain.train(SHORT)
    print("after")
    assert capsys.readouterr().out.endswith("after\n")


@pytest.mark.slow
def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = json.loads((ROOT / "docs" / "notebook.ipynb").read_text())["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(shortened("".join(cell["source"])), names)
    assert isinstance(names["episode_return"], float)


def test_the_page_s_code_runs() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "python.md").read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    exec(shortened(code), names)
    assert names["action"] in (0, 1)
    assert isinstance(names["means"], list) and len(names["means"]) == 4


def shortened(code: str) -> str:
    """The same with short trainings."""
    short = ", ".join(map(repr, [*SHORT[1:], "algo.learning_starts=200"]))
    code = code.replace('"total_steps=10_000"', "").replace(", ]", "]").replace("range(0,4)", "range(0,2)")
    return re.sub(r"(rltrain\.(train|sweep)\(\[[^\]]*)\]\)", rf"\1, {short}])", code)
