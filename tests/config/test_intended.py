"""The command that was meant by one in another tool's form, or that the shell has split."""

from __future__ import annotations

import shlex

import pytest

from rltrain.config.intended import intended

OPTIONS = {"-m": 0, "--multirun": 0, "--cfg": 1, "-c": 1, "--config-dir": 1, "--info": 0}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--algo dqn", "algo=dqn"),
        ("--algo=dqn --env=CartPole-v1", "algo=dqn env=CartPole-v1"),
        ("dqn CartPole-v1", "algo=dqn env=CartPole-v1"),
        ("DQN cartpole", "algo=dqn env=CartPole-v1"),
        ("algo dqn env CartPole-v1", "algo=dqn env=CartPole-v1"),
        ("algo = dqn seed= 3", "algo=dqn seed=3"),
        ("-a dqn -e Acrobot-v1 -s 3 -n 1000", "algo=dqn env=Acrobot-v1 seed=3 total_steps=1000"),
        ("train --env Acrobot-v1 --total-timesteps 1000", "env=Acrobot-v1 total_steps=1000"),
        ("algo:dqn env:CartPole-v1 seed:3", "algo=dqn env=CartPole-v1 seed=3"),
        ("train --env", "env=CartPole-v1"),
        ("run lecture_dqn", "experiment=lecture_dqn"),
        ("--learning-rate 1e-3 --gamma .9", "algo.optimizer.lr=1e-3 algo.gamma=.9"),
        ("--eval-freq 500 --dry-run", "eval.period=500 dry_run=true"),
        ("algo=dqn --stop-at-return -100", "algo=dqn stop_at_return=-100"),
        ("network.hidden=[64, 64] seed=3", "network.hidden=[64,64] seed=3"),
        ("env.wrappers=[{name: frame_stack, size: 4}]", "env.wrappers=[{name: frame_stack,size: 4}]"),
        ("-m seed=0, 1", "-m seed=0,1"),
        ("seed=0, 1, 2 env=CartPole-v1", "-m seed=0,1,2 env=CartPole-v1"),
        ("seed=0 ,1", "-m seed=0,1"),
        ("--cfg job --algo dqn", "--cfg job algo=dqn"),
        ("--config-dir conf dqn", "--config-dir conf algo=dqn"),
        ("--resume outputs/run", "resume outputs/run"),
        ("--list envs", "list envs"),
        ("", ""),
        ("algo=dqn 'env.kwargs={a: 1}' -m seed=0,1", "algo=dqn 'env.kwargs={a: 1}' -m seed=0,1"),
        ("name=a, seed=3", "name=a, seed=3"),
        ("network.hidden=[64 seed=3", "network.hidden=[64 seed=3"),
        ("~seed", "~seed"),
        ("glubsch", None),
        ("evalute", None),
        ("--glubsch 4", None),
        ("--seed", "seed=0"),
        ("seed", "seed=0"),
        ("dry_run", "dry_run=true"),
        ("sweep seed=0,1", "-m seed=0,1"),
        ("multirun dqn -m seed=0,1", "algo=dqn -m seed=0,1"),
        ("--gamma", None),
        ("./outputs", None),
        ("-q", None),
    ],
)
def test_what_was_meant(typed: str, meant: str | None) -> None:
    line = intended(shlex.split(typed), OPTIONS)
    if meant is None or "{name: frame" in meant or "'" in meant:
        assert line == (None if meant is None else shlex.split(meant.replace("[{", "'[{").replace("}]", "}]'")))
    else:
        assert line == meant.split()
