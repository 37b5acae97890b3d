"""`rltrain tune` with a stand-in for training: what is asked, told, ranked, confirmed and written."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest
import yaml
from halves import often

pytest.importorskip("optuna")

import rltrain.commands.tune as tune
import rltrain.commands.tune_batch as tune_batch
import rltrain.commands.tune_end as tune_end
from rltrain.cli import main
from rltrain.commands.tuned_file import Confirmation
from rltrain.config.application import compose
from rltrain.config.plain import to_plain
from rltrain.errors import Interrupted, RequestError, RunFailed
from rltrain.jobs.training import Job
from rltrain.storage.locks import lock_folder
from rltrain.storage.run_folder import RunFolder
from rltrain.storage.sweep_folder import ListedJob

BASE = [
    "tune", "algo=dqn", "env=CartPole-v1", "total_steps=1000", "eval.period=100", "algo.learning_starts=50",
    "tune.dir=study", "tune.batch=3",
]  # fmt: skip
Outcome = Callable[[Mapping[str, Any], int], float]


class StandIn:
    """Trains nothing: writes into each run's folder what a run leaves, with the return that `outcome` gives its config
    and its seed. A NaN is a run that failed. Trials below the limits are pruned as training would."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome, self.calls, self.stop_in = outcome, list[dict[str, int]](), -1
        self.seeds: list[int] = []

    def __call__(
        self, jobs: Mapping[Path, ListedJob], trials: Mapping[Path, int], limits: Mapping[int, float], names: object,
        kept: bool,
    ) -> None:  # fmt: skip
        self.calls.append(dict(limits))
        if len(self.calls) == self.stop_in:
            raise Interrupted(130)
        for trial in dict.fromkeys(trials.values()):
            runs = [run for run in jobs if trials[run] == trial]
            self._train(jobs, runs, limits)

    def _train(self, jobs: Mapping[Path, ListedJob], runs: list[Path], limits: Mapping[int, float]) -> None:
        configs = {run: dict(jobs[run].config or {}) for run in runs}
        self.seeds += [config["seed"] for config in configs.values()]
        returns = {run: self.outcome(config, config["seed"]) for run, config in configs.items()}
        mean = sum(returns.values()) / len(returns)
        pruned = next((number for number, limit in limits.items() if mean < limit), None)
        for run, config in configs.items():
            run.mkdir(exist_ok=True)
            folder = RunFolder(run)
            folder.write_config(config)
            failed = math.isnan(returns[run])
            folder.write_record(
                status="failed" if failed else "completed" if pruned is None else "pruned",
                reason="weights are not finite" if failed else None,
            )
            rows = [{"step": 100 * n, "eval/episode_return": returns[run]} for n in range(1, (pruned or 9) + 1)]
            folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows) if not failed else "")
            if pruned is None and not failed:
                greedy = dict.fromkeys(("mean", "std", "min", "max"), returns[run])
                folder.write_result({"env_step": 1000, "episodes": 100, "episode_return": greedy})


def by_gamma(config: Mapping[str, Any], seed: int) -> float:
    """Best where gamma is smallest; seed 1001 is worth 10 more."""
    return 100 * (1 - config["algo"]["gamma"]) + 10 * (seed == 1001)


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RLTRAIN_CONF", raising=False)
    stand_in = StandIn(by_gamma)
    monkeypatch.setattr(tune, "train_jobs", stand_in)
    monkeypatch.setattr(tune_end, "train_jobs", stand_in)
    return stand_in


def study() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("study/study.json").read_text())
    return found


def results() -> list[dict[str, Any]]:
    return [trial["result"] for trial in study()["trials"]]


def test_a_search_ends_with_the_best_settings_as_a_tuned_file(
    training: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*BASE, "tune.trials=7", "tune.seeds=2", "tune.confirm=4", "target_update=soft"]) == 0
    said = capsys.readouterr().out
    found = study()
    gammas = {trial["number"]: trial["values"]["algo.gamma"] for trial in found["trials"]}
    assert len(gammas) == 7 and gammas[found["best"]] == min(gammas.values())
    best = next(trial for trial in found["trials"] if trial["number"] == found["best"])
    mean = 100 * (1 - gammas[found["best"]]) + 5
    assert best["result"]["value"] == pytest.approx(mean) and len(best["result"]["seeds"]) == 2
    assert found["confirmation"]["mean"] == pytest.approx(mean - 5), "what was lucky in the search is not confirmed"
    assert "the search had found" in said and "95 % interval" in said
    command = said.rstrip().splitlines()[-1].split("rltrain ")[1].split()
    assert command == ["algo=dqn", "env=CartPole-v1", "--config-dir=study/conf"]
    config, info = compose(command[:2], "study/conf")
    confirmed = yaml.safe_load(Path(f"study/confirm_{found['best']}/seed_1002/config.yaml").read_text())
    assert info.tuned == "dqn_CartPole-v1"
    assert {**to_plain(config), "seed": 1002} == confirmed
    header = Path("study/conf/tuned/dqn_CartPole-v1.yaml").read_text()
    assert f"trial {found['best']} of the study" in header and "2 seeds (1000 to 1001)" in header
    assert "Confirmed: " in header and "4 fresh seeds (1002 to 1005)" in header
    assert Path("study/history.png").exists()


def test_one_seed_is_no_range(training: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BASE, "tune.trials=2", "tune.seeds=1", "tune.confirm=1"]) == 0
    header = Path("study/conf/tuned/dqn_CartPole-v1.yaml").read_text()
    assert "1 seed (1000)" in capsys.readouterr().out and "1 seed (1000)" in header
    assert "1 fresh seed (1001)" in header


def test_test_seeds_stay_clean_and_the_confirmation_has_seeds_of_its_own(training: StandIn) -> None:
    assert main([*BASE, "tune.trials=2", "tune.seeds=2", "tune.confirm=3"]) == 0
    assert training.seeds == [1000, 1001, 1000, 1001, 1002, 1003, 1004]


def test_the_mean_over_seeds_decides(training: StandIn) -> None:
    """The trial whose last seed is best has the worst mean."""
    training.outcome = lambda config, seed: config["algo"]["gamma"] * (-100.0 if seed == 1000 else 50.0)
    assert main([*BASE, "tune.trials=6", "tune.seeds=2", "tune.confirm=0", "algo.gamma=0.1,0.5,0.9"]) == 0
    found = study()
    values = {trial["number"]: trial["values"]["algo.gamma"] for trial in found["trials"]}
    assert values[found["best"]] == min(values.values()) < max(values.values())


def test_of_equal_trials_the_one_with_fewer_steps_is_best(training: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    training.outcome = lambda config, seed: 500.0
    write = RunFolder.write_result

    def with_steps(run: RunFolder, result: dict[str, Any]) -> None:
        write(run, {**result, "env_step": int(1e6 * run.read_config()["algo"]["optimizer"]["lr"])})

    monkeypatch.setattr(RunFolder, "write_result", with_steps)
    assert main([*BASE, "tune.trials=5", "tune.seeds=1", "tune.confirm=0"]) == 0
    found = study()
    lrs = {trial["number"]: trial["values"]["algo.optimizer.lr"] for trial in found["trials"]}
    assert lrs[found["best"]] == min(lrs.values())


def test_a_failed_run_fails_its_trial_and_is_named(training: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    training.outcome = lambda config, seed: math.nan if config["algo"]["n_step"] == 3 else by_gamma(config, seed)
    assert main([*BASE, "tune.trials=6", "tune.confirm=0", "algo.n_step=1,3"]) == 0
    states = [result["state"] for result in results()]
    steps = [trial["values"]["algo.n_step"] for trial in study()["trials"]]
    assert states == ["failed" if n == 3 else "complete" for n in steps] and len(set(states)) == 2
    said = capsys.readouterr().out
    assert f"failed: trial_{steps.index(3)}_seed_1000: weights are not finite" in said
    assert f"{states.count('complete')} complete, 0 pruned, {states.count('failed')} failed" in said


def test_each_batch_ends_with_the_best_so_far_and_the_time_left(
    training: StandIn, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    returns = {0.9: math.nan, 0.95: 2.0, 0.97: 7.0, 0.99: 3.0}
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("rltrain.commands.tune.time", SimpleNamespace(perf_counter=lambda: clock.now))

    def outcome(config: Any, seed: int) -> float:
        clock.now += 60.0
        return returns[config["algo"]["gamma"]]

    training.outcome = outcome
    words = ["tune.trials=4", "tune.batch=1", "tune.seeds=1", "tune.confirm=0", "algo.gamma=0.9,0.95,0.97,0.99"]
    assert main([*BASE[:-1], *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    begun = [line for line in lines if "the next" in line]
    assert begun == [f"tune      the next 1 of {left} left" for left in ("4 trials", "3 trials", "2 trials", "1 trial")]
    said = [line for line in lines if " made, " in line]
    found = study()["trials"]
    for made, line in enumerate(said, 1):
        done = {t["result"]["value"]: t["number"] for t in found[:made] if t["result"]["state"] == "complete"}
        reached = f"the best so far is trial {done[max(done)]}: {max(done):.2f}" if done else "none is complete"
        left = f", about 0:0{4 - made}:00 left" if made < 4 else ""
        assert line == f"tune      {made} of 4 trials made, {reached}{left}"
    assert len(said) == 4


def test_a_search_in_which_every_run_fails_says_so(training: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    training.outcome = lambda config, seed: math.nan
    assert main([*BASE, "tune.trials=2"]) == 1
    assert "no trial is complete: trial_1_seed_1000: weights are not finite" in capsys.readouterr().err


def test_a_trial_below_the_median_is_pruned_and_is_never_the_best(training: StandIn) -> None:
    args = [*BASE, "tune.trials=12", "tune.startup=4", "tune.confirm=0", "tune.warmup=0.25", "tune.seeds=1"]
    assert main([*args, "algo.gamma=interval(0.1,0.9)"]) == 0
    assert training.calls[:2] == [{}, {}], "six trials are drawn before four are complete in an earlier batch"
    assert min(training.calls[2]) == 3 and max(training.calls[2]) == 9
    states = [result["state"] for result in results()]
    assert "pruned" in states[6:] and set(states[:6]) == {"complete"}
    for result in results():
        if result["state"] == "pruned":
            assert result["seeds"] == [] and list(result["evaluations"]) == ["1", "2", "3"]


def test_none_is_pruned_where_nobody_asks(training: StandIn) -> None:
    assert main([*BASE, "tune.trials=4", "tune.seeds=1", "tune.startup=2", "tune.confirm=0", "tune.pruner=none"]) == 0
    assert training.calls == [{}, {}]


@pytest.mark.parametrize("call", often([1, 3], [1]))
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not(
    call: int, training: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the middle of its first batch, and of the confirmation."""
    args = ["tune.trials=5", "tune.seeds=1", "tune.confirm=1", "tune.startup=2"]
    assert main([*BASE, *args, "tune.dir=whole"]) == 0
    whole = json.loads(Path("whole/study.json").read_text())
    training.calls.clear()
    training.stop_in = call
    assert main([*BASE, *args]) == 130
    assert "rltrain tune study` goes on" in capsys.readouterr().err
    training.stop_in = -1
    assert main(["resume" if call == 1 else "tune", "study"]) == 0
    assert study() == whole


@pytest.mark.slow
def test_more_trials_may_be_asked_for_later(training: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BASE, "tune.trials=3", "tune.confirm=1"]) == 0
    assert main(["tune", "study", "tune.trials=5", "tune.confirm=2"]) == 0
    assert len(results()) == 5 and study()["confirmation"]["asked"] == 2
    assert main(["tune", "study"]) == 0
    assert len(results()) == 5
    for words, complaint in (
        (["tune.seeds=2"], "tune.seeds: a study keeps it"),
        (["algo.gamma=0.9"], "algo.gamma=0.9: a study keeps what it searches"),
        (["search=dqn"], "search=dqn: a study keeps what it searches"),
        (["tune.trials=0"], "tune.trials=0: must be"),
        (["tune.trials=4"], "tune.trials=4: it has made 5, and none can be taken back"),
    ):
        capsys.readouterr()
        assert main(["tune", "study", *words]) == 2
        assert complaint in capsys.readouterr().err


def test_the_study_lies_where_tune_dir_says(training: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [*BASE[:3], "tune.trials=1", "tune.confirm=0"]
    assert main([*asked, 'tune.dir="my stüdy"']) == 0
    assert Path("my stüdy/study.yaml").exists()
    capsys.readouterr()
    assert main([*asked, "tune.dir='my stüdy'"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("rltrain: tune.dir=my stüdy: exists and is not empty")
    assert "`rltrain tune 'my stüdy'` continues it" in error
    Path("file").touch()
    assert main([*asked, "tune.dir=file"]) == 2
    assert capsys.readouterr().err.startswith("rltrain: tune.dir=file: is a file")


def test_keys_that_are_given_leave_the_space_and_this_is_said(
    training: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*BASE, "tune.trials=1", "tune.confirm=0", "algo.gamma=0.9", "algo.n_step=2"]) == 0
    said = capsys.readouterr().out
    assert "fixed     algo.gamma, algo.n_step" in said
    (trial,) = study()["trials"]
    assert "algo.gamma" not in trial["values"]
    config = yaml.safe_load(Path("study/batch_000/trial_0_seed_1000/config.yaml").read_text())
    assert config["algo"]["gamma"] == 0.9 and config["algo"]["n_step"] == 2


def test_settings_that_contradict_each_other_are_asked_anew(
    training: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [*BASE, "tune.trials=6", "tune.confirm=0", "algo.batch_size=32,128", "algo.buffer_size=64,1000"]
    assert main(args) == 0
    found = [(t["values"]["algo.batch_size"], t["values"]["algo.buffer_size"]) for t in study()["trials"]]
    assert sorted(found) == [(32, 64), (32, 1000), (128, 1000)]
    left_out = "settings are left out: algo.batch_size=128 is larger than algo.buffer_size=64"
    assert capsys.readouterr().err.count(left_out) == 1


def test_a_space_of_which_nothing_goes_together_ends(
    training: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No two of its settings are the same, since one of the keys is a range."""

    def refuse(*_: object) -> dict[str, Any]:
        raise RequestError("they do not")

    monkeypatch.setattr("rltrain.commands.tune_trials.trial_config", refuse)
    assert main([*BASE, "tune.trials=6", "algo.gamma=interval(0.9,0.99)"]) == 2
    assert "the space holds hardly any settings that go together: they do not" in capsys.readouterr().err


def test_settings_are_not_trained_twice(training: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three choices and ten trials: three are trained, and the search ends."""
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "three.yaml").write_text("algo.gamma: {choices: [0.9, 0.95, 0.99]}\n")
    assert main([*BASE, "tune.trials=10", "search=three", "tune.confirm=0", "--config-dir", str(tmp_path)]) == 0
    assert len(training.seeds) == 3 * 3
    output = " ".join(capsys.readouterr().out.split())
    assert "3 trials of 10: nothing new is suggested, the space seems tried out" in output
    assert "3 trials: 3 complete, 0 pruned, 0 failed" in output


def test_a_space_that_can_be_counted_is_tried_whole(training: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    """Though the sampler suggests its best again and again, and settings that fail teach it nothing."""
    training.outcome = lambda config, seed: math.nan if config["algo"]["n_step"] == 2 else by_gamma(config, seed)
    words = ["tune.trials=30", "tune.seeds=1", "tune.confirm=0", "tune.startup=2", "tune.pruner=none"]
    assert main([*BASE[:-1], *words, "algo.n_step=interval(1,4)", "algo.gamma=0.9,0.92,0.95,0.97,0.99"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "20 trials of 30: nothing new is suggested" in said and "20 trials: 15 complete" in said
    assert "0 pruned, 5 failed" in said


def test_a_space_of_the_users_own(training: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine" / "search").mkdir(parents=True)
    (tmp_path / "mine" / "search" / "wide.yaml").write_text("algo.optimizer.lr: {low: 1e-5, high: 1, log: true}")
    assert main([*BASE, "tune.trials=1", "tune.confirm=0", "search=wide", "--config-dir", "mine"]) == 0
    assert "space     algo.optimizer.lr 1e-05 to 1 (log)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["tune.trails=3"], "tune.trails: unknown key; did you mean tune.trials?\nknown: tune.dir, tune.trials, "),
        (["tune.dri=x"], "tune.dri: unknown key; did you mean tune.dir?"),
        (["tune.pruner=mean"], "tune.pruner=mean: must be median or none"),
        (["seed=3"], "seed=3: a search has the seeds from tune.first_seed up"),
        (["seed=1,2"], "seed: is no setting of what is learned"),
        (["hydra.run.dir=x"], "hydra.run.dir=x: has no meaning for a search"),
        (["search=dnq"], "search=dnq: no such search space; did you mean dqn?"),
        (["algo.gama=1,2"], "algo.gama: unknown key; did you mean algo.gamma?"),
        (["algo.gama=1"], "algo.gama=1: unknown key of algo=dqn; did you mean algo.gamma?"),
        (["algo.gamma=interval(0.5,2)"], "algo.gamma=2.0: must be >= 0 and <= 1"),
        (["algo.gamma=range(0,1)"], "give choices (a,b), interval(low,high)"),
        (["algo.gamma=0.9,interval(0,1)"], "give choices (a,b), interval(low,high)"),
        (["exploration=linear,constant"], "a search keeps one exploration; make a study of each"),
        (["eval.period=null", "stop_at_return=null"], "tune.pruner=median: needs evaluations"),
        (["dry_run=true"], "dry_run=true: a search trains"),
        (["--foo"], "--foo: unknown option"),
        (["nofolder"], "nofolder: no such folder"),
        (["."], ".: is no study: it has no study.yaml"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_made(
    words: list[str], complaint: str, training: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*BASE[:3], *words]) == 2
    error = capsys.readouterr().err
    assert complaint in error and len(error.splitlines()) <= 3
    assert not Path("outputs").exists() and training.calls == []


def test_a_run_says_where_the_words_of_a_search_belong(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("tune.trials=3", "search=dqn"):
        assert main([word]) == 2
        assert f"{word}: belongs to a search: rltrain tune ..." in capsys.readouterr().err


def test_without_optuna_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, training: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rltrain.commands.tune_request.find_spec", lambda name: None)
    assert main(BASE) == 2
    assert "pip install 'rltrain[tune]' brings it" in capsys.readouterr().err


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was stopped in its second batch."""
    folder = tmp_path_factory.mktemp("stopped")
    stand_in = StandIn(by_gamma)
    stand_in.stop_in = 2
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("RLTRAIN_CONF", raising=False)
        patch.setattr(tune, "train_jobs", stand_in)
        assert main([*BASE, "tune.trials=6", "tune.confirm=0"]) == 130
    return folder / "study"


def damaged(name: str, text: str) -> Callable[[], object]:
    return lambda: Path("study", name).write_text(text)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (damaged("study.yaml", "a: &x [1]\nb: *x\n"), "aliases are not allowed"),
        (damaged("study.yaml", "tune: {}\n"), "needs the sections config, space and tune"),
        (damaged("batch_000/trials.json", "{}"), "is no list of trials"),
        (damaged("batch_000/trials.json", '{"trials": [{"number": "0"}], "limits": {}}'), "is no list of trials"),
        (damaged("journal.log", "garbage\n"), "is no journal of this study"),
        (lambda: Path("study/link").symlink_to("/etc"), "is a link"),
    ],
)
def test_a_strangers_study_is_data(
    damage: Callable[[], object], complaint: str, stopped: Path, training: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(stopped, "study")
    damage()
    assert main(["tune", "study"]) == 2
    assert complaint in capsys.readouterr().err


def test_a_strangers_environment_needs_trust(training: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    training.stop_in = 1
    assert main([*BASE, "tune.trials=2"]) == 130
    content = yaml.safe_load(Path("study/study.yaml").read_text())
    content["config"]["env"]["id"] = "evil:CartPole-v1"
    Path("study/study.yaml").write_text(yaml.dump(content))
    assert main(["tune", "study"]) == 2
    assert "would import the Python module evil" in capsys.readouterr().err


def test_a_folder_of_runs_that_is_not_inside_the_study_is_refused(
    training: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    training.stop_in = 1
    assert main([*BASE, "tune.trials=1", "tune.seeds=1"]) == 130
    place = Path("study/batch_000/trials.json")
    content = json.loads(place.read_text())
    content["trials"][0]["runs"] = ["../../elsewhere"]
    place.write_text(json.dumps(content))
    training.stop_in = -1
    assert main(["tune", "study"]) == 2
    assert "its jobs are not those of the trials" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["jobs.json", "trials.json"])
def test_a_batch_that_asks_for_other_runs_than_its_study_is_refused(
    name: str, training: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that would import a stranger's module, for which nobody was asked."""
    training.stop_in = 1
    assert main([*BASE, "tune.trials=1", "tune.seeds=1"]) == 130
    place = Path("study/batch_000", name)
    content = json.loads(place.read_text())
    if name == "jobs.json":
        content["jobs"][0]["config"]["env"]["id"] = "evil:CartPole-v1"
    else:
        content["trials"][0]["values"]["env.id"] = "evil:CartPole-v1"
    place.write_text(json.dumps(content))
    training.stop_in = -1
    assert main(["tune", "study"]) == 2
    assert f"{name}: " in capsys.readouterr().err and len(training.calls) == 1


def test_two_fresh_seeds_are_too_few_for_an_interval() -> None:
    confirmed = Confirmation({1003: 3.0, 1004: 5.0}, 2)
    assert str(confirmed) == "4.00 on 2 fresh seeds (1003 to 1004), too few for an interval"
    assert confirmed.to_plain()["interval_95"] is None


class WorkerStandIn:
    """Trains populations as StandIn does; of the first it then makes what a process leaves whose end was another."""

    def __init__(self, training: StandIn, status: str | None, reason: str | None) -> None:
        self.training, self.status, self.reason = training, status, reason
        self.locks: list[BinaryIO] = []

    def __call__(self, populations: Sequence[Sequence[Job]]) -> list[list[RunFailed | float]]:
        for jobs in populations:
            listed = {job.folder: ListedJob(job.folder, to_plain(job.config), ()) for job in jobs}
            self.training(listed, {folder: int(folder.name.split("_")[1]) for folder in listed}, {}, None, False)
        if self.reason is None:
            return [[0.0] * len(jobs) for jobs in populations]
        for job in populations[0]:
            self._leave(RunFolder(job.folder))
        self.reason = None
        return [[RunFailed("it died")] * len(jobs) for jobs in populations]

    def _leave(self, run: RunFolder) -> None:
        (run.checkpoints / "best").mkdir(parents=True)
        run.result.unlink()
        if self.status is None:
            run.record.unlink()
        else:
            run.write_record(status=self.status, reason=self.reason)
        if self.status == "running":
            self.locks.append(lock_folder(run.path))


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("interrupted", "the process that trained it died (signal SIGKILL)"),
        ("failed", "run.json: cannot be written: No space left on device (traceback in run.log)"),
        ("running", ""),
        (None, ""),
    ],
    ids=["died", "no space", "held", "not begun"],
)
def test_a_trial_whose_jobs_have_not_ended_is_not_told(
    status: str | None, reason: str, training: StandIn, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Nor are its checkpoints removed; the study goes on with the same trials, to the end of one that nothing
    disturbed."""
    args = [*BASE, "tune.trials=2", "tune.batch=1", "tune.seeds=2", "tune.confirm=2", "device=cpu"]
    for module in (tune, tune_end):
        monkeypatch.setattr(module, "train_jobs", tune_batch.train_jobs)
    undisturbed = WorkerStandIn(training, None, None)
    monkeypatch.setattr("rltrain.jobs.pool.train_populations", undisturbed)
    assert main([word.replace("tune.dir=study", "tune.dir=whole") for word in args]) == 0
    cut = WorkerStandIn(training, status, reason)
    monkeypatch.setattr("rltrain.jobs.pool.train_populations", cut)
    capsys.readouterr()
    assert main(args) == 1
    error = capsys.readouterr().err
    assert (
        "trial_0_seed_1000: it died" in error
        and "`rltrain tune study` goes on" in error
        and len(error.splitlines()) == 1
    )
    assert Path("study/batch_000/trial_0_seed_1000/checkpoints/best").exists()
    assert [trial["result"] for trial in json.loads(Path("study/batch_000/trials.json").read_text())["trials"]] == [
        None
    ]
    if cut.locks:
        assert main(["tune", "study"]) == 1
        assert "trial_0_seed_1000: in use by process" in (error := capsys.readouterr().err)
        assert "`rltrain tune study` goes on" in error
        for lock in cut.locks:
            lock.close()
    assert main(["tune", "study"]) == 0
    assert study() == json.loads(Path("whole/study.json").read_text())
    assert not [*Path("study").glob("batch_*/*/checkpoints")]


def test_a_confirmation_whose_jobs_have_not_ended_is_none(
    training: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tune_end, "train_jobs", tune_batch.train_jobs)
    cut = WorkerStandIn(training, "interrupted", "the process that trained it died")
    monkeypatch.setattr("rltrain.jobs.pool.train_populations", cut)
    assert main([*BASE, "tune.trials=1", "tune.seeds=2", "tune.confirm=2", "device=cpu"]) == 1
    error = capsys.readouterr().err
    assert "seed_1002: it died" in error and "`rltrain tune study` goes on" in error
    assert study()["confirmation"] is None
    assert main(["tune", "study"]) == 0
    assert study()["confirmation"]["asked"] == 2 == len(study()["confirmation"]["seeds"])


def test_what_a_killed_process_left_of_batches_that_were_told_is_removed_when_the_study_goes_on(
    training: StandIn,
) -> None:
    training.stop_in = 2
    assert main([*BASE, "tune.trials=6", "tune.seeds=1", "tune.confirm=0"]) == 130
    left = [Path(f"study/batch_00{batch}/trial_{3 * batch}_seed_1000/checkpoints/best") for batch in (0, 1)]
    for place in left:
        place.mkdir(parents=True)
    elsewhere = Path("elsewhere/checkpoints")
    elsewhere.mkdir(parents=True)
    Path("study/batch_000/link").symlink_to(elsewhere.parent.absolute())
    training.stop_in = 3
    assert main(["tune", "study"]) == 130
    assert [place.exists() for place in left] == [False, True] and elsewhere.exists()


def test_where_a_list_of_trials_cannot_be_written_the_search_goes_on_later(
    training: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise RunFailed("study/batch_000/trials.json: cannot be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("rltrain.storage.study_folder.write_trials", full)
        assert main([*BASE, "tune.trials=3", "tune.confirm=0"]) == 1
    error = capsys.readouterr().err
    assert "No space left on device" in error and "`rltrain tune study` goes on" in error
    assert main(["tune", "study"]) == 0
    assert len(results()) == 3 and all(result["state"] == "complete" for result in results())
