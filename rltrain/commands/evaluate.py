"""`rltrain evaluate [RUN_OR_CHECKPOINT] [episodes=100] [seed=..] [checkpoint=last|best] [greedy=false] [--json]`."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rltrain.commands.find import find_run, source_in
from rltrain.config.schema import MOST_EPISODES
from rltrain.config.stored import parse_arguments, require_trusted
from rltrain.envs.process_state import process_kept
from rltrain.errors import Interrupted, RequestError
from rltrain.terminal.output import say
from rltrain.terminal.shell import command_folder, shown_path
from rltrain.terminal.text import mean_and_std

if TYPE_CHECKING:
    from rltrain.policy.load import TrainedPolicy
    from rltrain.training.episode_tally import EpisodeStatistics

DEFAULTS = {
    "episodes": 100,
    "seed": None,
    "checkpoint": None,
    "greedy": True,
    "video": False,
    "json": False,
    "trust": False,
    "device": "cpu",
}


def main(args: list[str]) -> int:
    """Evaluates and prints; returns the exit code.

    Raises:
        RequestError, RunFailed, Interrupted: see rltrain.cli.
    """
    name, options = parse_arguments("evaluate", args, DEFAULTS)
    _check(options)
    place = find_run(name, announce=not options["json"])
    source = source_in(place, options["checkpoint"], "evaluate")
    from rltrain.policy.load import load
    from rltrain.storage.run_folder import RunFolder
    from rltrain.training.stopping import WHILE_EVALUATING, StopSignal

    policy = load(source, _device(options))
    require_trusted(replace(policy.config, loggers=()), options["trust"])
    if options["video"]:
        from rltrain.policy.video import check_drawing

        check_drawing(policy.config.env, "video=true")  # before episodes that may take minutes
    seed = policy.config.seed if options["seed"] is None else options["seed"]
    with process_kept(), StopSignal(WHILE_EVALUATING, saves=False) as stop:
        found = evaluate(policy, options["episodes"], seed, lambda: stop.requested, options["greedy"])
    if found is None:
        raise Interrupted(stop.exit_code)
    statistics, result = found
    run = run_of(policy)
    try:
        if run is not None:
            RunFolder(run).write_evaluation(result)
        if options["video"] and not stop.requested:
            from rltrain.policy.video import record_episode

            result["video"] = str(record_episode(policy, run or command_folder(), seed))
    finally:  # what was found is said also where it cannot be written, as into somebody else's folder
        say(json.dumps(result, indent=2) if options["json"] else _in_words(policy, statistics, result))
    if stop.requested:
        raise Interrupted(stop.exit_code)
    return 0


def run_of(policy: TrainedPolicy) -> Path | None:
    """The run whose folder the policy's checkpoint lies in; None where it lies somewhere else."""
    run = policy.checkpoint.parent.parent
    return run if (run / "run.json").exists() else None


def _in_words(policy: TrainedPolicy, statistics: EpisodeStatistics, result: dict[str, Any]) -> str:
    stats = result["episode_return"]
    line = (
        f"{policy.config.algo.name} on {policy.config.env.id}, {policy.checkpoint.name}: "
        f"{'greedy return' if result['greedy'] else 'return as in training'} of "
        f"{statistics.count_in_words()} {mean_and_std(stats['mean'], stats['std'])} "
        f"(min {stats['min']:g}, max {stats['max']:g})"
    )
    return f"{line}\nvideo {shown_path(Path(result['video']))}" if "video" in result else line


def evaluate(
    policy: TrainedPolicy, episodes: int, seed: int, stop: Callable[[], bool], greedy: bool = True
) -> tuple[EpisodeStatistics, dict[str, Any]] | None:
    """The episodes and what evaluation.json says of them: all, or those that had ended when `stop()` became true; None
    if there are none. Same policy and seed, same numbers. `greedy`: takes the best actions, else acts as in training.
    """
    from rltrain.jobs.build import build_evaluator
    from rltrain.loggers.evaluation_console import EvaluationConsole
    from rltrain.training.evaluator import REPORT_KEY

    config = replace(policy.config, seed=seed)
    acts = policy.agent_policy if greedy else policy.exploring(seed)
    with closing(
        build_evaluator([config], episodes, lambda: policy.statistics, EvaluationConsole(), policy.eval_envs)
    ) as evaluator:
        statistics = evaluator.evaluate(acts, episodes, REPORT_KEY, stop, partly=True)
        threshold = evaluator.reward_threshold
    if statistics is None:
        return None
    return statistics, {
        "env_step": policy.env_step,
        **statistics.count_to_plain(),
        "episode_return": statistics.to_plain(),
        "threshold": threshold,
        "solve_step": policy.solve_step,
        "checkpoint": policy.checkpoint.name,
        "seed": seed,
        "greedy": greedy,
    }


def _check(options: dict[str, Any]) -> None:
    if type(options["episodes"]) is not int or not 1 <= options["episodes"] <= MOST_EPISODES:
        raise RequestError(f"episodes={options['episodes']}: must be a whole number from 1 to {MOST_EPISODES:,}")
    if options["seed"] is not None and (type(options["seed"]) is not int or options["seed"] < 0):
        raise RequestError(f"seed={options['seed']}: must be a whole number, at least 0")
    if options["device"] not in ("cpu", "cuda", "auto"):
        raise RequestError(f"device={options['device']}: must be auto, cpu or cuda")
    if options["video"] and not options["greedy"]:
        raise RequestError("video=true: films the greedy policy; leave greedy=false out")


def _device(options: dict[str, Any]) -> Any:
    from rltrain.compute.device import configure_torch, resolve_device
    from rltrain.config.schema import DeviceConfig

    config = DeviceConfig(
        name=options["device"], index=0, threads="auto", compile=False, cuda_graphs=False, deterministic=False
    )
    configure_torch(config)
    return resolve_device(config)
