"""`rltrain --help`: what can be typed, on one screen."""

from __future__ import annotations

from rltrain import __version__
from rltrain.config.folders import group_files, import_plugins

_TEXT = """\
rltrain {version}: trains deep RL agents; every setting is a key=value on the command line.

  rltrain                                        train DQN on CartPole-v1 until it is solved
  rltrain algo=reinforce env=Pendulum-v1 seed=3  any environment of Gymnasium, or module:id
  rltrain experiment=lecture_dqn                 a recipe: every key stated in one file
  rltrain -m seed='range(0,5)' env=CartPole-v1,Acrobot-v1      a sweep: a run for every combination
  tensorboard --logdir outputs                   look at the curves

Commands
  rltrain [key=value ...]        train; the run folder is under outputs/
  rltrain resume [RUN]           continue a stopped run, exactly; total_steps=... extends it
  rltrain evaluate [RUN]         greedy episodes: mean, std, min, max (episodes=100 checkpoint=last|best)
  rltrain list WHAT [PART]       algos, envs, networks, target_updates, explorations, devices, experiments, tuned

Choices (GROUP=CHOICE)
{choices}

Keys you may want first (`rltrain --cfg job` shows all; a list is key=[64,64]; null means none or never)
  total_steps=50_000    environment steps         total_episodes=200   whichever limit comes first
  seed=0                of all randomness         num_envs=8           copies of the environment
  stop_at_return=475    end when it is reached    eval.period=1_000    steps between evaluations
  algo.gamma=0.99  algo.optimizer.lr=1e-3  network.hidden=[64,64]  env.kwargs.gravity=1.6
  dry_run=true          build everything, print sizes, train nothing

Options
  -m, --multirun        sweep over key=a,b and key=range(0,5)
  --cfg job             print the config that would run, and stop
  --config-dir DIR      your own configs (as $RLTRAIN_CONF): DIR/env/<id>.yaml, DIR/experiment/<name>.yaml, ...
  --shell-completion    completion, environment ids too: eval "$(rltrain --shell-completion install=bash)"
  --version, --help, --hydra-help

$RLTRAIN_PLUGINS=module,... is imported first: your own algorithms, networks and environments.
A tuned file (`rltrain list tuned`) is used by itself where there is one; tuned=none turns it off.
"""


def print_help() -> int:
    """Prints the help with the choices that there are, the user's own too; returns the exit code."""
    import_plugins()
    groups = ("algo", "network", "target_update", "exploration", "device", "experiment")
    lines = [f"  {group:<14} {_wrapped(list(group_files(group)))}" for group in groups]
    lines.insert(1, "  env            any Gymnasium id: `rltrain list envs`")
    print(_TEXT.format(version=__version__, choices="\n".join(lines)), end="")
    return 0


def _wrapped(names: list[str], width: int = 100) -> str:
    rows = [""]
    for name in names:
        if len(rows[-1]) + len(name) > width:
            rows.append("")
        rows[-1] += f"{name}  "
    return ("\n" + " " * 17).join(row.rstrip() for row in rows)
