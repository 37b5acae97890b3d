"""Which tuned settings a sweep says that its jobs have, and which comparisons it calls unfair."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from halves import often

from rltrain.commands.sweep_header import PlannedJob, comparison_notes, note_after, tuned_lines
from rltrain.config.application import compose
from rltrain.config.plain import to_plain


def planned(*jobs: str, config_dir: Path | None = None) -> list[PlannedJob]:
    """The jobs of a sweep, each given by its overrides in one text."""
    found = []
    for number, job in enumerate(jobs):
        config, info = compose(job.split(), None if config_dir is None else str(config_dir))
        found.append(PlannedJob(str(number), to_plain(config), tuple(job.split()), info))
    return found


def unfair(*jobs: str) -> list[str]:
    """What is said to be no fair comparison."""
    notes = "\n".join(comparison_notes(planned(*jobs), lambda compared: "-"))
    return [line.split()[1] for line in notes.splitlines() if line.startswith("unfair")]


def test_the_header_says_what_the_tuned_file_set_for_which_job(tmp_path: Path) -> None:
    """What is in the first line, all jobs have; the target's settings reach one choice (rule 2 of the loader)."""
    (tmp_path / "tuned").mkdir()
    content = "defaults: [{override /target_update: soft}]\nalgo: {n_step: 3}\ntarget_update: {tau: 0.5}\n"
    (tmp_path / "tuned" / "dqn_Acrobot-v1.yaml").write_text(f"# @package _global_\n{content}")
    sweep = [f"env=Acrobot-v1 target_update={target} seed={seed}" for target in ("hard", "soft") for seed in (0, 1)]
    assert tuned_lines(planned(*sweep, config_dir=tmp_path)) == [
        "tuned     dqn_Acrobot-v1, for all 4 jobs: algo.n_step=3",
        "tuned     dqn_Acrobot-v1, only for target_update=soft: target_update.tau=0.5",
    ]
    lines = tuned_lines(planned("algo.n_step=1 env=Acrobot-v1", "algo.n_step=3 env=Acrobot-v1", config_dir=tmp_path))
    assert lines == ["tuned     dqn_Acrobot-v1, for all 2 jobs: target_update=soft target_update.tau=0.5"]
    typed = "env=Acrobot-v1 target_update=soft target_update.tau=0.5"
    assert tuned_lines(planned(typed, f"{typed} seed=1", config_dir=tmp_path)) == [
        "tuned     dqn_Acrobot-v1, for all 2 jobs: algo.n_step=3"
    ]
    some = planned("seed=0 env=Acrobot-v1", "seed=1 env=Acrobot-v1 algo.n_step=9", "tuned=none", config_dir=tmp_path)
    assert tuned_lines(some)[1:] == [
        "tuned     dqn_Acrobot-v1, only for seed=0: algo.n_step=3",
        "tuned     nothing for tuned=none",
    ]
    assert tuned_lines(planned("tuned=none seed=0", "tuned=none seed=1")) == []


COMPARED: list[tuple[list[str], list[str]]] = [
    (["target_update=hard", "target_update=soft"], ["target_update"]),
    (["network=mlp", "network=dueling"], ["network"]),
    (["exploration=linear", "exploration=exponential", "exploration=constant"], ["exploration"]),
    (["algo.optimizer.name=adam", "algo.optimizer.name=rmsprop"], ["algo.optimizer.name"]),
    (["network.activation=relu", "network.activation=tanh"], ["network.activation"]),
    (["env=MountainCar-v0 algo=dqn", "env=MountainCar-v0 algo=pqn"], ["algo"]),
    (["target_update=hard network=mlp", "target_update=soft network=dueling"], ["target_update", "network"]),
    # Numbers around the tuned one, seeds, environments, what no tuned file knows, and what is tuned alike.
    (["algo.optimizer.lr=1e-3", "algo.optimizer.lr=1e-4"], []),
    (["seed=0", "seed=1"], []),
    (["env=CartPole-v1", "env=Acrobot-v1"], []),
    (["algo.double=true", "algo.double=false"], []),
    (["algo=dqn", "algo=reinforce"], []),
    (["tuned=auto", "tuned=none"], []),
    (["target_update=hard tuned=none", "target_update=soft tuned=none"], []),
    (["env=Blackjack-v1 target_update=hard", "env=Blackjack-v1 target_update=soft"], []),
]
OFTEN = [COMPARED[number] for number in (2, 5, 6, 7, 13)]


@pytest.mark.parametrize(("jobs", "named"), often(COMPARED, OFTEN))
def test_a_choice_that_the_tuned_file_made_is_no_fair_comparison(jobs: list[str], named: list[str]) -> None:
    assert unfair(*jobs) == named


def test_the_reason_names_the_file_the_choice_and_the_flag() -> None:
    asked: list[str] = []

    def untuned(compared: Sequence[PlannedJob]) -> str:
        asked.extend(job.name for job in compared)
        return "rltrain -m ... tuned=none"

    sweep = [f"target_update={target} seed={seed}" for target in ("hard", "soft") for seed in (0, 1)]
    assert comparison_notes(planned(*sweep), untuned) == [
        "unfair    target_update is no fair comparison: dqn_CartPole-v1 is made for soft, and hard gets what is left of"
        " it.\n          This compares each on its defaults:\n          rltrain -m ... tuned=none"
    ]
    assert asked == ["0", "2"], "one job of each value is tried"


def test_the_advised_command_has_the_limits_that_a_resume_has_set() -> None:
    reasons, command = (
        "unfair    total_steps=7 is a word.\n          This ...:\n",
        "          A=1 rltrain -m 'seed=range(0,2)'",
    )
    changes = ["total_steps=300", "eval.period=null"]
    before, after = f"{command} ++total_steps=100 env=X-v1", f"{command} env=X-v1 total_steps=300 eval.period=null"
    assert note_after(changes, reasons + before) == reasons + after
    assert (
        note_after(["total_steps=5"], note_after(changes, before))
        == f"{command} env=X-v1 eval.period=null total_steps=5"
    )
    refused = "unfair    why.\n          tuned=none, which does not go with the other keys: total_steps=1: why"
    for kept in (refused, f"{command} 'total_steps=1", f"{command} $'\\x07' total_steps=1", "total_steps=1", ""):
        assert note_after(changes, kept) == kept


def test_jobs_that_are_the_same_run_are_named() -> None:
    jobs = ["seed=0 name=a", "seed=1", "seed=0 name=b", "seed=1 algo.gamma=0.99"]
    (note,) = comparison_notes(planned(*jobs), lambda compared: "")
    assert note == "same run  jobs with equal values, seed included, are one run made twice: 0 and 2; 1 and 3"
    assert comparison_notes(planned("seed=0", "seed=1"), lambda compared: "") == []


def test_jobs_that_differ_in_keys_without_effect_are_the_same_run() -> None:
    bare = [f"algo.munchausen_temperature={value}" for value in (0.1, 0.3)]
    idle, same = comparison_notes(planned(*bare), lambda compared: "")
    assert idle == "idle      algo.munchausen_temperature has no effect with algo.munchausen=null"
    assert same == "same run  jobs with equal values, seed included, are one run made twice: 0 and 1"
    on = [f"algo.munchausen=0.9 algo.double=false {job}" for job in bare]
    assert comparison_notes(planned(*on), lambda compared: "") == []
    assert len(comparison_notes(planned(bare[0], *on), lambda compared: "")) == 0, "it has an effect in one of them"
