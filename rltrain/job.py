"""One job: from a validated config to a run folder with everything in it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rltrain.agents import Agent
from rltrain.agents.agent import StateDict
from rltrain.build import build_agent, build_envs, build_logger, newest_source
from rltrain.config.info import ComposeInfo
from rltrain.config.schema import RunConfig
from rltrain.config.validate import to_plain
from rltrain.device import configure_torch, resolve_device
from rltrain.envs.space_data import space_to_plain
from rltrain.envs.vector import VectorEnv
from rltrain.errors import Interrupted, RequestError, RunFailed
from rltrain.training import checkpoint
from rltrain.training.evaluator import REPORT_EPISODES, REPORT_KEY, Evaluator
from rltrain.training.run_folder import RunFolder, git_state, versions
from rltrain.training.stopping import StopSignal
from rltrain.training.trainer import Trainer

_log = logging.getLogger(__name__)


def train(config: RunConfig, folder: Path, console: bool = True, info: ComposeInfo | None = None) -> float | None:
    """Trains one job in `folder` and returns the last network's greedy mean return.

    Raises:
        RequestError: the request cannot be carried out here (no such device, a foreign checkpoint to start from).
        RunFailed: the run failed; its checkpoints are intact.
        Interrupted: a signal stopped it, after saving.
    """
    return _Job(config, folder, console, info or ComposeInfo()).run(None)


def resume(config: RunConfig, folder: Path, source: checkpoint.Checkpoint, console: bool = True) -> float | None:
    """Continues the run in `folder` from `source`; like `train` otherwise."""
    return _Job(config, folder, console, ComposeInfo()).run(source)


@dataclass
class _Job:
    config: RunConfig
    folder: Path
    console: bool
    info: ComposeInfo

    def run(self, source: checkpoint.Checkpoint | None) -> float | None:
        with StopSignal() as stop, RunFolder(self.folder) as run:
            started = time.time()
            try:
                mean = self._train(run, stop, source)
            except BaseException as error:
                interrupted = isinstance(error, Interrupted | KeyboardInterrupt)
                if not isinstance(error, Interrupted):
                    _log.error("the run failed", exc_info=error)
                run.write_record(
                    status="interrupted" if interrupted else "failed", reason=_first_line(error), **_timing(started)
                )
                raise
            run.write_record(status="completed", **_timing(started))
            return mean

    def _train(self, run: RunFolder, stop: StopSignal, source: checkpoint.Checkpoint | None) -> float | None:
        config = self.config
        device = resolve_device(config.device)
        threads = configure_torch(config.device)
        checkpoint.clean(run.path)
        envs = build_envs(config)
        evaluator = Evaluator(config.env, config.seed, max(config.eval.episodes, REPORT_EPISODES))
        logger = None
        try:
            agent = build_agent(config, envs, device)
            if config.init_from is not None and source is None:
                _load_initial_network(agent, Path(config.init_from))
            run.write_config(to_plain(config))
            run.write_record(
                status="running", seed=config.seed, device=str(device), threads=threads, versions=versions(),
                git=git_state(Path.cwd()), argv=sys.argv,
            )  # fmt: skip
            logger = build_logger(config, run, None if source is None else source.step, self.console)
            keeper = _Keeper(config, run, envs, device, threads)
            trainer = Trainer(config, envs, agent, evaluator, logger, keeper, device, lambda: stop.requested)
            exact = True
            if source is not None:
                exact = trainer.load_state_dict({**source.tensors, "state": source.state})
            self._print_header(run, envs, agent, device, threads, source, exact)
            if not trainer.run():
                raise Interrupted(stop.exit_code)
            logger.close(True)
            return self._report(run, trainer, evaluator, agent, envs)
        finally:
            if logger is not None:
                logger.close()
            evaluator.close()
            envs.close()

    def _report(
        self, run: RunFolder, trainer: Trainer, evaluator: Evaluator, agent: Agent, envs: VectorEnv
    ) -> float:
        """result.json, learning_curve.png and the table at the end."""
        from rltrain.report.curve import plot_learning_curve

        final = evaluator.evaluate(agent, REPORT_EPISODES, REPORT_KEY)
        assert final is not None
        run.write_result(
            {
                "env_step": trainer.step,
                "episodes": REPORT_EPISODES,
                "episode_return": final.to_plain(),
                "threshold": envs.reward_threshold,
                "solve_step": trainer.solve_step,
            }
        )
        curve = plot_learning_curve(run.path)
        threshold = envs.reward_threshold
        verdict = "" if threshold is None else ("  solved" if final.mean >= threshold else f"  not solved (< {threshold:g})")
        speed = trainer.step / trainer.train_seconds if trainer.train_seconds else 0.0
        print(
            f"\n{trainer.step:,} steps, {trainer.episodes:,} episodes in {trainer.train_seconds:.1f} s ({speed:,.0f} steps/s)"
            f"\ngreedy return of {REPORT_EPISODES} episodes: {final.mean:.1f} +- {final.std:.1f}{verdict}"
            f"\nrun folder      {run.path}\nlearning curve  {curve}"
            f"\nnext            tensorboard --logdir {run.path}"
            f"\n                rltrain evaluate {run.path}"
            f"\n                rltrain resume {run.path} total_steps={2 * self.config.total_steps}"
        )
        return final.mean

    def _print_header(
        self,
        run: RunFolder,
        envs: VectorEnv,
        agent: Agent,
        device: torch.device,
        threads: int,
        source: checkpoint.Checkpoint | None,
        exact: bool,
    ) -> None:
        print("\n".join(header_lines(self.config, self.info, envs, agent, device, threads)))
        if source is not None:
            how = "exactly" if exact else "but running episodes begin anew (the environment did not replay)"
            print(f"resumed   at step {source.step:,} from {source.folder.name}, {how}")
        print(f"folder    {run.path}", flush=True)


def header_lines(
    config: RunConfig, info: ComposeInfo, envs: VectorEnv, agent: Agent, device: torch.device, threads: int
) -> list[str]:
    """What is about to run, in a few lines."""
    parameters = ", ".join(f"{name} {count:,} parameters" for name, count in agent.num_parameters.items())
    chosen = "" if config.device.name != "auto" else " (auto)"
    lines = [
        f"rltrain   {config.algo.name} on {config.env.id}, seed {config.seed}, {config.total_steps:,} steps, "
        f"{config.num_envs} environment{'s' if config.num_envs > 1 else ''}",
        f"network   {parameters}",
        f"device    {device}{chosen}, {threads} thread{'s' if threads > 1 else ''}",
    ]
    if info.tuned is not None:
        settings = " ".join(f"{key}={_short(value)}" for key, value in info.tuned_keys.items())
        lines.append(f"tuned     {info.tuned}: {settings}")
    return lines


def dry_run(config: RunConfig, info: ComposeInfo | None = None) -> None:
    """Builds everything, prints shapes, sizes and memory, and trains nothing; makes no folder."""
    device = resolve_device(config.device)
    threads = configure_torch(config.device)
    envs = build_envs(config)
    try:
        agent = build_agent(config, envs, device)
        print("\n".join(header_lines(config, info or ComposeInfo(), envs, agent, device, threads)))
        observation, action = envs.observation_space, envs.action_space
        print(f"spaces    observations {observation}, actions {action}")
        for name, tensor in agent.state_dict()["network"].items():
            print(f"          {name:<40} {tuple(tensor.shape)}")
        print(f"memory    experience {agent.replay_bytes / 2**20:.1f} MiB")
        print("dry run   nothing was trained or written")
    finally:
        envs.close()


class _Keeper:
    """Writes the trainer's state as checkpoints of one run."""

    def __init__(self, config: RunConfig, run: RunFolder, envs: VectorEnv, device: torch.device, threads: int) -> None:
        self._config = config
        self._run = run
        self._manifest = {
            "config": to_plain(config),
            "observation_space": space_to_plain(envs.observation_space),
            "action_space": space_to_plain(envs.action_space),
            "versions": versions(),
            "device": str(device),
            "threads": threads,
        }

    def save(self, step: int, state: StateDict) -> None:
        tensors = {name: section for name, section in state.items() if name != "state"}
        if not self._config.checkpoint.replay:
            del tensors["replay"]
        self._write(checkpoint.step_folder(self._run.path, step), step, tensors, state["state"])
        checkpoint.prune(self._run.path, self._config.checkpoint.keep)

    def save_best(self, step: int, state: StateDict) -> None:
        self._write(checkpoint.best_folder(self._run.path), step, {"network": state["network"]}, {})

    def _write(
        self, folder: Path, step: int, tensors: Mapping[str, Mapping[str, Any]], state: Mapping[str, Any]
    ) -> None:
        checkpoint.write_checkpoint(folder, step=step, manifest=self._manifest, tensors=tensors, state=state)


def _load_initial_network(agent: Agent, path: Path) -> None:
    source = checkpoint.read_checkpoint(newest_source(path), only=("network",))
    try:
        agent.load_network(source.tensors["network"])
    except (ValueError, KeyError) as error:
        raise RequestError(f"init_from={path}: {error}") from error


def _timing(started: float) -> dict[str, float]:
    return {"started": started, "seconds": time.time() - started}


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _short(value: Any) -> str:
    return str(value).replace(" ", "")
