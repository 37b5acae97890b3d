"""`rltrain tune` that trains: trials in populations and alone, given up, stopped, killed, joined."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from halves import often
from whole_runs import Crash, KillAfter, StopAfter, assert_same_checkpoint, newest, rltrain_process, rows, stopping

pytest.importorskip("optuna")

from rltrain.commands.tune_batch import train_jobs, trial_result
from rltrain.config.application import compose
from rltrain.config.plain import to_plain
from rltrain.config.schema import RunConfig
from rltrain.config.searched import with_values
from rltrain.errors import Interrupted, RunFailed
from rltrain.loggers.jsonl import read_evaluations
from rltrain.storage.run_folder import RunFolder
from rltrain.storage.study_folder import Trial
from rltrain.storage.sweep_folder import ListedJob, SweepFolder
from rltrain.training.pruning import means_over_seeds

SMALL = [
    "device=cpu", "device.compile=false", "network.hidden=[8]", "log_period=100", "total_steps=600", "eval.period=100",
    "eval.episodes=3", "checkpoint.period=150", "algo.learning_starts=50", "algo.batch_size=8", "tuned=none",
    "env.vectorization=sync", "env.max_episode_steps=60",
]  # fmt: skip
SEEDS = (1000, 1001)


def batch(folder: Path, values: list[dict[str, Any]], *changes: str) -> SweepFolder:
    """A batch of trials with two seeds each, not begun."""
    plain = to_plain(compose(["algo=dqn", "env=CartPole-v1", *SMALL, *changes])[0])
    folder.mkdir(parents=True)
    sweep = SweepFolder(folder)
    for number, of_trial in enumerate(values):
        for seed in SEEDS:
            config = with_values(plain, {**of_trial, "seed": seed})
            sweep.add_jobs([ListedJob(folder / f"trial_{number}_seed_{seed}", config, (f"seed={seed}",))])
    return sweep


def train(sweep: SweepFolder, limits: Mapping[int, float], stop: StopAfter | None = None) -> int:
    """Trains a batch, until `stop`; the looks that it took."""
    stop = stop or StopAfter()
    jobs = sweep.jobs()
    trials = {run: int(run.name.split("_")[1]) for run in jobs}
    with stopping(stop):
        try:
            train_jobs(jobs, trials, limits, {run: run.name for run in jobs}, kept=False)
        except (Interrupted, Crash):
            assert stop._allowed is not None
    stop.aftermath()
    return stop.looks


def statuses(sweep: SweepFolder) -> dict[str, str]:
    return {run.name: RunFolder(run).read_record()["status"] for run in sweep.jobs()}


def means(sweep: SweepFolder, trial: int) -> dict[int, float]:
    runs = [run for run in sweep.jobs() if run.name.startswith(f"trial_{trial}_")]
    return means_over_seeds([read_evaluations(run / "metrics.jsonl", 100) for run in runs], range(len(runs)))


LRS = [{"algo.optimizer.lr": 1e-3}, {"algo.optimizer.lr": 1e-2}, {"algo.optimizer.lr": 3e-4}]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """Three trials as one population, none given up."""
    sweep = batch(tmp_path_factory.mktemp("whole") / "batch", LRS)
    train(sweep, {})
    return sweep


def parting(sweep: SweepFolder, trials: int) -> tuple[dict[int, float], list[int]]:
    """A limit that gives some of the trials up and some not, and which; in the middle of the run."""
    at = 3
    best = {trial: max(value for n, value in means(sweep, trial).items() if n <= at) for trial in range(trials)}
    low, *_, high = sorted(best.values())
    assert low < high
    return {at: high}, [trial for trial, value in best.items() if value < high]


def test_trials_that_differ_in_numbers_train_as_one_program(whole: SweepFolder) -> None:
    assert set(statuses(whole).values()) == {"completed"}
    for run in whole.jobs():
        assert len(RunFolder(run).read_record()["population"]) == 6
        assert newest(run).step == 600


def test_a_trial_that_is_given_up_ends_with_all_its_seeds_and_disturbs_no_other(
    whole: SweepFolder, tmp_path: Path
) -> None:
    limits, losers = parting(whole, 3)
    sweep = batch(tmp_path / "batch", LRS)
    train(sweep, limits)
    for run in sweep.jobs():
        same = whole.path / run.name
        if int(run.name.split("_")[1]) in losers:
            assert RunFolder(run).read_record()["status"] == "pruned"
            assert not RunFolder(run).result.exists()
            assert rows(run) == [row for row in rows(same) if row["step"] <= 300]
        else:
            assert RunFolder(run).read_record()["status"] == "completed"
            assert_same_checkpoint(newest(run), newest(same))
            assert rows(run) == rows(same)


def test_the_result_of_a_trial(whole: SweepFolder, tmp_path: Path) -> None:
    limits, losers = parting(whole, 3)
    sweep = batch(tmp_path / "batch", LRS)
    train(sweep, limits)
    for number in range(3):
        trial = Trial(number, {}, tuple(f"trial_{number}_seed_{seed}" for seed in SEEDS))
        result = trial_result(sweep.path, trial, 100)
        reported = [RunFolder(whole.path / run).read_result()["episode_return"]["mean"] for run in trial.runs]
        if number in losers:
            assert result.state == "pruned" and result.value == means(whole, number)[3] and result.seeds == ()
        else:
            assert result.state == "complete" and result.seeds == tuple(reported)
            assert result.value == pytest.approx(sum(reported) / 2)
            assert result.evaluations == means(whole, number)


def test_what_seeds_that_were_trained_before_found_later_is_not_of_a_trial_that_was_given_up(tmp_path: Path) -> None:
    """Three seeds one after the other; the last was given up at its second evaluation, the others had gone on."""
    trial = Trial(0, {}, ("a", "b", "c"))
    for name, values, status in (
        ("a", [1, 2, 60], "completed"),
        ("b", [3, 4, 70], "completed"),
        ("c", [5, 9], "pruned"),
    ):
        run = RunFolder(tmp_path / name)
        run.path.mkdir()
        rows = [{"step": 100 * number, "eval/episode_return": value} for number, value in enumerate(values, start=1)]
        run.metrics.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        run.record.write_text(json.dumps({"status": status}))
    result = trial_result(tmp_path, trial, 100)
    assert (result.state, result.value, result.env_step, result.reason) == ("pruned", 5.0, 200.0, "pruned at step 200")
    assert result.evaluations == {1: 3.0, 2: 5.0}


@pytest.mark.slow
@pytest.mark.parametrize("how", often(["stop", "kill"], kept=["kill"]))
@pytest.mark.parametrize("share", often([0.2, 0.45, 0.8], kept=[0.45]))
def test_a_batch_that_ended_in_the_middle_ends_as_if_it_had_not(
    how: str, share: float, whole: SweepFolder, tmp_path: Path
) -> None:
    limits, _ = parting(whole, 3)
    unbroken = batch(tmp_path / "unbroken" / "batch", LRS)
    looks = train(unbroken, limits)
    sweep = batch(tmp_path / "batch", LRS)
    at = int(looks * share)
    train(sweep, limits, StopAfter(at) if how == "stop" else KillAfter(at, sweep.path))
    assert set(statuses(sweep).values()) <= {"interrupted", "running"}
    train(sweep, limits)
    assert statuses(sweep) == statuses(unbroken)
    for run in sweep.jobs():
        assert rows(run) == rows(unbroken.path / run.name)
        assert_same_checkpoint(newest(run), newest(unbroken.path / run.name))


def test_a_damaged_run_fails_its_trial_and_no_other(whole: SweepFolder, tmp_path: Path) -> None:
    sweep = batch(tmp_path / "batch", LRS[:2])
    record, *others = [run / "run.json" for run in sweep.jobs()]
    record.parent.mkdir()
    record.write_text("{")
    train(sweep, {})
    assert [RunFolder(run.parent).read_record()["status"] for run in others] == ["completed"] * 3
    first, second = (Trial(n, {}, tuple(f"trial_{n}_seed_{seed}" for seed in SEEDS)) for n in (0, 1))
    assert trial_result(sweep.path, first, 100).reason == "trial_0_seed_1000: unknown"
    assert trial_result(sweep.path, second, 100).state == "complete"


def test_a_stopped_run_whose_checkpoints_are_damaged_fails_its_trial(whole: SweepFolder, tmp_path: Path) -> None:
    """No later try could read them either."""
    sweep = batch(tmp_path / "batch", LRS[:1])
    runs = list(sweep.jobs())
    for run in runs:
        shutil.copytree(whole.path / run.name, run)
    RunFolder(runs[0]).write_record(status="interrupted")
    for manifest in runs[0].glob("checkpoints/*/manifest.json"):
        manifest.write_text("{")
    train(sweep, {})
    trial = Trial(0, {}, tuple(run.name for run in runs))
    result = trial_result(sweep.path, trial, 100)
    assert result.state == "failed" and result.reason.startswith(f"{runs[0].name}: ") and "checkpoint" in result.reason


@pytest.mark.slow
def test_trials_of_one_seed_that_train_alone_are_given_up_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In worker processes each run trains by itself; its seeds one after the other. Nothing is said to be possible that
    asks for their checkpoints, which a search throws away."""
    sweep = batch(tmp_path / "batch", LRS[:1], "env.vectorization=async", "num_envs=2", "total_steps=400")
    train(sweep, {2: 1e9})
    first, second = statuses(sweep).values()
    assert (first, second) == ("completed", "pruned"), "what all seeds reach is known when the last has come so far"
    assert newest(list(sweep.jobs())[1]).step == 200
    said = capsys.readouterr().out
    assert "greedy return" in said and "rltrain report" in said
    assert "rltrain evaluate" not in said and "rltrain resume" not in said


@pytest.mark.parametrize("cut", [False, True])
def test_further_seeds_of_a_trial_that_has_failed_are_not_trained(
    cut: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they are trained one by one; the other trials are, also where one of its seeds was stopped before."""
    trained = list[str]()

    def fail_first(config: RunConfig, folder: Path, **_: Any) -> float:
        run = RunFolder(folder)
        trained.append(folder.name)
        failed = folder.name == "trial_0_seed_1000"
        run.write_record(status="failed" if failed else "completed", reason="weights are not finite")
        if failed:
            raise RunFailed("weights are not finite")
        return 0.0

    sweep = batch(tmp_path / "batch", LRS[:2], "env.vectorization=async", "num_envs=2")
    if cut:
        run = sweep.path / "trial_0_seed_1001"
        run.mkdir()
        RunFolder(run).write_record(status="interrupted", reason="stopped by SIGINT")
    monkeypatch.setattr("rltrain.jobs.job.train", fail_first)
    train(sweep, {})
    assert trained == ["trial_0_seed_1000", "trial_1_seed_1000", "trial_1_seed_1001"]
    result = trial_result(sweep.path, Trial(0, {}, ("trial_0_seed_1000", "trial_0_seed_1001")), 100)
    assert (result.state, result.reason) == ("failed", "trial_0_seed_1000: weights are not finite")


STUDY = ["tune", "algo=dqn", "env=CartPole-v1", *SMALL, "tune.batch=2", "tune.seeds=2", "tune.startup=2"]


def outcome(study: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((study / "study.json").read_text())
    return found


@pytest.mark.slow
def test_a_killed_search_is_taken_up_by_others_and_two_processes_share_one(tmp_path: Path) -> None:
    """One process is killed while it trains; two go on together. Every trial is there once, and was trained once."""
    args = [*STUDY, "tune.trials=8", "tune.confirm=2", "tune.dir=study", "total_steps=3000", "checkpoint.period=500"]
    study = tmp_path / "study"
    process = rltrain_process(tmp_path, *args)
    wait_for_a_checkpoint(study)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (study / "study.json").exists()
    both = [rltrain_process(tmp_path, "tune", "study") for _ in range(2)]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    found = outcome(study)
    assert [trial["number"] for trial in found["trials"]] == list(range(8))
    assert all(trial["result"]["state"] in ("complete", "pruned") for trial in found["trials"])
    assert found["confirmation"]["asked"] == 2
    trained = [line for out, _ in said for line in out.splitlines() if line.startswith("trial ") and "lr=" in line]
    assert len(trained) == 8, "the killed batch again, and each other trial in one process"
    assert sum("use it" in out for out, _ in said) == 1


@pytest.mark.slow
def test_ctrl_c_ends_a_search_tidily(tmp_path: Path) -> None:
    args = [*STUDY, "tune.trials=2", "tune.confirm=0", "tune.dir=study", "total_steps=20000"]
    process = rltrain_process(tmp_path, *args)
    wait_for_a_checkpoint(tmp_path / "study")
    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "search stopped, its runs are saved" in error
    assert "rltrain tune study" in error and "Traceback" not in out + error


def wait_for_a_checkpoint(study: Path) -> None:
    deadline = time.monotonic() + 120
    while not any(study.glob("batch_*/*/checkpoints/step_*")) and time.monotonic() < deadline:
        time.sleep(0.05)


def children_of(process: subprocess.Popen[str]) -> list[int]:
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [pid for pid in map(int, found) if b"rltrain.jobs.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.slow
def test_a_killed_worker_fails_no_trial_and_the_study_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    args = [*STUDY, "tune.trials=4", "tune.batch=4", "tune.confirm=0", "total_steps=4000", "checkpoint.period=500"]
    whole = rltrain_process(tmp_path, *args, "tune.dir=whole", two_cores=True)
    assert whole.communicate(timeout=300) and whole.returncode == 0
    cut = rltrain_process(tmp_path, *args, "tune.dir=study", two_cores=True)
    wait_for_a_checkpoint(tmp_path / "study")
    os.kill(children_of(cut)[0], signal.SIGKILL)
    out, error = cut.communicate(timeout=300)
    assert cut.returncode == 1 and "died (signal SIGKILL" in error and "rltrain tune study" in error, out + error
    assert any((tmp_path / "study").glob("batch_*/*/checkpoints/step_*"))
    again = rltrain_process(tmp_path, "tune", "study", two_cores=True)
    said = again.communicate(timeout=300)
    assert again.returncode == 0, said
    assert outcome(tmp_path / "study") == outcome(tmp_path / "whole")


CTRL_C = """
import os, signal, sys
import rltrain.commands.tune, rltrain.commands.tune_end, rltrain.commands.tune_trials, rltrain.jobs.training

def press(*args, **named):
    os.kill(os.getpid(), signal.SIGINT)

def pressed_before(place, name, calls=1):
    whole, left = getattr(place, name), [calls]
    def pressing(*args, **named):
        left[0] -= 1
        if not left[0]:
            press()
        return whole(*args, **named)
    setattr(place, name, pressing)

class Importing:
    def find_spec(self, name, path=None, target=None):
        if name == MODULE:
            press()
"""
MOMENTS = {
    "importing the search": "MODULE = 'optuna.samplers'; sys.meta_path.insert(0, Importing())",
    "importing what draws": "MODULE = 'matplotlib'; sys.meta_path.insert(0, Importing())",
    "announcing": "pressed_before(rltrain.commands.tune, '_announce')",
    "suggesting": "pressed_before(rltrain.commands.tune_trials, 'write_trials')",
    "recording": "pressed_before(rltrain.jobs.training.Training, '_write_records')",
    "telling": "pressed_before(rltrain.commands.tune, 'trial_result', 2)",
    "between batches": "pressed_before(rltrain.commands.tune, '_next_batch', 2)",
    "writing": "pressed_before(rltrain.commands.tune_end, 'write_tuned')",
}


@pytest.mark.parametrize("moment", often(MOMENTS, ["recording"]))
def test_one_ctrl_c_at_any_moment_ends_a_search_with_a_line(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ctrl_c.py").write_text(f"{CTRL_C}\n{MOMENTS[moment]}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    args = [*STUDY, "tune.trials=4", "tune.confirm=0", "tune.dir=study", "total_steps=200"]
    process = rltrain_process(tmp_path, *args, plugins="ctrl_c")
    out, error = process.communicate(timeout=120)
    assert process.returncode == 130, out + error
    assert error.splitlines()[-1].startswith("rltrain: search stopped, its runs are saved; `"), error
    assert "rltrain tune study` goes on" in error and "Traceback" not in out + error
    if moment == "announcing":  # of a study that is there already too
        joined = rltrain_process(tmp_path, "tune", "study", plugins="ctrl_c")
        out, error = joined.communicate(timeout=120)
        assert joined.returncode == 130 and "rltrain tune study` goes on" in error
    assert "use it" not in out and out.count("tune      the next") <= 1 + (moment == "writing" or "draws" in moment)
    again = rltrain_process(tmp_path, "tune", "study")
    said = again.communicate(timeout=120)
    assert again.returncode == 0 and len(outcome(tmp_path / "study")["trials"]) == 4, said
