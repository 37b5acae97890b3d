"""Formats last: runs of earlier versions, kept in tests/data, are evaluated and resumed by this one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from halves import often
from safetensors.numpy import load_file
from whole_runs import newest, one_line, record_of, rltrain_here, rows

import rltrain
from rltrain.cli import main
from rltrain.config import schema
from rltrain.config.stored import ADDED_KEYS, validate_stored
from rltrain.storage.checkpoint_files import digest_of_manifest

DATA = Path(__file__).parents[1] / "data"
RUNS = sorted(path.parent.relative_to(DATA).as_posix() for path in DATA.rglob("run.json"))


@pytest.fixture
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy that may be written into."""
    return Path(shutil.copytree(DATA / request.param, tmp_path / "run"))


def numpy_greedy(run: Path, obs: np.ndarray) -> np.ndarray:
    """What the weights say, by NumPy alone: obs [N, D] -> q-values or means [N, A]."""
    weights = load_file(next(run.glob("checkpoints/step_*")) / "network.safetensors")
    online = {name: array for name, array in weights.items() if name.startswith(("q_network.", "policy."))}
    layers = sorted({name.rpartition(".")[0] for name in online})
    for layer in layers:
        weight, bias = (next(a for n, a in online.items() if n == f"{layer}.{kind}") for kind in ("weight", "bias"))
        obs = obs @ weight.T + bias
        if layer != layers[-1]:
            obs = np.maximum(obs, 0) if "q_network" in layer else np.tanh(obs)
    return obs


def test_there_is_one_of_each() -> None:
    assert [
        *(f"before_engine/{name}" for name in ("block", "dqn", "q_learning", "reinforce", "sweep/0", "sweep/1")),
        *(f"format_1/{name}" for name in ("dqn", "reinforce", "sweep/0", "sweep/1")),
    ] == RUNS


@pytest.mark.parametrize("old", [run for run in RUNS if "q_learning" not in run], indirect=True)
def test_an_old_checkpoint_acts_as_it_did(old: Path) -> None:
    policy = rltrain.load(old)
    assert policy.observation_space.shape is not None
    obs = np.random.default_rng(0).normal(size=(50, *policy.observation_space.shape)).astype(np.float32)
    actions = np.array([policy.act(one) for one in obs])
    outputs = numpy_greedy(old, obs)
    if policy.config.algo.name == "dqn":
        np.testing.assert_array_equal(actions, outputs.argmax(1))
    else:  # outputs are mean and spread; Pendulum takes -2..2
        np.testing.assert_allclose(actions, 2 * np.clip(outputs[:, :1], -1, 1), atol=1e-5)


OFTEN = ["before_engine/block", "before_engine/q_learning", "before_engine/sweep/1", "format_1/reinforce"]


@pytest.mark.parametrize("old", often(RUNS, OFTEN), indirect=True)
def test_an_old_run_is_evaluated_and_resumed(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(old), "episodes=2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 2
    assert main(["resume", str(old), "total_steps=400"]) == 0
    assert newest(old).step == 400
    assert record_of(old)["status"] == "completed"
    steps = [row["step"] for row in rows(old)]
    assert steps == sorted(set(steps)) and steps[-1] == 400


@pytest.mark.parametrize("old", ["format_1/sweep"], indirect=True)
def test_an_old_sweep_is_resumed_as_one(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rltrain_here(old.parent, "resume", "run") == 0
    assert "2 jobs as one program" in capsys.readouterr().out
    assert [newest(old / name).step for name in "01"] == [400, 400]


def test_a_newer_format_is_refused_by_its_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(DATA / "format_1" / "dqn", tmp_path / "run")
    for path in run.glob("checkpoints/*/manifest.json"):
        manifest = {**json.loads(path.read_text()), "format": 99, "something": "new"}
        path.write_text(json.dumps({**manifest, "sha256": digest_of_manifest(manifest)}))
    for command in ("evaluate", "resume"):
        assert main([command, str(run)]) == 2
        error = one_line(capsys)
        assert "format 99" in error and "newer version of rltrain" in error and "manifest.json" in error


def test_a_key_that_came_later_means_what_was_done_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a group's section only the choices that have the key get it."""
    plain = json.loads((DATA / "format_1/dqn/checkpoints/best/manifest.json").read_text())["config"]
    del plain["network"]["activation"], plain["target_update"]["unit"], plain["algo"]["optimizer"]["eps"]
    before = {"network.activation": "gelu", "target_update.unit": "episodes", "algo.optimizer.eps": 1e-3}
    later = {**before, "target_update.tau": 0.5, "algo.baseline": "none", "nowhere.x": 1, "env.id": "other"}
    monkeypatch.setattr("rltrain.config.stored.ADDED_KEYS", {**ADDED_KEYS, **later})
    config = validate_stored(plain)
    assert isinstance(config.target_update, schema.HardUpdateConfig)
    assert (config.network.activation, config.target_update.unit) == ("gelu", "episodes")
    assert (config.algo.optimizer.eps, config.env.id) == (1e-3, "CartPole-v1")
    assert "activation" not in plain["network"], "the stored config was changed"
