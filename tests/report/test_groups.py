"""Settings: which runs are seeds of one, and what tells two apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from written_runs import config, result, write_run, write_sweep

from rltrain.report.groups import Groups, as_text, group_runs, short_names, shown
from rltrain.report.runs import read_runs


def groups(tmp_path: Path, *changes: dict[str, Any], places: int = 1) -> Groups:
    """Of runs with these changes, which lie in turn in as many folders as there are places."""
    for number, change in enumerate(changes):
        write_run(tmp_path / f"place{number % places}" / str(number), final=result(10.0 + number), **change)
    folders = [tmp_path / f"place{place}" for place in range(places)]
    return group_runs(read_runs(folders, []), [folder.name for folder in folders])


def test_seeds_are_replicates(tmp_path: Path) -> None:
    found = groups(
        tmp_path,
        {"seed": 2},
        {"seed": 0, "eval__num_envs": 1, "env__step_timeout": 3.0, "loggers": ["wandb"], "video": {"period": 100}},
        {"seed": 1, "name": "x", "checkpoint__period": 7, "log_period": 1},
    )
    (setting,) = found.settings
    assert [run.seed for run in setting.runs] == [0, 1, 2]
    assert (setting.variant, setting.env, found.keys) == ("all runs", "CartPole-v1", ())


def test_settings_differ_in_any_other_key(tmp_path: Path) -> None:
    found = groups(
        tmp_path,
        {"algo__gamma": 0.9},
        {"algo__gamma": 0.9, "seed": 1},
        {"network__hidden": [8]},
        {"eval__period": None},
    )
    assert [(s.variant, len(s.runs)) for s in found.settings] == [
        ("gamma=0.9 eval.period=200 hidden=[64,64]", 2),
        ("gamma=0.99 eval.period=200 hidden=[8]", 1),
        ("gamma=0.99 eval.period=null hidden=[64,64]", 1),
    ]


def test_keys_that_follow_from_others_are_left_out(tmp_path: Path) -> None:
    c51 = {"algo": {"name": "c51", "gamma": 0.9, "atoms": 51}}
    found = groups(tmp_path, {}, c51, {**c51, "env__id": "Acrobot-v1", "total_steps": 5})
    assert found.keys == ("env.id", "algo.name")
    assert set(found.implied) == {"total_steps", "algo.gamma", "algo.atoms", "algo.optimizer.name", "algo.optimizer.lr"}
    assert [(s.env, s.variant) for s in found.settings] == [
        ("CartPole-v1", "algo=dqn"), ("CartPole-v1", "algo=c51"), ("Acrobot-v1", "algo=c51"),
    ]  # fmt: skip


def test_what_follows_from_the_environment_and_a_choice_names_no_setting(tmp_path: Path) -> None:
    """Tuned files differ by environment and algorithm: no setting was one of both environments."""
    taus = {("CartPole-v1", "dqn"): 0.07, ("Acrobot-v1", "dqn"): 0.01, ("CartPole-v1", "c51"): 0.02,
            ("Acrobot-v1", "c51"): 0.05}  # fmt: skip
    kinds: list[tuple[str, str, str, float | None]] = [(*pair, "soft", tau) for pair, tau in taus.items()]
    kinds += [(*pair, "hard", None) for pair in taus]
    changes = [
        {"env__id": env, "algo": {"name": algo}, "target_update": {"name": kind, "tau": tau}}
        for env, algo, kind, tau in kinds
    ]
    of_dqn = [change for change in changes if change["algo"] == {"name": "dqn"}]
    dqn = groups(tmp_path / "dqn", *of_dqn)
    assert (dqn.keys, dqn.implied) == (("env.id", "target_update.name"), ("target_update.tau",))
    assert {s.variant for s in dqn.settings} == {"target_update=soft", "target_update=hard"}
    both = groups(tmp_path / "both", *changes)
    assert (both.keys, both.implied) == (("env.id", "algo.name", "target_update.name"), ("target_update.tau",))
    lone = groups(tmp_path / "lone", *({**change, "env__id": "CartPole-v1"} for change in of_dqn))
    assert lone.keys == ("target_update.name", "target_update.tau"), "what was swept is told"


def test_a_setting_is_not_named_by_keys_of_other_algorithms(tmp_path: Path) -> None:
    """Names began with the nulls of another algorithm's keys, and were cut before they differed."""
    ppo = {"name": "ppo", "gamma": 0.9, "clip": 0.2}
    found = groups(
        tmp_path, {"algo": ppo}, {"algo": {**ppo, "clip": 0.1}}, {"algo": {"name": "c51", "v_max": None}},
        {"algo": {"name": "c51", "v_max": 5.0}},
    )  # fmt: skip
    assert [s.variant for s in found.settings] == [
        "algo=ppo clip=0.2", "algo=ppo clip=0.1", "algo=c51 v_max=null", "algo=c51 v_max=5",
    ]  # fmt: skip


def test_what_was_typed_comes_first_and_is_told_in_any_case(tmp_path: Path) -> None:
    jobs = {
        str(n): (
            [f"network.hidden=[{size}] algo.optimizer.lr={size}", f"seed={n}"],
            {"seed": n, "network__hidden": [size], "algo__gamma": size / 10, "algo__optimizer__lr": size},
            1.0,
        )
        for n, size in enumerate((2, 4, 4))
    }
    found = group_runs(read_runs([write_sweep(tmp_path / "sweep", jobs)], []), ["sweep"])
    assert (found.keys, found.implied) == (("network.hidden", "algo.optimizer.lr"), ("algo.gamma",))


def test_the_algorithm_leads_for_a_long_name_is_cut_at_its_end(tmp_path: Path) -> None:
    jobs = {
        name: ([f"total_steps={steps}", f"algo={name}"], {"total_steps": steps, "algo__name": name}, 1.0)
        for steps, name in ((1200, "dqn"), (1500, "ppo"))
    }
    found = group_runs(read_runs([write_sweep(tmp_path / "sweep", jobs)], []), ["sweep"])
    assert [setting.variant for setting in found.settings] == ["algo=dqn total_steps=1200", "algo=ppo total_steps=1500"]


def test_a_job_that_resume_has_changed_has_its_own_config(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", {str(n): ([f"seed={n}"], {"seed": n}, 1.0) for n in range(2)})
    (sweep / "1" / "config.yaml").write_text(yaml.safe_dump(config(seed=1, total_steps=2000)))
    assert len(group_runs(read_runs([sweep], []), ["x"]).settings) == 1
    (sweep / "1" / "run.json").write_text(json.dumps({"status": "completed", "changes": [{"key": "total_steps"}]}))
    assert group_runs(read_runs([sweep], []), ["x"]).keys == ("total_steps",)


def test_what_was_typed_for_a_run_alone_is_in_its_record(tmp_path: Path) -> None:
    for number in range(2):
        run = write_run(tmp_path / str(number), final=result(1.0), algo__gamma=number, algo__optimizer__lr=number)
        (run / "run.json").write_text(json.dumps({"status": "completed", "argv": ["rltrain", "algo.optimizer.lr=1"]}))
    assert group_runs(read_runs([tmp_path], []), ["x"]).keys == ("algo.optimizer.lr",)


def test_what_was_typed_for_all_jobs_of_a_sweep_is_in_their_records(tmp_path: Path) -> None:
    """Here a study, whose jobs list what the search has chosen, beside a run alone: all else follows from gamma."""
    jobs = {str(n): ([f"algo.gamma=0.{n}"], {"algo__gamma": n / 10, "algo__optimizer__lr": 0.1}, 1.0) for n in (1, 2)}
    sweep = write_sweep(tmp_path / "study", jobs)
    for job in jobs:
        words = ["rltrain", "tune", "algo=dqn", "algo.optimizer.lr=0.1"]
        (sweep / job / "run.json").write_text(json.dumps({"status": "completed", "argv": words}))
    write_run(tmp_path / "alone", final=result(1.0), algo__gamma=0.3, algo__optimizer__lr=0.7)
    found = group_runs(read_runs([sweep, tmp_path / "alone"], []), ["study", "alone"])
    assert found.keys == ("algo.gamma", "algo.optimizer.lr")


def test_equal_runs_in_two_folders_are_compared_by_folder(tmp_path: Path) -> None:
    found = groups(tmp_path, {"seed": 0}, {"seed": 0}, {"seed": 1}, {"seed": 2}, places=2)
    assert [(s.variant, [run.seed for run in s.runs]) for s in found.settings] == [
        ("folder=place0", [0, 1]), ("folder=place1", [0, 2]),
    ]  # fmt: skip


def test_seeds_of_one_setting_may_lie_in_two_folders(tmp_path: Path) -> None:
    found = groups(tmp_path, {"seed": 0}, {"seed": 1}, places=2)
    assert [[run.seed for run in setting.runs] for setting in found.settings] == [[0, 1]]


def extended(folder: Path, before: int, **changes: Any) -> Path:
    """A run that `resume` has given another total_steps."""
    plain = config(total_steps=1000, **changes)
    plain["algo"]["anneal_lr"] = True
    run = write_run(folder, final=result(1.0), plain=plain)
    if before:
        change = {"step": before, "key": "total_steps", "from": before, "to": 1000}
        (run / "run.json").write_text(json.dumps({"status": "completed", "changes": [change]}))
    return run


def test_runs_of_one_seed_are_apart_by_the_total_steps_that_they_had(tmp_path: Path) -> None:
    for number, before in enumerate((400, 500, 0)):
        for seed in range(2):
            extended(tmp_path / str(2 * number + seed), before, seed=seed)
    found = group_runs(read_runs([tmp_path], []), ["x"])
    assert [(s.variant, len(s.runs), len(s.repeated)) for s in found.settings] == [
        ("total_steps.before=400", 2, 0), ("total_steps.before=500", 2, 0), ("total_steps.before=null", 2, 0),
    ]  # fmt: skip


def test_seeds_alone_differ_where_none_has_two_histories(tmp_path: Path) -> None:
    extended(tmp_path / "0", 400, seed=0)
    extended(tmp_path / "1", 0, seed=1)
    (setting,) = group_runs(read_runs([tmp_path], []), ["x"]).settings  # a note tells of it
    assert [run.totals for run in setting.runs] == [(400,), ()]


def on(folder: Path, seed: int, chose: Mapping[str, Any], **device: Any) -> None:
    """A run with these keys of `device`, and what `auto` chose in its record."""
    keys = {"name": "auto", "index": 0, "threads": "auto", "compile": "auto", "cuda_graphs": "auto", **device}
    run = write_run(folder, final=result(1.0), seed=seed, device=keys)
    (run / "run.json").write_text(json.dumps({"status": "completed", **chose}))


CPU, CUDA = {"device": "cpu", "threads": 1, "compiled": False}, {"device": "cuda:0", "threads": 1, "compiled": True}


@pytest.mark.parametrize(
    ("runs", "settings"),
    [
        ([(CPU, {}), (CPU, {"name": "cpu"})], {"all runs": 2}),
        ([(CPU, {}), (CPU, {"cuda_graphs": False, "index": 1})], {"all runs": 2}),
        ([(CPU, {}), (CPU, {"threads": 1}), (CPU, {"compile": False})], {"all runs": 3}),
        ([(CPU, {}), (CPU, {"name": "cpu"}), (CUDA, {"name": "cuda"})], {"device=cpu": 2, "device=cuda": 1}),
        ([(CPU, {}), ({**CPU, "threads": 4}, {"threads": 4})], {"threads=1": 1, "threads=4": 1}),
        ([(CUDA, {}), (CUDA, {"cuda_graphs": False})], {"cuda_graphs=auto": 1, "cuda_graphs=false": 1}),
        ([(CUDA, {}), (CUDA, {"compile": True})], {"compile=auto": 1, "compile=true": 1}),
        ([(CPU, {}), (CUDA, {})], {"all runs": 2}),
        ([(CPU, {}), (CUDA, {}), (CPU, {"name": "cpu"})], {"device=auto": 2, "device=cpu": 1}),
        ([({}, {}), (CPU, {}), (CPU, {"name": "cpu"})], {"all runs": 3}),
        ([({"device": ["cpu"], "threads": "x" * 9, "compiled": 0}, {}), (CPU, {})], {"all runs": 2}),
    ],
)
def test_auto_counts_as_what_it_chose(
    runs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], settings: Mapping[str, int], tmp_path: Path
) -> None:
    for seed, (chose, device) in enumerate(runs):
        on(tmp_path / str(seed), seed, chose, **device)
    found = group_runs(read_runs([tmp_path], []), ["x"])
    assert {setting.variant: len(setting.runs) for setting in found.settings} == settings


def test_ways_of_stepping_environments_are_apart_unless_auto_chose_one(tmp_path: Path) -> None:
    for seed, (asked, way) in enumerate((("auto", "sync"), ("sync", "sync"), ("batched", "batched"))):
        run = write_run(tmp_path / str(seed), final=result(1.0), seed=seed, env__vectorization=asked)
        (run / "run.json").write_text(json.dumps({"status": "completed", "vectorization": way}))
    found = group_runs(read_runs([tmp_path], []), ["x"])
    assert [(s.variant, len(s.runs)) for s in found.settings] == [
        ("vectorization=sync", 2),
        ("vectorization=batched", 1),
    ]


def resumed(folder: Path, seed: int, *changes: tuple[str, Any, Any]) -> None:
    """A run of which `resume` has changed keys: from one value to another."""
    now = {key.replace(".", "__"): new for key, _, new in changes}
    run = write_run(folder, final=result(1.0), seed=seed, **now)
    entries = [{"step": 500, "key": key, "from": old, "to": new} for key, old, new in changes]
    (run / "run.json").write_text(json.dumps({"status": "completed", "changes": entries}))


def test_a_seed_that_resume_has_changed_alone_is_apart_and_is_known(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / str(seed), final=result(1.0), seed=seed, stop_at_return=9)
    resumed(tmp_path / "2", 2, ("stop_at_return", 9, None), ("total_steps", 1000, 2000), ("log_period", 100, 50))
    resumed(tmp_path / "3", 3, ("log_period", 100, 50), ("stop_at_return", None, 9))
    resumed(tmp_path / "4", 4, ("log_period", 100, 50))
    resumed(tmp_path / "5", 5, ("total_steps", 700, 1000))  # as 4 had them from the start
    found = group_runs(read_runs([tmp_path], []), ["x"])
    assert [[run.seed for run in setting.runs] for setting in found.settings] == [[0, 1, 3], [2], [4, 5]]
    assert [run.seed for run in found.parted] == [2, 3]  # 3 has left that of 4 and 5


def test_seeds_that_resume_has_changed_all_are_a_setting_as_any_other(tmp_path: Path) -> None:
    for seed in range(2):
        resumed(tmp_path / str(seed), seed, ("total_steps", 1000, 2000))
    found = group_runs(read_runs([tmp_path], []), ["x"])
    assert len(found.settings) == 1 and found.parted == ()


def test_the_confirmation_of_a_study_is_apart_from_the_search(tmp_path: Path) -> None:
    write_sweep(tmp_path / "batch_000", {f"t{s}": ([f"seed={s}"], {"seed": s}, 9.0) for s in range(2)})
    write_sweep(tmp_path / "confirm_0", {f"seed_{s}": ([f"seed={s}"], {"seed": s}, 1.0) for s in (2, 3, 4)})
    (tmp_path / "study.yaml").touch()
    found = group_runs(read_runs([tmp_path], []), ["x"])
    assert [(s.variant, [run.seed for run in s.runs]) for s in found.settings] == [
        ("study=search", [0, 1]), ("study=confirmation", [2, 3, 4]),
    ]  # fmt: skip


def test_of_two_runs_of_a_seed_the_first_completed_one_counts(tmp_path: Path) -> None:
    write_run(tmp_path / "a", status="failed", seed=3)
    write_run(tmp_path / "b", final=result(1.0), seed=3)
    write_run(tmp_path / "c", final=result(2.0), seed=3)
    (setting,) = group_runs(read_runs([tmp_path], []), ["x"]).settings
    assert [run.score for run in setting.runs] == [1.0]
    assert [run.folder.name for run in setting.repeated] == ["a", "c"]


def test_older_configs_lack_keys_that_have_the_value_of_then(tmp_path: Path) -> None:
    older = config(seed=1)
    newer = {**config(), "init_from": None}
    newer["env"] = {**newer["env"], "wrappers": []}
    newer["eval"] = {**newer["eval"], "num_envs": "auto"}
    write_run(tmp_path / "a", final=result(1.0), plain=older)
    write_run(tmp_path / "b", final=result(1.0), plain=newer)
    assert len(group_runs(read_runs([tmp_path], []), ["x"]).settings) == 1


def test_a_run_without_a_config_is_in_no_setting(tmp_path: Path) -> None:
    write_run(tmp_path / "a", final=result(1.0))
    (tmp_path / "a" / "config.yaml").write_text("a: &x [1]\nb: *x\n")
    write_run(tmp_path / "b", final=result(1.0))
    found = group_runs(read_runs([tmp_path], []), ["x"])
    assert [run.folder.name for run in found.left_out] == ["a"]
    assert "aliases are not allowed" in found.left_out[0].why


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (["algo.optimizer.lr", "algo.gamma"], ["lr", "gamma"]),
        (["algo.optimizer.lr", "algo.value.lr"], ["optimizer.lr", "value.lr"]),
        (["algo.name", "network.name", "env.id"], ["algo", "network", "env"]),
        (["target_update.period", "eval.period", "seed"], ["target_update.period", "eval.period", "seed"]),
        (["lr", "algo.lr"], ["lr", "algo.lr"]),
        (["exploration.steps", "total_steps"], ["exploration.steps", "total_steps"]),
    ],
)
def test_names_are_as_short_as_they_can_be(keys: list[str], names: list[str]) -> None:
    assert list(short_names(keys).values()) == names


def test_values_are_shown_as_they_are_typed() -> None:
    assert shown([0.001, None, True, [1, 2], "x", 3, 1e-5]) == ["0.001", "null", "true", "[1,2]", "x", "3", "1e-05"]


def test_numbers_have_the_digits_that_tell_them_apart() -> None:
    assert shown([0.98765432, 0.91234567, 0.5]) == ["0.988", "0.912", "0.5"]
    assert shown([9000.0, 0.00012345678]) == ["9000.0", "0.000123"]
    assert shown([0.98765432, 0.98765321]) == ["0.987654", "0.987653"]
    assert as_text({"algo.optimizer.lr": "0.001", "algo.gamma": "1"}) == "lr=0.001 gamma=1"
