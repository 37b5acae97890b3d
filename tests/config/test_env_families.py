"""Environments of the extras: known by id without their package, and named with the extra where it is missing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest

import rltrain.config.env_families
from rltrain.cli import main
from rltrain.commands.preflight import preflight
from rltrain.config.application import compose
from rltrain.config.env_source import brought_by, env_ids, is_env_id
from rltrain.errors import RequestError


def refusal(*overrides: str) -> str:
    config, _ = compose(list(overrides))
    with pytest.raises(RequestError) as caught:
        preflight(config)
    return str(caught.value)


def test_minatar_is_known_without_gymnasium_or_its_package() -> None:
    code = (
        "import sys; from rltrain.config.env_source import is_env_id;"
        "assert is_env_id('MinAtar/Breakout-v1') and is_env_id('CartPole-v1');"
        "assert not {'gymnasium', 'minatar', 'ale_py'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_ids_are_listed_and_wrong_ones_refused() -> None:
    assert {"MinAtar/Asterix-v0", "MinAtar/SpaceInvaders-v1"} <= set(env_ids())
    assert not is_env_id("MinAtar/Breakout-v2")
    with pytest.raises(RequestError, match="closest: MinAtar/Breakout-v1"):
        compose(["env=MinAtar/Breakot-v1"])
    with pytest.raises(RequestError, match=r"closest: MinAtar/SpaceInvaders-v\d"):  # before SpaceInvaders-v4, of Atari
        compose(["env=spaceinvaders-v1"])


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("minatar", "rltrain.envs.minatar", "ale_py"))]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("minatar", "ale_py"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(rltrain.config.env_families, "has_ale", lambda: False)
    for env, package, extra in [
        ("MinAtar/Breakout-v1", "minatar", "minatar"),
        ("ALE/NoSuchGame-v5", "ale_py", "atari"),
    ]:
        expected = f"env={env}: {package} is not installed; pip install 'rltrain[{extra}]' brings it"
        assert refusal(f"env={env}", "network=mlp") == expected


@pytest.mark.parametrize("code", ["raise ImportError('libGL.so.1: no such file')", "", "1 / 0"])
def test_a_package_that_cannot_be_imported_costs_its_own_games_only(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ale_py.py").write_text(code)
    for name in [name for name in sys.modules if name.startswith("ale_py")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name, spec in gymnasium.registry.items() if "ale_py" in str(spec.entry_point)]:
        monkeypatch.delitem(gymnasium.registry, name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "ale_py", sys)  # so that what is imported below goes again
    del sys.modules["ale_py"]
    fault = "ale_py is installed and cannot be imported: "
    assert main(["list", "envs", "CartPole"]) == 0
    listed, said = capsys.readouterr()
    assert "CartPole-v1 " in listed and said.startswith(f"the Atari games are left out: {fault}")
    for env in ("ALE/Pong-v5", "CartPol", "PongNoFrameskip-v4", "gymnasium:CartPol-v1"):
        assert main([f"env={env}", "dry_run=true"]) == 2
        said = capsys.readouterr().err
        assert (fault in said) == (":" not in env) and len(said.splitlines()) <= 2
    assert is_env_id("CartPole-v1") and is_env_id("MinAtar/Breakout-v1")


def test_ids_of_which_gymnasium_has_only_an_error_left_are_none() -> None:
    assert not {"Hopper-v2", "HalfCheetah-v3", "GymV21Environment-v0"} & set(env_ids())
    assert not is_env_id("Hopper-v2") and is_env_id("Hopper-v4")


@pytest.mark.parametrize(("env", "extra"), [("Hopper-v5", "mujoco"), ("LunarLander-v3", "box2d"), ("CartPole-v1", "")])
def test_what_brings_an_environment_is_said(env: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert brought_by(env) == (f"; {env} needs pip install 'rltrain[{extra}]'" if extra else "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert brought_by(env) == brought_by("Nothing-v0") == ""


@pytest.mark.skipif(importlib.util.find_spec("ale_py") is None, reason="needs the extra atari")
def test_atari_games_are_known_by_id() -> None:
    assert is_env_id("ALE/Pong-v5") and not is_env_id("ALE/Pog-v5")
    config, _ = compose(["env=ALE/Pong-v5", "network=cnn"])
    preflight(config)


def test_layers_that_do_not_fit_the_observation_are_refused_before_a_folder_is_made() -> None:
    assert "needs images of shape (H, W, C), (C, H, W) or (H, W), not Box[4]" in refusal("network=cnn")
    pytest.importorskip("minatar")
    layers = ["network.channels=[4]", "network.kernels=[11]", "network.strides=[1]"]
    message = refusal("env=MinAtar/Breakout-v1", *layers)
    assert message == "network.kernels[0]=11: is larger than the 10x10 pixels that it is applied to"


def test_breakout_is_tuned_with_convolutions() -> None:
    config, info = compose(["algo=dqn", "env=MinAtar/Breakout-v1"])
    assert info.tuned == "dqn_MinAtar" and config.network.name == "cnn"


@pytest.mark.skipif(importlib.util.find_spec("ale_py") is None, reason="needs the extra atari")
def test_a_game_is_listed_once_unless_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    def ids(*part: str) -> set[str]:
        assert main(["list", "envs", *part]) == 0
        return {line.split()[0] for line in capsys.readouterr().out.splitlines() if "Qbert" in line}

    assert ids() == ids("Atari") == {"ALE/Qbert-v5"}
    assert ids("qbert") == {"ALE/Qbert-v5", *(f"Qbert{skips}-v{n}" for skips in ("", "NoFrameskip") for n in (0, 4))}


def test_the_list_says_what_an_environment_lacks_and_leaves_out_what_has_moved(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    absent = {"jax", "Box2D"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else find(name))
    assert main(["list", "envs"]) == 0
    listed = {line.split()[0]: line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()}
    assert listed["LunarLander-v3"] == "1,000 steps, solved at 200 (needs Box2D)"
    assert listed["phys2d/Pendulum-v0"] == "200 steps (needs jax)"
    assert listed["CartPole-v1"] == "500 steps, solved at 475"
    assert main(["list", "envs", "mujoco"]) == 0
    robots = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert robots >= {"Ant-v5", "Pusher-v4"} and not robots & {"CartPole-v1", "LunarLander-v3"}
    assert "Ant-v5" in listed and "Ant-v3" not in listed  # of Gymnasium's registry, only to say that it is gone
