"""Runs, checkpoints and sweeps of a stranger are data: no command runs their code, or writes outside their folder."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_runs import dqn_config, run_config
from whole_runs import StopAfter, newest, one_line, record_of, rewrite, rltrain_here, train

from rltrain.cli import main
from rltrain.config.plain import to_plain
from rltrain.storage.run_folder import RunFolder

COMMANDS = ("evaluate", "export", "resume")
SMALL = run_config(dqn_config(buffer_size=20), total_steps=60)


class Bomb:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("pwned",)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    train(SMALL, tmp_path / "run", StopAfter(30))
    (tmp_path / "evil.py").write_text("import os; os.mkdir('pwned')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SECRET", "pwned")
    monkeypatch.delenv("RLTRAIN_PLUGINS", raising=False)
    return tmp_path / "run"


def refuse_all(run: Path, capsys: pytest.CaptureFixture[str], *codes: int) -> list[str]:
    """Every command answers in a few lines, and nothing of the stranger's has happened."""
    said = []
    for command in COMMANDS:
        capsys.readouterr()
        begin = time.monotonic()
        assert main([command, str(run)]) in (codes or (2,))
        assert time.monotonic() - begin < 30
        said.append(one_line(capsys, 3))
        assert not Path("pwned").exists()
    return said


def with_config(run: Path, **changes: Any) -> None:
    """The newest checkpoint and config.yaml with other sections."""
    plain = to_plain(SMALL)
    for section, values in changes.items():
        plain[section] = {**plain[section], **values} if isinstance(values, dict) else values
    rewrite(run, {"config": plain})
    (run / "config.yaml").write_text(yaml.safe_dump(plain))


@pytest.mark.parametrize("name", ["network.safetensors", "state.json", "manifest.json"])
def test_a_pickle_for_a_file(name: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in run.glob("checkpoints/*"):
        (folder / name).write_bytes(pickle.dumps(Bomb()))
    assert all(name in line for line in refuse_all(run, capsys))


@pytest.mark.parametrize(
    "changes",
    [
        {"algo": {"_target_": "os.mkdir"}},
        {"network": {"_target_": "evil.Network"}},
        {"network": {"name": "evil:Network"}},
        {"algo": {"name": "__import__('evil')"}},
        {"hydra": {"run": {"dir": "/"}}},
        {"seed": "${oc.env:SECRET}"},
        {"network": {"hidden": "${oc.env:SECRET}"}},
        {"env": {"id": "evil:CartPole-v1"}},
        {"env": {"id": "../evil"}},
        {"algo": [1, 2]},
        {"network": {"hidden": [10**9, 10**9]}},
        {"network": {"hidden": [10**25]}},
        {"network": {"hidden": [8] * 10_000}},
        {"network": {"hidden": [[8] * 10_000]}},
        {"env": {"wrappers": ["time_aware"] * 10_000}},
        {"env": {"wrappers": [{"name": "frame_stack", "size": 10**12}]}},
        {"env": {"wrappers": [{"name": "frame_stack", "size": 10**6}] * 9}},
        {"eval": {"period": 1, "episodes": 10**25}},
        {"device": {"threads": 10**9}},
        {"env": {"id": "A" * 10**6}},
        {"env": {"id": "CartPole-v1\x1b]0;pwned\x07"}},
        {"env": {"kwargs": {"x": "\x1b[2J" * 10**5}}},
    ],
)
def test_a_config_that_asks_for_more_than_data(
    changes: dict[str, Any], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        with_config(run, **changes)
    except KeyError:
        rewrite(run, {"config": {**to_plain(SMALL), **changes}})
    codes = [main([command, str(run)]) for command in ("evaluate", "resume")]
    said = capsys.readouterr().err
    assert codes == [2, 2], said
    assert "Traceback" not in said and not Path("pwned").exists()
    assert len(said) < 5_000 and said.replace("\n", "").isprintable()
    assert record_of(run)["status"] == "interrupted"


@pytest.mark.parametrize("changes", [{"num_envs": 10**9}, {"num_envs": 2}, {"algo": {"buffer_size": 10**14}}])
def test_a_config_that_asks_for_any_amount_of_memory(
    changes: dict[str, Any], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_config(run, **changes)
    capsys.readouterr()
    assert main(["resume", str(run)]) == (1 if "algo" in changes else 2)
    error = one_line(capsys, 2)
    assert "num_envs" in error
    assert newest(run).step == 30


@pytest.mark.parametrize(
    "changes",
    [{"episodes": "x"}, {"train_seconds": "x"}, {"row_step": []}, {"row_seconds": {}}, {"solve_step": "x"},
     {"best_return": []}, {"confirmed_return": "x"}, {"metrics": []}, {"duties_from": []}, {"gradient_steps": 10**30}],
)  # fmt: skip
def test_a_state_of_other_kinds_is_refused(
    changes: dict[str, Any], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "gradient_steps" in changes:
        changes = {"agent": {**newest(run).state["agent"], **changes}}
    rewrite(run, state=changes)
    assert main(["resume", str(run)]) == 2
    assert "does not fit this run" in one_line(capsys)


@pytest.mark.parametrize("draws", [{"block_length": 10**9}, {"block_length": -1}, {"position": -5}, {"position": "x"}])
def test_draws_that_no_run_can_have_made_are_refused(
    draws: dict[str, Any], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = newest(run).state["agent"]
    rewrite(run, state={"agent": {**agent, "exploration_draws": {**agent["exploration_draws"], **draws}}})
    assert main(["resume", str(run)]) == 2
    assert "does not fit this run" in one_line(capsys)


@pytest.mark.parametrize(
    ("manifest", "state"),
    [
        ({"config": []}, {}),
        ({"config": {"algo": "x", "env": {"wrappers": 5}}}, {}),
        ({"config": {**to_plain(SMALL), "algo": "x"}}, {}),
        ({"config": {**to_plain(SMALL), "env": []}}, {}),
        ({}, {"envs": []}),
        ({}, {"envs": "x"}),
    ],
)
def test_a_network_of_a_checkpoint_that_no_run_has_written(
    manifest: dict[str, Any], state: dict[str, Any], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(run, manifest, state)
    refuse_all(run, capsys)
    for algo in ("dqn", "ppo"):
        line = [f"algo={algo}", "env=CartPole-v1", "tuned=none", f"init_from={run}", "dry_run=true"]
        assert main(line) == 2
        assert "init_from=" in one_line(capsys, 3)


@pytest.mark.parametrize("versions", [[], {"torch": "\x1b[2J" * 1000}])
def test_what_a_checkpoint_says_of_its_making_is_shown_as_text(
    versions: Any, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(run, {"versions": versions, "device": "\x1b[2J"})
    assert main(["resume", str(run)]) == 0
    said = capsys.readouterr().out
    assert "it was saved with device " in said and "\x1b" not in said and len(said) < 5_000


def test_text_is_neither_resolved_nor_followed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_config(run, name="../../pwned")
    assert "name=../../pwned: must be letters" in refuse_all(run, capsys)[0]
    with_config(run, init_from="${oc.env:SECRET}/dev/zero")
    assert main(["resume", str(run)]) == 0
    assert "init_from: ${oc.env:SECRET}/dev/zero" in (run / "config.yaml").read_text()
    assert "pwned" not in capsys.readouterr().out and not Path("pwned").exists()


def test_yaml_with_tags_begins_no_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "checkpoints")
    RunFolder(run).write_record(status="failed")
    for text in ("a: !!python/object/apply:os.mkdir [pwned]", "a: &x [1]\nb: *x", "- 1", "x" * (17 << 20)):
        (run / "config.yaml").write_text(text)
        capsys.readouterr()
        assert main(["resume", str(run)]) == 2
        assert "config.yaml" in one_line(capsys)
    assert not Path("pwned").exists()


VICTIM = "what the user holds dear\n"


@pytest.mark.parametrize(
    "name", [".lock", "run.log", "metrics.jsonl", "result.json", "learning_curve.png", ".writing_run.json", "run.json"]
)
def test_a_link_out_of_the_folder_is_not_written_through(
    name: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = tmp_path / "victim"
    victim.write_text((run / "run.json").read_text() if name == "run.json" else VICTIM)
    before = victim.read_text()
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(victim)
    capsys.readouterr()
    assert main(["resume", str(run)]) == 2
    assert f"{name}: is a link" in one_line(capsys)
    assert victim.read_text() == before


def test_evaluating_writes_through_no_link(run: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("evaluation.json", f".writing_evaluation.json.{os.getpid()}")):
        victim = tmp_path / f"victim {number}"
        victim.write_text(VICTIM)
        (run / name).symlink_to(victim)
    assert main(["evaluate", str(run), "episodes=1"]) == 0
    assert json.loads((run / "evaluation.json").read_text())["episodes"] == 1
    assert [(tmp_path / f"victim {number}").read_text() for number in (0, 1)] == [VICTIM] * 2


def test_checkpoints_elsewhere_are_not_pruned(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "checkpoints").rename(tmp_path / "mine")
    (run / "checkpoints").symlink_to(tmp_path / "mine")
    capsys.readouterr()
    assert main(["resume", str(run)]) == 2
    assert "checkpoints: is a link" in one_line(capsys)
    (run / "checkpoints").unlink()
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "step_00000030").symlink_to(tmp_path / "mine" / "step_00000030")
    assert main(["resume", str(run)]) == 2
    assert (tmp_path / "mine" / "step_00000030").is_dir()


@pytest.mark.parametrize("name", ["run.json", "checkpoints/step_00000030/manifest.json"])
def test_a_pipe_is_not_waited_for(name: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / name).unlink()
    os.mkfifo(run / name)
    capsys.readouterr()
    assert main(["resume", str(run)]) == 2
    assert "not a regular file" in one_line(capsys)


def test_a_line_of_metrics_without_end(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "x": "' + "y" * (3 << 20) + '"}\n')
    assert main(["resume", str(run)]) == 0
    assert (run / "metrics.jsonl").stat().st_size < 1 << 20


@pytest.mark.parametrize(
    "entry",
    [
        {"members": ["../../victim", "/etc", "1"], "member": 0, "moment": 1, "ended": False},
        pytest.param({"members": ["0", "0"], "member": 0, "moment": 10**400, "ended": 1}, marks=pytest.mark.slow),
        pytest.param({"members": "01", "member": -1, "moment": "1"}, marks=pytest.mark.slow),
        {"members": [["0"], {"1": 2}], "member": None, "moment": None, "ended": None},
        pytest.param([1, 2], marks=pytest.mark.slow),
        pytest.param("x", marks=pytest.mark.slow),
    ],
)
def test_a_member_of_a_population_that_never_was(
    entry: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of members are compared with the sweep's own jobs and never made into paths."""
    sweep, victim = tmp_path / "sweep", tmp_path / "victim"
    for name in ("0", "1"):
        train(SMALL, sweep / name, StopAfter(30))
        rewrite(sweep / name, {"population": entry})
    train(SMALL, victim, StopAfter(20))
    (sweep / "2").symlink_to(victim)
    (sweep / "jobs.json").write_text('{"jobs": []}')
    (sweep / "multirun.yaml").write_text("a: !!python/object/apply:os.mkdir [pwned]")
    before = {path: path.stat().st_mtime_ns for path in victim.rglob("*")}
    monkeypatch.chdir(tmp_path)
    assert main(["resume", str(sweep)]) == 0
    assert [newest(sweep / name).step for name in "01"] == [60, 60]
    assert {path: path.stat().st_mtime_ns for path in victim.rglob("*")} == before
    assert not (tmp_path / "pwned").exists()


def test_a_sweep_that_lists_other_folders(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    (sweep / "inside").symlink_to(run)
    for folder in ("../run", str(run), "inside", ".", "a/../../run", ""):
        (sweep / "jobs.json").write_text(json.dumps({"jobs": [{"folder": folder, "config": to_plain(SMALL)}]}))
        capsys.readouterr()
        assert main(["resume", str(sweep)]) == 2
        assert "not inside" in one_line(capsys)
    (sweep / "loop").symlink_to(sweep / "loop")
    unfit = {"loop/0": "not inside", "a\0b": "printed", "\udc80": "printed", "\x1b[2J": "printed"}
    unfit |= {"\n": "printed", "\u202e0": "printed"}
    for name, why in [*unfit.items(), *((other, "is no text") for other in (None, 5, ["0"], {}, True))]:
        (sweep / "jobs.json").write_text(json.dumps({"jobs": [{"folder": name, "config": to_plain(SMALL)}]}))
        for command in (["resume", str(sweep)], ["evaluate", str(sweep / "3")]):
            assert main(command) == 2
            said = one_line(capsys)
            assert f"jobs.json: the job folder {name!r} " in said and why in said and said.rstrip("\n").isprintable()
    (sweep / "jobs.json").write_text(json.dumps({"jobs": [{"folder": "0", "config": to_plain(SMALL)}] * 2}))
    assert main(["resume", str(sweep)]) == 2 and "'0' is listed twice" in one_line(capsys)
    assert {path.name for path in sweep.iterdir()} == {"jobs.json", "inside", "loop", ".lock"}
    plain = {**to_plain(SMALL), "env": {**to_plain(SMALL)["env"], "id": "evil:CartPole-v1"}}
    (sweep / "jobs.json").write_text(json.dumps({"jobs": [{"folder": "0", "config": plain}]}))
    assert main(["resume", str(sweep)]) == 2
    assert "trust=true" in one_line(capsys, 2) and not Path("pwned").exists()
    assert newest(run).step == 30


def test_list_reads_no_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_config(run, env={"id": "evil:CartPole-v1"})
    assert rltrain_here(run, "list", "algos") == 0
    assert not Path("pwned").exists()
