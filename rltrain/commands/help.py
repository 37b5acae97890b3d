"""`rltrain --help`, on a screen or two, and the help of each command."""

from __future__ import annotations

from rltrain import __version__
from rltrain.config.folders import group_files, import_plugins
from rltrain.terminal.output import say
from rltrain.terminal.text import wrapped_table

_TEXT = """\
rltrain {version}: trains deep RL agents; every setting is a key=value on the command line.

  rltrain                                        train DQN on CartPole-v1 until it is solved
  rltrain algo=reinforce env=Pendulum-v1 seed=3  any environment of Gymnasium, or module:id
  rltrain experiment=lecture_dqn                 a recipe: every key stated in one file
  rltrain -m seed='range(0,5)' env=CartPole-v1,Acrobot-v1      a sweep: a run for every combination
  tensorboard --logdir outputs                   look at the curves

Commands (each has a --help of its own)
  rltrain [key=value ...]        train; the run folder is under outputs/
  rltrain resume [RUN]           continue a stopped run, exactly; total_steps=... extends it
  rltrain evaluate [RUN]         greedy episodes: mean, std, min, max (episodes=100 checkpoint=last|best)
  rltrain report [DIR ...]       curves over seeds with intervals, tables and a page, of runs and sweeps
  rltrain export [RUN]           the greedy policy as a file for torch.export.load, which needs no rltrain
  rltrain tune [key=value ...]   a search for good settings, over several seeds; `rltrain tune STUDY` goes on
  rltrain list WHAT [PART]       algos, envs, networks, target_updates, explorations, replays, wrappers,
                                 devices, experiments, tuned, searches

Choices (GROUP=CHOICE)
{choices}

Keys you may want first (`rltrain --cfg job` shows all; a list is key=[64,64]; null means none or never)
  total_steps=50_000    environment steps
  total_episodes=200    whichever limit comes first
  seed=0                of all randomness
  num_envs=8            copies of the environment
  stop_at_return=475    end when it is reached
  eval.period=1_000     steps between evaluations
  video.period=10_000   steps between films of an episode, in videos/ and TensorBoard
  algo.gamma=0.99 algo.optimizer.lr=1e-3 network.hidden=[64,64] env.kwargs.gravity=1.6
  'env.wrappers=[normalize_observation,{{name: frame_stack, size: 4}}]'   between environment and agent
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


_OF_COMMANDS = {
    "evaluate": """\
rltrain evaluate [RUN] [key=value ...]: plays greedy episodes; prints mean, std, min and max of their returns.

  RUN                      a run folder or a checkpoint in it; the newest run under outputs/ unless given
  episodes=100             how many
  seed=0                   of the episodes; the run's own unless given
  checkpoint=last|best     the newest, or that of the best evaluation of the run
  greedy=false             acts as in training: sampled, epsilon-greedily, under the noise of noisy layers
  device=cpu|cuda|auto     where the network computes
  video=true               also writes one episode: evaluation.mp4 with the extra `video`, else evaluation.gif
  --json                   prints JSON, as in evaluation.json
  trust=true               imports the module of a run of env=module:id

Writes evaluation.json into the run folder.
""",
    "report": """\
rltrain report [DIR ...] [key=value ...]: curves and tables over seeds, with intervals, as a page, figures and CSV.

  DIR                      a run, a sweep, or a folder of them; several are compared. The newest sweep under outputs/
                           unless given, or the newest run
  metric=TAG               of the curves, any tag of metrics.jsonl; greedy evaluations and training returns unless given
  out=FOLDER               a new folder, or that of an earlier report; DIR/report unless given, and for several
                           outputs/reports/<time>
  --json                   prints JSON, as in summary.json

Runs that differ in their seed alone are one setting. Statistics are over seeds: the interquartile mean, and 95% \
bootstrap intervals for three seeds or more.
""",
    "resume": """\
rltrain resume [RUN_OR_SWEEP] [key=value ...]: continues from the newest whole checkpoint.

  RUN_OR_SWEEP             a run folder, or that of a sweep, whose unfinished jobs are finished; the newest run
                           under outputs/ unless given
  total_steps=100_000      extends a run; so does total_episodes
  stop_at_return=null      lets a run go on that ended early; a number is another goal
  log_period= eval.*= checkpoint.*= device.*= video.*= loggers=  may change too; anything else is another experiment
  hydra/launcher=NAME      of a sweep: population (here), slurm or ray; where it was unless given; hydra.launcher.*= too
  task=3                   of a sweep on a cluster: finishes the jobs of that task, here
  trust=true               imports the module of a run of env=module:id
""",
    "export": """\
rltrain export [RUN] [key=value ...]: writes the greedy policy as a program of torch.export, which acts without rltrain.

  RUN                      a run folder or a checkpoint in it; the newest run under outputs/ unless given
  checkpoint=last|best     the newest, or that of the best evaluation of the run
  out=FILE.pt2             the file; policy.pt2 in the run folder unless given
  trust=true               changes nothing: no environment is made, and no module of one imported

It takes observations as the environment gives them, [batch, ...], and returns actions as the environment takes them.
torch.export.load(FILE).module() loads it. Load only files that you trust: that is torch's format, and torch's promise.
""",
    "tune": """\
rltrain tune [key=value ...]: searches for the settings with the largest greedy return, over several seeds.
rltrain tune STUDY: goes on with a study that was stopped, or joins one that runs, also from another machine.

  key=value                as for a run: what all trials share; such a key is not searched
  key=a,b                  searches these; so do 'key=interval(1,9)' and 'key=tag(log,interval(1e-4,1e-2))'
  search=NAME              what is searched: conf/search/NAME.yaml, or DIR/search/NAME.yaml with --config-dir DIR;
                           the algorithm's own unless keys with several values are given
  tune.trials=50           settings that are tried, each on tune.seeds=3 seeds from tune.first_seed=1000 up
  tune.batch=8             trials that are suggested and trained together, as one program where they can be
  tune.pruner=median       a trial below the median of earlier ones is given up; none; both: tune.startup, tune.warmup
  tune.confirm=10          fresh seeds on which the best settings are trained at the end
  tune.seed=0              of the suggestions
  tune.dir=FOLDER          the study's folder; outputs/tune/<date>/<time>_<algo>_<env> unless given
  trust=true               imports the module of a study of env=module:id

Leaves the best settings as a tuned file, and says the command that uses them. Needs the extra `tune` (Optuna).
""",
    "list": """\
rltrain list WHAT [PART]: what can be chosen, one line each; those whose line contains PART.

  algos                    algorithms (algo=)
  envs                     environments that Gymnasium knows (env=)
  networks                 network=
  target_updates           target_update=, of DQN, C51, QR-DQN and IQN
  explorations             exploration=, where action values are learned: of DQN, C51, QR-DQN, IQN, PQN and Q-learning
  replays                  replay=, of DQN, C51, QR-DQN and IQN
  wrappers                 of env.wrappers=[...], with their arguments
  devices                  device=
  experiments              recipes (experiment=)
  tuned                    settings that apply by themselves to their algorithm and environment
  searches                 spaces of `rltrain tune` (search=)
""",
}


def print_help(command: str | None = None) -> int:
    """The help of a command, or of them all."""
    say(wrapped_table(_OF_COMMANDS[command] if command else _general()))
    return 0


def _general() -> str:
    import_plugins()
    groups = ("algo", "network", "replay", "target_update", "exploration", "device", "experiment")
    lines = [f"  {group:<14} {'  '.join(group_files(group))}" for group in groups]
    lines.insert(1, "  env            any Gymnasium id: `rltrain list envs`")
    return _TEXT.format(version=__version__, choices="\n".join(lines))
