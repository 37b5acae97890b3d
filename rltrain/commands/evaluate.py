"""`rltrain evaluate [RUN_OR_CHECKPOINT] [episodes=100] [seed=..] [checkpoint=last|best] [greedy=false] [--json]`."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rltrain.config.schema import AUTO_SAVE_STEPS, MOST_EPISODES
from rltrain.config.stored import parse_arguments, require_trusted
from rltrain.config.validate import show
from rltrain.envs.process_state import process_kept
from rltrain.errors import Interrupted, RequestError
from rltrain.terminal.output import say
from rltrain.terminal.text import command_folder, mean_and_std, no_folder, rltrain_command, shown_path, unusable

if TYPE_CHECKING:
    from rltrain.policy.load import TrainedPolicy
    from rltrain.storage.run_folder import RunFolder
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


def find_run(name: str | None, announce: bool = True, saved: bool = True) -> Path:
    """The folder that the user means, absolute: the one named, or the newest run under outputs/, which is then said;
    where `saved`, the newest that has a checkpoint.

    Raises:
        RequestError: there is none.
    """
    if name is not None:
        if not name.strip():
            raise RequestError(f"{name!r}: names no folder")
        place = command_folder() / name
        if not place.is_dir():
            raise RequestError(f"{name}: {_no_folder(place)}")
        if not os.access(place, os.R_OK | os.X_OK):
            raise RequestError(unusable(place, PermissionError(errno.EACCES, os.strerror(errno.EACCES)), "read"))
        return place
    from rltrain.storage.run_folder import newest_run

    run = newest_run(command_folder() / "outputs", saved)
    if announce:
        say(f"newest run: {shown_path(run)}")
    return run


def _no_folder(place: Path) -> str:
    if not place.exists():
        return not_begun(place) or no_folder(place)
    known = any((place.parent / name).exists() for name in ("run.json", "manifest.json"))
    return f"is a file; its folder is {shown_path(place.parent)}" if known else no_folder(place)


def not_begun(place: Path) -> str:
    """Error text for a sweep's job that has no run yet; empty for any other folder."""
    from rltrain.storage.checkpoint_folders import has_checkpoint
    from rltrain.storage.sweep_folder import sweep_of

    begun = (place / "run.json").exists() or has_checkpoint(place)
    sweep = None if begun else sweep_of(place)
    return "" if sweep is None else f"is a job that has not begun; `{rltrain_command('resume', sweep)}` begins it"


def _not_saved(run: RunFolder) -> str:
    """Why a run has no checkpoint yet; nothing where none can be expected."""
    from rltrain.storage.files import holder_of

    status = run.read_record().get("status")
    if status == "running" and (holder := holder_of(run.path)):
        period = run.read_config().get("checkpoint", {}).get("period")
        steps = AUTO_SAVE_STEPS if period == "auto" else period
        first = "when it ends" if steps is None else f"first at step {steps:,}"
        first += " or after a minute" if period == "auto" else ""
        shown = f" (checkpoint.period{'=null' if period is None else ''})"
        return f"has not saved yet: it is running, and saves {first}{shown}; SIGUSR1 to {holder} saves now"
    if status in ("running", "failed", "interrupted"):
        again = rltrain_command("resume", run.path)
        return f"has no checkpoint; `{again}` begins it anew"
    return ""


def source_in(place: Path, asked: Any = None, command: str = "") -> Path:
    """The run or checkpoint to load where `asked` is last, best or None, which is last.

    Args:
        command: the one that asks, for the line that loads another checkpoint.

    Raises:
        RequestError: a sweep, a study, or without the checkpoint that is asked for.
    """
    from rltrain.storage.run_folder import RunFolder
    from rltrain.storage.study_folder import no_checkpoint

    if asked not in (None, "last", "best"):
        raise RequestError(f"checkpoint={show(asked)}: must be last or best{_step_meant(place, asked, command)}")
    _refuse_several(place)
    run = RunFolder(place)
    is_checkpoint, is_run, best = (place / "manifest.json").exists(), run.config.exists(), asked == "best"
    if is_checkpoint and asked:
        raise RequestError(f"checkpoint={asked}: is one of a run's, and {shown_path(place)} is a checkpoint itself")
    if not is_checkpoint and (waits := not_begun(place)):
        raise RequestError(f"{shown_path(place)}: {waits}")
    saved = {path.name for path in (place / "checkpoints").glob("*") if path.name[:9] not in (".writing_", ".removed_")}
    if not (is_checkpoint or (is_run and best) or saved - {"best"}):
        why = _not_saved(run) if is_run and run.record.exists() else ""
        if saved:
            why += "; checkpoint=best is there" if why else "holds no checkpoint but its best: checkpoint=best"
        if (place.parent / "run.json").exists():
            why = f"is no checkpoint; its run is {shown_path(place.parent)}"
        raise RequestError(f"{shown_path(place)}: {why or no_checkpoint(place)}")
    if not best:
        return place
    from rltrain.policy.source import best_of

    return best_of(place)


def _step_meant(place: Path, asked: Any, command: str) -> str:
    """The end of a message: how to write the checkpoint of a step, which is named by its folder."""
    from rltrain.storage.checkpoint_folders import step_folders

    if (step := re.fullmatch(r"(?:step_)?(\d+)", str(asked))) is None:
        return ""
    folders = step_folders(place)
    for folder in folders:
        if int(folder.name.removeprefix("step_")) == int(step[1]):
            return f"; that of a step: `{rltrain_command(command, folder)}`"
    there = f"; the newest: {', '.join(folder.name for folder in folders[-3:])}" if folders else ""
    return f"; that of a step is a folder: `rltrain {command} RUN/checkpoints/step_...`{there}"


def _refuse_several(place: Path) -> None:
    from rltrain.storage.study_folder import is_study
    from rltrain.storage.sweep_folder import is_sweep

    kind = "sweep" if is_sweep(place) else "study" if is_study(place) else ""
    if kind:
        first = min([*place.glob("*/run.json"), *place.glob("*/*/run.json")], default=None)
        such = f", such as {shown_path(first.parent)}" if first else ""
        raise RequestError(f"{shown_path(place)}: is a {kind}; name one of its runs{such}")


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
