"""`rltrain -m`, as one program: what each job leaves, and that a sweep stopped anywhere ends as if it was not."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from halves import often
from small_runs import dqn_config, run_config
from whole_runs import (
    COMMON_ARGS,
    KillAfter,
    StopAfter,
    assert_same_run,
    config_of,
    newest,
    one_line,
    record_of,
    result_of,
    resume,
    rewrite,
    rltrain_here,
    rltrain_process,
    rows,
    train,
)

import rltrain.jobs.pool
from rltrain.config.application import compose
from rltrain.config.population import divided, group_jobs
from rltrain.envs.replays import Replays
from rltrain.errors import Interrupted
from rltrain.jobs.job import train_population
from rltrain.jobs.population_messages import population_line
from rltrain.jobs.training import Job
from rltrain.storage.checkpoint_folders import step_folders
from rltrain.terminal.text import mean_and_std
from rltrain.training.evaluator import EpisodeStatistics

PERIODS = [
    "total_steps=450", "eval.period=200", "eval.episodes=3", "checkpoint.period=100", "num_envs=2",
    "env.vectorization=sync",  # the signal is looked at in every vector step, not once per block
]  # fmt: skip
DQN = [
    *COMMON_ARGS, *PERIODS, "algo.learning_starts=50", "algo.batch_size=8", "algo.train_period=3",
    "algo.optimizer.lr=1e-3,3e-3",
]  # fmt: skip
REINFORCE = [*COMMON_ARGS, *PERIODS, "algo=reinforce", "algo.entropy_coef=0.0,0.1"]
Q_LEARNING = [
    *(arg for arg in COMMON_ARGS if "network" not in arg), *PERIODS, "algo=q_learning", "env=FrozenLake-v1",
    "algo.alpha=0.3,0.7",
]  # fmt: skip
SWEEPS = {"dqn": DQN, "reinforce": REINFORCE, "q_learning": Q_LEARNING}
HERE = "hydra.sweep.dir=sweep"


def jobs_of(sweep: Path) -> list[Path]:
    return sorted((path for path in sweep.iterdir() if path.is_dir()), key=lambda path: path.name)


@pytest.fixture(scope="module", params=often(SWEEPS, ["dqn"]))
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A sweep of four jobs that nothing stopped. Fast tests of the other algorithms are in test_resume_matrix.py."""
    folder = tmp_path_factory.mktemp(request.param)
    assert rltrain_here(folder, "-m", *SWEEPS[request.param], HERE, "seed=0,1") == 0
    return request.param, folder / "sweep"


def test_every_job_has_a_folder_like_that_of_a_single_run(whole: tuple[str, Path], tmp_path: Path) -> None:
    """And nearly its numbers: the first rows agree up to rounding."""
    _, sweep = whole
    seen = set()
    for job in jobs_of(sweep):
        assert record_of(job)["population"] == ["0", "1", "2", "3"]
        alone = tmp_path / job.name
        train(config_of(job), alone)
        names = [{path.name.partition(".out.")[0] for path in run.iterdir()} for run in (job, alone)]
        assert names[0] == names[1] | {".hydra"}
        assert [path.name for path in step_folders(job)] and result_of(job).keys() == result_of(alone).keys()
        first, single = rows(job)[0], rows(alone)[0]
        assert first == pytest.approx(single, rel=1e-3, abs=1e-5)
        seen.add(json.dumps(rows(job)))
    assert len(seen) == 4


def test_a_sweep_says_which_job_is_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each member's line has what no other of the sweep has, also where no other of its population differs in it."""
    in_turn = lambda populations: [train_population(jobs) for jobs in populations]  # noqa: E731
    monkeypatch.setattr("rltrain.jobs.pool.train_populations", in_turn)
    args = [*REINFORCE, "total_steps=60", "eval.period=null", "num_envs=1,2"]
    assert rltrain_here(tmp_path, "-m", *args, HERE, "seed=3,4") == 0
    lines = capsys.readouterr().out.splitlines()
    settings = [f"num_envs={number} algo.entropy_coef={bonus}" for number in (1, 2) for bonus in (0.0, 0.1)]
    own = [f"{setting} seed={seed}" for setting in settings for seed in (3, 4)]
    assert sum("jobs as one program" in line for line in lines) == 2
    for number, overrides in enumerate(own):
        result = result_of(tmp_path / "sweep" / str(number))
        found = mean_and_std(result["episode_return"]["mean"], result["episode_return"]["std"])
        said = f"job {number}     {overrides}  {result['env_step']} steps, greedy return {found}"
        assert any(line.startswith(said) for line in lines)
        row = [str(number), *overrides.split(), str(result["env_step"]), *found.split()]
        assert [line.split() for line in lines].count(row) == 1
    assert {tuple(line.split()[:3]) for line in lines[-8:-4]} == {("2", *setting.split()) for setting in settings}


def test_a_member_s_line_says_whether_its_threshold_was_lost_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    member: Any = SimpleNamespace(step=500, episodes=9, solve_step=300, metrics={})
    config, returns = run_config(dqn_config(v_max=50.0)), [EpisodeStatistics((mean,)) for mean in (80.0, 480.0)]
    lost, solved = (population_line("0", "seed=0", config, member, final, 475.0) for final in returns)
    assert lost.endswith(", threshold first reached at step 300, lost again")
    assert solved.endswith(", threshold first reached at step 300")
    member.metrics = {"diagnostics/value": 1e8, "diagnostics/discounted_return": 9.0}
    line = " ".join(population_line("0", "seed=0", config, member, returns[0], 475.0).split())
    assert line.endswith("lost again, values overestimated")
    member.metrics = {"diagnostics/discounted_return": 60.0, "train/approx_kl": 5e19}
    line = " ".join(population_line("0", "seed=0", config, member, returns[0], 475.0).split())
    assert line.endswith("lost again, returns are beyond algo.v_min or algo.v_max, policy moved too far, KL 5e+19")


@pytest.mark.slow
@pytest.mark.parametrize("looks", [1, 97, 151])
@pytest.mark.parametrize("kills", [False, True])
def test_a_stopped_population_ends_like_one_that_was_not(
    whole: tuple[str, Path], tmp_path: Path, kills: bool, looks: int
) -> None:
    algo, uninterrupted = whole
    sweep = tmp_path / "sweep"
    stop = KillAfter(looks, sweep) if kills else StopAfter(looks)
    assert rltrain_here(tmp_path, "-m", *SWEEPS[algo], HERE, "seed=0,1", stop=stop) == (-1 if kills else 143)
    assert {record_of(job)["status"] for job in jobs_of(sweep)} == {"running" if kills else "interrupted"}
    assert resume(sweep, stop=StopAfter(40)) == 143
    assert resume(sweep) == 0
    for job in jobs_of(sweep):
        assert_same_run(job, uninterrupted / job.name)


def test_a_resumed_population_says_what_was_otherwise_when_it_was_saved(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    args = ["-m", *DQN[:-1], HERE, "seed=0,1"]
    assert rltrain_here(tmp_path, *args, stop=StopAfter(5)) == 143
    for job in jobs_of(tmp_path / "sweep"):
        rewrite(job, {"threads": 3})
    step = newest(tmp_path / "sweep" / "0").step
    assert resume(tmp_path / "sweep", stop=StopAfter(5)) == 143
    said = " ".join(capfd.readouterr().out.split())
    assert f"resumed at step {step}, but not bit for bit: it was saved with 3 threads" in said
    step = newest(tmp_path / "sweep" / "0").step
    assert resume(tmp_path / "sweep", stop=StopAfter(1)) == 143
    assert f"resumed   at step {step}, exactly" in capfd.readouterr().out


def test_a_plain_resume_finishes_an_extension_that_a_stop_cut_short(tmp_path: Path) -> None:
    """Job by job: the second had not begun to go on, and counted as completed."""
    small = [arg for arg in DQN[:-1] if not arg.startswith(("total_steps", "algo.batch_size"))]
    args = ["-m", *small, "total_steps=60", "eval.period=null", HERE, "algo.batch_size=8,9"]
    assert rltrain_here(tmp_path, *args) == 0
    sweep = tmp_path / "sweep"
    assert resume(sweep, "total_steps=120", stop=StopAfter(5)) == 143
    assert [result_of(job)["env_step"] for job in jobs_of(sweep)] == [60, 60]
    assert resume(sweep) == 0
    assert [result_of(job)["env_step"] for job in jobs_of(sweep)] == [120, 120]
    assert resume(sweep) == 0, "nothing is left to extend"


@pytest.mark.slow
def test_a_resumed_population_says_which_job_of_the_sweep_is_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what sets a job apart from all of the sweep, not only from those of its population."""
    found: list[list[str]] = []

    def stopped(populations: Sequence[Sequence[Job]]) -> None:
        found.append([job.own for population in populations for job in population])
        raise Interrupted(143)

    monkeypatch.setattr(rltrain.jobs.pool, "train_populations", stopped)
    assert rltrain_here(tmp_path, "-m", *DQN[:-1], HERE, "target_update=hard,soft", "seed=0,1") == 143
    assert resume(tmp_path / "sweep") == 143
    expected = [f"target_update={name} seed={seed}" for name in ("hard", "soft") for seed in (0, 1)]
    assert found == [expected, expected]


def test_a_kill_between_two_members_saves_falls_back_to_what_all_have(whole: tuple[str, Path], tmp_path: Path) -> None:
    algo, uninterrupted = whole
    sweep = tmp_path / "sweep"
    assert rltrain_here(tmp_path, "-m", *SWEEPS[algo], HERE, "seed=0,1", stop=KillAfter(170, sweep)) == -1
    newest = step_folders(sweep / "1")[-1]
    shutil.rmtree(newest)
    assert resume(sweep) == 0
    for job in jobs_of(sweep):
        assert_same_run(job, uninterrupted / job.name)


@pytest.mark.parametrize("kills", [False, True])
def test_going_back_makes_void_what_one_member_has_saved_since(
    whole: tuple[str, Path], tmp_path: Path, kills: bool
) -> None:
    """What it had saved beyond came back with the next resume, without its rows, which were gone by then."""
    algo, uninterrupted = whole
    sweep = tmp_path / "sweep"
    assert rltrain_here(tmp_path, "-m", *SWEEPS[algo], HERE, "seed=0,1", stop=KillAfter(170, sweep)) == -1
    for job in jobs_of(sweep)[1:]:
        shutil.rmtree(step_folders(job)[-1])
    before = newest(sweep / "1").step
    stop = KillAfter(2, sweep) if kills else StopAfter(9)
    assert resume(sweep, stop=stop) == (-1 if kills else 143)
    steps = {newest(job).step for job in jobs_of(sweep)}
    assert len(steps) == 1 and (steps == {before}) == kills
    assert resume(sweep) == 0
    for job in jobs_of(sweep):
        assert_same_run(job, uninterrupted / job.name)


def test_a_member_s_damaged_checkpoint_is_named_and_all_go_on_from_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where it is the manifest that is damaged. Where no checkpoint of a member is whole, nothing begins anew."""
    args = [arg for arg in DQN if "optimizer.lr" not in arg]
    assert rltrain_here(tmp_path, "-m", *args, HERE, "seed=0,1", stop=StopAfter(170)) == 143
    sweep = tmp_path / "sweep"
    for name in ("state.json", "manifest.json"):
        before, last = step_folders(sweep / "1")[-2:]
        (last / name).write_text("{")
        capsys.readouterr()
        assert resume(sweep, stop=StopAfter(1)) == 143
        warned = [line for line in capsys.readouterr().err.splitlines() if "skipped a checkpoint" in line]
        assert len(warned) == 1 and f": {last / name}: " in warned[0] and warned[0].endswith(f"{before.name} is taken")
    for manifest in sweep.glob("*/checkpoints/step_*/manifest.json"):
        manifest.write_text("{")
    capsys.readouterr()
    assert resume(sweep) == 1
    assert f"1: {sweep / '1'}: holds no whole checkpoint; " in capsys.readouterr().err
    assert [record_of(job)["status"] for job in jobs_of(sweep)] == ["interrupted"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("status", ["running", "interrupted"])
def test_a_kill_in_the_first_save_lets_all_begin_anew(whole: tuple[str, Path], tmp_path: Path, status: str) -> None:
    """The second status is what a process of its own leaves when the machine kills it: its parent notes it."""
    algo, uninterrupted = whole
    sweep = tmp_path / "sweep"
    assert rltrain_here(tmp_path, "-m", *SWEEPS[algo], HERE, "seed=0,1", stop=StopAfter(20)) == 143
    for job in jobs_of(sweep):
        (saved,) = step_folders(job)
        if job.name != "0":
            shutil.rmtree(saved)
        record = record_of(job) | {"status": status}
        (job / "run.json").write_text(json.dumps(record))
    assert resume(sweep, stop=KillAfter(1, sweep)) == -1
    assert not any(map(step_folders, jobs_of(sweep))), "what is saved next may be of an earlier step"
    assert resume(sweep) == 0
    for job in jobs_of(sweep):
        assert_same_run(job, uninterrupted / job.name)


def test_a_member_can_be_continued_alone(whole: tuple[str, Path], tmp_path: Path) -> None:
    algo, _ = whole
    assert rltrain_here(tmp_path, "-m", *SWEEPS[algo], HERE, "seed=0,1", stop=StopAfter(97)) == 143
    assert resume(tmp_path / "sweep" / "2") == 0
    assert record_of(tmp_path / "sweep" / "2")["status"] == "completed"
    assert resume(tmp_path / "sweep") == 0
    assert {record_of(job)["status"] for job in jobs_of(tmp_path / "sweep")} == {"completed"}


@pytest.mark.slow
def test_a_member_that_went_on_alone_loses_nothing_of_it(
    whole: tuple[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    algo, _ = whole
    assert rltrain_here(tmp_path, "-m", *SWEEPS[algo], HERE, "seed=0,1", stop=StopAfter(97)) == 143
    member = tmp_path / "sweep" / "2"
    assert resume(member, "checkpoint.keep=9", stop=StopAfter(20)) == 143
    reached, learnt = newest(member).step, rows(member)
    capfd.readouterr()
    assert resume(tmp_path / "sweep", stop=StopAfter(0)) == 143
    assert newest(member).step == reached
    assert "as one program" not in capfd.readouterr().out, "which would begin where all were together"
    assert resume(tmp_path / "sweep") == 0
    assert rows(member)[: len(learnt)] == learnt
    assert {record_of(job)["status"] for job in jobs_of(tmp_path / "sweep")} == {"completed"}


def test_a_finished_population_is_extended_as_one(whole: tuple[str, Path], tmp_path: Path) -> None:
    _, uninterrupted = whole
    sweep = Path(shutil.copytree(uninterrupted, tmp_path / "sweep"))
    assert resume(sweep) == 0
    assert resume(sweep, "total_steps=600") == 0
    assert all(result_of(job)["env_step"] >= 600 for job in jobs_of(sweep))
    for job in jobs_of(sweep):
        (change,) = record_of(job)["changes"]
        assert change == {"step": newest(uninterrupted / job.name).step, "key": "total_steps", "from": 450, "to": 600}


@pytest.mark.slow
def test_what_changed_before_a_kill_holds_for_every_member(
    whole: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    algo, _ = whole
    sweep = tmp_path / "sweep"
    assert rltrain_here(tmp_path, "-m", *SWEEPS[algo], HERE, "seed=0,1", stop=StopAfter(97)) == 143
    capsys.readouterr()
    assert resume(sweep, "total_steps=500", stop=KillAfter(3, sweep)) == -1
    assert "4 jobs as one program" in capsys.readouterr().out
    assert {config_of(job).total_steps for job in jobs_of(sweep)} == {450}
    assert resume(sweep) == 0
    assert re.search(r"^job 1     algo\.\S+ seed=1 ", capsys.readouterr().out, re.MULTILINE)
    for job in jobs_of(sweep):
        assert config_of(job).total_steps == 500 <= result_of(job)["env_step"]
        assert [change["to"] for change in record_of(job)["changes"]] == [500]


@pytest.mark.slow
def test_members_that_ended_apart_are_extended_with_all_their_gradient_steps(tmp_path: Path) -> None:
    args = [arg for arg in DQN if "optimizer.lr" not in arg and "total_steps" not in arg]
    assert rltrain_here(tmp_path, "-m", *args, HERE, "total_steps=200,300") == 0
    assert resume(tmp_path / "sweep", "total_steps=400") == 0
    for job in jobs_of(tmp_path / "sweep"):
        assert newest(job).state["agent"]["gradient_steps"] == (400 - 50) // 3


def test_a_member_that_fails_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = [arg for arg in DQN if "optimizer.lr" not in arg]
    code = rltrain_here(tmp_path, "-m", *args, HERE, "algo.optimizer.lr=1e-3,1e38,2e-3", "algo.max_grad_norm=null")
    assert code == 1
    assert [record_of(job)["status"] for job in jobs_of(tmp_path / "sweep")] == ["completed", "failed", "completed"]
    failed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("job ")]
    at_once, at_the_end = failed
    assert at_once == "job 1 failed; the others go on"
    assert at_the_end.startswith("job 1 failed (") and "environment step" in at_the_end


def test_an_environment_that_fails_takes_its_member_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third environment that reaches the fault fails, once: it is the first of the second member."""
    faults = iter([False, False, True])

    def fault(env: object) -> float:
        if next(faults, False):
            raise ValueError("the left wheel came off")
        return 1.0

    monkeypatch.setattr("rltrain.jobs.build.look", lambda config: Replays())  # its copies would reach the fault first
    monkeypatch.setattr("probe_envs.Raises.fault", fault)
    monkeypatch.setattr("rltrain.jobs.build.look", lambda config: Replays())  # which would reach the fault first
    args = [*COMMON_ARGS, *PERIODS, "env=probe_envs:Raises-v0", "algo.learning_starts=50", "algo.batch_size=8"]
    assert rltrain_here(tmp_path, "-m", *args, HERE, "seed=0,1,2") == 1
    assert [record_of(job)["status"] for job in jobs_of(tmp_path / "sweep")] == ["completed", "failed", "completed"]
    failed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("job ")]
    at_once, at_the_end = failed
    assert at_once == "job 1 failed; the others go on"
    assert at_the_end.startswith("job 1 failed (") and "the left wheel came off" in at_the_end
    assert "environment 0 failed" in at_the_end, "of its own, not of all members'"


def test_jobs_are_grouped_by_what_a_batch_can_carry() -> None:
    choices = [
        replace(config, seed=seed, algo=replace(config.algo, gamma=gamma))
        for algo in ("dqn", "reinforce")
        for hidden in (8, 9)
        for config in [compose([f"algo={algo}", f"network.hidden=[{hidden}]", "tuned=none"])[0]]
        for seed in (0, 1)
        for gamma in (0.9, 0.99)
    ]
    assert [len(group) for group in group_jobs(choices)] == [4, 4, 4, 4]
    alone = [replace(config, env=replace(config.env, vectorization="async")) for config in choices]
    assert [len(group) for group in group_jobs(alone)] == [1] * 16
    clipped = [compose(["tuned=none", f"algo.max_grad_norm={bound}"])[0] for bound in ("1.0", "2.0", "null")]
    assert group_jobs(clipped) == [[0, 1], [2]]


@pytest.mark.parametrize(
    ("jobs", "fit", "bundle", "sizes"),
    [
        (3, 1000, 1, [3]), (9, 1000, 1, [5, 4]), (1000, 10_000, 1, [250] * 4), (600, 10_000, 1, [200] * 3),
        (10, 4, 1, [2] * 5), (9, 1000, 3, [6, 3]), (15, 1000, 3, [9, 6]), (3, 1000, 3, [3]), (12, 8, 3, [3] * 4),
    ],
)  # fmt: skip
def test_a_group_is_divided_among_the_cores_as_memory_and_the_largest_population_allow(
    jobs: int, fit: int, bundle: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rltrain.jobs import pool

    monkeypatch.setattr(pool, "places", lambda config: 2)
    monkeypatch.setattr(pool, "fitting_members", lambda config: fit)
    parts = divided(range(jobs), pool.members_of_each(compose(["tuned=none"])[0], jobs, bundle), bundle)
    assert [len(part) for part in parts] == sizes
    assert [job for part in parts for job in part] == list(range(jobs))


@pytest.mark.slow
def test_processes_side_by_side_stop_and_continue_together(tmp_path: Path) -> None:
    """Enough members for a process per core; SIGTERM reaches the parent only."""
    args = [*(arg for arg in DQN if "optimizer.lr" not in arg), "total_steps=4000", HERE, "seed=range(0,8)"]
    process = rltrain_process(tmp_path, "-m", *args, two_cores=True)
    first = tmp_path / "sweep" / "7" / "checkpoints" / "step_00000100"
    while not first.exists():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert {record_of(job)["status"] for job in jobs_of(tmp_path / "sweep")} == {"interrupted"}
    process = rltrain_process(tmp_path, "resume", "sweep", two_cores=True)
    out, error = process.communicate(timeout=200)
    assert process.returncode == 0, (out, error)
    assert {record_of(job)["status"] for job in jobs_of(tmp_path / "sweep")} == {"completed"}
    assert all(record_of(job)["argv"][1:] == ["resume", "sweep"] for job in jobs_of(tmp_path / "sweep"))


def test_a_population_whose_folder_is_in_use_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rltrain.storage.run_folder import RunFolder

    assert rltrain_here(tmp_path, "-m", *DQN, HERE, "seed=0", stop=StopAfter(20)) == 143
    capsys.readouterr()
    with RunFolder(tmp_path / "sweep" / "1"):
        assert resume(tmp_path / "sweep") == 1
    told = one_line(capsys, 3)
    assert "1: in use by process" in told and "0: continues with job 1, which is in use: left alone" in told
    assert record_of(tmp_path / "sweep" / "0")["status"] == "interrupted"
